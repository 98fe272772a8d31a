"""What the judge reads from a picture: which pictures each classifier is fitted on, and which it is tested on.

Each classifier is fitted on pictures that stand apart from those it is used on: names are fitted on pictures of the
other styles, and all other targets (style, tone, gender, weight) on pictures of other subjects.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from janusflow.pictograms.held_out import ALIKE, STYLE, TONE
from janusflow.pictograms.pictures import PHOSPHOR
from janusflow.pictograms.shards import files_of, read_table

Columns = Mapping[str, Any]  # columns of a picture, as in a shard or a list of prompts
FOLDS = 5
FEATURES, HISTOGRAM, EVERYTHING = "features", "histogram", "everything"
COLUMNS = (
    *("id", "style", "family", "subject", "label", "group", "subgroup", "tones", "gender", "role", "color", "shape"),
    *("weight", "background", "held_out", "synonyms", "keywords", "captions", "variant", "image"),
)


@dataclass(frozen=True)
class Target:
    """One classifier.

    Attributes:
        name: short name.
        label: function that returns what a picture is, or "" if the question does not arise.
        fold: function that returns the fold of a picture. Pictures of one fold are tested together, by a classifier
            that was fitted on all others (cross-validation).
        inputs: what the classifier sees: `FEATURES`, `HISTOGRAM` or `EVERYTHING`.
        most: maximum number of pictures, chosen at random.
    """

    name: str
    label: Callable[[Columns], str]
    fold: Callable[[Columns], str]
    inputs: str = FEATURES
    most: int = 1500


def read_pictures(folder: Path) -> list[dict[str, Any]]:
    """Read the first row of every picture of a data set, including held-out ones, in the order of ids.

    Raises:
        ValueError: if the folder contains none.
    """
    shards, other = files_of(folder)
    if not shards or not other.is_file():
        raise ValueError(f"{folder} has no pictograms; make them with janusflow pictograms build --out {folder}")
    rows = [row for file in [*shards, other] for row in read_table(file, COLUMNS).to_pylist() if not row["variant"]]
    return sorted(rows, key=lambda row: str(row["id"]))


def chosen_subjects(pictures: Sequence[Columns], count: int, seed: int) -> set[str]:
    """Return ids of subjects to name: subjects that every emoji style has, first those with a held-out style.

    At most half of them have a held-out style. Skin tones, and groups whose pictures hardly differ, are excluded.

    Args:
        pictures: rows from `read_pictures`.
        count: maximum number of subjects.
        seed: seed of the choice.
    """
    styles: dict[str, set[str]] = defaultdict(set)
    held: set[str] = set()
    for row in pictures:
        if row["style"] != PHOSPHOR and not row["tones"] and row["group"] not in ALIKE:
            styles[row["subject"]].add(row["style"])
            held |= {row["subject"]} if row["held_out"] == STYLE else set()
    every = max(map(len, styles.values()), default=0)
    fit = sorted(subject for subject, found in styles.items() if len(found) == every)
    Random(f"subjects/{seed}").shuffle(fit)
    first = [subject for subject in fit if subject in held][: count // 2]
    rest = [subject for subject in fit if subject not in held]
    return {*first, *rest[: count - len(first)]}


def targets(pictures: Sequence[Columns], subjects: set[str]) -> dict[str, Target]:
    """Return all classifiers, by name.

    Args:
        pictures: rows from `read_pictures`.
        subjects: ids of the subjects that the target "subject" names.
    """
    emoji = [row for row in pictures if row["style"] != PHOSPHOR]
    persons = {row["label"] for row in emoji if row["held_out"] == TONE}

    def person(row: Columns) -> str:
        return str(row["label"]) if row["label"] in persons and _one_tone(row) else ""

    found = (
        Target("subject", lambda row: row["subject"] if row["subject"] in subjects else "", _style),
        Target("style", lambda row: row["style"], _fold("label"), EVERYTHING, 2400),
        Target("tone", lambda row: _one_tone(row) if person(row) else "", _fold("label"), HISTOGRAM),
        Target("person", person, _style),
        Target("gender", lambda row: row["gender"] if row["role"] else "", _fold("role")),
        Target("role", lambda row: row["role"], _style),
        Target("shape", lambda row: row["shape"], _style),
        Target("color", lambda row: row["color"] if row["shape"] else "", _style, HISTOGRAM),
        Target("weight", lambda row: row["weight"], _fold("subject"), most=900),
    )
    return {target.name: target for target in found}


def chosen(target: Target, pictures: Sequence[Columns], seed: int) -> list[int]:
    """Return indices of a target's pictures, at most `target.most`, the same number for each label if possible.

    All targets shuffle in the same way, so that they share pictures, which are then processed only once.
    """
    order_of_all = list(range(len(pictures)))
    Random(f"judge/{seed}").shuffle(order_of_all)
    fit = [number for number in order_of_all if target.label(pictures[number])]
    counts, order = Counter[str](), {}
    for number in fit:
        label = target.label(pictures[number])
        order[number] = counts[label]
        counts[label] += 1
    return sorted(sorted(fit, key=lambda number: order[number])[: target.most])


def _one_tone(row: Columns) -> str:
    tones = set(row["tones"])
    return str(*tones) if len(tones) == 1 and str(row["subgroup"]).startswith("person") else ""


def _style(row: Columns) -> str:
    return str(row["style"])


def _fold(column: str) -> Callable[[Columns], str]:
    return lambda row: f"fold {zlib.crc32(str(row[column]).encode()) % FOLDS}"
