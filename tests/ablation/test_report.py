"""The report: figures next to the paper's, intervals, and verdicts, all from the files of the runs."""

from __future__ import annotations

from pathlib import Path

from janusflow.ablation.config import load_ablation
from janusflow.ablation.execution import run_all
from janusflow.ablation.figures import CURVES, OPTIONS, draw_figures, numbers, over_option, over_steps
from janusflow.ablation.report import write_report
from janusflow.ablation.runs import Result
from tests.ablation.conftest import Journal, opened, write

METRICS = {"drawing": {"evaluation": "world", "score": "drawing"}}


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
    assert row == "| A | drawing | -9 [-11.48, -6.516] | -1 | 3 | -9.00 | 3.26 | 0.0041 | 0.0041 | confirmed (worse) |"
    (other,) = [line for line in lines if line.startswith("| D | drawing")]
    assert other.endswith("| - | - | not tested: all differences are equal |")  # F - 10 with every seed
    assert any("of claims in this table (1 in all)" in line for line in lines)
    assert "9 runs are finished (the recipe has 3 variants, 3 seeds)" in lines[2]
    assert "- Everything is smaller." in lines and ".png" not in "".join(lines)


def test_texts_with_lines_and_bars_stay_in_their_cells(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path, variants={"F": {"about": "with | and\n# lines"}}, metrics=METRICS)
    runs = opened(tmp_path, seeds=1)
    (runs[0].folder).mkdir(parents=True)
    (runs[0].folder / "failed.json").write_text('{"error": "first\\n# second"}')
    lines = write_report(runs, tmp_path).read_text().splitlines()
    assert "| F | with \\| and # lines | 0 | - |" in lines
    assert "- F/seed-0: first # second" in lines


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
    assert "0 runs are finished" in page and "None yet." in page and "verdict" not in page


def test_curves_are_drawn_where_there_are_any(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path, at=[4])
    runs = opened(tmp_path, only=["F", "A"])
    run_all(runs, say=lambda text: None)
    assert f"]({CURVES})" in write_report(runs, tmp_path).read_text()
    assert (tmp_path / CURVES).read_bytes().startswith(b"\x89PNG")


def test_scores_over_an_option_that_some_variants_vary_alone(tmp_path: Path) -> None:
    """w2 is the baseline, whose options are the evaluation's; b changes two options, and c what was trained."""
    variants = {
        "w2": {"about": ""},
        "w1": {"about": "", "options": {"guidance_scale": 1.0}},
        "w7": {"about": "", "options": {"guidance_scale": 7.0}},
        "b": {"about": "", "options": {"guidance_scale": 3.0, "solver": "heun"}},
        "c": {"about": "", "options": {"guidance_scale": 4.0}, "set": ["loss.repa=0"]},
        "e": {"about": "", "options": {"guidance_scale": 7.0}, "share": 0.5},
        "f": {"about": "", "options": {"guidance_scale": 7.0}, "without": ["first"]},
        "s": {"about": "", "options": {"solver": "ab2"}},
    }
    evaluations = {"world": {"benchmark": "tinyworld", "options": {"guidance_scale": 2.0}}}
    ablation = load_ablation(
        write(tmp_path, variants=variants, evaluations=evaluations, baseline="w2", metrics=METRICS)
    )
    scores = {"w2": (0.2, 0.4), "w1": (0.5,), "w7": (0.6,), **dict.fromkeys("bcefs", (0.1,))}
    results = [
        Result(variant, seed, "", {"drawing": value}, {0: {"drawing": value}}, 0, 0.0)
        for variant, values in scores.items()
        for seed, value in enumerate(values)
    ]
    assert over_option(numbers(ablation, results)["guidance_scale"], "drawing") == {
        2.0: [0.2, 0.4],
        1.0: [0.5],
        7.0: [0.6],
    }
    assert numbers(ablation, results).keys() == {"guidance_scale"}
    assert draw_figures(ablation, results, tmp_path).keys() == {OPTIONS}
    assert (tmp_path / OPTIONS).read_bytes().startswith(b"\x89PNG")
    assert not numbers(ablation, [one for one in results if one.variant != "w7"])  # two values are no curve


def test_scores_over_the_steps_have_all_seeds() -> None:
    curves = ({4: {"drawing": 1.0}, 8: {"drawing": 2.0}}, {4: {"drawing": 3.0}, 8: {"drawing": 5.0, "other": 0.0}})
    results = [Result("F", seed, "", curve[8], curve, 0, 0.0) for seed, curve in enumerate(curves)]
    assert over_steps(results, "drawing") == {"F": {4: [1.0, 3.0], 8: [2.0, 5.0]}}
