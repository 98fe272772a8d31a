"""What solver, steps, shift and guidance interval cost in quality: each point against the exact 30-step picture.

python benchmarks/pareto.py runs/pareto --prompts 8    # repeat until it reports that nothing is missing
python benchmarks/pareto.py runs/pareto --prompts 40 --only exact --only balanced --only fast

The prompts are the first of each kind of `janusflow eval tinyworld`. Distances are those of the latents, relative to
the exact latents of the same prompt and seed, over the pictures that all points have; scores are the checker's.
Existing pictures are not generated again. At the end, docs/pareto.md and docs/pareto.png are written.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.generation import as_pictures
from janusflow.evaluation.reports.intervals import wilson
from janusflow.evaluation.run.sweep import network_evaluations
from janusflow.evaluation.score_sample import ScoreSample
from janusflow.presets import PRESETS, Preset
from janusflow.tinyworld.checker import check
from janusflow.tinyworld.items import WorldSettings, to_generate

DOCS = Path(__file__).parents[1] / "docs"
BATCH = 12  # pictures per batch
EXACT = PRESETS["exact"]


def points() -> dict[str, Preset]:
    """Return all settings to compare, by name: the presets, then one knob after the other."""
    early, late = (0.0, 0.5), (0.5, 1.0)
    found = [Preset(5, solver) for solver in ("ab2", "unipc", "euler")]
    found += [Preset(6, "ab2", guidance_interval=early), Preset(6, "unipc", guidance_interval=early)]
    found += [Preset(7, "ab2", guidance_interval=(0.0, 0.4)), Preset(10, "ab2", guidance_interval=(0.0, 0.0))]
    found += [Preset(8, solver) for solver in ("ab2", "unipc", "euler")]
    found += [Preset(6, "ab2", guidance_interval=late), Preset(3, "heun"), Preset(3, "midpoint")]
    found += [Preset(8, "ab2", shift) for shift in (0.7, 1.5, 2.0)]
    found += [Preset(10, solver) for solver in ("ab2", "unipc", "euler")]
    found += [Preset(10, "ab2", guidance_interval=ends) for ends in (early, late, (0.2, 0.8))]
    found += [Preset(steps, "euler") for steps in (15, 20)]
    found += [Preset(15, solver) for solver in ("ab2", "unipc")]
    return {**PRESETS, **{name_of(point): point for point in found}}


def name_of(point: Preset) -> str:
    """Return a short name, such as "ab2 8, shift 1.5, guidance 0.0 to 0.5"."""
    ends = "" if point.guidance_interval == (0.0, 1.0) else "guidance {} to {}".format(*point.guidance_interval)
    shift = "" if point.shift == 1 else f"shift {point.shift}"
    return ", ".join(filter(None, [f"{point.solver} {point.num_inference_steps}", shift, ends]))


class Measured:
    """The rows of all finished pictures, and the exact latents, in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.latents = folder / "results.jsonl", folder / "exact.pt"
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        for row in map(json.loads, lines):
            self.rows[row["knobs"], row["key"]] = row
        self.exact: dict[str, Tensor] = torch.load(self.latents) if self.latents.is_file() else {}

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append rows to the file."""
        with self.file.open("a") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        self.rows.update({(row["knobs"], row["key"]): row for row in rows})

    def keep(self, latents: dict[str, Tensor]) -> None:
        """Add exact latents."""
        self.exact.update(latents)
        torch.save(self.exact, self.latents)


def knobs_of(point: Preset) -> str:
    """Return the identity of a point: presets with the same settings share their pictures."""
    return json.dumps(asdict(point), sort_keys=True)


def measure(model: JanusFlow, point: Preset, batch: list[Any], guidance: float, found: Measured) -> None:
    """Generate and judge pictures of one point."""
    settings = {name: value for name, value in asdict(point).items() if name != "decoder"}
    prompts, seeds = [item.prompt for item, _ in batch], [item.seed for item, _ in batch]
    started = time.process_time()
    latents = model.generate(
        prompts, seed=seeds, guidance_scale=guidance, output_type="latent", progress=False, batch_size=BATCH, **settings
    )
    seconds = (time.process_time() - started) / len(batch)
    if point == EXACT:
        found.keep({item.key: latent.clone() for (item, _), latent in zip(batch, latents, strict=True)})
    started = time.process_time()
    pixels = model.decode(latents, point.decoder)
    decoding = (time.process_time() - started) / len(batch)
    exact = torch.stack([found.exact[item.key] for item, _ in batch])
    wanted = model.codec.decode(exact)
    rows = []
    for number, (item, task) in enumerate(batch):
        away = float((latents[number] - exact[number]).norm() / exact[number].norm())
        error = float((pixels[number] - wanted[number]).square().mean() / 4)  # for pixels in [0, 1]
        (picture,) = as_pictures(pixels[number : number + 1], "pil")
        passed = check(task, np.asarray(picture)).passed
        row = {"knobs": knobs_of(point), "key": item.key, "distance": away, "error": error, "passed": bool(passed)}
        rows.append({**row, "seconds": seconds, "decoding": decoding})
    found.add(rows)


def summary(found: Measured, guidance: float) -> list[dict[str, Any]]:
    """Return one row for each point that has pictures."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (knobs, _), row in found.rows.items():
        groups[knobs].append(row)
    common = set.intersection(*({row["key"] for row in rows} for rows in groups.values()))
    table: list[dict[str, Any]] = []
    for name, point in points().items():
        rows = groups.get(knobs_of(point), [])
        if not rows or any(name_of(point) == other["setting"] for other in table):
            continue
        settings = {**asdict(point), "guidance_scale": guidance}
        passed = sum(row["passed"] for row in rows)
        low, high = wilson(ScoreSample([float(row["passed"]) for row in rows], [row["key"] for row in rows], 1.0))
        same = [row for row in rows if row["key"] in common]
        error = sum(row["error"] for row in same) / len(same)
        table.append(
            {
                "preset": name if name in PRESETS else "",
                "setting": name_of(point),
                "solver": point.solver,
                "decoder": point.decoder,
                "evaluations": network_evaluations({k: v for k, v in settings.items() if k != "decoder"}),
                "seconds": sum(row["seconds"] + row["decoding"] for row in rows) / len(rows),
                "distance": sum(row["distance"] for row in same) / len(same),
                "compared": len(same),
                "psnr": 99.0 if error == 0 else -10 * float(np.log10(error)),
                "score": passed / len(rows),
                "low": low,
                "high": high,
                "n": len(rows),
            }
        )
    return sorted(table, key=lambda row: (-row["evaluations"], row["distance"]))


def write(table: list[dict[str, Any]], guidance: float, name: str) -> None:
    """Write the figure and the table to docs/."""
    lines = [
        "# Work against quality",
        "",
        f"Written by `python benchmarks/pareto.py OUT` (model `{name}`, guidance {guidance:g}). Evaluations count rows",
        "of the network per picture. Seconds are measured on one core with other jobs running. The distance is from",
        "the latents to the exact ones, relative to their norm; the PSNR is that of the pictures.",
        f"Both are over the pictures that all settings have ({table[0]['compared']}). The score is the share of the n",
        "pictures that are right, with its 95 % interval.",
        "",
        "![Distance and score against network evaluations and seconds](pareto.png)",
        "",
        "| setting | preset | evaluations | of exact | s | distance | PSNR | score | 95 % | n |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    most = max(row["evaluations"] for row in table)
    for row in table:
        psnr = "" if row["distance"] == 0 else f"{row['psnr']:.1f}"
        lines.append(
            f"| {row['setting']} | {row['preset']} | {row['evaluations']} | {row['evaluations'] / most:.2f} "
            f"| {row['seconds']:.2f} | {row['distance']:.3f} | {psnr} | {row['score']:.3f} "
            f"| {row['low']:.2f} to {row['high']:.2f} | {row['n']} |"
        )
    (DOCS / "pareto.md").write_text("\n".join(lines) + "\n")
    draw(table)


def draw(table: list[dict[str, Any]]) -> None:
    """Plot distance and score against evaluations and seconds."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 7), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    shown = [row for row in table if row["distance"] > 0]
    for across, axis in enumerate(("evaluations", "seconds")):
        for down, value in enumerate(("distance", "score")):
            axes = grid[down][across]
            for solver, mark in zip(dict.fromkeys(row["solver"] for row in shown), "os^Dv*", strict=False):
                rows = [row for row in shown if row["solver"] == solver]
                x, y = [row[axis] for row in rows], [row[value] for row in rows]
                bars = [[row["score"] - row["low"] for row in rows], [row["high"] - row["score"] for row in rows]]
                error = bars if value == "score" else None
                axes.errorbar(x, y, error, fmt=mark, markersize=5, capsize=2, elinewidth=0.6, label=solver)
            for row in (row for row in shown if row["preset"]):
                axes.annotate(
                    row["preset"], (row[axis], row[value]), xytext=(0, 7), textcoords="offset points", ha="center"
                )
            axes.grid(alpha=0.3)
            axes.margins(x=0.12, y=0.12)
        grid[1][across].set_xlabel(f"{axis} per picture")
    exact = next(row for row in table if row["preset"] == "exact")
    for axes in grid[1]:
        axes.axhspan(exact["low"], exact["high"], alpha=0.15, label="exact, 95 %")
    grid[0][0].set_ylabel("distance of latents to exact")
    grid[0][0].set_yscale("log")
    grid[1][0].set_ylabel("score")
    grid[1][0].legend(fontsize=8)
    figure.savefig(DOCS / "pareto.png", dpi=110, metadata={"Software": None})


def main(
    out: Path,
    model: str = "tiny",
    prompts: Annotated[int, typer.Option(help="Prompts of each of the six kinds.")] = 8,
    guidance: float = 1.5,
    only: Annotated[list[str] | None, typer.Option(help="Name of a point or preset; all by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Seconds after which no further batch is started.")] = 180.0,
    threads: int = 1,
) -> None:
    """Measure what is missing, then write docs/pareto.md and docs/pareto.png."""
    torch.set_num_threads(threads)
    started = time.monotonic()
    items = to_generate(WorldSettings(prompts=prompts, images=1, all_kinds=False))
    every = points()
    chosen = {"exact": EXACT, **{name: every[name] for name in only}} if only else every
    found, opened, missing = Measured(out), None, 0
    for point in chosen.values():
        left = [
            pair
            for pair in items
            if (knobs_of(point), pair[0].key) not in found.rows or (point == EXACT and pair[0].key not in found.exact)
        ]
        for batch in (left[first : first + BATCH] for first in range(0, len(left), BATCH)):
            if time.monotonic() - started > seconds:
                missing += len(batch)
                continue
            opened = opened or JanusFlow.from_pretrained(model, device="cpu", dtype="float32", progress=False)
            measure(opened, point, batch, guidance, found)
    write(summary(found, guidance), guidance, model)
    print(f"{missing} pictures are missing; repeat the command" if missing else "nothing is missing")


if __name__ == "__main__":
    typer.run(main)
