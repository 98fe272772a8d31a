"""Features of generated pictures and of renderings of their prompts, from the shipped model's tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from janusflow.tinyworld.captions import Task, scene_for
from janusflow.tinyworld.scenes import render

if TYPE_CHECKING:
    from janusflow.evaluation.protocol import Row
    from janusflow.pipelines.janusflow import JanusFlow

BATCH = 64


class Features:
    """Mean features of pictures; each picture is processed once.

    Args:
        tasks: tasks by item key, for renderings.
    """

    def __init__(self, tasks: dict[str, Task]) -> None:
        self.tasks = tasks
        self._known: dict[tuple[str, Path | None], np.ndarray] = {}  # by item and file, or None for its rendering

    @cached_property
    def _model(self) -> JanusFlow:
        from janusflow.pipelines.janusflow import JanusFlow

        return JanusFlow.from_pretrained("tiny", device="cpu", dtype="float32")

    def of(self, rows: Sequence[Row], generated: Callable[[Row], Path] | None) -> np.ndarray:
        """Return the features (rows, D) of generated pictures, or of renderings of their prompts.

        Args:
            rows: rows of the pictures.
            generated: function that returns the file of a row's picture; None for renderings.
        """
        places = [(row.item.key, None if generated is None else generated(row)) for row in rows]
        new = [place for place in dict.fromkeys(places) if place not in self._known]
        for first in range(0, len(new), BATCH):
            import torch

            group = new[first : first + BATCH]
            pictures = [self._rendered(key) if file is None else file for key, file in group]
            pixels = torch.stack([self._model.processor.preprocess(picture) for picture in pictures])
            with torch.inference_mode():
                features = self._model.network.understanding_encoder.features(pixels).mean(1).double().numpy()
            self._known.update(zip(group, features, strict=True))
        return np.stack([self._known[place] for place in places])

    def _rendered(self, key: str) -> Image.Image:
        rng, scene = Random(key), None
        while scene is None:
            scene = scene_for(rng, self.tasks[key], training=False)
        return Image.fromarray(render(scene))
