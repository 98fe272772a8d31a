"""One run of a benchmark in its folder: items, outputs and verdicts, each read and hashed once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from janusflow.evaluation.protocol import Benchmark, Item, Output
from janusflow.evaluation.registry import plugin_code
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.digests import asked_digest, hash_of_all, hashes, judged_digest
from janusflow.evaluation.run.limit import limited
from janusflow.evaluation.run.records import OUTPUTS, VERDICTS, Records
from janusflow.files import ESCAPED
from janusflow.pipelines.sheet import save_png

HOW = ("threads", "device")  # settings that do not change verdicts


class EvalRun:
    """A run: what it has to do, and what its folder already contains.

    Args:
        request: request of the run; its folder need not exist.
        rank: number of this process, which writes its own records.

    Attributes:
        benchmark: the benchmark with its settings.
        all_items: all items of the benchmark.
        items: items that the request's limit leaves.
        outputs: answers, or paths of pictures in the folder, by item key. Pictures of any origin count; outputs for
            another question (prompt, pictures, seed) do not.

    Raises:
        ValueError: for a wrong name, setting or option, or data that is missing or damaged.
    """

    outputs: dict[str, str]

    def __init__(self, request: EvalRequest, rank: int = 0) -> None:
        self.request, self.rank, self.benchmark = request, rank, check_data(request)
        self.all_items = _items(self.benchmark)
        self.items = limited(self.benchmark, self.all_items, request.limit)
        if self.benchmark.limited:
            self.benchmark.check_items(self.items)
        self._asked: dict[str, str] = {}  # digests by key
        self.reload()

    def reload(self) -> None:
        """Read the records again, after other processes have written theirs."""
        self.recorded: dict[str, dict[str | None, str]] = defaultdict(dict)  # outputs by key and digest of the question
        self._turns: dict[str, dict[str | None, int]] = defaultdict(dict)  # when each was made, among those of its key
        for record in self._output_records.all(OUTPUTS):
            key, asked = record["key"], record.get("asked")
            self.recorded[key][asked] = record["output"]
            self._turns[key][asked] = max(record.get("turn", 0), self._turns[key].get(asked, 0))
        self._verdicts: dict[tuple[str, str | None], dict[str, Any]] = {}
        for record in self._verdict_records.all(VERDICTS):
            self._remember(record)
        self.outputs = {item.key: found for item in self.all_items if (found := self._output(item)) is not None}
        self._judged: dict[str, str] = {}  # digests by key

    def _output(self, item: Item) -> str | None:
        made = self.recorded.get(item.key, {})
        current = asked if made and (asked := self.asked(item)) in made else None  # None: a record of an old version
        if not self.benchmark.drawn(item):
            return made.get(current)
        place, turns = self.benchmark.place(item), self._turns.get(item.key, {})
        latest = not made or turns.get(current) == max(turns.values())  # earlier pictures were overwritten
        return place if latest and (self.request.out / place).is_file() else None

    def _remember(self, record: dict[str, Any]) -> None:
        place = record["key"], record.get("of")
        if "verdict" in record or "verdict" not in self._verdicts.get(place, {}):
            self._verdicts[place] = record

    # --- files ------------------------------------------------------------------------------------------------------

    @cached_property
    def files(self) -> dict[str, str]:
        """sha256 of the files that items and verdicts depend on."""
        return hashes(self.benchmark.files())

    @cached_property
    def data(self) -> dict[str, str]:
        """sha256 of the data that the run depends on."""
        return {**self.files, **hash_of_all(self.benchmark.pictures())}

    @cached_property
    def _output_records(self) -> Records:
        return Records(self.request.out, "outputs", self.rank)

    @cached_property
    def _verdict_records(self) -> Records:
        """The verdicts of these judges and rules; those of others are in files with other names."""
        settings, judging = vars(self.benchmark.settings), self.benchmark.judging
        judged_by = {name: value for name, value in settings.items() if name in judging and name not in HOW}
        if code := plugin_code(self.benchmark):
            judged_by["code"] = code
            if self.files:  # its verdicts may depend on any of them
                judged_by["data"] = self.files
        digest = hashlib.sha256(json.dumps(judged_by, sort_keys=True, default=str).encode()).hexdigest()[:8]
        return Records(self.request.out, f"verdicts-{digest}", self.rank)

    # --- outputs ----------------------------------------------------------------------------------------------------

    def asked(self, item: Item) -> str:
        """Return the digest of what a model is shown of an item."""
        if item.key not in self._asked:
            self._asked[item.key] = asked_digest(self.benchmark, item)
        return self._asked[item.key]

    def to_do(self, items: Sequence[Item]) -> list[Item]:
        """Return the items without an output, and those whose picture is in no record."""
        return [item for item in items if item.key not in self.recorded or item.key not in self.outputs]

    def keep(self, item: Item, output: Output) -> None:
        """Write an output and its record.

        Raises:
            ValueError: if the picture's path is outside the folder.
        """
        kept = output if isinstance(output, str) else self.benchmark.place(item)
        if not isinstance(output, str):
            out = self.request.out
            if not (out / kept).resolve().is_relative_to(out.resolve()):
                raise ValueError(f"the picture of item {item.key!r} would be written outside {out}")
            (out / kept).parent.mkdir(parents=True, exist_ok=True)
            save_png(output, out / kept, {"prompt": item.prompt, "seed": item.seed})
        asked, turns = self.asked(item), self._turns[item.key]
        turn = 1 + max(turns.values(), default=0)
        self._output_records.append({"key": item.key, "output": kept, "asked": asked, "turn": turn})
        self.recorded[item.key][asked] = self.outputs[item.key] = kept
        turns[asked] = turn
        self._judged.pop(item.key, None)

    # --- verdicts ---------------------------------------------------------------------------------------------------

    def judged(self, item: Item) -> dict[str, Any]:
        """Return the record of the verdict on an item's output, or of the judge's error; empty if there is none."""
        if item.key not in self.outputs:
            return {}
        return self._verdicts.get((item.key, self._of(item)), {})

    def keep_verdict(self, item: Item, found: dict[str, Any]) -> None:
        """Write a verdict (`{"verdict": ...}`) or an error (`{"error": ...}`) on an item's output."""
        record = {"key": item.key, "of": self._of(item), **found}
        self._verdict_records.append(record)
        self._remember(record)

    def _of(self, item: Item) -> str:
        """Return the digest of what a verdict applies to: this output of this item."""
        if item.key not in self._judged:
            output, drawn = self.outputs[item.key], self.benchmark.drawn(item)
            content = (self.request.out / output).read_bytes() if drawn else output.encode(errors=ESCAPED)
            self._judged[item.key] = judged_digest(self.benchmark, item, self.asked(item), content)
        return self._judged[item.key]


def check_data(request: EvalRequest) -> Benchmark:
    """Open a request's benchmark and check that the data that the request names exists.

    Raises:
        ValueError: for a wrong name, setting or option, or a path that does not exist.
    """
    benchmark = request.open()
    if request.data is not None and not request.data.exists():
        expected = f"; expected {benchmark.source}" if benchmark.source else ""
        raise ValueError(f"data is {str(request.data)!r}, but there is not a folder or file of that name{expected}")
    return benchmark


def _items(benchmark: Benchmark) -> list[Item]:
    items = benchmark.items()
    if not items:
        raise ValueError(f"{benchmark.data} contains nothing of {benchmark.title}; expected {benchmark.source}")
    twice = next((key for key, count in Counter(item.key for item in items).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{benchmark.data} contains the key {twice!r} twice; each item needs its own")
    return items
