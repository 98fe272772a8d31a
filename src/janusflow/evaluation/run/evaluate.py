"""Run a benchmark: generate or ask what is missing, judge what has no verdict, and report.

A run's folder contains `run.json` (its settings), the outputs, `outputs-*.jsonl` and `verdicts-*.jsonl` (a file for
each process, a line for each finished item), and at the end `results.jsonl`, `report.json`, `report.md` and
`report.html`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.device import device_of, use_device
from janusflow.evaluation.judges.open_judge import forgotten_if_useless
from janusflow.evaluation.protocol import Benchmark, Item, NotJudgedError, Row
from janusflow.evaluation.reports.report import write_report
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.eval_run import EvalRun
from janusflow.evaluation.run.manifest import as_made, remember
from janusflow.evaluation.run.processes import in_processes, on_ray, together
from janusflow.files import locked, remove_leftovers, write_text
from janusflow.pipelines.sheet import make_folder
from janusflow.processing.images import load_image
from janusflow.progress import progress_bar

LOCK = ".lock"  # lock of a run; with "-" and a number, of one of its workers
PATIENCE = 10.0  # seconds in which the workers of a killed run end, with a margin


def evaluate(request: EvalRequest, *, model: Any = None, workers: int = 1, ray: int = 0) -> dict[str, Any]:
    """Run a benchmark, or continue a run, and report.

    Args:
        model: open pipeline, for one process; by default, `request.model` is opened if an output is missing.
        workers: number of local processes that share the items.
        ray: number of Ray workers that share the items, in place of local processes. Under `torchrun`, its processes
            share them.

    Returns:
        The report, as in `report.json`; in mode "generate", only counts of what is done.

    Raises:
        ValueError: for bad data, a folder that contains another run or that another run is writing into, or missing
            outputs in mode "score".

    Example:
        >>> few = {"prompts": 1, "images": 1, "questions": 1, "features": False}
        >>> request = EvalRequest("tinyworld", Path("runs/tinyworld"), limit=2, settings=few)
        >>> evaluate(request)["judged"]
        2
    """
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    run = checked_run(as_made(request), rank)
    try:
        if rank:
            wait = together(ranks)
            wait()  # until the first process has locked the folder and written run.json
            run.reload()
            remember(run, first=False)
            _work_alone(run, ranks)
            wait()
            return {}
        with _alone_in(request.out):
            return _evaluate(run, together(ranks), ranks=ranks, model=model, workers=workers, ray=ray)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(run)) from None


def checked_run(request: EvalRequest, rank: int = 0) -> EvalRun:
    """Return a request's run after every check that needs neither the model nor a judge's weights.

    Raises:
        ValueError: for a wrong name, setting or option, for missing or damaged data, and, if outputs are still to be
            made, for a judge that cannot be opened.
    """
    run = EvalRun(request, rank)
    if request.mode != "generate":
        run.benchmark.check_judge()
    if request.mode == "full" and run.to_do(run.items):
        run.benchmark.check_models()
    return run


def _stopped(run: EvalRun) -> str:
    """Return what a stopped run has done, and how to continue it."""
    run.reload()
    judged = sum("verdict" in run.judged(item) for item in run.items)
    made = sum(item.key in run.outputs for item in run.items)
    return (
        f"stopped: {made} of {len(run.items)} items are made and {judged} judged; the results are kept in "
        f"{run.request.out}, and the same command continues from there"
    )


def _evaluate(
    run: EvalRun, wait: Callable[[], object], *, ranks: int, model: Any, workers: int, ray: int
) -> dict[str, Any]:
    request, benchmark, items = run.request, run.benchmark, run.items
    run.reload()  # no other process writes from now on
    made = remember(run)
    if request.mode == "score" and not any(item.key in run.outputs for item in items):
        raise ValueError(f"{request.out} contains no outputs of {benchmark.title} yet; run mode full first")
    if ranks > 1:
        wait()
        _work_alone(run, ranks)
        wait()
    elif ray:
        on_ray(work, request, ray)
    elif workers > 1:
        in_processes(work, request, workers)
    else:
        _work(run, 1, model)
    if ranks > 1 or ray or workers > 1:
        run.reload()
    done = [Row(item, run.outputs[item.key], {}) for item in items if item.key in run.outputs]
    benchmark.write_official(done)
    if request.mode == "generate":
        return {"benchmark": request.benchmark, "items": len(items), "done": len(done)}
    rows, failed = _rows(run)
    benchmark.write_judged(rows)
    if len(items) == len(run.all_items):
        request = replace(request, limit=None)  # it left nothing out
    return write_report(benchmark, request, items, rows, failed, made)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder, wait for workers of a killed run, and remove its temporary files."""
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
    """Do one process's part of the remaining work: whole batches, in turn."""
    _work_alone(EvalRun(request, rank), ranks, model)


def _work_alone(run: EvalRun, ranks: int, model: Any = None) -> None:
    """Do one process's part with its own lock: the run's lock is released if the parent process is killed."""
    with locked(run.request.out / f"{LOCK}-{run.rank:05d}", _busy(run.request.out), patience=PATIENCE):
        _work(run, ranks, model)


def _work(run: EvalRun, ranks: int, model: Any) -> None:
    size = run.request.batch_size
    mine = [item for place, item in enumerate(run.items) if place // size % ranks == run.rank]
    place = device_of(run.request.device, run.rank, ranks)
    own_device = partial(use_device, place) if place != run.request.device else None  # one of several
    if own_device:
        own_device()
    if run.request.mode != "score":
        _produce(run, mine, place, model)
    if run.request.mode != "generate":
        _judge(run, mine, own_device)


# --- the parts ------------------------------------------------------------------------------------------------------


def _produce(run: EvalRun, items: Sequence[Item], place: str, model: Any) -> None:
    request, benchmark, todo = run.request, run.benchmark, run.to_do(items)
    if not todo:
        return
    if model is None:
        model = open_model(replace(request, device=place))
    with progress_bar(f"{benchmark.title}: making", len(todo), shown=run.rank == 0) as advance:
        for batch in _batches(benchmark, todo, request.batch_size):
            for item, output in zip(batch, benchmark.produce(model, batch, request.options), strict=True):
                run.keep(item, output)
                advance()


def open_model(request: EvalRequest) -> Any:
    """Open the model that a request names."""
    from janusflow import JanusFlow

    return JanusFlow.from_pretrained(request.model, vae=request.vae, device=request.device, dtype=request.dtype)


def _batches(benchmark: Benchmark, items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Yield batches of items that are all generated or all answered."""
    batch: list[Item] = []
    for item in items:
        if batch and (len(batch) == size or benchmark.drawn(item) != benchmark.drawn(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _judge(run: EvalRun, items: Sequence[Item], own_device: Callable[[], None] | None) -> None:
    benchmark = run.benchmark
    todo = [item for item in items if item.key in run.outputs and "verdict" not in run.judged(item)]
    with (
        progress_bar(f"{benchmark.title}: judging", len(todo), shown=run.rank == 0) as advance,
        ThreadPoolExecutor(benchmark.threads, initializer=own_device) as pool,
    ):
        for item in todo[:1]:  # before the others start: it opens the judge
            run.keep_verdict(item, _verdict(benchmark, item, run.outputs[item.key]))
            advance()
        pending = {pool.submit(_verdict, benchmark, item, run.outputs[item.key]): item for item in todo[1:]}
        try:
            for done in as_completed(pending):
                run.keep_verdict(pending[done], done.result())
                advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # no one would keep the other verdicts
            benchmark.stop_judging()
            raise


def _verdict(benchmark: Benchmark, item: Item, output: str) -> dict[str, Any]:
    """Return the verdict on an output, or why there is none."""
    try:
        seen = load_image(benchmark.out / output) if benchmark.drawn(item) else output
    except ValueError as error:  # damaged since it was made
        return {"error": str(error)}
    try:
        with forgotten_if_useless():
            return {"verdict": finite(benchmark.judge(item, seen))}
    except NotJudgedError as error:
        return {"error": str(error)}


def finite(verdict: dict[str, Any]) -> dict[str, Any]:
    """Return a verdict unchanged if it can be read back.

    Raises:
        NotJudgedError: if it contains NaN or infinite numbers.
    """
    try:
        json.dumps(verdict, allow_nan=False)
    except ValueError as error:
        raise NotJudgedError(f"the verdict contains a number that is not finite: {quoted(verdict)}") from error
    return verdict


def _rows(run: EvalRun) -> tuple[list[Row], dict[str, str]]:
    """Write the judged items to results.jsonl; return them in order, and why others have no verdict."""
    rows: list[Row] = []
    missing: dict[str, str] = {}
    lines = []
    for item in run.items:
        record = run.judged(item)
        if "verdict" not in record:
            missing[item.key] = record.get("error", "not made")
            continue
        rows.append(Row(item, run.outputs[item.key], record["verdict"]))
        found = {"key": item.key, "prompt": item.prompt, "seed": item.seed, "group": item.group, "data": item.data}
        found |= {"output": rows[-1].output, "verdict": record["verdict"]}
        lines.append(json.dumps(found, default=str) + "\n")
    write_text(run.request.out / "results.jsonl", "".join(lines))
    return rows, missing
