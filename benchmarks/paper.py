"""`docs/paper.md` and `docs/paper.csv` from the folders of `janusflow ablate`.

    python benchmarks/paper.py runs/table6 runs/table6_tinyworld --out docs/paper.md

The text before the first table is kept from the existing page, as are the sections and rows of other ablations, whose
folders may be on another machine. The legend of the differences is left out: it is the same for all, and
docs/ablations.md explains them. The CSV file has the scores of every run.
"""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from janusflow.ablation.figures import CURVES, OPTIONS
from janusflow.ablation.report import LEGEND, REPORT
from janusflow.ablation.runs import RESULTS
from janusflow.files import read_json, temporary_path, write_text

BEGIN = "<!-- made by benchmarks/paper.py -->"
COLUMNS = ("ablation", "variant", "seed", "step", "metric", "score")


def main(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of `janusflow ablate`.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/paper.md"),
) -> None:
    """Combine the pages, with their headings one level lower, and copy their figures next to the combined page."""
    table = out.with_suffix(".csv")
    names = [folder.resolve().name for folder in folders]
    if table == out:
        raise typer.BadParameter("the table goes into a file with the ending .csv; give the page another ending")
    if len({*names}) < len(names):
        raise typer.BadParameter(f"folders need names of their own, which the table and figures use: {names}")
    if missing := [folder for folder in folders if not (folder / REPORT).is_file()]:
        raise typer.BadParameter(f"{missing[0]} has no {REPORT}; `janusflow ablate ... --report` writes it")
    rows = [row for row in table_rows(table) if row[0] not in names]
    head, sections = page_parts(out)
    made: dict[str, Path] = {}
    for folder, name in zip(folders, names, strict=True):
        page = (folder / REPORT).read_text(encoding="utf-8").strip()
        for figure in (CURVES, OPTIONS):
            if f"({figure})" in page:
                copy = f"paper-{name}-{figure}"
                shutil.copyfile(folder / figure, out.parent / copy)
                page = page.replace(f"({figure})", f"({copy})")
        page = re.sub(rf"^{re.escape(LEGEND[:40])}.*\n\n?", "", page, flags=re.MULTILINE)
        section = re.sub(r"^#", "##", page, flags=re.MULTILINE).strip()
        title = section.partition("\n")[0]
        if title in made:
            raise typer.BadParameter(f"{made[title]} and {folder} have the same title; change that of one recipe")
        made[title], sections[title] = folder, section
    rows += [row for folder, name in zip(folders, names, strict=True) for row in scores(folder, name)]
    write_text(out, "\n\n".join([head + BEGIN, *sections.values()]) + "\n")
    with temporary_path(table) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        temporary.replace(table)
    print(out, table)


def page_parts(page: Path) -> tuple[str, dict[str, str]]:
    """Return the text before the tables, and each section by its heading."""
    if not page.is_file():
        return "# The paper in miniature\n\n", {}
    head, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    if not begin:
        raise typer.BadParameter(f"{page} has no line {BEGIN!r}, which separates its own text from the tables")
    found = [section.strip() for section in re.split(r"^(?=## )", rest, flags=re.MULTILINE)]
    return head, {section.partition("\n")[0]: section for section in found if section}


def table_rows(table: Path) -> list[list[str]]:
    """Return the rows of an existing table without its header."""
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header != list(COLUMNS) or any(len(row) != len(COLUMNS) for row in rows):
        raise typer.BadParameter(f"{table} is not the table that this script writes: its columns are {header}")
    return rows


def scores(folder: Path, name: str) -> Iterator[tuple[object, ...]]:
    """Yield a row of `COLUMNS` for each score of each finished run of a folder, at each step of its curve."""
    for file in sorted(folder.glob(f"runs/*/seed-*/{RESULTS}")):
        run = read_json(file)
        for step, found in run["curve"].items():
            for metric, score in found.items():
                yield name, run["variant"], run["seed"], step, metric, score


if __name__ == "__main__":
    typer.run(main)
