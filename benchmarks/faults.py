"""Fault injection: mutated checkpoints, configs, adapters, records and pictures, and kills at random moments.

Each case is made from its number and the seed, runs in its own process, and ends as one of
- same: the result is that of the valid input (the damage is where nothing is read);
- refused: a ValueError or OSError of one sentence that names the file or its folder;
- changed: another result, which a valid file could also give: another plausible number, a default in place of a
  deleted value, other bits of a weight or pixel without a checksum;
or as a failure:
- traceback: any other exception; unclear: an error of several lines, of over 500 characters, or without a file name;
- silent difference: a damaged file (wrong type or length, NaN, a negative count, cut off, not UTF-8, or anything that a
  checksum protects) gave another result; accepted: a file that cannot be right (missing, surplus, misshapen or integer
  tensors, NaN, an index out of range, a pickle of something else) was accepted;
- too slow: over 30 s of processor time; too large: over 2 GB of memory above the start, or a failed allocation;
- left behind: files, temporary files or processes that a valid run does not leave; ran code; crashed.

    python benchmarks/faults.py                              # 10,000 mutated inputs and 200 kills
    python benchmarks/faults.py --share 0.05                 # the first 500 and 10
    python benchmarks/faults.py --kinds adapter,paddle --out failures.jsonl
    python benchmarks/faults.py --case 1234                  # one case again, with its message
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

import json
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from fault_injection.cases import GOOD, Outcome, kind_of_case, kinds, make_base, run_case
from fault_injection.kills import run_kills

CASES, KILLS = 10_000, 200


def chosen_cases(count: int, names: Sequence[str]) -> list[int]:
    """Return the first cases; only those of some kinds if parts of the kinds' names are given."""
    return [n for n in range(count) if not names or any(name in ": ".join(kind_of_case(n)) for name in names)]


def run_cases(cases: Sequence[int], seed: int, work: Path, jobs: int) -> Iterator[Outcome]:
    """Run cases in several processes, and yield the outcomes."""
    for name in dict.fromkeys(kind_of_case(case)[0] for case in cases):
        make_base(name, work)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(run_case, cases, [seed] * len(cases), [work] * len(cases), chunksize=4)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return counts of verdicts by kind, and failures by cause."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts[outcome.kind][outcome.verdict] += 1
    bad = sorted({outcome.verdict for outcome in outcomes if outcome.verdict not in GOOD})
    columns = [*GOOD, *bad]
    lines = [f"{'kind':58} {'cases':>6} " + " ".join(f"{column:>10}" for column in columns)]
    for kind, found in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        row = " ".join(f"{found[column] or '':>{max(len(column), 10)}}" for column in columns)
        lines.append(f"{kind:58} {found.total():6} {row}")
    return "\n".join([*lines, "", *_causes([outcome for outcome in outcomes if outcome.verdict not in GOOD])])


def _causes(failures: Sequence[Outcome]) -> list[str]:
    """Return failures by verdict, line of our code and exception, the most frequent first; each with one case."""
    groups: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    for one in failures:
        error = one.message.split(":")[0] if one.place else ""
        groups[one.verdict, one.place or one.kind, error].append(one)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [
        f"{len(found):5}  {verdict:18} {place:60} {error:20} case {found[0].case}: {found[0].kind}: {found[0].mutation}"
        for (verdict, place, error), found in ordered
    ]


def main(
    cases: Annotated[int, typer.Option(help="Number of mutated inputs.")] = CASES,
    kills: Annotated[int, typer.Option(help="Number of runs to kill.")] = KILLS,
    share: Annotated[float, typer.Option(min=0, max=1, help="Only this share of both.")] = 1.0,
    kind: Annotated[
        str, typer.Option("--kinds", help="Parts of names of kinds, separated by commas; 'kills' for kills.")
    ] = "",
    case: Annotated[int | None, typer.Option(help="Only the case with this number.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the mutations.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2,
    out: Annotated[Path | None, typer.Option(help="File for failures, one JSON line each.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name all kinds.")] = False,
) -> None:
    """Mutate inputs and kill runs; exit code 1 if anything goes wrong."""
    if listed:
        print("\n".join(": ".join(one) for one in kinds()))
        return
    torch.set_num_threads(1)
    started, names = time.perf_counter(), [name for name in kind.split(",") if name]
    numbers = [case] if case is not None else chosen_cases(round(cases * share), names)
    wanted = 0 if case is not None or (names and "kills" not in names) else round(kills * share)
    work = Path(tempfile.mkdtemp(prefix="faults-"))
    outcomes: list[Outcome] = []
    failed = out.open("w") if out else None
    try:
        for stream in (run_cases(numbers, seed, work, jobs), run_kills(wanted, seed, work, jobs)):
            for outcome in stream:
                outcomes.append(outcome)
                if outcome.verdict not in GOOD and failed:
                    print(json.dumps(asdict(outcome)), file=failed, flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if failed:
            failed.close()
    print(table(outcomes))
    bad = sum(outcome.verdict not in GOOD for outcome in outcomes)
    print(f"{bad} of {len(outcomes)} failed; {time.perf_counter() - started:.0f} s")
    if case is not None:
        print(json.dumps(asdict(outcomes[0]), indent=1))
    raise typer.Exit(int(bad > 0))


if __name__ == "__main__":
    typer.run(main)
