"""Evaluations of an ablation: wrong ones are found before training, and corrected ones do not repeat it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from janusflow.ablation.execution import run_all
from tests.ablation.conftest import Journal, opened, write
from tests.ablation.test_execution import quiet, trained


def test_a_corrected_score_is_measured_without_training_again(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path, metrics={"drawing": {"evaluation": "world", "score": "drawng"}}, variants={"F": {"about": ""}})
    run_all(opened(tmp_path, seeds=1), say=quiet)
    assert "has no score 'drawng'" in (opened(tmp_path, seeds=1)[0].failure() or "")
    count = len(trained(journal))
    write(tmp_path, metrics={"drawing": {"evaluation": "world", "score": "drawing"}}, variants={"F": {"about": ""}})
    run_all(opened(tmp_path, seeds=1), say=quiet)
    assert opened(tmp_path, seeds=1)[0].result() is not None
    assert [entry[1] for entry in trained(journal)[count:]] == ["second"]  # resumed at its end, and measured


@pytest.mark.parametrize("older", [False, True])  # older versions recorded no settings
def test_a_finished_run_without_its_results_is_measured_by_new_evaluations_without_training(
    older: bool, tmp_path: Path, journal: Journal
) -> None:
    new = {name: {"evaluation": "world", "score": "drawing"} for name in ("drawing", "again")}
    write(tmp_path, metrics={"drawing": new["again"]}, variants={"F": {"about": ""}})
    run_all(opened(tmp_path, seeds=1), say=quiet)
    count = len(trained(journal))
    write(tmp_path, metrics=new, variants={"F": {"about": ""}})
    with pytest.raises(ValueError, match=r"other settings; .* or only its results.json to evaluate it again"):
        run_all(opened(tmp_path, seeds=1), say=quiet)
    folder = opened(tmp_path, seeds=1)[0].folder
    (folder / "results.json").unlink()
    if older:
        (state,) = folder.glob("second/done-*.json")
        state.write_text(json.dumps(json.loads(state.read_text()) | {"settings": ""}))
    run_all(opened(tmp_path, seeds=1), say=quiet)
    result = opened(tmp_path, seeds=1)[0].result()
    assert result is not None
    assert set(result.scores) == {"drawing", "again"}
    assert trained(journal)[count:] == []


def test_a_curve_is_not_measured_again_with_the_weights_of_its_end(tmp_path: Path, journal: Journal) -> None:
    changes = {"at": [4], "variants": {"F": {"about": ""}}}
    write(tmp_path, metrics={"drawing": {"evaluation": "world", "score": "drawng"}}, **changes)
    run_all(opened(tmp_path, seeds=1), say=quiet)
    write(tmp_path, metrics={"drawing": {"evaluation": "world", "score": "drawing"}}, **changes)
    with pytest.raises(ValueError, match="F/seed-0 was begun with other settings"):
        run_all(opened(tmp_path, seeds=1), say=quiet)


@pytest.mark.parametrize(
    ("evaluation", "said"),
    [
        ({"benchmark": "tinywrld"}, "tinywrld"),
        ({"benchmark": "tinyworld", "settings": {"promts": 3}}, "promts"),
        ({"benchmark": "tinyworld", "options": {"guidance": 3}}, "guidance"),
        ({"benchmark": "geneval", "data": "nothing"}, "nothing"),
    ],
)
def test_evaluations_are_checked_before_anything_is_trained(
    evaluation: dict[str, object], said: str, tmp_path: Path, journal: Journal
) -> None:
    write(tmp_path, evaluations={"world": evaluation})
    with pytest.raises(ValueError, match=said):
        run_all(opened(tmp_path), say=quiet)
    assert not journal
