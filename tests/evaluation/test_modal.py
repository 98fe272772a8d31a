"""The launcher for Modal, with a stand-in for its package: names, the command, and what is built and mounted."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from janusflow.cli import app
from janusflow.evaluation.run.recipes import load_request

ROOT = Path(__file__).parents[2]


class Image:
    """Remembers the steps that an image is built in."""

    def __init__(self, steps: tuple[tuple[Any, ...], ...] = ()) -> None:
        self.steps = steps

    @staticmethod
    def debian_slim(**options: Any) -> Image:
        return Image((("debian_slim", options),))

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: Image((*self.steps, (name, *args, options)))


class App:
    def __init__(self, name: str) -> None:
        self.name = name

    def function(self, **options: Any) -> Any:
        return lambda function: SimpleNamespace(local=function, options=options, remote=self.__dict__.get("remote"))

    def local_entrypoint(self) -> Any:
        return lambda function: function


def volume(name: str, *, create_if_missing: bool) -> Any:
    return SimpleNamespace(name=name, commits=[], commit=lambda: None)


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported over the stand-in."""
    modal = ModuleType("modal")
    modal.Image, modal.App = Image, App  # type: ignore[attr-defined]
    modal.Volume = SimpleNamespace(from_name=volume)  # type: ignore[attr-defined]
    modal.Secret = SimpleNamespace(from_name=lambda name: f"secret {name}")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modal", modal)
    monkeypatch.setenv("JANUSFLOW_SECRET", "openai")
    spec = importlib.util.spec_from_file_location("modal_app", ROOT / "deploy" / "modal_app.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "recipe", "mode"),
    [
        ("geneval", "geneval", None),
        ("pope", "pope", None),
        ("mjhq_ablation.yaml", "mjhq_ablation", None),
        ("modal_geneval_janus_flow", "geneval", None),
        ("modal_dpg_bench_janus_flow", "dpg", None),
        ("modal_wise_janus_flow", "wise", None),
        ("modal_uni_mmmu_janus_flow", "uni_mmmu", None),
        ("modal_wise_janus_flow_score", "wise", "score"),
        ("modal_mmbench_janus_flow", "mmbench", None),
    ],
)
def test_names_are_recipes_that_exist(launcher: Any, name: str, recipe: str, mode: str | None) -> None:
    assert launcher.find_recipe(name) == (recipe, mode)
    assert (ROOT / "recipes" / "eval" / f"{recipe}.yaml").is_file()


@pytest.mark.parametrize("name", ["modal_geneval_bagel", "modal_ueval_janus_flow", "genevil", "../paper/stage1", ""])
def test_other_names_are_refused(launcher: Any, name: str) -> None:
    with pytest.raises(ValueError, match=r"is no config of model|there is no recipe"):
        launcher.find_recipe(name)
    with pytest.raises(ValueError, match="is no config of model 'someone/else'"):
        launcher.find_recipe("modal_geneval_janus_flow", "someone/else")


def test_the_command(launcher: Any) -> None:
    assert launcher.command("modal_geneval_janus_flow") == [
        *("janusflow", "eval", "--config", "recipes/eval/geneval.yaml"),
        *("--model", "deepseek-ai/JanusFlow-1.3B", "--out", "runs/eval/geneval/janus_flow"),
    ]
    words = launcher.command("wise", model="/weights/mine", mode="generate", limit=3, more="judge=tiny threads=2")
    assert words[4:] == [
        *("--model", "/weights/mine", "--out", "runs/eval/wise/weights--mine", "--mode", "generate"),
        *("--limit", "3", "--set", "judge=tiny", "--set", "threads=2"),
    ]
    assert launcher.command("modal_wise_janus_flow_score")[-2:] == ["--mode", "score"]


def test_the_command_is_one_of_ours(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = launcher.command("modal_wise_janus_flow_score", limit=3, more="judge=tiny")
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 2 and "data/eval/wise" in result.stderr  # all words are understood; the data is missing


def test_data_and_runs_are_where_the_recipes_look(launcher: Any) -> None:
    options = launcher.evaluate.options
    mounted = {place: one.name for place, one in options["volumes"].items()}
    assert mounted == {
        "/weights": "janusflow-weights",
        "/code/data/eval": "janusflow-data",
        "/code/runs": "janusflow-runs",
    }
    for file in (ROOT / "recipes" / "eval").glob("*.yaml"):
        request = load_request(file)
        assert str(request.data).startswith("data/eval/") and str(request.out).startswith("runs/")
    assert (options["gpu"], options["timeout"], options["secrets"]) == ("L40S", 24 * 3600, ["secret openai"])


def test_the_image_comes_from_the_lock_file(launcher: Any) -> None:
    steps = launcher.image.steps
    assert steps[0] == ("debian_slim", {"python_version": "3.11"})
    locks = [step[1] for step in steps if step[0] == "pip_install_from_requirements"]
    assert locks == [str(ROOT / "requirements-torch.lock"), str(ROOT / "requirements.lock")]
    added = {step[1]: step[2] for step in steps if step[0].startswith("add_local")}
    assert all(Path(local).exists() for local in added) and set(added.values()) >= {"/code/src", "/code/recipes"}
    assert all(step[3]["copy"] for step in steps if step[0].startswith("add_local"))  # a step follows that needs them
    assert steps[-1][1] == "pip install --no-deps --no-build-isolation /code"


def test_the_function_runs_the_command_and_keeps_what_it_wrote(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(launcher.runs, "commit", lambda: done.append("commit"))
    monkeypatch.setattr(launcher.subprocess, "run", lambda words, **options: done.append((words, options)))
    launcher.evaluate.local(["janusflow", "eval"])
    assert done == [(["janusflow", "eval"], {"cwd": "/code", "check": True}), "commit"]
    sent: list[Any] = []
    launcher.evaluate.remote = sent.append
    launcher.main(model="janus_flow", eval_config="geneval", limit=2)
    assert sent == [launcher.command("geneval", limit=2)]
