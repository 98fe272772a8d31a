"""What a run's folder holds already: outputs and verdicts, each of what it was made of."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from janusflow.evaluation.protocol import Benchmark, Item
from janusflow.evaluation.registry import plugin_code
from janusflow.evaluation.run.digests import asked_digest, hashes, judged_digest
from janusflow.evaluation.run.records import ESCAPED, OUTPUTS, VERDICTS, Records

HOW = ("threads", "device")  # settings that change no verdict


def outputs_of(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, str]:
    """What is made already, by key: an answer, or a picture's path.

    Pictures of any origin count. What was made for another question (prompt, pictures, seed) does not.
    """
    made: dict[str, dict[str | None, str]] = defaultdict(dict)
    for record in Records(benchmark.out, "outputs").all(OUTPUTS):
        made[record["key"]][record.get("asked")] = record["output"]
    found = {}
    for item in items:
        own = made[item.key]
        asked = asked_digest(benchmark, item) if own else None
        current = asked if asked in own else None  # None: of a version that did not record it
        if not benchmark.drawn(item):
            if current in own:
                found[item.key] = own[current]
        elif (current in own or not own) and (benchmark.out / benchmark.place(item)).is_file():
            found[item.key] = benchmark.place(item)
    return found


def to_do(benchmark: Benchmark, items: Sequence[Item]) -> list[Item]:
    """Items without an output, and those whose picture no record names."""
    recorded = {record["key"] for record in Records(benchmark.out, "outputs").all(OUTPUTS)}
    there = outputs_of(benchmark, items)
    return [item for item in items if item.key not in recorded or item.key not in there]


def verdicts_of(benchmark: Benchmark, rank: int = 0) -> Records:
    """The verdicts by these judges and rules; those by others are in files of other names."""
    judged_by = {k: v for k, v in vars(benchmark.settings).items() if k in benchmark.judging and k not in HOW}
    if code := plugin_code(benchmark):
        judged_by["code"] = code
        if files := hashes(benchmark.files()):  # any of which its verdicts may depend on
            judged_by["data"] = files
    digest = hashlib.sha256(json.dumps(judged_by, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return Records(benchmark.out, f"verdicts-{digest}", rank)


def judged_of(
    benchmark: Benchmark, items: Sequence[Item], outputs: dict[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Verdicts on these outputs by key, and the errors of judges."""
    verdicts: dict[str, Any] = {}
    errors: dict[str, str] = {}
    digests = digests_of(benchmark, items, outputs)
    for record in verdicts_of(benchmark).all(VERDICTS):
        if record["key"] not in digests or digests[record["key"]] != record.get("of"):
            continue
        if "verdict" in record:
            verdicts[record["key"]] = record["verdict"]
        else:
            errors[record["key"]] = record["error"]
    return verdicts, errors


def digests_of(benchmark: Benchmark, items: Sequence[Item], outputs: dict[str, str]) -> dict[str, str]:
    """What a verdict is on: this output of this item; see `judged_digest`."""

    def content(item: Item) -> bytes:
        output = outputs[item.key]
        return (benchmark.out / output).read_bytes() if benchmark.drawn(item) else output.encode(errors=ESCAPED)

    return {item.key: judged_digest(benchmark, item, content(item)) for item in items if item.key in outputs}
