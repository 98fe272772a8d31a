"""A share of an ablation in a few minutes on one GPU, with several processes: steps as small as these do not fill it.

    python benchmarks/gpu_ablation.py --parts runs/table6/parts --out $OUT

It needs the folder of pretrained parts and the data set. Runs that do not finish in time can be resumed elsewhere with
`janusflow ablate RECIPE --out OUT`. To check on a CPU that it runs: `--minutes 1 --processes 1 --device cpu`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from janusflow.ablation.config import load_ablation
from janusflow.ablation.report import write_report
from janusflow.ablation.runs import runs_of

ENDING = 20.0  # seconds for processes to save and end


def main(
    out: Annotated[Path, typer.Option(help="Folder for the runs.")],
    parts: Annotated[Path, typer.Option(help="Pretrained parts, such as OUT/parts of an earlier run.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    recipe: Annotated[Path, typer.Option(help="Recipe of the ablation.")] = Path("recipes/ablation/table6.yaml"),
    minutes: Annotated[float, typer.Option(help="Minutes after which all processes are stopped.")] = 8.0,
    processes: Annotated[int, typer.Option(help="Number of processes that share the device.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Run as much of an ablation as fits in the time, and write its page."""
    begun = time.monotonic()
    if not (out / "parts").exists():
        shutil.copytree(parts, out / "parts")
    command = [sys.executable, "-m", "janusflow", "ablate", str(recipe), *(overrides or ())]
    command += ["--out", str(out), "--device", device]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    running = [subprocess.Popen(command, env=os.environ | threads) for _ in range(processes)]
    for process in running:
        try:
            process.wait(max(0.0, begun + 60 * minutes - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
    for process in running:
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
    runs = runs_of(load_ablation(recipe, overrides or []), recipe.parent, out)
    finished = sum(run.result() is not None for run in runs)
    print(write_report(runs, out))
    print(f"{finished} of {len(runs)} runs are finished, in {(time.monotonic() - begun) / 60:.1f} minutes")


if __name__ == "__main__":
    typer.run(main)
