"""What cannot be run, or does not fit the run in the folder, is refused in one sentence before anything is made."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.protocol import Item
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.command import eval_command as run_command
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.test_mmvet import mmvet_folder
from tests.evaluation.counting import Counting, CountingSettings, Model

pytestmark = pytest.mark.usefixtures("counting")


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


@pytest.mark.parametrize("name", ["outputs-00000.jsonl", "run.json"])
def test_damaged_files_of_a_run_are_named(tmp_path: Path, name: str) -> None:
    request = EvalRequest("counting", tmp_path)
    evaluate(replace(request, mode="generate"), model=Model())
    (tmp_path / name).write_text('{"key": "0\n')
    with pytest.raises(ValueError, match=rf"{name}.* is damaged"):
        evaluate(replace(request, mode="score"))


def test_keys_are_single_and_stay_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "items", lambda self: [Item("a", "number 0", data={"n": 0})] * 2)
    with pytest.raises(ValueError, match="contains the key 'a' twice"):
        evaluate(EvalRequest("counting", tmp_path / "run"), model=Model())
    monkeypatch.setattr(Counting, "items", lambda self: [Item("../../a", "number 0", data={"n": 0})])
    with pytest.raises(ValueError, match="would be written outside"):
        evaluate(EvalRequest("counting", tmp_path / "run"), model=Model())
    assert not (tmp_path / "a.png").exists()


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guidance_scale": "abc"}, "guidance_scale is 'abc'; expected a finite number"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; expected a finite number"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5; expected a number from 1"),
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


def test_a_sweep_reports_a_misspelt_judge_before_its_first_run(tmp_path: Path) -> None:
    given = {"out": tmp_path / "run", "data": mmvet_folder(tmp_path)}
    with pytest.raises(ValueError, match="judge 'opnai:gpt-4o' is not a model that can be opened here"):
        run_command("mmvet", config=None, changes=given, settings=[], options=[], sweep=["judge=tiny,opnai:gpt-4o"])
    assert not (tmp_path / "run").exists()


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
