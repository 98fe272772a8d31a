"""The judge: ridge classifiers on features of a public network, tested on real pictures before they judge others.

For every fold of the real pictures (`targets.py`), each classifier is fitted on the others and tested on that fold.
The share that it gets right there is the ceiling for scores of generated pictures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from janusflow.files import temporary_path
from janusflow.pictograms.features import BATCH, Features, digest_of
from janusflow.pictograms.reading import histogram, palette
from janusflow.pictograms.shards import files_of
from janusflow.pictograms.targets import (
    EVERYTHING,
    FEATURES,
    HISTOGRAM,
    Columns,
    Target,
    chosen,
    chosen_subjects,
    targets,
)
from janusflow.processing.images import load_image
from janusflow.progress import progress_bar, say

CACHE = "judge.safetensors"  # in the data set's folder
FORMAT = 4
PENALTY = 0.3  # ridge penalty, for vectors of length 1
TOP = 5
REFERENCE = 2000  # training pictures whose features are kept for comparisons


@dataclass(frozen=True)
class Look:
    """The inputs of the classifiers for one picture.

    Attributes:
        features: (D,) float32 features of the network.
        histogram: (216,) float32 histogram of the colors of drawn pixels.
        palette: (216,) float32 histogram of the colors of all pixels.
    """

    features: np.ndarray
    histogram: np.ndarray
    palette: np.ndarray

    def of(self, inputs: str) -> np.ndarray:
        """Return the input for a target."""
        if inputs == EVERYTHING:  # both parts add up to 1
            return np.concatenate([self.features / max(self.features.sum(), 1e-9), self.palette])
        return {FEATURES: self.features, HISTOGRAM: self.histogram}[inputs]


@dataclass(frozen=True)
class Ridge:
    """One fitted classifier.

    Attributes:
        mean: (D,) mean of the square roots of the inputs.
        weight: (D, L) weights for L labels.
        share: (L,) share of each label, which the scores leave out.
    """

    mean: np.ndarray
    weight: np.ndarray
    share: np.ndarray

    @classmethod
    def fit(cls, inputs: np.ndarray, labels: np.ndarray, count: int, penalty: float = PENALTY) -> Ridge:
        """Fit centered one-hot targets by least squares, in the dual form.

        Args:
            inputs: (N, D) inputs, none below 0.
            labels: (N,) integers below `count`.
            count: number of labels.
            penalty: penalty on the squared weights.
        """
        mean = np.sqrt(inputs).mean(0)
        rows = _scaled(inputs, mean)
        wanted = np.eye(count)[labels]
        share = wanted.mean(0)
        dual = np.linalg.solve(rows @ rows.T + penalty * np.eye(len(rows)), wanted - share)
        return cls(*(values.astype(np.float32) for values in (mean, rows.T @ dual, share)))

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return (N, L) scores; the best label has the highest."""
        scores: np.ndarray = _scaled(inputs, self.mean) @ self.weight
        return scores


def _scaled(inputs: np.ndarray, mean: np.ndarray) -> np.ndarray:
    centered = np.sqrt(inputs.astype(np.float64)) - mean
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-9)


@dataclass
class Judge:
    """Fitted classifiers, and how good they are.

    Attributes:
        labels: labels by target.
        ridges: classifiers by target and fold.
        ceilings: by target and fold, the rank of the right label for each real picture (0 is the first).
        reference: (N, D) float32 features of real training pictures, in random order.
        names: ids of the reference pictures.
    """

    labels: dict[str, list[str]]
    ridges: dict[tuple[str, str], Ridge]
    ceilings: dict[str, dict[str, list[int]]]
    reference: np.ndarray
    names: list[str] = field(default_factory=list)

    def knows(self, target: Target, row: Columns) -> bool:
        """Return whether a picture can be judged: its label is known, and its fold has a classifier."""
        return target.label(row) in self.labels.get(target.name, ()) and (target.name, target.fold(row)) in self.ridges

    def ranked(self, target: Target, row: Columns, look: Look, count: int = TOP) -> list[str]:
        """Return the best labels, best first.

        Args:
            target: target that is asked for.
            row: columns that the picture should have; they decide which fold's classifier is used.
            look: inputs for the picture.
            count: number of labels.
        """
        scores = self._scores(target, row, look)
        return [self.labels[target.name][number] for number in np.argsort(-scores, kind="stable")[:count]]

    def probability(self, target: Target, row: Columns, look: Look) -> float:
        """Return the judge's probability, in [0, 1], that a picture has the label that it should have.

        A least-squares fit to one-hot labels estimates P(label | picture), but the estimates may be negative or not sum
        to 1. Negative ones are set to 0, and the rest is divided by its sum.
        """
        labels, share = self.labels[target.name], self.ridges[target.name, target.fold(row)].share
        estimates = (self._scores(target, row, look) + share).clip(0)
        return float(estimates[labels.index(target.label(row))] / max(estimates.sum(), 1e-9))

    def _scores(self, target: Target, row: Columns, look: Look) -> np.ndarray:
        """Return the (L,) scores of the classifier that was not fitted on the picture's fold."""
        scores: np.ndarray = self.ridges[target.name, target.fold(row)](look.of(target.inputs)[None])[0]
        return scores

    def ceiling(self, target: str, folds: Sequence[str] | None = None, top: int = 1) -> list[float]:
        """Return 1 or 0 for each tested real picture: whether the right label was among the first `top`.

        Args:
            target: name of the target.
            folds: folds to include; all if None.
            top: number of best labels to search.
        """
        found = self.ceilings.get(target, {})
        return [float(place < top) for fold in (found if folds is None else folds) for place in found.get(fold, ())]


def open_judge(
    folder: Path,
    features: Features,
    pictures: Sequence[Columns],
    *,
    subjects: int,
    seed: int,
    side: int | None = None,
) -> tuple[Judge, dict[str, Target]]:
    """Open the judge of a data set from its cache, or fit it and store it there.

    Args:
        folder: folder of the data set; `judge.safetensors` is written there, or `{side}-judge.safetensors` with a side.
        features: feature network.
        pictures: rows from `read_pictures`.
        subjects: number of subjects to name.
        seed: seed of all random choices.
        side: side in pixels that real pictures are reduced to before they are judged, to match a model that generates
            smaller pictures.

    Returns:
        The judge, and its targets by name.
    """
    asked = targets(pictures, chosen_subjects(pictures, subjects, seed))
    fixed = [FORMAT, PENALTY, subjects, REFERENCE, seed, digest_of(features), *([] if side is None else [side])]
    digest = hashlib.sha256(json.dumps(fixed).encode())
    for file in (*files_of(folder)[0], files_of(folder)[1]):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    file, key = folder / (CACHE if side is None else f"{side}-{CACHE}"), digest.hexdigest()
    judge = _read(file, key)
    if judge is None:
        judge = _fit(asked, features, pictures, seed, side)
        try:
            _write(file, judge, key)
        except OSError as error:
            say(f"the judge is not kept, {file} cannot be written: {error}")
    return judge, asked


def look_at(features: Features, images: Sequence[Image.Image]) -> list[Look]:
    """Return the inputs of the classifiers for pictures."""
    vectors = features(images).clip(0)
    return [Look(vector, histogram(image), palette(image)) for vector, image in zip(vectors, images, strict=True)]


def _fit(
    asked: Mapping[str, Target], features: Features, pictures: Sequence[Columns], seed: int, side: int | None = None
) -> Judge:
    used = {name: chosen(target, pictures, seed) for name, target in asked.items()}
    training = [number for number, row in enumerate(pictures) if not row["held_out"]]
    kept = Random(f"reference/{seed}").sample(training, min(REFERENCE, len(training) // 2))
    needed = sorted({*kept, *(number for numbers in used.values() for number in numbers)})
    looks = dict(zip(needed, _looked(features, [pictures[number] for number in needed], side), strict=True))
    judge = Judge({}, {}, {}, np.stack([looks[number].features for number in kept]))
    judge.names = [str(pictures[number]["id"]) for number in kept]
    for name, target in asked.items():
        if used[name]:
            inputs = np.stack([looks[number].of(target.inputs) for number in used[name]])
            _fit_target(judge, target, [pictures[number] for number in used[name]], inputs)
    return judge


def _looked(features: Features, pictures: Sequence[Columns], side: int | None) -> Iterator[Look]:
    with progress_bar("looking at real pictures", len(pictures)) as advance:
        for first in range(0, len(pictures), BATCH):
            part = pictures[first : first + BATCH]
            for look in look_at(features, [reduced(load_image(row["image"]["bytes"]), side) for row in part]):
                yield look
                advance()


def reduced(picture: Image.Image, side: int | None) -> Image.Image:
    """Return a picture at `side` x `side` pixels, or unchanged if `side` is None."""
    return picture if side is None else picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


def _fit_target(judge: Judge, target: Target, rows: Sequence[Columns], inputs: np.ndarray) -> None:
    """For each fold, fit a target on the other folds and test it on this one.

    Labels that the other folds lack are not tested. Among equal scores, the right label counts as the last.
    """
    names = np.array([target.label(row) for row in rows])
    folds = np.array([target.fold(row) for row in rows])
    labels = sorted(set(names))
    numbers = np.searchsorted(labels, names)
    for fold in sorted(set(folds)):
        others, tested = folds != fold, np.flatnonzero(folds == fold)
        known = set(numbers[others])
        if len(known) < 2:
            continue
        ridge = Ridge.fit(inputs[others], numbers[others], len(labels))
        judge.ridges[target.name, fold] = ridge
        scores = ridge(inputs[tested])
        places = [int((row >= row[numbers[n]]).sum()) - 1 for n, row in zip(tested, scores, strict=True)]
        fair = [place for n, place in zip(tested, places, strict=True) if numbers[n] in known]
        judge.ceilings.setdefault(target.name, {})[str(fold)] = fair
    judge.labels[target.name] = [str(label) for label in labels]


def _write(file: Path, judge: Judge, key: str) -> None:
    tensors = {"reference": judge.reference}
    for (name, fold), ridge in judge.ridges.items():
        tensors |= {f"{name}/{fold}/{part}": values for part, values in vars(ridge).items()}
    kept = {"labels": judge.labels, "ceilings": judge.ceilings, "names": judge.names}
    with temporary_path(file, tidy=False) as temporary:
        save_file(tensors, temporary, metadata={"inputs_sha256": key, "judge": json.dumps(kept)})
        temporary.replace(file)


def _read(file: Path, key: str) -> Judge | None:
    """Return the cached judge, or None if the cache is missing, damaged or made from other inputs."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="np") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("inputs_sha256") != key:
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        kept: dict[str, Any] = json.loads(metadata["judge"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    ridges = {}
    for name in (name.removesuffix("/mean") for name in tensors if name.endswith("/mean")):
        target, _, fold = name.partition("/")
        ridges[target, fold] = Ridge(*(tensors[f"{name}/{part}"] for part in ("mean", "weight", "share")))
    return Judge(kept["labels"], ridges, kept["ceilings"], tensors["reference"], kept["names"])
