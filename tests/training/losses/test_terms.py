"""A term of the loss is one file: everything else finds it by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from janusflow.families import families
from janusflow.training import losses
from janusflow.training.losses import LossConfig, terms, terms_of, watched_losses
from tests.training.conftest import curve, quietly, settings, values

EXTEND = Path(__file__).parents[3] / "docs" / "tutorials" / "extend.md"


@pytest.fixture
def magnitude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The term of the tutorial, written as its only file."""
    section = EXTEND.read_text(encoding="utf-8").partition("## A loss term")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "magnitude.py").write_text(code[1])
    monkeypatch.setattr(losses, "__path__", [*losses.__path__, str(tmp_path / "added")])
    terms.cache_clear()
    yield
    terms.cache_clear()


def test_the_terms_of_the_paper_come_in_a_fixed_order() -> None:
    assert [(name, term.title) for name, term in terms().items()] == [
        ("ar", "L_AR"),
        ("codes", "L_AR of codes"),
        ("flow", "L_RF"),
        ("repa", "L_REPA"),
    ]


def test_a_family_learns_from_its_own_terms_and_from_those_that_none_claims(magnitude: None) -> None:
    by_family = {name: list(terms_of(family)) for name, family in families().items()}
    assert by_family == {"JanusFlow": ["ar", "flow", "repa", "magnitude"], "Janus": ["ar", "codes", "magnitude"]}


def test_the_check_for_spikes_leaves_out_what_falls_below_zero() -> None:
    weights = LossConfig(ar=0.5, flow=2.0, repa=3.0)
    assert watched_losses(weights, {"ar": 1.0, "flow": 1.5, "repa": -0.9}) == {"ar": 0.5, "flow": 3.0}


def test_a_term_of_one_file_is_trained_logged_and_shown(start: Path, tmp_path: Path, magnitude: None) -> None:
    weights = {"repa_block": 2, "weights": {"magnitude": 0.25}}
    out, watch = tmp_path / "run", {"tensorboard": True, "curves": False}
    quietly(settings(start, out, steps=4, loss=weights, watch=watch))
    for row in curve(out):
        assert row["magnitude"] > 0
        assert row["loss"] == pytest.approx(row["ar"] + row["flow"] + row["repa"] + 0.25 * row["magnitude"])
    assert "magnitude" in EventAccumulator(str(out / "tensorboard")).Reload().Tags()["scalars"]
    assert "| L_magnitude | " in (out / "export" / "README.md").read_text()
    assert terms()["magnitude"] and not terms()["magnitude"].signed
    quietly(settings(start, tmp_path / "without", steps=4))
    assert values(tmp_path / "without")[0][:3] == values(out)[0][:3], "the first step has the same other terms"
    assert values(tmp_path / "without")[1:] != values(out)[1:], "it trains"


def test_a_weight_of_a_term_that_does_not_exist_is_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"loss.weights has 'magnitud'; known terms are ar, codes, flow, repa"):
        settings(start, tmp_path, loss={"weights": {"magnitud": 1.0}})
    with pytest.raises(ValueError, match="loss.weights has 'ar', whose weight is loss.ar"):
        settings(start, tmp_path, loss={"weights": {"ar": 1.0}})
