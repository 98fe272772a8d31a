"""Features of generated pictures and of renderings of their prompts, from the shipped model's tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from janusflow.processing.images import ImageSource
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
        self._known: dict[tuple[str, bool], np.ndarray] = {}  # by key, and whether the picture is generated

    @cached_property
    def _model(self) -> JanusFlow:
        from janusflow.pipelines.janusflow import JanusFlow

        return JanusFlow.from_pretrained("tiny", device="cpu", dtype="float32")

    def of(self, rows: Sequence[Row], generated: Callable[[Row], ImageSource] | None) -> np.ndarray:
        """Return the features (rows, D) of generated pictures, or of renderings of their prompts.

        Args:
            rows: rows of the pictures.
            generated: function that returns a row's picture; None for renderings.
        """
        kind = generated is not None
        new = list({row.item.key: row for row in rows if (row.item.key, kind) not in self._known}.values())
        for first in range(0, len(new), BATCH):
            import torch

            group = new[first : first + BATCH]
            pictures = [self._rendered(row.item.key) if generated is None else generated(row) for row in group]
            pixels = torch.stack([self._model.processor.preprocess(picture) for picture in pictures])
            with torch.inference_mode():
                features = self._model.network.understanding_encoder.features(pixels).mean(1).double().numpy()
            self._known.update({(row.item.key, kind): one for row, one in zip(group, features, strict=True)})
        return np.stack([self._known[row.item.key, kind] for row in rows])

    def _rendered(self, key: str) -> Image.Image:
        rng, scene = Random(key), None
        while scene is None:
            scene = scene_for(rng, self.tasks[key], training=False)
        return Image.fromarray(render(scene))
