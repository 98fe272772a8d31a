"""A run's `run.json`: what its outputs are made with.

A run can only be continued with the same values. If data has changed, only outputs of changed questions are made again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

from janusflow.arguments import counted
from janusflow.checkpoint.load import open_checkpoint
from janusflow.device import resolve_device, resolve_dtype
from janusflow.evaluation.protocol import Benchmark
from janusflow.evaluation.registry import find_benchmark
from janusflow.evaluation.reports.finished import plain
from janusflow.evaluation.reports.report import weights_of
from janusflow.evaluation.request import RESERVED, EvalRequest
from janusflow.evaluation.run.digests import hashes
from janusflow.evaluation.run.eval_run import EvalRun
from janusflow.files import misfit, read_json, write_text

KINDS: dict[str, Any] = {  # types of the fields of `run.json`
    "benchmark": str,
    "model": str,
    "vae": (str, type(None)),
    "dtype": str,
    "options": dict,
    "settings": dict,
    "data_sha256": dict,
    "weights_sha256": dict,
    "used": dict,
}
NAMED = 3  # number of changed files or items that a warning names
OPTIONAL = ("data_sha256", "weights_sha256", "used")  # not written by earlier versions
WHERE = ("dtype", "device", "batch_size")  # fields of `used` that may differ when a run is continued
SAME = ("benchmark", "model", "vae", "dtype", "options")  # stay the same when a run is continued, like most settings


def as_made(request: EvalRequest) -> EvalRequest:
    """In mode "score", return the request with the values that made the outputs in place of its own."""
    file = request.out / "run.json"
    if request.mode != "score" or not file.is_file():
        return request
    request.open()  # rejects unknown names
    made = read_manifest(file)
    judging = find_benchmark(request.benchmark).judging
    before = {**made.get("used", {}), **made["options"], **made["settings"]}
    for name, value in {**request.options, **request.settings}.items():
        if name not in judging and before.get(name) != plain(value):
            raise ValueError(
                f"{request.out} was made with {name} {before.get(name)!r}, and judging cannot change that "
                f"to {value!r}; leave it out, or run mode full with another --out"
            )
    settings = {**made["settings"], **{k: v for k, v in request.settings.items() if k in judging}}
    return replace(request, **{name: made[name] for name in SAME if name != "benchmark"}, settings=settings)


def remember(run: EvalRun, *, first: bool = True) -> dict[str, Any]:
    """Write what the run's outputs are made with, including its weights and data, and return it.

    A run can only be continued with the same arguments and weights, except those of its judges. If its data has
    changed, a warning reports how much of the run is kept. It is unknown what made outputs that come from elsewhere.

    Args:
        first: whether this process writes; the other processes of a run, perhaps on other machines, compare.

    Raises:
        ValueError: if the folder contains another run, or a damaged `run.json`.
    """
    request, benchmark = run.request, run.benchmark
    now = {name: plain(getattr(request, name)) for name in SAME}
    now["settings"] = plain({k: v for k, v in vars(benchmark.settings).items() if k not in benchmark.judging})
    now["data_sha256"] = run.data
    file, scoring = request.out / "run.json", request.mode == "score"
    if scoring and not file.is_file():
        return {**now, "model": "unknown", "vae": None, "dtype": "unknown", "options": {}, "weights_sha256": {}}
    if run.outputs and not file.is_file():
        raise ValueError(
            f"{request.out} contains pictures but no run.json; judge them with --mode score, or give another --out"
        )
    if not scoring:
        now["weights_sha256"] = hashes(weights_of(request.model, request.vae, draws=benchmark.draws))
    if not file.is_file() or not (scoring or not first or any(request.out.glob("outputs-*.jsonl"))):
        return _write(file, {**now, "used": used(request, benchmark)})
    before = read_manifest(file)
    name = next((name for name in now if name != "data_sha256" and before.get(name) != now[name]), None)
    if name == "weights_sha256":
        raise ValueError(f"{request.out} contains a run with other weights; give another --out")
    if name is not None:
        raise ValueError(
            f"{request.out} contains a run with {name} {before.get(name)!r}, not {now[name]!r}; give another --out"
        )
    found = {**before, "data_sha256": now["data_sha256"]}
    if changed := _changed(before.get("data_sha256", {}), now["data_sha256"]):
        files = _first_of(changed)
        if not first:
            raise ValueError(f"the data on this machine differs from the first process's: {files}")
        _check_outputs(run, files)
    if not scoring and "used" in before and run.to_do(run.items):
        found["used"] = _also_used(before["used"], used(request, benchmark))
    return _write(file, found) if first and found != before else found


def _write(file: Path, made: dict[str, Any]) -> dict[str, Any]:
    write_text(file, json.dumps(made, indent=1) + "\n")
    return made


def _also_used(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the outputs are made with; if a run is continued elsewhere, both values are in a list."""
    found = dict(before)
    for name in WHERE:
        values = before[name] if isinstance(before.get(name), list) else [before.get(name)]
        if before and name in now and now[name] not in values:
            found[name] = [*values, now[name]]
    return found


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of changed data; none for a run that did not record its data.

    A different number of pictures comes from a different limit and is ignored, as each record knows its own.
    """
    if not before:
        return []
    limits = {name for name in before.keys() ^ now.keys() if name.endswith(" pictures")}
    return sorted(name for name in (before.keys() | now.keys()) - limits if before.get(name) != now.get(name))


def _check_outputs(run: EvalRun, files: str) -> None:
    """Warn that data has changed, and name the items whose outputs no longer count."""
    out, made = run.request.out, run.recorded
    if any(None in made.get(item.key, {}) for item in run.all_items):
        raise ValueError(
            f"{out} contains a run with other data ({files}), by a version that did not record what each "
            "output was made for; give another --out"
        )
    stale = [item.key for item in run.all_items if item.key in made and item.key not in run.outputs]
    message = f"{files} changed since {out} was made: {counted(len(run.outputs), 'output')} with the same question "
    message += "and pictures kept"
    if stale:
        fate = "no longer count (mode full makes them again)" if run.request.mode == "score" else "made again"
        message += f", {counted(len(stale), 'output')} {fate}: {_first_of(stale)}"
    warnings.warn(f"{message}; changed items are judged again", stacklevel=3)


def _first_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def read_manifest(file: Path) -> dict[str, Any]:
    """Read a run's `run.json`.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        found = read_json(file)
        if problem := misfit(found, KINDS, optional=OPTIONAL):
            raise ValueError(f"{file} is damaged: {problem}")
    except ValueError as error:
        raise ValueError(f"{error}; what made the run is unknown, so give another --out") from error
    return dict(found)


def used(request: EvalRequest, benchmark: Benchmark) -> dict[str, Any]:
    """Return every argument that outputs are made with, including defaults, and where they are made."""
    from janusflow.engine.understanding import Decoding
    from janusflow.pipelines.base import pipeline_of

    try:
        checkpoint = open_checkpoint(request.model)
    except ValueError:  # the caller's own model, of which nothing is known
        return {}
    found: dict[str, Any] = {}
    if benchmark.draws:
        kind = pipeline_of(checkpoint.family)
        drawing = signature(kind.generate).parameters
        found |= {name: one.default for name, one in drawing.items() if name not in (*RESERVED, "preset", "decoder")}
        found |= {name: value for name, value in kind.complete(request.options).items() if name not in RESERVED}
    if benchmark.asks or not benchmark.draws:
        found |= {field.name: field.default for field in fields(Decoding)}
    found |= {**benchmark.defaults, **request.options}
    dtype = str(resolve_dtype(request.dtype, checkpoint.dtype)).removeprefix("torch.")
    where = {"dtype": dtype, "device": resolve_device(request.device).type, "batch_size": request.batch_size}
    return dict(plain({**found, **where}))
