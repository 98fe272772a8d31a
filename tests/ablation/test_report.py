"""The report: figures next to the paper's, intervals, and verdicts, all from the files of the runs."""

from __future__ import annotations

from pathlib import Path

from janusflow.ablation.report import FIGURE, write_report
from janusflow.ablation.runs import run_all
from tests.ablation.conftest import Journal, opened, write


def test_the_page_has_means_paper_figures_differences_and_verdicts(tmp_path: Path, journal: Journal) -> None:
    """F scores 10, 11, 14 with seeds 0, 1, 2 and A 0, 2, 6: differences -10, -9, -8, half width 4.303 / sqrt 3."""
    write(tmp_path, seeds=3, differs=["Everything is smaller."])
    runs = opened(tmp_path)
    run_all(runs, say=lambda text: None)
    lines = write_report(runs, tmp_path).read_text().splitlines()
    assert "| variant |  | runs | drawing ↑ | paper: CLIP |" in lines
    assert "| F | all of it | 3 | 11.67 ± 5.2 | 2 |" in lines
    assert "| A | no REPA | 3 | 2.667 ± 7.6 | 1 |" in lines
    (row,) = [line for line in lines if line.startswith("| A | drawing")]
    assert row.startswith("| A | drawing | -9 [-11.48, -6.516] | -9.00 | 3 |") and row.endswith("| -1 |")
    (said,) = [line for line in lines if line.startswith("- **A, drawing**")]
    assert "confirmed: worse than the baseline, worse was expected" in said
    (other,) = [line for line in lines if line.startswith("- **D, drawing**")]
    assert "not tested: all differences are equal" in other  # F - 10 with every seed
    assert "- Everything is smaller." in lines and FIGURE not in "".join(lines)


def test_runs_that_were_not_asked_for_again_stay_in_the_page(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    run_all(opened(tmp_path), say=lambda text: None)
    whole = write_report(opened(tmp_path), tmp_path).read_text()
    assert write_report(opened(tmp_path, only=["A"], seeds=1), tmp_path).read_text() == whole
    (tmp_path / "out" / "runs" / "F" / "seed-old").mkdir()
    assert write_report(opened(tmp_path, only=["A"]), tmp_path).read_text() == whole


def test_without_finished_runs_there_is_a_page_without_verdicts(tmp_path: Path) -> None:
    write(tmp_path)
    page = write_report(opened(tmp_path), tmp_path).read_text()
    assert "0 of 6 runs are finished" in page and "None yet." in page and "Verdicts" not in page


def test_curves_are_drawn_where_there_are_any(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path, at=[4])
    runs = opened(tmp_path, only=["F", "A"])
    run_all(runs, say=lambda text: None)
    assert f"]({FIGURE})" in write_report(runs, tmp_path).read_text()
    assert (tmp_path / FIGURE).read_bytes().startswith(b"\x89PNG")
