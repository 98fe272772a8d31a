"""10,000 requests that Schemathesis makes from the server's own OpenAPI document, against the in-process application.

python benchmarks/serving_schema.py                  needs `pip install schemathesis`

Half of them are valid according to the document, half are not. The model is the shipped one by default, with small
limits per request. Answers are counted by status. It fails on any answer with status 500 or above, without OpenAI's
form, or after more than 30 s.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import hypothesis
import schemathesis
import typer
from requests.exceptions import Timeout
from schemathesis import GenerationMode

from janusflow import JanusFlow
from janusflow.serving.app import create_app
from janusflow.serving.runner import PipelineRunner
from janusflow.serving.scheduler import QueueSettings, Scheduler
from janusflow.serving.settings import Limits

LIMITS = Limits(max_steps=2, max_n=2, max_tokens=4, max_output_pixels=64 * 64, timeout=20)
SLOWEST = 30  # seconds
Failure = tuple[str, int, str]


def check(answer: Any, seconds: float) -> str | None:
    """Return what is wrong with an answer, or None."""
    if answer.status_code >= 500:
        return f"status {answer.status_code}"
    if seconds > SLOWEST:
        return f"took {seconds:.0f} s"
    if answer.status_code >= 400:
        try:
            error = answer.json()["error"]
        except (ValueError, KeyError, TypeError):
            return "an error without OpenAI's form"
        if set(error) != {"message", "type", "param", "code"}:
            return "an error without OpenAI's fields"
    return None


def run(app: Any, requests: int, seed: int) -> tuple[Counter[tuple[str, int]], list[Failure]]:
    """Send about `requests` requests; return how often each operation gave each status, and the failures."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    posts = [one for one in operations if one.method.upper() == "POST"]
    statuses, failures = Counter[tuple[str, int]](), list[Failure]()
    for operation in operations:
        share = requests // 20 if operation not in posts else requests * 4 // 5 // len(posts)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            settings = hypothesis.settings(
                max_examples=max(1, share // 2),
                database=None,
                deadline=None,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )

            def ask(case: Any) -> None:
                began = time.monotonic()
                name = f"{case.method.upper()} {case.operation.path}"
                try:
                    answer = case.call(timeout=2 * SLOWEST)  # the default, 10 s, is too short for a busy machine
                except Timeout:
                    failures.append((name, 0, f"no answer in {2 * SLOWEST} s: {str(case.body)[:500]}"))
                    return
                statuses[name, answer.status_code] += 1
                if wrong := check(answer, time.monotonic() - began):
                    failures.append((name, answer.status_code, f"{wrong}: {str(case.body)[:500]} {answer.text[:500]}"))

            asked = hypothesis.given(case=operation.as_strategy(generation_mode=mode))(ask)
            try:
                hypothesis.seed(seed)(settings(asked))()
            except hypothesis.errors.Unsatisfiable:  # nothing can be wrong with a request without parameters
                continue
    return statuses, failures


def main(
    model: Annotated[str, typer.Option(help="Folder of the model.")] = "tiny",
    requests: int = 10_000,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="File for failures.")] = None,
) -> None:
    """Run the requests."""
    logging.disable(logging.INFO)
    scheduler = Scheduler(PipelineRunner(), QueueSettings(max_queue=16))
    scheduler.start()
    app = create_app({"tiny": JanusFlow.from_pretrained(model)}, scheduler, limits=LIMITS)
    began = time.monotonic()
    statuses, failures = run(app, requests, seed)
    scheduler.close()
    for (name, status), count in sorted(statuses.items()):
        print(f"{name:32s} {status} {count:6d}")
    print(f"{statuses.total()} requests in {time.monotonic() - began:.0f} s, {len(failures)} failures")
    if out is not None:
        out.write_text("".join(f"{one}\n" for one in failures), encoding="utf-8")
    sys.exit(bool(failures))


if __name__ == "__main__":
    typer.run(main)
