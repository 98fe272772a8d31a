"""Runs a benchmark: draws or asks what is not done yet, judges what has no verdict yet, and reports.

A run's folder holds `run.json` (what it was told), the outputs, `outputs-*.jsonl` and `verdicts-*.jsonl` (one line per
finished item, of each process), and in the end `results.jsonl`, `report.json`, `report.md` and `report.html`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from janusflow.arguments import quoted
from janusflow.device import device_of
from janusflow.evaluation.judges.judges import forgotten_if_useless
from janusflow.evaluation.protocol import Benchmark, Item, NotJudgedError, Output, Row
from janusflow.evaluation.reports.report import write_report
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.digests import asked_digest
from janusflow.evaluation.run.limit import limited
from janusflow.evaluation.run.manifest import as_made, remember
from janusflow.evaluation.run.processes import in_processes, on_ray, together
from janusflow.evaluation.run.records import VERDICTS, Records
from janusflow.evaluation.run.state import digests_of, judged_of, outputs_of, to_do, verdicts_of
from janusflow.files import locked, remove_leftovers, write_text
from janusflow.pipelines.sheet import make_folder, save_png
from janusflow.processing.images import load_image
from janusflow.progress import progress_bar

LOCK = ".lock"  # of a run; with "-" and a number, of one of its workers
PATIENCE = 10.0  # seconds in which the workers of a killed run end, with room to spare


def evaluate(request: EvalRequest, *, model: Any = None, workers: int = 1, ray: int = 0) -> dict[str, Any]:
    """Does what is left of a run and reports.

    Args:
        request: what is told.
        model: an open pipeline, for one process; by default `request.model` is opened when something is to be made.
        workers: local processes that share the items.
        ray: Ray workers that share the items, in place of local processes. Under `torchrun` its processes share them.

    Returns:
        The report, as in `report.json`; with mode "generate" only counts of what is done.

    Raises:
        ValueError: for bad data, a folder that holds another run or that another run is writing into, or outputs that
            are missing in mode "score".
    """
    request = as_made(request)
    benchmark, items = checked(request)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        if rank:
            with together(ranks) as wait:
                wait()  # until the first process has the folder and has written what makes the run
                remember(request, benchmark, first=False)
                work(request, rank, ranks)
                wait()
            return {}
        with _alone_in(request.out), together(ranks) as wait:
            return _evaluate(request, benchmark, items, wait, ranks=ranks, model=model, workers=workers, ray=ray)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(benchmark, items)) from None


def checked(request: EvalRequest) -> tuple[Benchmark, list[Item]]:
    """A request's benchmark and chosen items, after every check that needs neither the model nor a judge's weights.

    Raises:
        ValueError: for a wrong name, setting or option, data that is missing or damaged, and, if something is left to
            make, a judge that cannot be opened.
    """
    benchmark = check_data(request)
    if request.mode != "generate":
        benchmark.check_judge()
    items = _chosen(benchmark, request)
    if request.mode == "full" and to_do(benchmark, items):
        benchmark.check_models()
    return benchmark, items


def check_data(request: EvalRequest) -> Benchmark:
    """A request's benchmark, if the data that the request names is there.

    Raises:
        ValueError: for a wrong name, setting or option, or a path that does not exist.
    """
    benchmark = request.open()
    if request.data is not None and not request.data.exists():
        expected = f"; expected {benchmark.source}" if benchmark.source else ""
        raise ValueError(f"data is {str(request.data)!r}, but there is not a folder or file of that name{expected}")
    return benchmark


def _stopped(benchmark: Benchmark, items: Sequence[Item]) -> str:
    """What a run that is stopped has done, and how to continue it."""
    outputs = outputs_of(benchmark, items)
    judged = len(judged_of(benchmark, items, outputs)[0])
    return (
        f"stopped: {len(outputs)} of {len(items)} items are made and {judged} judged; the results are kept in "
        f"{benchmark.out}, and the same command continues from there"
    )


def _evaluate(
    request: EvalRequest,
    benchmark: Benchmark,
    items: Sequence[Item],
    wait: Callable[[], object],
    *,
    ranks: int,
    model: Any,
    workers: int,
    ray: int,
) -> dict[str, Any]:
    made = remember(request, benchmark)
    if request.mode == "score" and not outputs_of(benchmark, items):
        raise ValueError(f"{benchmark.out} contains no outputs of {benchmark.title} yet; run mode full first")
    if ranks > 1:
        wait()
        work(request, 0, ranks)
        wait()
    elif ray:
        on_ray(work, request, ray)
    elif workers > 1:
        in_processes(work, request, workers)
    else:
        _work(benchmark, items, request, 0, 1, model)
    done = outputs_of(benchmark, items)
    benchmark.write_official([Row(item, done[item.key], {}) for item in items if item.key in done])
    if request.mode == "generate":
        return {"benchmark": request.benchmark, "items": len(items), "done": len(done)}
    rows, failed = _rows(benchmark, items, done)
    benchmark.write_judged(rows)
    return write_report(benchmark, request, items, rows, failed, made)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder; wait for workers of a killed run, and remove the temporary files that it left.

    Raises:
        ValueError: if another run holds the folder, or such a worker does not end.
    """
    make_folder(out)
    with locked(out / LOCK, f"another run is writing into {out}; wait for it, or give another --out"):
        if (out / "run.json").is_file():
            for folder, _, _ in os.walk(out):
                remove_leftovers(Path(folder))
        for file in sorted(out.glob(f"{LOCK}-*")):
            with locked(file, _busy(out), patience=PATIENCE):
                pass
        yield


def _busy(out: Path) -> str:
    return f"workers of an earlier run are still writing into {out}; wait for their end, or give another --out"


def work(request: EvalRequest, rank: int, ranks: int, *, model: Any = None) -> None:
    """One process's part of what is left: whole batches, in turn.

    It holds a lock of its own, since the lock of the run falls if the process that started this one is killed.
    """
    benchmark = request.open()
    with locked(request.out / f"{LOCK}-{rank:05d}", _busy(request.out), patience=PATIENCE):
        _work(benchmark, _chosen(benchmark, request), request, rank, ranks, model)


def _work(benchmark: Benchmark, items: Sequence[Item], request: EvalRequest, rank: int, ranks: int, model: Any) -> None:
    size = request.batch_size
    mine = [item for place, item in enumerate(items) if place // size % ranks == rank]
    if request.mode != "score":
        _produce(benchmark, replace(request, device=device_of(request.device, rank, ranks)), mine, rank, model)
    if request.mode != "generate":
        _judge(benchmark, mine, rank)


# --- the parts ------------------------------------------------------------------------------------------------------


def _chosen(benchmark: Benchmark, request: EvalRequest) -> list[Item]:
    items = benchmark.items()
    if not items:
        raise ValueError(f"{request.data} contains nothing of {benchmark.title}; expected {benchmark.source}")
    twice = next((key for key, count in Counter(item.key for item in items).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{request.data} contains the key {twice!r} twice; each item needs its own")
    chosen = limited(benchmark, items, request.limit)
    if benchmark.limited:
        benchmark.check_items(chosen)
    return chosen


def _produce(benchmark: Benchmark, request: EvalRequest, items: Sequence[Item], rank: int, model: Any) -> None:
    todo = to_do(benchmark, items)
    if not todo:
        return
    if model is None:
        model = open_model(request)
    records = Records(request.out, "outputs", rank)
    with progress_bar(f"{benchmark.title}: making", len(todo), shown=rank == 0) as advance:
        for batch in _batches(benchmark, todo, request.batch_size):
            for item, output in zip(batch, benchmark.produce(model, batch, request.options), strict=True):
                kept = _keep(benchmark, item, output)
                records.append({"key": item.key, "output": kept, "asked": asked_digest(benchmark, item)})
                advance()


def open_model(request: EvalRequest) -> Any:
    """The model that a request names."""
    from janusflow import JanusFlow

    return JanusFlow.from_pretrained(request.model, vae=request.vae, device=request.device, dtype=request.dtype)


def _batches(benchmark: Benchmark, items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Batches of items that are all drawn or all answered."""
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == size or benchmark.drawn(item) != benchmark.drawn(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _keep(benchmark: Benchmark, item: Item, output: Output) -> str:
    if isinstance(output, str):
        return output
    place = benchmark.place(item)
    if not (benchmark.out / place).resolve().is_relative_to(benchmark.out.resolve()):
        raise ValueError(f"the picture of item {item.key!r} would be written outside {benchmark.out}")
    (benchmark.out / place).parent.mkdir(parents=True, exist_ok=True)
    save_png(output, benchmark.out / place, {"prompt": item.prompt, "seed": item.seed})
    return place


def _judge(benchmark: Benchmark, items: Sequence[Item], rank: int) -> None:
    outputs, records = outputs_of(benchmark, items), verdicts_of(benchmark, rank)
    digests = digests_of(benchmark, items, outputs)
    judged = {(record["key"], record.get("of")) for record in records.all(VERDICTS) if "verdict" in record}
    todo = [item for item in items if item.key in outputs and (item.key, digests[item.key]) not in judged]

    def verdict(item: Item) -> dict[str, Any]:
        found: dict[str, Any] = {"key": item.key, "of": digests[item.key]}
        output = outputs[item.key]
        try:
            seen = _picture(benchmark.out / output) if benchmark.drawn(item) else output
        except ValueError as error:  # damaged since it was made
            return {**found, "error": str(error)}
        try:
            with forgotten_if_useless():
                return {**found, "verdict": finite(benchmark.judge(item, seen))}
        except NotJudgedError as error:
            return {**found, "error": str(error)}

    with (
        progress_bar(f"{benchmark.title}: judging", len(todo), shown=rank == 0) as advance,
        ThreadPoolExecutor(benchmark.threads) as pool,
    ):
        for item in todo[:1]:  # before the others begin: it opens the judge
            records.append(verdict(item))
            advance()
        try:
            for done in as_completed([pool.submit(verdict, item) for item in todo[1:]]):
                records.append(done.result())
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # nobody would keep what the others say
            raise


def finite(verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict as it is, if it can be read again.

    Raises:
        NotJudgedError: if it holds NaN or infinite numbers.
    """
    try:
        json.dumps(verdict, allow_nan=False)
    except ValueError as error:
        raise NotJudgedError(f"the verdict contains a number that is not finite: {quoted(verdict)}") from error
    return verdict


def _picture(file: Path) -> Image.Image:
    picture = load_image(file)
    picture.load()
    return picture


def _rows(benchmark: Benchmark, items: Sequence[Item], outputs: dict[str, str]) -> tuple[list[Row], dict[str, str]]:
    """Judged items in order, and why others have no verdict."""
    verdicts, errors = judged_of(benchmark, items, outputs)
    rows = [
        Row(item, outputs[item.key], verdicts[item.key])
        for item in items
        if item.key in verdicts and item.key in outputs
    ]
    lines = []
    for row in rows:
        item = row.item
        found = {"key": item.key, "prompt": item.prompt, "seed": item.seed, "group": item.group, "data": item.data}
        lines.append(json.dumps({**found, "output": row.output, "verdict": row.verdict}, default=str) + "\n")
    write_text(benchmark.out / "results.jsonl", "".join(lines))
    judged = {row.item.key for row in rows}
    lacking = {item.key: errors.get(item.key, "not made") for item in items if item.key not in judged}
    return rows, lacking
