"""Lists of prompts for evaluation: prompts seen in training, more of them for tuning, and combinations never seen.

A row contains the prompt, the id of the picture that it describes, and everything that a judge needs to know about it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from janusflow.files import write_text
from janusflow.pictograms.captions import prompt
from janusflow.pictograms.shards import Row

SEEN, TUNING, UNSEEN = "prompts_seen.jsonl", "prompts_tuning.jsonl", "prompts_unseen.jsonl"
SEEN_PROMPTS, TUNING_PROMPTS = 1000, 200
LEFT_OUT = ("text", "conversations", "captions", "variant", "background")


def write_evaluation(out: Path, shards: Sequence[Sequence[Row]], held_out: Sequence[Row], *, seed: int) -> None:
    """Write the three lists.

    Args:
        out: folder for the lists.
        shards: training rows by shard.
        held_out: held-out rows.
        seed: seed of the choice of prompts.
    """
    by_style: dict[str, list[Row]] = defaultdict(list)
    for row in (row for shard in shards for row in shard if not row.variant):
        by_style[row.picture.style.name].append(row)
    rng = Random(f"evaluation/{seed}")
    drawn: list[list[Row]] = []
    for rows in by_style.values():
        rows.sort(key=lambda row: row.picture.id)
        drawn.append(rng.sample(rows, min(len(rows), -(-(SEEN_PROMPTS + TUNING_PROMPTS) // len(by_style)))))
    mixed = [row for rows in drawn for row in rows]
    rng.shuffle(mixed)
    tuning = min(TUNING_PROMPTS, len(mixed) // 6)
    _write(out / TUNING, mixed[:tuning])
    _write(out / SEEN, mixed[tuning : tuning + SEEN_PROMPTS])
    _write(out / UNSEEN, held_out)


def _write(file: Path, rows: Iterable[Row]) -> None:
    write_text(file, "".join(json.dumps(as_prompt(row), ensure_ascii=False) + "\n" for row in rows))


def as_prompt(row: Row) -> dict[str, Any]:
    """Return a row of a list: the prompt that names everything, and the columns of the picture that it describes."""
    columns = {name: value for name, value in row.columns().items() if name not in LEFT_OUT}
    return {"prompt": prompt(row.picture), **columns}
