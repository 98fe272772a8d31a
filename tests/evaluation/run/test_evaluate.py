"""A run: what is done stays done, processes share the work, verdicts that lack are told, and the report says it all."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.evaluation import registry
from janusflow.evaluation.protocol import Benchmark, Item, NotJudgedError, Output, Row
from janusflow.evaluation.reports.report import notes, number, weights_of
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import command as command_module
from janusflow.evaluation.run.command import eval_command as run_command
from janusflow.evaluation.run.command import read_pair, read_request, read_sweep
from janusflow.evaluation.run.eval_run import EvalRun
from janusflow.evaluation.run.evaluate import evaluate, work
from janusflow.evaluation.run.manifest import remember
from janusflow.evaluation.run.records import Records
from janusflow.files import _host, locked
from tests.processes import command, fork


@dataclass(frozen=True)
class CountingSettings:
    items: int = 10
    judge_fails: bool = False
    tolerance: int = 0


class Counting(Benchmark):
    """Draws the pictures with even numbers (their grey level is the number), and answers the odd ones."""

    name: ClassVar[str] = "counting"
    title: ClassVar[str] = "Counting"
    draws: ClassVar[bool] = True
    asks: ClassVar[bool] = True
    Settings: ClassVar[type] = CountingSettings
    judging = (*Benchmark.judging, "tolerance")
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {"the paper": {"overall": 0.5, "other": 1.0}}
    judged: ClassVar[list[str]] = []

    def items(self) -> list[Item]:
        count = self.settings.items
        return [Item(f"{n:03d}", f"number {n}", seed=n, group=str(n // 4), data={"n": n}) for n in range(count)]

    def drawn(self, item: Item) -> bool:
        return item.data["n"] % 2 == 0

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        self.judged.append(item.key)
        if self.settings.judge_fails and item.data["n"] == 3:
            raise NotJudgedError("the judge is asleep")
        said = output if isinstance(output, str) else str(output.convert("RGB").getpixel((0, 0))[0])
        return {"score": float(abs(int(said) - item.data["n"]) <= self.settings.tolerance), "said": said}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        return {"overall": sum(row.score for row in rows) / len(rows)}

    def write_official(self, rows: Sequence[Row]) -> None:
        (self.out / "official.txt").write_text("\n".join(row.output for row in rows))


class Model:
    """Draws and answers numbers; `wrong` of them are off by one."""

    def __init__(self, wrong: Sequence[int] = (), most: int = 10**9) -> None:
        self.wrong, self.most, self.made, self.sizes = wrong, most, [], []  # type: ignore[var-annotated]
        self.processor = self

    def question(self, text: str, pictures: int) -> str:
        return text

    def _number(self, text: str) -> int:
        if len(self.made) >= self.most:
            raise KeyboardInterrupt
        self.made.append(text)
        number = int(text.split()[-1])
        return number + (number in self.wrong)

    def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
        self.sizes.append(len(prompts))
        return [Image.new("RGB", (8, 8), (self._number(prompt),) * 3) for prompt in prompts]

    def chat_batch(self, conversations: Sequence[Any], **options: Any) -> list[str]:
        return [str(self._number(talk[-1]["content"])) for talk in conversations]


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BENCHMARKS, "counting", ("counting", "Counting"))
    monkeypatch.setitem(sys.modules, "janusflow.evaluation.benchmarks.counting", sys.modules[__name__])
    Counting.judged.clear()


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


def test_another_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    evaluate(EvalRequest("counting", tmp_path), model=Model())
    with pytest.raises(ValueError, match="contains a run with settings .*10.*, not .*3.*; give another --out"):
        evaluate(EvalRequest("counting", tmp_path, settings={"items": 3}), model=Model())
    for bad, sentence in (
        ({"settings": {"size": 3}}, "counting has no setting 'size'; it has items, judge_fails, tolerance"),
        ({"settings": {"items": "many"}}, "setting items of counting"),
        ({"mode": "half"}, "mode is 'half'"),
        ({"limit": 0}, "limit is 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(EvalRequest("counting", tmp_path / "other", **bad))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no benchmark 'nothing'"):
        evaluate(EvalRequest("nothing", tmp_path))


def test_other_weights_are_another_run_and_other_data_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, weights = tmp_path / "items.txt", tmp_path / "weights"
    data.write_text("one")
    (weights / "vae").mkdir(parents=True)
    (weights / "model.safetensors").write_bytes(b"one")
    monkeypatch.setattr(Counting, "files", lambda self: [data])
    wanted = EvalRequest("counting", tmp_path / "run", model=str(weights))
    assert evaluate(wanted, model=Model())["weights_sha256"] == {"model.safetensors": sha256(b"one").hexdigest()}
    data.write_text("two")
    with pytest.warns(UserWarning, match=r"items\.txt changed since .*: 10 outputs with the same question"):
        assert evaluate(wanted, model=Model())["data_sha256"] == {"items.txt": sha256(b"two").hexdigest()}
    (weights / "model.safetensors").write_bytes(b"two")
    with pytest.raises(ValueError, match="contains a run with other weights; give another --out"):
        evaluate(wanted, model=Model())
    shutil.rmtree(weights)  # judging needs no weights, and says whose outputs it judged
    judged = evaluate(replace(wanted, mode="score"))
    assert judged["weights_sha256"] == {"model.safetensors": sha256(b"one").hexdigest()}


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


def test_a_report_tells_of_a_part_and_of_all_that_was_used(tmp_path: Path) -> None:
    report = evaluate(EvalRequest("counting", tmp_path, limit=3, dtype="bfloat16"), model=Model())
    assert (
        report["limit"] == 3 and report["used"]["num_inference_steps"] == 30 and report["used"]["dtype"] == "bfloat16"
    )
    for name in ("report.md", "report.html"):
        assert "Partial run: 3 items (--limit)." in (tmp_path / name).read_text()
    whole = {"official_items": 2374, "items": 10, "limit": None, "not_judged": {}, "judged": 10, "published": {"a": {}}}
    whole |= {"score": 0.5, "main": "overall"}
    assert notes(whole, "Beware.") == ["Partial run: 10 items of the official 2,374.", "Beware."]
    assert notes({**whole, "items": 2374, "published": {}}, "Beware.") == []
    assert notes({**whole, "items": 2374, "score": None}, "") == ["There is no score 'overall' for these items."]
    assert number(1333.1) == "1333.1" and number(0.123456) == "0.1235"


@pytest.mark.parametrize("name", ["outputs-00000.jsonl", "run.json"])
def test_damaged_files_of_a_run_are_named(tmp_path: Path, name: str) -> None:
    request = EvalRequest("counting", tmp_path)
    evaluate(replace(request, mode="generate"), model=Model())
    (tmp_path / name).write_text('{"key": "0\n')
    with pytest.raises(ValueError, match=rf"{name}.* is damaged"):
        evaluate(replace(request, mode="score"))


def test_a_vae_that_stands_apart_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = Path(__file__).parents[2] / "golden" / "janusflow-small-a"
    hub = tmp_path / "hub" / "diffusion_pytorch_model.safetensors"
    hub.parent.mkdir()
    hub.write_bytes(b"from the hub")
    asked: list[str] = []
    monkeypatch.setattr("janusflow.vae.hf_hub_download", lambda name, file: asked.append(name) or str(hub))
    without = tmp_path / "model"
    shutil.copytree(golden, without, ignore=shutil.ignore_patterns("vae", "*.npz"))
    assert hub in weights_of(str(without), None, draws=True) and asked == ["stabilityai/sdxl-vae"]
    assert hub in weights_of(str(without), "somebody/vae", draws=True) and asked[1:] == ["somebody/vae"]
    assert hub in weights_of(str(without), str(hub.parent), draws=True) and len(asked) == 2
    assert hub not in weights_of(str(without), None, draws=False)
    assert len(weights_of("tiny", None, draws=True)) == 2 and len(asked) == 2, "its own lies with it"


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


def test_a_command_that_judged_nothing_fails(tmp_path: Path) -> None:
    evaluate(EvalRequest("counting", tmp_path, mode="generate", limit=1), model=Model())
    (tmp_path / "images" / "000.png").write_bytes(b"no picture")
    given = {"out": tmp_path, "mode": "score", "limit": 1}
    with pytest.raises(ValueError, match=r"none of 1 items could be judged: .*000\.png' is not a readable image"):
        run_command("counting", config=None, changes=given, settings=[], options=[])


def test_keys_are_single_and_stay_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "items", lambda self: [Item("a", "number 0", data={"n": 0})] * 2)
    with pytest.raises(ValueError, match="contains the key 'a' twice"):
        evaluate(EvalRequest("counting", tmp_path / "run"), model=Model())
    monkeypatch.setattr(Counting, "items", lambda self: [Item("../../a", "number 0", data={"n": 0})])
    with pytest.raises(ValueError, match="would be written outside"):
        evaluate(EvalRequest("counting", tmp_path / "run"), model=Model())
    assert not (tmp_path / "a.png").exists()


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


def test_a_picture_that_a_kill_left_without_a_record_is_made_anew(tmp_path: Path) -> None:
    wanted, model = EvalRequest("counting", tmp_path, batch_size=1), Model()
    evaluate(wanted, model=Model())
    lines = (tmp_path / "outputs-00000.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "outputs-00000.jsonl").write_text("".join(lines[:-2]))
    assert evaluate(wanted, model=model)["score"] == 1
    assert sorted(model.made) == ["number 8", "number 9"]


def test_what_nobody_could_do_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    with pytest.raises(ValueError, match="there is no option 'stps'; choose from preset, num_inference_steps, "):
        evaluate(EvalRequest("counting", tmp_path / "a", options={"stps": 3}), model=model)
    with pytest.raises(ValueError, match="Counting sets the seed of each item"):
        evaluate(EvalRequest("counting", tmp_path / "a", options={"seed": 3}), model=model)
    monkeypatch.setattr(Counting, "judged_by", "a model that counts")
    monkeypatch.setattr(CountingSettings, "judge", None, raising=False)
    with pytest.raises(ValueError, match="Counting needs a model that counts; name one with --set judge="):
        evaluate(EvalRequest("counting", tmp_path / "a"), model=model)
    assert not model.made
    assert evaluate(EvalRequest("counting", tmp_path / "a", mode="generate"), model=model)["done"] == 10


def test_processes_share_the_items_without_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = EvalRequest("counting", tmp_path, batch_size=2)
    remember(EvalRun(request))
    models = [Model(), Model(), Model()]
    for rank, model in enumerate(models):
        work(request, rank, 3, model=model)
    assert sorted(name for model in models for name in model.made) == sorted(f"number {n}" for n in range(10))
    assert [len(model.made) for model in models] == [4, 4, 2]
    assert evaluate(request)["score"] == 1


def test_ray_workers_share_the_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)  # Ray's workers stand elsewhere: the folder must reach them whole
    request = EvalRequest(
        "tinyworld", Path("run"), limit=6, batch_size=2, options={"num_inference_steps": 1, "max_new_tokens": 2}
    )
    try:
        report = evaluate(request, ray=2)
    finally:
        ray.shutdown()
    files = [(tmp_path / "run" / f"outputs-{rank:05d}.jsonl").read_text().splitlines() for rank in (0, 1)]
    assert report["judged"] == 6 and [len(lines) for lines in files] == [4, 2]


KILLED = ["eval", "tinyworld", "--set", "prompts=1", "--set", "images=1", "--set", "questions=1"]
KILLED += ["--set", "features=false", "--option", "num_inference_steps=2", "--batch-size", "2"]


def killed(words: Sequence[str], records: Records, count: int) -> int:
    """Kill the real command once there are that many records; its process group."""
    life = fork(command, words, said=records.folder / "said")
    while life.is_alive() and len(list(records.all())) < count:
        time.sleep(0.02)
    life.kill()
    life.join()
    return life.pid or 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_run_of_the_tiny_world_goes_on(tmp_path: Path) -> None:
    """SIGKILL of one process, then of one with two workers, which end by themselves; nothing is made twice."""
    words, records = [*KILLED, "--out", str(tmp_path)], Records(tmp_path, "outputs")
    killed([*words, "--mode", "generate"], records, 1)
    finished = [tmp_path / record["output"] for record in records.all()]  # a picture is there before its record is
    made = {file: file.stat().st_mtime_ns for file in finished}
    assert made
    group = killed([*words, "--workers", "2"], records, len(made) + 1)
    until = time.monotonic() + 20
    while members(group) and time.monotonic() < until:
        time.sleep(0.02)
    assert not members(group)
    assert len(made) < len(list(records.all())) < 10 + 12
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert all(file.stat().st_mtime_ns == before for file, before in made.items())
    keys = [record["key"] for record in records.all()]
    assert len(keys) == len(set(keys)) == 10 + 12
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["judged"] == report["items"] == 10 + 12


def test_local_workers_share_the_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forking = multiprocessing.get_context("fork")  # whose workers know the benchmark and the model of this file
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: forking)
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.open_model", lambda request: Model())
    report = evaluate(EvalRequest("counting", tmp_path, batch_size=2), workers=2)
    assert report["judged"] == 10 and report["score"] == 1
    files = [(tmp_path / f"outputs-{rank:05d}.jsonl").read_text().splitlines() for rank in (0, 1)]
    assert [len(lines) for lines in files] == [6, 4]


def members(group: int) -> list[int]:
    """Running processes of a group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(number) == group and state not in "ZX":
            found.append(int(entry.parent.name))
    return found


def test_a_run_is_refused_while_a_worker_of_an_earlier_one_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.PATIENCE", 0.0)
    request = EvalRequest("counting", tmp_path)
    refused = pytest.raises(ValueError, match="workers of an earlier run are still writing into")
    with locked(tmp_path / ".lock-00001", "held"), refused:
        evaluate(request, model=Model())
    assert evaluate(request, model=Model())["score"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guidance_scale": "abc"}, "guidance_scale is 'abc'; expected a finite number"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; expected a finite number"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5; expected finite numbers from 1"),
        ({"num_inference_steps": 10**9}, "num_inference_steps is 1000000000; expected a whole number from 1 to"),
        ({"num_inference_steps": True}, "num_inference_steps is True; expected a whole number"),
        ({"solver": [1]}, "solver is .*1"),
        ({"temperature": "hot"}, "temperature is 'hot'; expected a finite number"),
        ({"do_sample": "yes"}, "do_sample is 'yes'; expected true or false"),
        ({"height": -16}, "height is -16; expected a whole number"),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    model = Model()
    with pytest.raises(ValueError, match=said):
        evaluate(EvalRequest("counting", tmp_path, options=options), model=model)
    assert not model.made


@pytest.mark.parametrize("value", [-1, "3", 1.5, True, float("nan"), 10**9])
def test_a_setting_outside_its_range_is_refused_with_it(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="setting prompts of tinyworld.*(valid integer|equal to|finite)"):
        EvalRequest("tinyworld", tmp_path, settings={"prompts": value}).open()


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 5000, '{"benchmark": 7}', '{"benchmark": "counting"}', '{"a": NaN}', "\udcff"]
)
def test_a_damaged_manifest_is_one_sentence(tmp_path: Path, content: str) -> None:
    evaluate(EvalRequest("counting", tmp_path), model=Model())
    (tmp_path / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"run\.json is damaged: .*give another --out") as caught:
        evaluate(EvalRequest("counting", tmp_path), model=Model())
    assert "\n" not in str(caught.value)


def test_a_verdict_that_is_not_a_number_counts_as_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "judge", lambda self, item, output: {"score": float("nan") if item.seed else 1.0})
    report = evaluate(EvalRequest("counting", tmp_path), model=Model())
    assert report["judged"] == 1 and "not finite" in report["not_judged"]["001"]


def test_a_sweep_reports_a_misspelt_judge_before_its_first_run(tmp_path: Path) -> None:
    from tests.evaluation.benchmarks.test_mmvet import mmvet_folder

    given = {"out": tmp_path / "run", "data": mmvet_folder(tmp_path)}
    with pytest.raises(ValueError, match="judge 'opnai:gpt-4o' is not a model that can be opened here"):
        run_command("mmvet", config=None, changes=given, settings=[], options=[], sweep=["judge=tiny,opnai:gpt-4o"])
    assert not (tmp_path / "run").exists()


def test_words_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_pair("a.b=[1, x]") == ("a.b", [1, "x"])
    assert read_sweep("guidance=1..3") == ("guidance", [1, 2, 3])
    assert read_sweep("solver=euler,heun") == ("solver", ["euler", "heun"])
    for bad in ("solver", "steps=", "steps=a..b"):
        with pytest.raises(ValueError, match="is not of the form"):
            read_sweep(bad)
    request = read_request("counting", None, {"out": tmp_path}, ["items=2"], ["steps=3"])
    assert request.settings == {"items": 2} and request.options == {"num_inference_steps": 3}
    with pytest.raises(ValueError, match="give a folder for the run"):
        read_request("counting", None, {}, [], [])
    with pytest.raises(ValueError, match="give a benchmark"):
        read_request(None, None, {}, [], [])


def test_the_terminal_shows_scores_and_the_file_what_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "evaluate", lambda request, **_: evaluate(request, model=Model()))
    text = run_command("counting", config=None, changes={"out": tmp_path}, settings=[], options=[])
    assert text.endswith(f"|\n\n{tmp_path / 'report.html'}") and "| overall | 1 |" in text
    assert "sha256" not in text and "versions" not in text
    written = (tmp_path / "report.md").read_text()
    assert written.startswith(text.removesuffix(f"\n{tmp_path / 'report.html'}")) and "weights_sha256" in written


def test_a_score_over_an_unknown_number_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "scores", lambda self, rows: {"overall": 1.0, "even": 0.5})
    evaluate(EvalRequest("counting", tmp_path), model=Model())
    assert "| even | 0.5 | unknown |" in (tmp_path / "report.md").read_text()
    assert "<td>unknown</td>" in (tmp_path / "report.html").read_text()


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path)
    evaluate(request, model=Model())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    mine, theirs = (f".000.png.{_host()}-{process}-00000000.tmp" for process in (ended.pid, os.getppid()))
    for folder in (tmp_path, tmp_path / "images"):
        for name in (mine, theirs):
            (folder / name).write_text("half")
    evaluate(request, model=Model())
    left = {file.name for file in tmp_path.rglob("*.tmp")}
    assert left == {theirs} and len(list(tmp_path.rglob("*.tmp"))) == 2


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--steps", "--option steps=VALUE"),
        ("--guidance-scale", "--option guidance_scale=VALUE"),
        ("--cfg-scale", "--option guidance_scale=VALUE"),
        ("--solvr", "--option solver=VALUE"),
        ("--modell", "--model"),
        ("--batchsize", "--batch-size"),
    ],
)
def test_an_unknown_option_names_the_one_that_was_meant(option: str, meant: str) -> None:
    found = CliRunner().invoke(app, ["eval", "tinyworld", option, "4"], env={"COLUMNS": "200"})
    assert found.exit_code == 2 and meant in found.output, found.output


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
        patch.setattr(sys.modules[__name__], "Counting", Reading)
        for mode in ("generate", "full", "score"):
            evaluate(EvalRequest("counting", tmp_path, mode=mode), model=Broken())  # type: ignore[arg-type]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 10 and rows[1]["output"] == "1\n#\ud83d"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "fine \\udc00" in page and "#\\ud83d" in page
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["score"] == 1


def test_a_folder_takes_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "run"

    class Second(Model):
        """Begins another run into the same folder while it is asked."""

        def generate(self, prompts: Sequence[str], **options: Any) -> list[Image.Image]:
            with pytest.raises(ValueError, match=r"another run is writing into .*run; wait for it"):
                evaluate(EvalRequest("counting", out), model=Model())
            return super().generate(prompts, **options)

    assert evaluate(EvalRequest("counting", out), model=Second())["score"] == 1
    assert evaluate(EvalRequest("counting", out), model=Model(most=0))["score"] == 1


def test_a_run_that_is_stopped_says_what_is_done_and_how_to_continue(tmp_path: Path) -> None:
    request = EvalRequest("counting", tmp_path, batch_size=1)
    with pytest.raises(KeyboardInterrupt, match=r"stopped: 5 of 10 items are made and 0 judged; .*the same command"):
        evaluate(request, model=Model(most=5))
    evaluate(replace(request, mode="generate"), model=Model())
    original, count = Counting.judge, 0

    def stops(self: Counting, item: Item, output: Output) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return original(self, item, output)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counting, "judge", stops)
        with pytest.raises(KeyboardInterrupt, match="10 of 10 items are made and [1-3] judged"):
            evaluate(request, model=Model())
    assert evaluate(request, model=Model(most=0))["judged"] == 10


def test_the_command_that_is_stopped_ends_with_130_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("janusflow.evaluation.run.evaluate.open_model", lambda request: Model(most=5))
    done = CliRunner().invoke(app, ["eval", "counting", "--out", str(tmp_path / "run"), "--batch-size", "1"])
    assert done.exit_code == 130 and "Traceback" not in done.output
    assert "stopped: 5 of 10 items are made and 0 judged" in done.stderr and str(tmp_path / "run") in done.stderr


def refuse(*args: Any, **options: Any) -> Any:
    raise AssertionError("nothing may be opened or fetched yet")


@pytest.mark.parametrize("sweep", [[], ["steps=1,2"]])
@pytest.mark.parametrize("name", ["pope", "counting", "dpg"])
def test_a_wrong_data_folder_is_reported_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sweep: list[str]
) -> None:
    monkeypatch.setattr("janusflow.pipelines.janusflow.JanusFlow.from_pretrained", refuse)
    monkeypatch.setattr("janusflow.folders.snapshot_download", refuse)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    given = {"out": tmp_path / "run", "data": tmp_path / "nowhere", "model": "somebody/model"}
    settings = ["judge=somebody/judge"] if name == "dpg" else []
    options = [] if name != "pope" else ["max_new_tokens=3"]
    if name == "pope" and sweep:
        sweep, options = ["max_new_tokens=1,2"], []
    with pytest.raises(ValueError, match="nowhere', but there is not a folder or file of that name"):
        run_command(name, config=None, changes=given, settings=settings, options=options, sweep=sweep)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("opnai:gpt-4o", "judge 'opnai:gpt-4o' is not a model that can be opened here"),
        ("models/nowhere/at/all", "is not a model that can be opened here"),
        ("openai:gpt-4o?max_request=3", "has no option 'max_request'"),
        ("janusflow:no/such/folder", "expected 'tiny', a folder, or a hub id"),
    ],
)
def test_a_misspelt_judge_is_reported_before_any_answer(tmp_path: Path, judge: str, said: str) -> None:
    from tests.evaluation.benchmarks.test_mmvet import mmvet_folder

    request = EvalRequest("mmvet", tmp_path / "run", data=mmvet_folder(tmp_path), settings={"judge": judge})
    model = Model()
    with pytest.raises(ValueError, match=said):
        evaluate(request, model=model)
    assert not model.made and not (tmp_path / "run").exists()


def test_what_is_not_installed_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"evaluation needs matplotlib: pip install \"janusflow\[eval\]\""):
        evaluate(EvalRequest("counting", tmp_path), model=Model())
