"""A run: what is done is never done again, what cannot be judged is reported, and judging changes no output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from janusflow.evaluation.protocol import Item, NotJudgedError, Output, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation import counting
from tests.evaluation.counting import Counting, CountingSettings, Model

RUN = ("seed", "batch_size", "progress")  # that every call of `generate` gets

pytestmark = pytest.mark.usefixtures("counting")


def test_a_run_gives_scores_files_and_reports(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path / "run", batch_size=4, score_output_path=tmp_path / "score.json")
    report = evaluate(request, model=Model(wrong=[2, 5]))
    assert report["score"] == pytest.approx(0.8) and report["judged"] == 10
    low, high = report["intervals_95"]["overall"]
    assert low < 0.8 <= high <= 1
    rows = [json.loads(line) for line in (request.out / "results.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == [f"{n:03d}" for n in range(10)]
    assert rows[2]["output"] == "images/002.png" and rows[2]["verdict"] == {"score": 0.0, "said": "3"}
    assert (request.out / rows[2]["output"]).is_file() and rows[3]["output"] == "3"
    assert (request.out / "official.txt").read_text().splitlines()[1] == "1"
    assert json.loads((tmp_path / "score.json").read_text())["final_score"] == pytest.approx(0.8)
    assert report["weights_sha256"] and "torch" in report["versions"] and report["seeds"] == [0, 2, 4, 6, 8]
    text = (request.out / "report.md").read_text()
    assert "| overall | 0.8 |" in text and "the paper" in text and "| other |" in text
    page = (request.out / "report.html").read_text()
    assert page.count("data:image/png") == 4 + 1 and "<svg" in page and "Worst" in page and "http" not in page[:200]


def test_what_is_done_is_never_done_again(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path, batch_size=1)
    first, second, third = Model(most=5), Model(), Model()
    with pytest.raises(KeyboardInterrupt):
        evaluate(request, model=first)
    evaluate(request, model=second)
    assert sorted(first.made + second.made) == sorted(f"number {n}" for n in range(10))
    assert len(Counting.judged) == 10
    report = evaluate(request, model=third)
    assert not third.made and len(Counting.judged) == 10 and report["score"] == 1


def test_making_and_judging_apart(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path, mode="generate", limit=6)
    with pytest.raises(ValueError, match="contains no outputs of Counting yet"):
        evaluate(replace(request, mode="score"))
    assert evaluate(request, model=Model())["done"] == 6
    assert not Counting.judged
    with pytest.raises(ValueError, match="made with judge_fails False, and judging cannot change that to True"):
        evaluate(replace(request, mode="score", settings={"judge_fails": True}))
    report = evaluate(replace(request, mode="score", model="another"))  # what made the outputs stays what it was
    assert report["judged"] == 6 and report["model"] == "tiny" and report["settings"]["judge_fails"] is False


def test_items_without_a_verdict_are_told_and_tried_again(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path, settings={"judge_fails": True})
    report = evaluate(request, model=Model())
    assert report["judged"] == 9 and report["not_judged"] == {"003": "the judge is asleep"}
    assert "Without a verdict: 1, for example" in (tmp_path / "report.html").read_text()
    evaluate(request, model=Model())
    assert Counting.judged.count("003") == 2 and Counting.judged.count("004") == 1


def test_a_run_is_judged_anew_by_another_judge_without_making_anything(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path)
    assert evaluate(request, model=Model(wrong=[2]))["score"] == 0.9
    model = Model()
    milder = replace(request, settings={"tolerance": 1})
    assert evaluate(milder, model=model)["score"] == 1 and not model.made
    assert len(Counting.judged) == 20
    assert evaluate(request)["score"] == 0.9 and len(Counting.judged) == 20


def test_judging_cannot_change_what_was_made(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path, options={"num_inference_steps": 4})
    evaluate(replace(request, mode="generate"), model=Model())
    again = replace(request, mode="score")
    for wrong, said in (
        ({"options": {"num_inference_steps": 5}}, "num_inference_steps 4, and judging cannot change that to 5"),
        ({"settings": {"nonsense": 1}}, "has no setting 'nonsense'"),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate(replace(again, **wrong))
    assert evaluate(again)["judged"] == 10


def test_a_picture_that_is_replaced_is_judged_again(tmp_path: Path) -> None:
    wanted = EvalRequest("counting", tmp_path)
    assert evaluate(wanted, model=Model())["score"] == 1
    Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "images" / "002.png")
    Counting.judged.clear()
    assert evaluate(replace(wanted, mode="score"))["score"] == pytest.approx(0.9)
    assert Counting.judged == ["002"]


def test_a_damaged_picture_lacks_a_verdict_and_stops_nothing(tmp_path: Path) -> None:
    making = EvalRequest("counting", tmp_path, mode="generate")
    evaluate(making, model=Model())
    place = tmp_path / "images" / "004.png"
    place.write_bytes(place.read_bytes()[:40])
    report = evaluate(replace(making, mode="score"))
    assert report["judged"] == 9 and list(report["not_judged"]) == ["004"]
    assert "004.png' is" in report["not_judged"]["004"]


def test_pictures_from_elsewhere_have_no_known_model(tmp_path: Path) -> None:
    wanted = EvalRequest("counting", tmp_path / "run")
    evaluate(wanted, model=Model())
    for file in (tmp_path / "run").glob("*.json*"):
        file.unlink()
    judged = evaluate(replace(wanted, mode="score"))
    assert judged["model"] == "unknown" and judged["judged"] == 5  # the answers are gone, the pictures count
    with pytest.raises(ValueError, match="contains pictures but no run.json; judge them with --mode score"):
        evaluate(wanted, model=Model())


def test_an_error_while_judging_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self: Counting, item: Item, output: Output) -> dict[str, Any]:
        self.judged.append(item.key)
        raise OSError("the disk is gone") if item.key != "000" else NotJudgedError("not now")

    monkeypatch.setattr(Counting, "judge", judge)
    with pytest.raises(OSError, match="the disk is gone"):
        evaluate(EvalRequest("counting", tmp_path, settings={"items": 500}), model=Model())
    assert len(Counting.judged) < 400


def test_a_verdict_that_is_not_a_number_counts_as_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "judge", lambda self, item, output: {"score": float("nan") if item.seed else 1.0})
    report = evaluate(EvalRequest("counting", tmp_path), model=Model())
    assert report["judged"] == 1 and "not finite" in report["not_judged"]["001"]


def test_half_a_pair_of_surrogates_does_no_harm(tmp_path: Path) -> None:
    class Broken(Model):
        def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
            return [f"{said}\n#\ud83d" for said in super().chat_batch(conversations)]

    class Reading(Counting):
        def judge(self, item: Item, output: Output) -> dict[str, Any]:
            said = output.partition("\n")[0] if isinstance(output, str) else output
            return {**super().judge(item, said), "reply": f"fine \udc00 {output}"}

        def write_official(self, rows: Sequence[Row]) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "Counting", Reading)
        for mode in ("generate", "full", "score"):
            evaluate(EvalRequest("counting", tmp_path, mode=mode), model=Broken())  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 10 and rows[1]["output"] == "1\n#\ud83d"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "fine \\udc00" in page and "#\\ud83d" in page
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["score"] == 1


def test_defaults_and_options_reach_the_calls_that_take_them() -> None:
    class WithDefaults(Counting):
        defaults = {"max_new_tokens": 7, "top_k": 2}  # noqa: RUF012

    class Recorder(Model):
        def generate(self, prompts: Sequence[str], *, steps: int = 1, **options: Any) -> list[Image.Image]:
            calls.append({"steps": steps, **{name: options[name] for name in options if name not in RUN}})
            return super().generate(prompts)

        def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
            calls.append(options)
            return super().chat_batch(conversations)

    calls: list[dict[str, Any]] = []
    benchmark = WithDefaults(None, CountingSettings())
    for item in benchmark.items()[:2]:
        benchmark.produce(Recorder(), [item], {"steps": 3, "top_k": 5})
    assert calls == [{"steps": 3}, {"max_new_tokens": 7, "top_k": 5}]
