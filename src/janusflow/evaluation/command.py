"""`janusflow eval` as functions: words to a request, one run or a sweep, and what is printed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from janusflow.arguments import quoted
from janusflow.evaluation.registry import BENCHMARKS, find_benchmark
from janusflow.evaluation.report import markdown
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import checked, evaluate, open_model
from janusflow.evaluation.sweep import draw_curves

SHORT = {"guidance": "guidance_scale", "steps": "num_inference_steps"}


def run(
    benchmark: str | None,
    *,
    config: Path | None,
    changes: Mapping[str, Any],
    settings: Sequence[str],
    options: Sequence[str],
    sweep: Sequence[str] = (),
    workers: int = 1,
    ray: int = 0,
) -> str:
    """Runs what the command line says and gives back what it prints.

    Args:
        benchmark: its name; not with `config`.
        config: a recipe of ours or TorchUMM's.
        changes: other fields of `EvalRequest`; None leaves a recipe's value, or the default.
        settings, options: "key=value", values in YAML.
        sweep: "key=values" of options: "1,2,4", "1..10", or names.
        workers, ray: see `evaluate`.

    Raises:
        ValueError: in one sentence.
    """
    request = read_request(benchmark, config, changes, settings, options)
    if not sweep:
        report = evaluate(request, workers=workers, ray=ray)
        if report and request.mode == "generate":
            return f"{report['done']} of {report['items']} items are made; {request.out}"
        if report and not report["judged"]:
            why = next(iter(report["not_judged"].values()))
            raise ValueError(f"none of {report['items']} items could be judged: {why}; see {request.out / 'report.md'}")
        return f"{markdown(report)}\n{request.out / 'report.html'}" if report else ""
    if request.mode == "generate":
        raise ValueError("a sweep ends in scores; run it with mode full or score")
    values = dict(map(read_sweep, sweep))
    request, shown = _for_sweep(request, values)
    shared = workers == 1 and not ray and request.mode == "full" and "WORLD_SIZE" not in os.environ
    if shared:
        checked(request)
    model = open_model(request) if shared else None  # once for all points
    reports = []
    for chosen in itertools.product(*values.values()):
        point = dict(zip(values, chosen, strict=True))
        name = ",".join(f"{key}={value}" for key, value in point.items())
        one = replace(request, out=request.out / name, options={**request.options, **point})
        report = evaluate(one, model=model, workers=workers, ray=ray)
        reports += [(point, report)] if report else []
    kind = find_benchmark(request.benchmark)
    lower = kind.lower_is_better and shown == kind.main
    return draw_curves(request.out, reports, shown=shown, lower_is_better=lower) if reports else ""


def _for_sweep(request: EvalRequest, options: Collection[str]) -> tuple[EvalRequest, str]:
    """The request of a sweep over these options, and the score that it shows; of drawing alone if they concern that."""
    from janusflow.understanding import Decoding

    kind = find_benchmark(request.benchmark)
    if not kind.swept or any(name in Decoding.__dataclass_fields__ for name in options):
        return request, kind.main
    return replace(request, settings={**kind.for_sweeps, **request.settings}), kind.swept


def read_request(
    benchmark: str | None,
    config: Path | None,
    changes: Mapping[str, Any],
    settings: Sequence[str],
    options: Sequence[str],
) -> EvalRequest:
    """The request that the words make.

    Raises:
        ValueError: if neither a benchmark nor a recipe is given, or both; if --out is missing; for a bad pair.
    """
    if (benchmark is None) == (config is None):
        raise ValueError(f"give a benchmark ({', '.join(BENCHMARKS)}) or --config FILE")
    given = {key: value for key, value in changes.items() if value is not None}
    if config is not None:
        from janusflow.evaluation.recipes import load_request

        request = load_request(config, settings)
        request = replace(request, **given)
    else:
        if changes.get("out") is None:
            raise ValueError("give a folder for the run: --out FOLDER")
        request = EvalRequest(str(benchmark), **given)
        request = replace(request, settings=dict(map(read_pair, settings)))
    more = {SHORT.get(key, key): value for key, value in map(read_pair, options)}
    return replace(request, options={**request.options, **more})


def read_pair(text: str) -> tuple[str, Any]:
    """key=value with a value in YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"{quoted(text)} is not of the form key=value")
    return key.strip(), _value(text, value)


def read_sweep(text: str) -> tuple[str, list[Any]]:
    """key=1,2,4 or key=1..10 (whole numbers) or key=euler,heun."""
    key, values = text.partition("=")[::2]
    first, dots, last = values.partition("..")
    try:
        found = list(range(int(first), int(last) + 1)) if dots else [_value(text, value) for value in values.split(",")]
    except ValueError as error:
        raise ValueError(f"sweep {quoted(text)} is not of the form key=1,2,4 or key=1..10") from error
    if not key or not values or not found:
        raise ValueError(f"sweep {quoted(text)} is not of the form key=1,2,4 or key=1..10")
    return SHORT.get(key, key), found


def _value(text: str, value: str) -> Any:
    try:
        return yaml.safe_load(value) if value else ""
    except yaml.YAMLError as error:
        raise ValueError(f"the value in {quoted(text)} is no YAML; put quotes around it") from error


def listing() -> str:
    """All benchmarks, one a line."""
    return "\n".join(f"{name:10} {find_benchmark(name).title}: {find_benchmark(name).source}" for name in BENCHMARKS)
