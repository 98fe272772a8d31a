"""Icons in seen and unseen styles and combinations, their spread, and names of real ones: --data FOLDER of `build`.

`judge.py` contains the judge; `tasks.py` defines what is generated and asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import ImageColor

from janusflow.engine.generation import as_pictures
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.evaluation.spread import total_variation
from janusflow.evaluation.vision.manifolds import coverage, kernel_interval, recall
from janusflow.files import loads, temporary_path
from janusflow.pictograms.answers import judged_name, judged_style
from janusflow.pictograms.captions import PLAIN
from janusflow.pictograms.evaluation import TUNING
from janusflow.pictograms.features import EfficientNetFeatures, Features
from janusflow.pictograms.held_out import TINT
from janusflow.pictograms.judge import TOP, Judge, look_at, open_judge
from janusflow.pictograms.nearest import SHOWN, Near, Training, nearest_sheet
from janusflow.pictograms.reading import FACTORS, nearest_color, read
from janusflow.pictograms.render import TINTS
from janusflow.pictograms.scores import NAMING, ceilings, relative, shares
from janusflow.pictograms.shards import files_of
from janusflow.pictograms.targets import Target, read_pictures
from janusflow.pictograms.tasks import (
    ASKED,
    LIKE,
    NAME,
    OPEN,
    QUESTIONS,
    VAE,
    PictogramSettings,
    Tasks,
)
from janusflow.pipelines.sheet import save_png
from janusflow.processing.images import load_image

COMPARED = {LIKE: "generated", VAE: "reconstructions"}
TINT_COLORS = {name: ImageColor.getrgb(value)[:3] for name, value in TINTS.items()}
LEAST = 8  # minimum number of pictures in a compared set
MAX_NEW_TOKENS = 48
Whole = tuple[dict[str, float], dict[str, tuple[float, float]]]


class Pictograms(Benchmark):
    """Generated pictograms, named by a judge that was fitted on real pictures of the other styles.

    The score "seen, top-1" is the share of pictures whose subject the judge names. Scores "of ceiling" are relative to
    the share of real pictures that it names correctly.
    """

    name: ClassVar[str] = "pictograms"
    title: ClassVar[str] = "Pictograms"
    draws: ClassVar[bool] = True
    asks: ClassVar[bool] = True
    Settings: ClassVar[type] = PictogramSettings
    main: ClassVar[str] = "seen, top-1"
    defaults: ClassVar[Mapping[str, Any]] = {"max_new_tokens": MAX_NEW_TOKENS}
    swept: ClassVar[str] = "KID, generated"
    swept_lower_is_better: ClassVar[bool] = True
    for_sweeps: ClassVar[Mapping[str, Any]] = {"tuning": True}
    source: ClassVar[str] = "the folder of janusflow pictograms build"

    def __init__(self, data: Path | None, settings: PictogramSettings) -> None:
        super().__init__(data, settings)
        self._wholes: dict[frozenset[str], Whole] = {}

    def items(self) -> list[Item]:
        tasks = Tasks(self.real, *self.fitted, self.settings, self._tuning_rows())
        if self.settings.tuning:
            return list(tasks.like())
        parts = tasks.seen(), tasks.unseen(), tasks.like(), tasks.open(), tasks.reconstructed(), tasks.questions()
        return [item for part in parts for item in part]

    def files(self) -> list[Path]:
        folder = self._folder
        shards, held_out = files_of(folder)
        return [*shards, held_out, *(file for file in [folder / TUNING] if file.is_file())]

    def references(self, item: Item) -> list[Path]:
        """Return the files that the judge of pictures is fitted on; answers are only compared with the item."""
        shards, held_out = files_of(self._folder)
        return [*shards, held_out] if self.drawn(item) else []

    def drawn(self, item: Item) -> bool:
        return item.data["kind"] not in QUESTIONS

    def also_shown(self, item: Item) -> Any:
        return None

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        if not self.drawn(items[0]):
            return super().produce(model, items, options)
        through_vae = [item for item in items if item.data["kind"] == VAE]
        others = [item for item in items if item.data["kind"] != VAE]
        drawn = super().produce(model, others, options) if others else []
        pairs = [*zip(others, drawn, strict=True), *zip(through_vae, reconstructed(model, through_vae), strict=True)]
        made = {item.key: output for item, output in pairs}
        return [made[item.key] for item in items]

    def check_models(self) -> None:
        """Fit the judge before anything is generated, unless the data set's folder contains it."""
        super().check_models()
        _ = self.fitted

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        row, kind = item.data, item.data["kind"]
        if isinstance(output, str):
            return judged_name(output, row) if kind == NAME else judged_style(output, row)
        judge, targets = self.fitted
        look = look_at(self.features, [output])[0]
        if kind in COMPARED:
            self._keep_features(item, look.features)
        found: dict[str, Any] = {}
        for name in ASKED.get(kind, ()):
            if name in targets and judge.knows(targets[name], row):
                ranked, wanted = judge.ranked(targets[name], row, look), targets[name].label(row)
                found |= {name: float(ranked[0] == wanted), f"{name}, judged": ranked[0]}
                if name in NAMING:
                    if len(judge.labels[name]) > TOP:
                        found[f"{name}, top-5"] = float(wanted in ranked)
                    found[f"{name}, probability"] = judge.probability(targets[name], row, look)
        if kind == TINT:
            found["color"] = float(nearest_color(output, TINT_COLORS) == row["color"])
        if kind == OPEN:
            style = judge.ranked(targets["style"], row, look, 1)[0]
            found["bins"] = {**{name: getattr(read(output), name) for name in FACTORS}, "style": style}
        if kind == LIKE:
            found["background"] = float(read(output).background == row["background"])
        if kind not in (OPEN, VAE):
            near = self.training.nearest(output)
            found["nearest"] = [[one.id, round(one.distance, 4)] for one in near]
        found["score"] = next((found[name] for name in ASKED.get(kind, ()) if name in found), 0.0)
        return found

    # --- scores -----------------------------------------------------------------------------------------------------

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        found = {name: sum(sample.values) / sample.n for name, sample in shares(rows).items()}
        for name, (hits, most) in relative(rows, *self.fitted).items():
            if sum(most):
                found[f"{name} of ceiling"] = sum(hits) / sum(most)
        opened = [row for row in rows if row.item.data["kind"] == OPEN]
        for factor in (*FACTORS, "style") if opened else ():
            wanted: dict[str, float] = defaultdict(float)
            for row in opened:
                for value, share in row.item.data["wanted"][factor].items():
                    wanted[value] += share
            found[f"spread, {factor}"] = total_variation((row.verdict["bins"][factor] for row in opened), wanted)
        distances = [row.verdict["nearest"][0][1] for row in rows if row.verdict.get("nearest")]
        if distances:
            found["nearest training picture, median distance"] = float(np.median(distances))
        return found

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        found = dict(shares(rows)) | ceilings(rows, self.fitted[0])
        for name, (hits, _) in relative(rows, *self.fitted).items():
            found[f"{name} of ceiling"] = ScoreSample(hits, [str(n) for n in range(len(hits))])
        opened = [row for row in rows if row.item.data["kind"] == OPEN]
        spread = over(opened, lambda row: 0.0, distance=True)
        found |= {f"spread, {factor}": spread for factor in (*FACTORS, "style") if opened}
        near = [row for row in rows if row.verdict.get("nearest")]
        found["nearest training picture, median distance"] = over(near, lambda row: row.verdict["nearest"][0][1])
        for kind, words in COMPARED.items():
            compared = over(row for row in rows if row.item.data["kind"] == kind)
            found |= {f"{score}, {words}": compared for score in ("KID", "recall", "coverage")}
        return found

    def scores_of_all(self, rows: Sequence[Row]) -> dict[str, float]:
        return self._whole(rows)[0]

    def intervals_of_all(self, rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
        return self._whole(rows)[1]

    def write_judged(self, rows: Sequence[Row]) -> None:
        """Write `nearest.png`, which shows samples next to their nearest training pictures."""
        near = [row for row in rows if row.verdict.get("nearest")]
        chosen = Random(f"nearest/{self.settings.seed}").sample(near, min(SHOWN, len(near)))
        samples = [
            (load_image(self.out / row.output), row.item.prompt, [Near(*one) for one in row.verdict["nearest"]])
            for row in chosen
        ]
        if samples:
            save_png(nearest_sheet(samples, self.real), self.out / "nearest.png", {})

    def _whole(self, rows: Sequence[Row]) -> Whole:
        """Return ceilings, KID, recall and coverage, and KID's intervals; computed once for the same rows."""
        key = frozenset(row.item.key for row in rows)
        if key not in self._wholes:
            scores = {name: sum(one.values) / one.n for name, one in ceilings(rows, self.fitted[0]).items()}
            spans = {}
            for kind, words in COMPARED.items():
                made = [self._features_of(row) for row in rows if row.item.data["kind"] == kind]
                if len(made) < LEAST:
                    continue
                reference = self.fitted[0].reference[: len(made)]
                vectors = np.stack(made)
                scores[f"KID, {words}"], spans[f"KID, {words}"] = kernel_interval(reference, vectors)
                scores[f"recall, {words}"] = recall(reference, vectors)
                scores[f"coverage, {words}"] = coverage(reference, vectors)
                halves = reference[::2], reference[1::2]
                scores["KID, real"], spans["KID, real"] = kernel_interval(*halves)
                scores["recall, real"], scores["coverage, real"] = recall(*halves), coverage(*halves)
            self._wholes[key] = scores, spans
        return self._wholes[key]

    # --- the judge and its data -------------------------------------------------------------------------------------

    def _tuning_rows(self) -> list[dict[str, Any]]:
        file = self._folder / TUNING
        if not file.is_file():
            if self.settings.tuning:
                raise ValueError(f"{file} does not exist; expected {self.source}")
            return []
        return [{"background": PLAIN, **loads(line)} for line in file.read_text(encoding="utf-8").splitlines()]

    @cached_property
    def features(self) -> Features:
        """Feature network; another one may be assigned before the judge is first needed."""
        return EfficientNetFeatures()

    @cached_property
    def real(self) -> list[dict[str, Any]]:
        """First row of each picture of the data set."""
        return read_pictures(self._folder)

    @cached_property
    def training(self) -> Training:
        """All pictures that training sees."""
        return Training(self.real)

    @cached_property
    def fitted(self) -> tuple[Judge, dict[str, Target]]:
        """The judge, and the targets that it can be asked for."""
        options = self.settings
        return open_judge(
            self._folder,
            self.features,
            self.real,
            subjects=options.subjects,
            seed=options.seed,
            side=options.side,
        )

    @property
    def _folder(self) -> Path:
        if self.data is None or not self.data.is_dir():
            raise ValueError(f"--data is {self.data or 'not given'}; expected {self.source}")
        return self.data

    def _keep_features(self, item: Item, vector: np.ndarray) -> None:
        file = self.out / "features" / f"{item.key}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary_path(file, tidy=False) as temporary:
            with temporary.open("wb") as stream:
                np.save(stream, vector)
            temporary.replace(file)

    def _features_of(self, row: Row) -> np.ndarray:
        """Return the features that `judge` stored, or compute them again if they are missing or damaged."""
        with suppress(OSError, ValueError, EOFError):
            found: np.ndarray = np.load(self.out / "features" / f"{row.item.key}.npy")
            return found
        vector = look_at(self.features, [load_image(self.out / row.output)])[0].features
        self._keep_features(row.item, vector)
        return vector


def reconstructed(model: Any, items: Sequence[Item]) -> list[Output]:
    """Reconstruct pictures with the model's VAE, at their own size."""
    if not items:
        return []
    arrays = [np.asarray(load_image(item.images[0]).convert("RGB"), np.float32) for item in items]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 127.5 - 1  # (B, 3, H, W)
    return list(as_pictures(model.codec.decode(model.codec.encode(pixels)), "pil"))
