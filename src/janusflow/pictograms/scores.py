"""Shares of right pictures and answers by kind, the same shares for real pictures, and one relative to the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from janusflow.evaluation.protocol import Row
from janusflow.evaluation.score_sample import ScoreSample
from janusflow.pictograms.judge import TOP, Judge
from janusflow.pictograms.nearest import COPY
from janusflow.pictograms.targets import Target
from janusflow.pictograms.tasks import ASKED, LIKE, NAME, SEEN, STYLE_ASKED, VAE

NAMING = ("subject", "person", "role", "shape")  # targets with a top-5 score, unless they have few labels
WHERE = {LIKE: "as in training", VAE: "reconstructions", NAME: "naming", STYLE_ASKED: "naming"}


def shares(rows: Sequence[Row]) -> dict[str, ScoreSample]:
    """Return right pictures and answers by score; every float of the verdicts except "score" is one."""
    found: dict[str, list[tuple[Row, float]]] = defaultdict(list)
    for row in rows:
        kind, verdict = row.item.data["kind"], row.verdict
        for name, value in verdict.items():
            if isinstance(value, float) and name != "score":
                for where in _places(kind, row.item.data["style"], name):
                    found[where].append((row, value))
        if verdict.get("nearest"):
            found["copies of training pictures"].append((row, float(verdict["nearest"][0][1] < COPY)))
    return {
        name: ScoreSample([value for _, value in pairs], [row.item.group or row.item.key for row, _ in pairs], 1.0)
        for name, pairs in sorted(found.items())
    }


def relative(
    rows: Sequence[Row], judge: Judge, targets: Mapping[str, Target]
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the values of each score of named pictures, and the ceilings from real pictures of the same style."""
    known: dict[tuple[str, str, int], float] = {}
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        data = row.item.data
        for target, (top, suffix) in ((one, two) for one in NAMING for two in ((1, ""), (TOP, f", top-{TOP}"))):
            name = f"{target}{suffix}"
            if name not in row.verdict:
                continue
            fold = targets[target].fold(data)
            if (target, fold, top) not in known:
                real = judge.ceiling(target, [fold], top)
                known[target, fold, top] = sum(real) / len(real) if real else 0.0
            for where in _places(data["kind"], data["style"], name):
                found[where][0].append(row.verdict[name])
                found[where][1].append(known[target, fold, top])
    return found


def ceilings(rows: Sequence[Row], judge: Judge) -> dict[str, ScoreSample]:
    """Return the judge's results on real pictures that its classifiers were not fitted on; {} if it judged no rows."""
    asked = {name for names in ASKED.values() for name in names}
    if not any(row.verdict.keys() & asked for row in rows):
        return {}
    found = {}
    for target, by_fold in judge.ceilings.items():
        for fold in (None, *by_fold) if target == "subject" else (None,):
            for top in (1, TOP) if target in NAMING and len(judge.labels[target]) > TOP else (1,):
                values = judge.ceiling(target, None if fold is None else [fold], top)
                if values:
                    words = ", ".join(["ceiling", target, *([fold] if fold else []), f"top-{top}"])
                    found[words] = ScoreSample(values, [str(number) for number in range(len(values))], 1.0)
    return found


def _places(kind: str, style: str, name: str) -> list[str]:
    """Return the scores of a verdict, such as "seen, top-1" and "seen, noto, top-1", or "unseen tone, tone"."""
    target, _, top = name.partition(", top-")
    words = f"top-{top or 1}" if target in NAMING else name
    if kind == SEEN:
        return [f"{SEEN}, {words}", f"{SEEN}, {style}, {words}"]
    return [f"{WHERE.get(kind, f'unseen {kind}')}, {words}"]
