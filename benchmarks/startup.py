"""Time of whole processes: importing, `--help`, and a picture of the shipped model; for this build and, in turn, an
older one if `--older` names its sources.

python benchmarks/startup.py
python benchmarks/startup.py --older OTHER/src --only picture --cpu-time
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

HERE = Path(__file__).parents[1] / "src"
COMMANDS = {
    "python": ["-c", "pass"],
    "import": ["-c", "import janusflow"],
    "help": ["-m", "janusflow.cli", "--help"],
    "generate-help": ["-m", "janusflow.cli", "generate", "--help"],
    "answer": ["-m", "janusflow.cli", "ask", "What is a circle?", "--device", "cpu"],
    "picture": ["-m", "janusflow.cli", "generate", "a red circle", "--seed", "0", "--device", "cpu", "--out", "OUT"],
}


def run(command: list[str], source: Path, out: Path) -> tuple[float, float]:
    """Return the wall-clock and processor seconds of one process."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    arguments = [str(out) if part == "OUT" else part for part in command]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(
    older: Annotated[Path | None, typer.Option(help="src/ of an older build.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(COMMANDS)}; repeatable.")] = None,
    repeats: Annotated[int, typer.Option(help="Processes of each, after one warm-up process.")] = 7,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Processor time: for a machine with other jobs.")
    ] = False,
) -> None:
    """Print a table: median seconds, and their ratio."""
    builds = {"this build": HERE, **({"older": older.resolve()} if older else {})}
    print("| process | " + " | ".join(builds) + " | ratio |\n| --- |" + " ---: |" * (len(builds) + 1))
    with tempfile.TemporaryDirectory() as folder:
        for name in only or COMMANDS:
            found: dict[str, list[float]] = {build: [] for build in builds}
            for repeat in range(repeats + 1):
                for build, source in builds.items():
                    taken = run(COMMANDS[name], source, Path(folder) / f"{name}{repeat}{len(build)}")[cpu_time]
                    if repeat:
                        found[build].append(taken)
            medians = [statistics.median(values) for values in found.values()]
            shown = " | ".join(f"{value:.3f} s" for value in medians)
            ratio = f"{medians[0] / medians[1]:.2f}" if older else ""
            print(f"| {name} | {shown} | {ratio} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
