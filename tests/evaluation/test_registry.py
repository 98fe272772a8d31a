"""Benchmarks by name: the package's own, a class of the user's own, and those of other packages."""

from __future__ import annotations

import importlib
import linecache
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from janusflow import functions
from janusflow.evaluation import registry
from janusflow.evaluation.protocol import Benchmark
from janusflow.evaluation.registry import BENCHMARKS, find_benchmark, plugin_code, summaries
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.reports.test_compare import Says

PLUGIN = """
from janusflow.evaluation.protocol import Benchmark, Item


class Half(Benchmark):
    name, title, draws = "half", "Half", False

    def items(self):
        return [Item("a", "What?")]

    def judge(self, item, output):
        return {"score": RIGHT}

    def scores(self, rows):
        return {"overall": sum(row.score for row in rows) / len(rows)}


class Nothing(Benchmark):
    name, title = "nothing", "Nothing"

    def items(self):
        return []


RIGHT = 0.5
not_a_class = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with benchmarks in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = "half_of_everything"
    (tmp_path / f"{name}.py").write_text(PLUGIN)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_plug_in_whose_rules_changed_judges_again(module: str, tmp_path: Path) -> None:
    scores = []
    for right in ("0.5", "1.0"):
        (tmp_path / f"{module}.py").write_text(PLUGIN.replace("RIGHT = 0.5", f"RIGHT = {right}"))
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        linecache.checkcache()
        report = evaluate(EvalRequest(f"{module}:Half", tmp_path / "run"), model=Says("it"))
        scores.append(report["score"])
    assert scores == [0.5, 1.0]


def registered(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    found = [EntryPoint(name, value, registry.GROUP) for name, value in values.items()]
    monkeypatch.setattr(functions, "entry_points", lambda group: found if group == "janusflow.benchmarks" else [])


def test_a_class_in_the_current_folder_is_a_benchmark(module: str) -> None:
    kind = find_benchmark(f"{module}:Half")
    assert issubclass(kind, Benchmark) and kind.title == "Half"
    assert plugin_code(kind(None, None)) and not plugin_code(find_benchmark("gqa")(None, None))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nothing", "does not define judge, scores, draws; see docs/evaluation.md"),
        ("Missing", "expected module:Class of a module that loads .*AttributeError.*Missing"),
        ("not_a_class", "which is no function but int"),
        ("RIGHT", "which is no function but float"),
        ("Item", "is not a benchmark; expected a subclass of janusflow.evaluation.protocol.Benchmark"),
        ("", "expected module:Class, such as my_benchmark:Capitals"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused(module: str, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_benchmark(f"{module}:{name}")


def test_other_packages_register_benchmarks(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, half=f"{module}:Half", gqa=f"{module}:Half", broken="not_installed_at_all:X")
    monkeypatch.syspath_prepend(Path.cwd())
    assert find_benchmark("half").title == "Half" and find_benchmark("gqa").title.startswith("GQA")
    assert summaries()["half"] == f"registered as {module}:Half" and list(summaries())[: len(BENCHMARKS)] == [
        *BENCHMARKS
    ]
    with pytest.raises(ValueError, match="'broken' is registered as not_installed_at_all:X, which does not load"):
        find_benchmark("broken")


@pytest.mark.parametrize(
    ("name", "near"), [("tinyworlds", "tinyworld"), ("GenEval", "geneval"), ("mmbnech", "mmbench"), ("halves", "halve")]
)
def test_an_unknown_name_suggests_the_nearest(name: str, near: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, halve="somewhere:Half", tinyworld="janusflow.tinyworld.benchmark:TinyWorld")
    with pytest.raises(ValueError, match=rf"there is no benchmark '{name}'; choose from .*; did you mean {near}\?"):
        find_benchmark(name)


def test_a_name_like_no_other_suggests_nothing() -> None:
    with pytest.raises(ValueError, match="there is no benchmark 'xyzxyz'; choose from geneval, .*MODULE:CLASS"):
        find_benchmark("xyzxyz")


def test_every_benchmark_has_one_line_for_help() -> None:
    assert all(text and "\n" not in text for text in summaries().values())
    assert summaries()["tinyworld"].startswith("Generated pictures and questions")  # of its module's docstring
