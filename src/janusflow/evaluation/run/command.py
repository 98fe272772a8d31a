"""The functions behind `janusflow eval`: read arguments as a request, run it or a sweep, and return what is printed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.evaluation.registry import OWN, find_benchmark, summaries
from janusflow.evaluation.reports.compare import compare_runs
from janusflow.evaluation.reports.comparison_page import CHANGES, write_comparison
from janusflow.evaluation.reports.report import summary
from janusflow.evaluation.request import SHORT, EvalRequest
from janusflow.evaluation.run.eval_run import EvalRun, check_data
from janusflow.evaluation.run.evaluate import checked_run, evaluate, open_model
from janusflow.evaluation.run.recipes import Reader, load_request
from janusflow.evaluation.run.sweep import FIELDS, draw_curves, points
from janusflow.folders import find_folder
from janusflow.recipes import yaml_value

MOST_POINTS = 1000  # in a range of a sweep
RANGE = re.compile(r"\s*([+-]?\d+)\s*\.\.\s*([+-]?\d+)\s*")


def eval_command(
    benchmark: str | None,
    *,
    config: Path | None,
    changes: Mapping[str, Any],
    settings: Sequence[str],
    options: Sequence[str],
    sweep: Sequence[str] = (),
    workers: int = 1,
    ray: int = 0,
    foreign: Reader | None = None,
) -> str:
    """Run what the command line asks for, and return the text to print.

    Args:
        benchmark: name of the benchmark; not with `config`.
        config: a recipe, or a file that `foreign` reads.
        changes: other fields of `EvalRequest`; None leaves a recipe's value, or the default.
        sweep: "key=values", with values such as "1,2,4", "1..10" or names; keys are options, settings, model, vae or
            dtype.

    Raises:
        ValueError: for an argument or file that cannot be used.
    """
    request = read_request(benchmark, config, changes, settings, options, foreign)
    if not sweep:
        report = evaluate(request, workers=workers, ray=ray)
        if report and request.mode == "generate":
            return f"{report['done']} of {report['items']} items are made; {request.out}"
        if report and not report["judged"]:
            why = next(iter(report["not_judged"].values()))
            raise ValueError(f"none of {report['items']} items could be judged: {why}; see {request.out / 'report.md'}")
        return f"{summary(report)}\n{request.out / 'report.html'}" if report else ""
    if request.mode == "generate":
        raise ValueError("a sweep ends in scores; run it with mode full or score")
    values = dict(map(read_sweep, sweep))
    if len({SHORT.get(key, key) for key in values}) < len(sweep):
        raise ValueError("the sweep has one key twice; give each key once, with all its values: guidance=1,2,4")
    return _run_sweep(request, values, workers=workers, ray=ray)


def _run_sweep(request: EvalRequest, values: Mapping[str, Sequence[Any]], *, workers: int, ray: int) -> str:
    """Run each combination of values, draw curves of their scores, and compare the runs with the first."""
    check_data(request)
    request, shown = _for_sweep(request, list(values))
    todo = points(request, values)
    for _, one in todo:
        one.open()
    for one in {repr(one.settings): one for _, one in todo}.values():  # settings include judges
        _check_parts(checked_run(one), shown)
    for name in dict.fromkeys(one.model for _, one in todo) if request.mode == "full" else ():
        find_folder(name)  # before hours are spent on the others
    shared = workers == 1 and not ray and request.mode == "full" and "WORLD_SIZE" not in os.environ
    opened: tuple[str, str | None, str] | None = None
    model, reports = None, []
    for point, one in todo:
        if shared and opened != (wanted := (one.model, one.vae, one.dtype)):
            model = None  # free its memory before the next one needs it
            opened, model = wanted, open_model(one)
        report = evaluate(one, model=model, workers=workers, ray=ray)
        reports += [(point, report)] if report else []
    if not reports:
        return ""
    kind = find_benchmark(request.benchmark)
    lower = kind.lower_is_better if shown == kind.main else kind.swept_lower_is_better
    text = draw_curves(request.out, reports, shown=shown, lower_is_better=lower)
    folders = [one.out for _, one in todo if (one.out / "report.json").is_file()]
    if len(folders) < 2:
        return text
    text += "" if text.endswith("\n") else ", "
    try:
        comparison = compare_runs(folders)
    except ValueError as error:  # a setting that changes the items, or a run without a verdict
        return f"{text}the runs are not compared: {error}"
    return f"{text}{write_comparison(comparison, request.out, changes=max(1, CHANGES // len(folders)))}"


def _check_parts(run: EvalRun, score: str) -> None:
    """Reject a limit that leaves a sweep without the score that it shows."""
    limit, present = run.request.limit, {run.benchmark.part(item) for item in run.items}
    absent = [part for part in run.benchmark.parts_of(score) if part not in present]
    if limit is not None and absent:
        more = f" and {len(absent) - 3} others" if len(absent) > 3 else ""
        raise ValueError(
            f"--limit {limit} leaves out parts that the score {score!r} needs ({', '.join(absent[:3])}{more}); "
            "give a larger --limit or none"
        )


def _for_sweep(request: EvalRequest, options: Collection[str]) -> tuple[EvalRequest, str]:
    """Return a sweep's request (without questions if the keys only affect generating), and the score it shows."""
    from janusflow.engine.understanding import Decoding

    kind = find_benchmark(request.benchmark)
    elsewhere = {*FIELDS, *(field.name for form in (Decoding, kind.Settings) for field in fields(form))}
    if not kind.swept or not elsewhere.isdisjoint(options):
        return request, kind.main
    return replace(request, settings={**kind.for_sweeps, **request.settings}), kind.swept


def read_request(
    benchmark: str | None,
    config: Path | None,
    changes: Mapping[str, Any],
    settings: Sequence[str],
    options: Sequence[str],
    foreign: Reader | None = None,
) -> EvalRequest:
    """Build the request from the command line's arguments.

    Raises:
        ValueError: if neither or both of a benchmark and a recipe are given, if --out is missing, or for a bad pair.
    """
    if (benchmark is None) == (config is None):
        raise ValueError(f"give a benchmark ({', '.join(summaries())}, or {OWN} of your own) or --config FILE")
    given = {key: value for key, value in changes.items() if value is not None}
    if config is not None:
        request = replace(load_request(config, settings, foreign=foreign), **given)
    else:
        if changes.get("out") is None:
            raise ValueError("give a folder for the run: --out FOLDER")
        request = EvalRequest(str(benchmark), **given)
        request = replace(request, settings=dict(map(read_pair, settings)))
    more = {SHORT.get(key, key): value for key, value in map(read_pair, options)}
    return replace(request, options={**request.options, **more})


def read_pair(text: str) -> tuple[str, Any]:
    """Read key=value with a value in YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise ValueError(f"{quoted(text)} is not of the form key=value")
    return key.strip(), _value(text, value)


def read_sweep(text: str) -> tuple[str, list[Any]]:
    """Read key=1,2,4 or key=1..10 (whole numbers) or key=euler,heun; models, VAEs and dtypes are taken literally."""
    key, _, values = text.partition("=")
    key = key.strip()
    whole = RANGE.fullmatch(values)
    try:
        if not all(values.split(",")):
            raise ValueError("a value is empty")
        if key in FIELDS:
            return key, values.split(",")
        if whole and int(whole[2]) - int(whole[1]) >= MOST_POINTS:
            raise ValueError("too many values")
        found: list[Any] = [_value(text, value) for value in values.split(",")]
        if whole:
            found = list(range(int(whole[1]), int(whole[2]) + 1))
    except ValueError as error:
        raise ValueError(f"sweep {quoted(text)} is not of the form key=1,2,4 or key=1..10") from error
    if not key or not found:
        raise ValueError(f"sweep {quoted(text)} is not of the form key=1,2,4 or key=1..10")
    return key, found


def _value(text: str, value: str) -> Any:
    try:
        return yaml_value(value) if value else ""
    except ValueError as error:
        raise ValueError(f"the value in {quoted(text)} is not valid YAML; put quotes around it") from error


def listing() -> str:
    """Return all benchmarks with their data, one per line; a plug-in that does not load is listed with the reason."""
    lines = []
    for name in summaries():
        try:
            kind = find_benchmark(name)
            lines.append(f"{name:10} {kind.title}: {kind.source}")
        except ValueError as error:
            lines.append(f"{name:10} {error}")
    return "\n".join(lines)
