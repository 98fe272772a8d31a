"""Nothing old is taken for new: verdicts and outputs follow the item, its references and the files under --data."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor

from janusflow.evaluation import registry
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.test_geneval import Oracle, Painter
from tests.evaluation.benchmarks.test_mjhq import mjhq_folder
from tests.evaluation.benchmarks.test_uni_mmmu import scored, uni_mmmu_folder
from tests.evaluation.vision.test_frechet import save_inception


class Capitals(Benchmark):
    """Which city is shown? As docs/evaluation.md has it."""

    name, title, draws = "capitals", "Capitals", False
    source = "capitals.json, a list of {image, city}"

    def items(self) -> list[Item]:
        assert self.data is not None
        rows = json.loads((self.data / "capitals.json").read_text())
        return [
            Item(f"{n:04d}", "Which city is this? Answer with its name.", (self.data / row["image"],), data=row)
            for n, row in enumerate(rows)
        ]

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        assert isinstance(output, str)
        return {"score": float(output.strip().lower() == item.data["city"].lower())}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        return {"overall": sum(row.score for row in rows) / len(rows)}


class Known(Capitals):
    """The same, with its data in the code."""

    rows: Sequence[dict[str, str]] = ()

    def items(self) -> list[Item]:
        return [Item(f"{n:04d}", row["ask"], data=row) for n, row in enumerate(self.rows)]


class Model:
    """Says Paris; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.processor = self

    def question(self, text: str, pictures: int) -> str:
        return text

    def chat_batch(self, talks: Sequence[Any], **options: Any) -> list[str]:
        self.asked += [talk[-1]["content"] for talk in talks]
        return ["Paris"] * len(talks)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Capitals", "Known"):
        monkeypatch.setitem(registry.BENCHMARKS, name.lower(), ("stale", name))
    monkeypatch.setitem(sys.modules, "janusflow.evaluation.benchmarks.stale", sys.modules[__name__])


def capitals(folder: Path, *cities: str) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"image": f"{n}.png", "city": city} for n, city in enumerate(cities)]
    for row in rows:
        Image.new("RGB", (8, 8)).save(folder / row["image"])
    (folder / "capitals.json").write_text(json.dumps(rows))
    return folder


def test_another_answer_key_is_judged_again_without_asking(tmp_path: Path) -> None:
    request = EvalRequest("capitals", tmp_path / "run", data=capitals(tmp_path / "data", "Paris", "Rome"))
    report = evaluate(request, model=Model())
    assert report["score"] == 0.5 and set(report["data_sha256"]) == {"capitals.json", "2 pictures"}
    assert report["n"] == {"overall": 2} and report["intervals_95"]["overall"][0] > 0
    for mode, cities, score in (("full", ("Rome", "Rome"), 0.0), ("score", ("Paris", "Paris"), 1.0)):
        capitals(tmp_path / "data", *cities)
        said = "capitals.json changed since .*: 2 outputs with the same question and pictures kept; changed items are"
        with pytest.warns(UserWarning, match=said):
            report = evaluate(replace(request, mode=mode), model=(model := Model()))
        assert (report["score"], report["judged"], model.asked) == (score, 2, [])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the change is recorded
            assert evaluate(replace(request, mode=mode))["data_sha256"] == report["data_sha256"]


def test_a_question_with_another_picture_is_asked_again(tmp_path: Path) -> None:
    request = EvalRequest("capitals", tmp_path / "run", data=capitals(tmp_path / "data", "Paris", "Rome"))
    evaluate(request, model=Model())
    Image.new("RGB", (8, 8), "red").save(tmp_path / "data" / "1.png")
    with pytest.warns(UserWarning, match="2 pictures changed .*1 output no longer count .*: 0001;"):
        assert evaluate(replace(request, mode="score"))["not_judged"] == {"0001": "not made"}
    model = Model()
    assert evaluate(request, model=model)["judged"] == 2 and len(model.asked) == 1


def test_what_a_benchmark_shows_of_its_data_counts_as_its_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def produce(self: Benchmark, model: Any, items: Sequence[Item], options: Any) -> list[Output]:
        return list(model.chat_batch([[{"content": item.data["city"]}] for item in items]))

    monkeypatch.setattr(Known, "produce", produce)
    for city, asked in (("Paris", ["Paris"]), ("Rome", ["Rome"])):
        monkeypatch.setattr(Known, "rows", [{"ask": "a?", "city": city}])
        evaluate(EvalRequest("known", tmp_path / "run"), model=(model := Model()))
        assert model.asked == asked


def test_a_benchmark_whose_judge_reads_its_files_judges_all_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = capitals(tmp_path / "data", "Paris", "Rome")
    (data / "accepted.txt").write_text("Paris")
    monkeypatch.setattr(
        Capitals, "judge", lambda self, *_: {"score": float("Paris" in (self.data / "accepted.txt").read_text())}
    )
    request = EvalRequest("capitals", tmp_path / "run", data=data)
    assert evaluate(request, model=Model())["score"] == 1
    (data / "accepted.txt").write_text("Rome")
    with pytest.warns(UserWarning, match=r"accepted\.txt changed"):
        assert evaluate(request, model=Model())["score"] == 0


def test_outputs_of_an_unrecorded_question_are_refused_with_other_data(tmp_path: Path) -> None:
    request = EvalRequest("capitals", tmp_path / "run", data=capitals(tmp_path / "data", "Paris"))
    evaluate(request, model=Model())
    (tmp_path / "run" / "outputs-00000.jsonl").write_text('{"key": "0000", "output": "Paris"}\n')
    capitals(tmp_path / "data", "Rome")
    with pytest.raises(ValueError, match=r"a run with other data \(capitals\.json\), by a version that did not record"):
        evaluate(request, model=Model())


def test_a_benchmark_may_name_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capitals, "files", lambda self: [self.data / "capitals.json"])
    data = capitals(tmp_path / "data", "Paris")
    request = EvalRequest("capitals", tmp_path / "run", data=data)
    assert set(evaluate(request, model=Model())["data_sha256"]) == {"capitals.json"}
    (data / "notes.txt").write_text("not its own")
    assert evaluate(request, model=Model())["score"] == 1


def test_a_run_inside_the_data_folder_does_not_hash_itself(tmp_path: Path) -> None:
    data = capitals(tmp_path / "data", "Paris")
    request = EvalRequest("capitals", data / "run", data=data)
    for _ in range(2):
        assert set(evaluate(request, model=Model())["data_sha256"]) == {"capitals.json", "1 pictures"}


def test_a_verdict_follows_the_items_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, model = EvalRequest("known", tmp_path / "run"), Model()
    monkeypatch.setattr(Known, "rows", [{"ask": "a?", "city": "Paris"}, {"ask": "b?", "city": "Rome"}])
    assert evaluate(request, model=model)["score"] == 0.5
    monkeypatch.setattr(Known, "rows", [{"ask": "a?", "city": "Rome"}, {"ask": "b?", "city": "Rome"}])
    assert evaluate(request, model=model)["score"] == 0
    assert model.asked == ["a?", "b?"], "the answers are as good as before"
    monkeypatch.setattr(Known, "rows", [{"ask": "a?", "city": "Rome"}, {"ask": "c?", "city": "Paris"}])
    assert evaluate(replace(request, mode="score"))["not_judged"] == {"0001": "not made"}
    assert evaluate(request, model=model)["score"] == 0.5 and model.asked == ["a?", "b?", "c?"]


def test_answers_of_a_version_that_recorded_less_still_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "rows", [{"ask": "a?", "city": "Paris"}])
    request, model = EvalRequest("known", tmp_path / "run"), Model()
    evaluate(request, model=model)
    (tmp_path / "run" / "outputs-00000.jsonl").write_text('{"key": "0000", "output": "Paris"}\n')
    assert evaluate(request, model=model)["score"] == 1 and len(model.asked) == 1


def test_a_picture_made_for_another_prompt_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "draws", True)
    monkeypatch.setattr(Known, "judge", lambda self, item, output: {"score": 1.0})
    for prompts, made in ((["a", "b"], ["a", "b"]), (["a", "c"], ["c"]), (["a", "c"], [])):
        monkeypatch.setattr(Known, "rows", [{"ask": prompt} for prompt in prompts])
        painter = Painter()
        evaluate(EvalRequest("known", tmp_path / "run"), model=painter)
        assert painter.prompts == made


class Colored:
    """Draws one color, which the prompt names."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
        self.prompts += prompts
        return [Image.new("RGB", (8, 8), prompt) for prompt in prompts]


def is_colored(self: Benchmark, item: Item, output: Output) -> dict[str, Any]:
    assert isinstance(output, Image.Image)
    return {"score": float(output.getpixel((0, 0)) == ImageColor.getrgb(item.prompt))}


def test_a_picture_is_made_again_for_a_prompt_that_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "draws", True)
    monkeypatch.setattr(Known, "judge", is_colored)
    request, model = EvalRequest("known", tmp_path / "run"), Colored()
    own = tmp_path / "run" / "outputs-00000.jsonl"
    for turn, prompt in enumerate(("red", "blue", "red", "red", "blue")):
        monkeypatch.setattr(Known, "rows", [{"ask": prompt}])
        assert evaluate(request, model=model)["score"] == 1
        if own.is_file():
            own.rename(own.with_stem(f"outputs-{9 - turn:05d}"))  # as if other processes had written it
    assert model.prompts == ["red", "blue", "red", "blue"]


def test_pictures_of_a_version_that_recorded_no_turn_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Known, "draws", True)
    monkeypatch.setattr(Known, "judge", is_colored)
    request, model = EvalRequest("known", tmp_path / "run"), Colored()
    monkeypatch.setattr(Known, "rows", [{"ask": "red"}])
    evaluate(request, model=model)
    file = tmp_path / "run" / "outputs-00000.jsonl"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({name: record[name] for name in ("key", "output", "asked")}) + "\n")
    assert evaluate(request, model=model)["score"] == 1 and model.prompts == ["red"]
    for prompt in ("blue", "red"):
        monkeypatch.setattr(Known, "rows", [{"ask": prompt}])
        assert evaluate(request, model=model)["score"] == 1
    assert model.prompts == ["red", "blue", "red"]


def test_a_verdict_follows_its_reference_pictures(tmp_path: Path) -> None:
    """Uni-MMMU's judge sees the rendered code, MJHQ-30k's features are of the chosen picture too."""
    for name, folder, settings in (
        ("uni_mmmu", uni_mmmu_folder, {"judge": "it"}),
        ("mjhq", mjhq_folder, {"inception": str(save_inception(tmp_path / "i.pt")), "clip": "", "eval_size": 32}),
    ):
        data, out = folder(tmp_path / name), tmp_path / f"{name}-run"
        request = EvalRequest(name, out, data=data, settings=settings)
        judged: list[str] = []
        kind = registry.find_benchmark(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "judge_model", Oracle(scored(5, 5)[:-1] + ', "text_semantic_match": 1}'))
            judge = kind.judge

            def counted(
                self: Benchmark, item: Item, output: Output, *, judge: Any = judge, judged: list[str] = judged
            ) -> dict[str, Any]:
                judged.append(item.key)
                return dict(judge(self, item, output))

            patch.setattr(kind, "judge", counted)
            evaluate(request, model=Painter(saying="red"))
            first = len(judged)
            evaluate(request, model=Painter(saying="red"))
            assert first == len(judged) == len(set(judged))
            pictures = sorted(data.rglob("*.png" if name == "uni_mmmu" else "*.jpg"))
            Image.new("RGB", (20, 20), "yellow").save(pictures[0])
            evaluate(request, model=Painter(saying="red"))
            assert len(judged) == first + 1
