"""Our engine and the official code (or an older build of ours) in turn, in one run, as ratios of medians.

python benchmarks/engine.py --official CHECKOUT --python VENV/bin/python   # transformers 4.49 and diffusers in VENV
python benchmarks/engine.py --older OTHER/src --row step
python benchmarks/engine.py --older src --quantize int8 --row prefill --row decode   # against this build, unquantized
python benchmarks/engine.py --older src --compile on --row step            # compiled against eager
python benchmarks/engine.py --small --repeats 1                            # to check that it runs

Compare within one run only: the matrix rate of one machine varies by a factor of two within hours.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

WORKER = Path(__file__).with_name("engine_worker.py")
LLM = {"vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 16384}
SMALL = {"vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SMALL_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048}


@dataclass(frozen=True)
class Row:
    """One target: ours against another, in seconds (per step, picture or token) or peak memory.

    Attributes:
        name: name in the table.
        ours: our task.
        against: process and task to compare with.
        target: target without quantization.
        fewer: targets with `--quantize`.
        measure: "seconds", "memory" (above that before the task, mostly weights) or "total".
    """

    name: str
    ours: str
    against: str
    target: str
    fewer: dict[str, str] = field(default_factory=dict)
    measure: str = "seconds"


ROWS = {
    "step": Row("guided step, one picture, prompt of 24 tokens", "step", "other step", "<= 0.78"),
    "linear": Row("the same, against its linear layers", "step", "ours linear", "<= 1.15"),
    "batch": Row("step of four prompts, per picture, against batch 1", "batch", "ours step", "<= 1.00"),
    "fast": Row("latent of one picture in fast mode, against 30 steps (1 is run)", "fast", "other thirty", "<= 0.17"),
    "prefill": Row("prefill of 600 tokens", "prefill", "other prefill", "<= 0.78", {"int8": "<= 0.55"}),
    "decode": Row(
        "one token after 600",
        "decode",
        "other decode",
        "<= 0.77 (1.3x)",
        {"int8": "<= 0.45 (2.2x)", "int4": "<= 0.33 (3x)"},
    ),
    "decode8": Row("one token of 8 conversations, against batch 1", "decode8", "ours decode", "<= 0.25 (4x)"),
    "memory": Row("peak memory of a step above the weights", "step", "other step", "<= 0.6", measure="memory"),
    "total": Row("peak memory of a step in all", "step", "other step", "", {"int8": "<= 0.6"}, "total"),
}


class Worker:
    """A process that has built a network and waits for tasks."""

    def __init__(self, python: str, source: Path | None, arguments: dict[str, Any]) -> None:
        environment = {**os.environ, **({"PYTHONPATH": str(source)} if source else {})}
        command = [python, str(WORKER), json.dumps(arguments)]
        self.process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.tasks: list[str] = self._answer()["tasks"]

    def run(self, task: str) -> dict[str, float]:
        """Return the seconds and bytes of one run."""
        assert self.process.stdin is not None
        print(task, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r:.200} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def start(
    common: dict[str, Any], quantize: str | None, compiled: str, official: Path | None, python: str
) -> dict[str, Worker]:
    """Start our process, and that of the official code if there is a checkout."""
    ours = {**common, "kind": "ours", "quantize": quantize, "compile": compiled}
    workers = {"ours": Worker(sys.executable, None, ours)}
    if official:
        workers["other"] = Worker(python, None, {**common, "kind": "official", "checkout": str(official.resolve())})
    return workers


def main(
    official: Annotated[Path | None, typer.Option(help="Checkout of the official repository.")] = None,
    python: Annotated[str, typer.Option(help="Interpreter for the official code.")] = sys.executable,
    older: Annotated[Path | None, typer.Option(help="src/ of an older build, to compare with instead.")] = None,
    row: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(ROWS)}; repeatable.")] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each, after one warm-up run.")] = 5,
    dtype: str = "bfloat16",
    threads: int = os.cpu_count() or 1,
    quantize: Annotated[str | None, typer.Option(help="int8 or int4, for our network.")] = None,
    compile: Annotated[str, typer.Option(help="off, auto or on, for our network.")] = "off",  # noqa: A002
    layers: Annotated[int, typer.Option(help="Layers of the LLM; fewer for a quick look.")] = 24,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Processor time, with --threads 1: for a machine with other jobs.")
    ] = False,
    small: Annotated[bool, typer.Option(help="A network of two narrow layers and 64 image tokens.")] = False,
) -> None:
    """Print a table: ours, the other, the ratio, and the target."""
    size = {**SMALL, **SMALL_HEADS} if small else {**LLM, **HEADS, "num_hidden_layers": layers}
    common = {"size": size, "grid": 8 if small else 24, "dtype": dtype, "threads": threads}
    workers = start(common, quantize, compile, official, python)
    if older and not official:
        workers["other"] = Worker(sys.executable, older.resolve(), {**common, "kind": "ours"})
    print(f"| {'work':64} | ours | other | ratio | target |\n| --- | --- | --- | --- | --- |")
    for name in row or ROWS:
        chosen = ROWS[name]
        target = chosen.fewer.get(quantize or "", chosen.target)
        process, task = chosen.against.split()
        if process not in workers or task not in workers[process].tasks:
            print(f"| {chosen.name:64} | | | not measured: {chosen.against} | {target} |")
            continue
        measure, found = "cpu" if cpu_time and chosen.measure == "seconds" else chosen.measure, ([], [])
        for repeat in range(repeats + 1):
            pair = workers["ours"].run(chosen.ours), workers[process].run(task)
            for values, value in zip(found, pair, strict=True) if repeat else ():
                values.append(value[measure])
        ours, other = map(statistics.median, found)
        scale, unit = (1 / 2**20, "MiB") if chosen.measure in ("memory", "total") else (1.0, "s")
        print(
            f"| {chosen.name:64} | {ours * scale:.4g} {unit} | {other * scale:.4g} {unit} | {ours / other:.2f} "
            f"| {target} |",
            flush=True,
        )
    for worker in workers.values():
        worker.process.terminate()


if __name__ == "__main__":
    typer.run(main)
