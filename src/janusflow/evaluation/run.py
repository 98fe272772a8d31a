"""Runs a benchmark: draws or asks what is not done yet, judges what has no verdict yet, and reports.

A run's folder holds `run.json` (what it was told), the outputs, `outputs-*.jsonl` and `verdicts-*.jsonl` (one line per
finished item, of each process), and in the end `results.jsonl`, `report.json`, `report.md` and `report.html`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from PIL import Image

from janusflow.checkpoint.load import open_checkpoint
from janusflow.device import device_of, resolve_device, resolve_dtype
from janusflow.evaluation.judges import forgotten_if_useless
from janusflow.evaluation.processes import in_processes, on_ray, wait_for_all
from janusflow.evaluation.protocol import Benchmark, Item, NotJudgedError, Output, Row
from janusflow.evaluation.records import ESCAPED, Records
from janusflow.evaluation.registry import find_benchmark
from janusflow.evaluation.report import hash_of_all, hashes, weights_of, write_report
from janusflow.evaluation.request import RESERVED, EvalRequest
from janusflow.images import load_image
from janusflow.progress import progress_bar
from janusflow.sheet import make_folder, save_png

SAME = ("benchmark", "model", "vae", "dtype", "options")  # in a run that is continued, beside most settings
HOW = ("threads", "device")  # settings that change no verdict


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
    request = _as_made(request)
    benchmark = request.open()
    if request.mode != "generate":
        benchmark.check_judge()
    items = _chosen(benchmark, request)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with _alone_in(request.out) if rank == 0 else nullcontext():
        return _evaluate(request, benchmark, items, rank=rank, ranks=ranks, model=model, workers=workers, ray=ray)


def _evaluate(
    request: EvalRequest,
    benchmark: Benchmark,
    items: Sequence[Item],
    *,
    rank: int,
    ranks: int,
    model: Any,
    workers: int,
    ray: int,
) -> dict[str, Any]:
    made = _remember(request, benchmark)
    if request.mode == "score" and not _outputs(benchmark, items):
        raise ValueError(f"{benchmark.out} holds no outputs of {benchmark.title} yet; run mode generate or full first")
    if ranks > 1:
        work(request, rank, ranks)
        wait_for_all()
        if rank:
            return {}
    elif ray:
        on_ray(work, request, ray)
    elif workers > 1:
        in_processes(work, request, workers)
    else:
        _work(benchmark, items, request, 0, 1, model)
    done = _outputs(benchmark, items)
    benchmark.write_official([Row(item, done[item.key], {}) for item in items if item.key in done])
    if request.mode == "generate":
        return {"benchmark": request.benchmark, "items": len(items), "done": len(done)}
    rows, failed = _rows(benchmark, items, done)
    benchmark.write_judged(rows)
    return write_report(benchmark, request, items, rows, failed, made)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Keeps a second run out of a folder; the lock falls with the process, however that ends."""
    make_folder(out)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"another run is writing into {out}; wait for it, or give another --out") from error
    try:
        yield
    finally:
        lock.release()


def work(request: EvalRequest, rank: int, ranks: int, *, model: Any = None) -> None:
    """One process's part of what is left: whole batches, in turn."""
    benchmark = request.open()
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
        raise ValueError(f"{request.data} holds nothing of {benchmark.title}; expected {benchmark.source}")
    twice = next((key for key, count in Counter(item.key for item in items).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{request.data} holds the key {twice!r} twice; each item of {benchmark.title} has its own")
    return items[: request.limit]


def _as_made(request: EvalRequest) -> EvalRequest:
    """With mode "score", the request with what made the outputs in place of what the request says of it."""
    file = request.out / "run.json"
    if request.mode != "score" or not file.is_file():
        return request
    request.open()  # so that a name that does not exist is told
    made = _told_before(file)
    judging = find_benchmark(request.benchmark).judging
    before = {**made.get("used", {}), **made["options"], **made["settings"]}
    for name, value in {**request.options, **request.settings}.items():
        if name not in judging and before.get(name) != _plain(value):
            raise ValueError(
                f"{request.out} was made with {name} {before.get(name)!r}, and judging cannot change that "
                f"to {value!r}; leave it out, or run mode full with another --out"
            )
    settings = {**made["settings"], **{k: v for k, v in request.settings.items() if k in judging}}
    return replace(request, **{name: made[name] for name in SAME if name != "benchmark"}, settings=settings)


def _remember(request: EvalRequest, benchmark: Benchmark) -> dict[str, Any]:
    """Writes what makes the run's outputs, its weights and data too, and gives it back.

    A run is continued with the same words, weights and data only, but for what its judges are told. Outputs that come
    from elsewhere were made by nobody knows what.
    """
    told = {name: _plain(getattr(request, name)) for name in SAME}
    told["settings"] = _plain({k: v for k, v in vars(benchmark.settings).items() if k not in benchmark.judging})
    told["data_sha256"] = {**hashes(benchmark.files()), **hash_of_all(benchmark.pictures())}
    file, scoring = request.out / "run.json", request.mode == "score"
    if scoring and not file.is_file():
        return {**told, "model": "unknown", "vae": None, "dtype": "unknown", "options": {}, "weights_sha256": {}}
    if _outputs(benchmark, benchmark.items()) and not file.is_file():
        raise ValueError(
            f"{request.out} holds pictures of no run of ours; judge them with --mode score, or give another --out"
        )
    if not scoring:
        told["weights_sha256"] = hashes(weights_of(request.model, request.vae, draws=benchmark.draws))
    if file.is_file() and (scoring or any(request.out.glob("outputs-*.jsonl"))):
        before = _told_before(file)
        changed = [name for name in told if before.get(name) != told[name]]
        if changed:
            name = changed[0]
            if name.endswith("sha256"):
                raise ValueError(f"{request.out} holds a run with other {name.split('_')[0]}; give another --out")
            raise ValueError(
                f"{request.out} holds a run with {name} {before.get(name)!r}, not {told[name]!r}; give another --out"
            )
        return before
    told["used"] = used(request, benchmark)
    beside = file.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    return told


def _told_before(file: Path) -> dict[str, Any]:
    """A run's `run.json`.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(name in found for name in (*SAME, "settings")):
            return found
    except ValueError:
        pass
    raise ValueError(f"{file} is damaged, so nobody knows what made the run; give another --out")


def used(request: EvalRequest, benchmark: Benchmark) -> dict[str, Any]:
    """Every argument that outputs are made with, those that nobody told among them, and where they are made."""
    from janusflow.janus import Janus
    from janusflow.pipeline import JanusFlow
    from janusflow.understanding import Decoding

    try:
        checkpoint = open_checkpoint(request.model)
    except ValueError:  # a model of the caller's own, of which nothing is known
        return {}
    found: dict[str, Any] = {}
    if benchmark.draws:
        drawing = signature((Janus if checkpoint.family == "Janus" else JanusFlow).generate).parameters
        found |= {name: one.default for name, one in drawing.items() if name not in RESERVED}
    if benchmark.asks or not benchmark.draws:
        found |= {field.name: field.default for field in fields(Decoding)}
    found |= {**benchmark.defaults, **request.options}
    dtype = str(resolve_dtype(request.dtype, checkpoint.dtype)).removeprefix("torch.")
    where = {"dtype": dtype, "device": resolve_device(request.device).type, "batch_size": request.batch_size}
    return dict(_plain({**found, **where}))


def _verdicts(benchmark: Benchmark, rank: int = 0) -> Records:
    """The verdicts by these judges; those by others lie in files of other names."""
    judged_by = {k: v for k, v in vars(benchmark.settings).items() if k in benchmark.judging and k not in HOW}
    digest = hashlib.sha256(json.dumps(judged_by, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Records(benchmark.out, f"verdicts-{digest}", rank)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _outputs(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, str]:
    """What is made already, by key: an answer, or a picture's path; pictures of any origin count."""
    made = {record["key"]: record["output"] for record in Records(benchmark.out, "outputs").all()}
    found = {}
    for item in items:
        if not benchmark.drawn(item):
            if item.key in made:
                found[item.key] = made[item.key]
        elif (benchmark.out / benchmark.place(item)).is_file():
            found[item.key] = benchmark.place(item)
    return found


def _produce(benchmark: Benchmark, request: EvalRequest, items: Sequence[Item], rank: int, model: Any) -> None:
    records = Records(request.out, "outputs", rank)
    recorded, there = {record["key"] for record in records.all()}, _outputs(benchmark, items)
    todo = [item for item in items if item.key not in recorded or item.key not in there]
    if not todo:
        return
    if request.mode == "full":
        benchmark.check_models()
    if model is None:
        model = open_model(request)
    with progress_bar(f"{benchmark.title}: making", len(todo), shown=rank == 0) as advance:
        for batch in _batches(benchmark, todo, request.batch_size):
            for item, output in zip(batch, benchmark.produce(model, batch, request.options), strict=True):
                records.append({"key": item.key, "output": _keep(benchmark, item, output)})
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
    outputs, records = _outputs(benchmark, items), _verdicts(benchmark, rank)
    digests = _digests(benchmark, items, outputs)
    judged = {(record["key"], record.get("of")) for record in records.all() if "verdict" in record}
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
                return {**found, "verdict": benchmark.judge(item, seen)}
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


def _digests(benchmark: Benchmark, items: Sequence[Item], outputs: dict[str, str]) -> dict[str, str]:
    """What tells one output from another that takes its place: a verdict is on these bytes."""

    def content(item: Item) -> bytes:
        output = outputs[item.key]
        return (benchmark.out / output).read_bytes() if benchmark.drawn(item) else output.encode(errors=ESCAPED)

    return {item.key: hashlib.sha256(content(item)).hexdigest()[:16] for item in items if item.key in outputs}


def _picture(file: Path) -> Image.Image:
    picture = load_image(file)
    picture.load()
    return picture


def _rows(benchmark: Benchmark, items: Sequence[Item], outputs: dict[str, str]) -> tuple[list[Row], dict[str, str]]:
    """Judged items in order, and why others have no verdict."""
    verdicts: dict[str, Any] = {}
    errors: dict[str, str] = {}
    digests = _digests(benchmark, items, outputs)
    for record in _verdicts(benchmark).all():
        if digests.get(record["key"]) != record.get("of"):
            continue
        if "verdict" in record:
            verdicts[record["key"]] = record["verdict"]
        else:
            errors[record["key"]] = record["error"]
    rows = [
        Row(item, outputs[item.key], verdicts[item.key])
        for item in items
        if item.key in verdicts and item.key in outputs
    ]
    with (benchmark.out / "results.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            item = row.item
            found = {"key": item.key, "prompt": item.prompt, "seed": item.seed, "group": item.group, "data": item.data}
            line = {**found, "output": row.output, "verdict": row.verdict}
            file.write(json.dumps(line, default=str) + "\n")
    judged = {row.item.key for row in rows}
    lacking = {item.key: errors.get(item.key, "not made") for item in items if item.key not in judged}
    return rows, lacking
