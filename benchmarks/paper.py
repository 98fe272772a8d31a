"""`docs/paper.md` and `docs/paper.csv` from the folders of `janusflow ablate`.

    python benchmarks/paper.py runs/table6 runs/table6_tinyworld --out docs/paper.md

The text before the first table is kept from the existing page. The CSV file has the scores of every run.
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
from janusflow.ablation.report import REPORT
from janusflow.ablation.runs import RESULTS
from janusflow.files import read_json, temporary_path, write_text

BEGIN = "<!-- made by benchmarks/paper.py -->"
COLUMNS = ("ablation", "variant", "seed", "step", "metric", "score")


def main(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of `janusflow ablate`.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/paper.md"),
) -> None:
    """Combine the pages, with their headings one level lower, and copy their figures next to the combined page."""
    before = out.read_text(encoding="utf-8").split(BEGIN)[0] if out.is_file() else "# The paper in miniature\n\n"
    parts = [before + BEGIN]
    for folder in folders:
        page = (folder / REPORT).read_text(encoding="utf-8").strip()
        for figure in (CURVES, OPTIONS):
            if f"({figure})" in page:
                name = f"paper-{folder.name}-{figure}"
                shutil.copyfile(folder / figure, out.parent / name)
                page = page.replace(f"({figure})", f"({name})")
        parts.append(re.sub(r"^#", "##", page, flags=re.MULTILINE))
    write_text(out, "\n\n".join(parts) + "\n")
    with temporary_path(out.with_suffix(".csv")) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [COLUMNS, *(row for folder in folders for row in scores(folder))]
            )
        temporary.replace(out.with_suffix(".csv"))
    print(out, out.with_suffix(".csv"))


def scores(folder: Path) -> Iterator[tuple[object, ...]]:
    """Yield a row of `COLUMNS` for each score of each finished run, at each step of its curve."""
    for file in sorted(folder.glob(f"runs/*/seed-*/{RESULTS}")):
        run = read_json(file)
        for step, found in run["curve"].items():
            for metric, score in found.items():
                yield folder.name, run["variant"], run["seed"], step, metric, score


if __name__ == "__main__":
    typer.run(main)
