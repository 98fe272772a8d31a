"""Choose the items for `--limit`: the same ones every time, taken evenly from all parts of a benchmark."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

from janusflow.evaluation.protocol import Benchmark, Item


def limited(benchmark: Benchmark, items: Sequence[Item], limit: int | None) -> list[Item]:
    """Return the items of a run.

    The parts of the benchmark (see `Benchmark.part`) take turns. Within a part, items come in the order of their keys'
    sha256, a fixed random order; the items of a group follow each other if the benchmark keeps groups whole. The same
    limit therefore gives the same items, and a larger limit gives all of them and more.

    Args:
        limit: number of items; None for all.

    Returns:
        The chosen items, in the order of `items`.
    """
    if limit is None or limit >= len(items):
        return list(items)
    parts: dict[str, dict[str, list[str]]] = {}
    for item in items:
        unit = item.group if benchmark.whole_groups and item.group else item.key
        parts.setdefault(benchmark.part(item), {}).setdefault(unit, []).append(item.key)
    shuffled = [
        [units[unit] for unit in sorted(units, key=_order)]
        for _, units in sorted(parts.items(), key=lambda part: _order(part[0]))
    ]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*shuffled, fillvalue=()))
    chosen = set(itertools.islice(itertools.chain.from_iterable(in_turn), limit))
    return [item for item in items if item.key in chosen]


def _order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
