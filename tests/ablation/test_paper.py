"""`benchmarks/paper.py`: one page and one table from several ablations, keeping what is not given again."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import typer

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "paper.py"))


def ablation(folder: Path, title: str, score: float) -> Path:
    run = folder / "runs" / "F" / "seed-0"
    run.mkdir(parents=True)
    result: dict[str, Any] = {"variant": "F", "seed": 0, "curve": {"4": {"KID": score}}}
    (run / "results.json").write_text(json.dumps(result))
    legend = "Differences are paired by seed, over the seeds that both have."
    (folder / "paper.md").write_text(f"# {title}\n\n{score}\n\n{legend}\n\n## Differences\n")
    return folder


def combine(*folders: Path, out: Path) -> None:
    SCRIPT["main"](list(folders), out)


def test_sections_and_rows_of_other_folders_stay(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    combine(ablation(tmp_path / "one", "First", 0.5), ablation(tmp_path / "two", "Second", 0.25), out=out)
    out.write_text("Mine.\n\n" + out.read_text())
    combine(ablation(tmp_path / "again" / "two", "Second", 0.125), out=out)
    assert out.read_text() == (
        f"Mine.\n\n# The paper in miniature\n\n{SCRIPT['BEGIN']}\n\n"
        "## First\n\n0.5\n\n### Differences\n\n## Second\n\n0.125\n\n### Differences\n"
    )
    rows = (tmp_path / "page.csv").read_text().splitlines()
    assert rows == [",".join(SCRIPT["COLUMNS"]), "one,F,0,4,KID,0.5", "two,F,0,4,KID,0.125"]


def test_what_would_be_lost_or_mixed_up_is_refused(tmp_path: Path) -> None:
    one, two = ablation(tmp_path / "one", "First", 0.5), ablation(tmp_path / "two", "First", 0.25)
    page, table = tmp_path / "page.md", tmp_path / "page.csv"
    with pytest.raises(typer.BadParameter, match="have the same title"):
        combine(one, two, out=page)
    with pytest.raises(typer.BadParameter, match="names of their own"):
        combine(one, ablation(tmp_path / "other" / "one", "Other", 0.1), out=page)
    with pytest.raises(typer.BadParameter, match="has no paper.md"):
        combine(tmp_path / "nothing", out=page)
    with pytest.raises(typer.BadParameter, match=r"another ending"):
        combine(one, out=table)
    assert not page.exists() and not table.exists()
    page.write_text("# A page of my own\n")
    with pytest.raises(typer.BadParameter, match="has no line"):
        combine(one, out=page)
    page.unlink()
    table.write_text("ablation;variant\none;F\n")
    with pytest.raises(typer.BadParameter, match="is not the table that this script writes"):
        combine(one, out=page)
    assert table.read_text() == "ablation;variant\none;F\n"
