"""Make `docs/paper.md` from the pages that `janusflow ablate` wrote, each in its folder.

    python benchmarks/paper.py runs/table6 runs/table6_tinyworld --out docs/paper.md

The text before the first table of the existing page is kept.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from janusflow.ablation.figures import CURVES, OPTIONS
from janusflow.ablation.report import REPORT
from janusflow.files import write_text

BEGIN = "<!-- made by benchmarks/paper.py -->"


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of `janusflow ablate`.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("docs/paper.md"),
) -> None:
    """Join the pages, with their headings one level down, and put the figures next to the page."""
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
    print(out)


if __name__ == "__main__":
    typer.run(main)
