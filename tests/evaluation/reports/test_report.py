"""The parts of a report: notes, n, and the gallery's choice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from janusflow.evaluation.protocol import Item, Row
from janusflow.evaluation.reports.report import notes, number, picked, weights_of
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.counting import Counting, Model

pytestmark = pytest.mark.usefixtures("counting")


def test_the_gallery_shows_every_part_and_nothing_bad_among_the_best() -> None:
    found = [("draw/one", 0.0), ("draw/one", 0.5), ("ask/what", 1.0), ("ask/what", 1.0), ("ask/which", 0.0)]
    rows = [Row(Item(f"{part}/{n}", "?"), "!", {"score": score}) for n, (part, score) in enumerate(found)]
    assert [row.item.key for row in picked(rows, best=True)] == ["ask/what/2", "draw/one/1", "ask/what/3"]
    assert [row.item.key for row in picked(rows, best=False)] == ["draw/one/0", "ask/which/4", "draw/one/1"]
    assert len(picked(rows, best=True, count=2)) == 2 and picked([], best=True) == []
    assert len(picked(rows[2:4], best=False)) == 2


def test_a_report_tells_of_a_part_and_of_all_that_was_used(tmp_path: Path) -> None:
    report = evaluate(EvalRequest("counting", tmp_path, limit=3, dtype="bfloat16"), model=Model())
    assert (
        report["limit"] == 3 and report["used"]["num_inference_steps"] == 30 and report["used"]["dtype"] == "bfloat16"
    )
    for name in ("report.md", "report.html"):
        assert "Partial run: 3 items (--limit)." in (tmp_path / name).read_text()
    full = evaluate(EvalRequest("counting", tmp_path / "full", limit=10**6, dtype="bfloat16"), model=Model())
    assert full["limit"] is None and "Partial" not in (tmp_path / "full" / "report.md").read_text()
    whole = {"official_items": 2374, "items": 10, "limit": None, "not_judged": {}, "judged": 10, "published": {"a": {}}}
    whole |= {"score": 0.5, "main": "overall"}
    assert notes(whole, "Beware.") == ["Partial run: 10 items of the official 2,374.", "Beware."]
    assert notes({**whole, "items": 2374, "published": {}}, "Beware.") == []
    assert notes({**whole, "items": 2374, "score": None}, "") == ["There is no score 'overall' for these items."]
    assert number(1333.1) == "1333.1" and number(0.123456) == "0.1235"


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


def test_a_score_over_an_unknown_number_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "scores", lambda self, rows: {"overall": 1.0, "even": 0.5})
    evaluate(EvalRequest("counting", tmp_path), model=Model())
    assert "| even | 0.5 | unknown |" in (tmp_path / "report.md").read_text()
    assert "<td>unknown</td>" in (tmp_path / "report.html").read_text()
