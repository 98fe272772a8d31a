"""Detect objects with Mask2Former from transformers: masks, boxes around them, and scores, as in GenEval.

Shapes: Q queries, C classes, (h, w) of the mask logits, (H, W) of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from janusflow.building import open_complete
from janusflow.device import resolve_device
from janusflow.offline import cached_if_unreachable

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLD = 0.3  # an object's score must be above it
MOST_OBJECTS = 100  # of all classes together, those with the highest scores
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Detection:
    """An object found in a picture.

    Attributes:
        name: class of the object.
        score: score in [0, 1].
        box: left, top, right, bottom.
        mask: (height, width) bool, the object's pixels.
    """

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


class Detector:
    """A Mask2Former for instances with its processor (the version for PIL and numpy; torchvision is not needed).

    Args:
        processor: turns a picture into `pixel_values` and `pixel_mask`.
        names: names of the classes, by the model's index.

    Raises:
        ValueError: if the model has a different number of classes.
    """

    def __init__(self, model: Any, processor: Any, names: Sequence[str]) -> None:
        if len(names) != model.config.num_labels:
            raise ValueError(
                f"the detector knows {model.config.num_labels} classes, but object_names.txt names {len(names)}; "
                "expected one name a line for each class of the detector, in its order"
            )
        self.model, self.processor, self.names = model.eval(), processor, tuple(names)

    @classmethod
    def open(cls, name: str, names: Sequence[str], *, device: str = "auto") -> Detector:
        """Open a detector from a folder or the hub.

        Raises:
            ValueError: if it cannot be read or has a different number of classes.
        """
        from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil

        try:
            with cached_if_unreachable(name):
                model = open_complete(Mask2FormerForUniversalSegmentation, name).to(resolve_device(device))
                processor = Mask2FormerImageProcessorPil.from_pretrained(name)
        except (OSError, KeyError) as error:
            wanted = "a folder with a transformers Mask2Former and its processor, or its name on the hub"
            raise ValueError(
                f"detector {name!r} cannot be opened; expected {wanted} ({error})".splitlines()[0]
            ) from error
        return cls(model, processor, names)

    def __call__(self, picture: Image.Image) -> list[Detection]:
        """Return the objects of a picture that pass any of GenEval's thresholds, highest score first."""
        import torch

        inputs = self.processor(images=picture.convert("RGB"), return_tensors="pt")
        seen = inputs["pixel_mask"][0]  # 1 for the picture, 0 for padding
        with torch.inference_mode():
            found = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        return objects(
            found.class_queries_logits[0].float().cpu(),
            found.masks_queries_logits[0].float().cpu(),
            self.names,
            padded=(seen.shape[0], seen.shape[1]),
            inner=(int(seen.any(1).sum()), int(seen.any(0).sum())),
            size=(picture.height, picture.width),
        )


def objects(
    class_logits: Tensor, mask_logits: Tensor, names: Sequence[str], *, padded: Size, inner: Size, size: Size
) -> list[Detection]:
    """Return the objects in Mask2Former's outputs.

    The `MOST_OBJECTS` most likely pairs of query and class are taken. The mask is where the logit, resized to the
    picture, is above 0. The score is the class's probability times the mask's mean probability. The box encloses the
    mask; its right and bottom edges are exclusive.

    Args:
        class_logits: (Q, C + 1); the last class is no object.
        mask_logits: (Q, h, w).
        names: names of the C classes.
        padded: size of the model's input.
        inner: size of the picture within that input, from the upper left.
        size: size of the picture.

    Returns:
        Objects with a mask and a score above `THRESHOLD`, highest score first.
    """
    from torch.nn import functional as F

    likely = class_logits.softmax(dim=-1)[:, :-1].flatten()  # (Q * C)
    best = likely.topk(min(MOST_OBJECTS, len(likely)))
    found = []
    for chance, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if chance <= THRESHOLD:  # the mask can only lower the score
            break
        logits = mask_logits[index // len(names)][None, None]
        logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=False)
        logits = F.interpolate(logits[..., : inner[0], : inner[1]], size=size, mode="bilinear", align_corners=False)
        mask = logits[0, 0] > 0
        score = chance * float(logits[0, 0].sigmoid()[mask].mean()) if mask.any() else 0.0
        if score > THRESHOLD:
            found.append(Detection(names[index % len(names)], score, _box(mask.numpy()), mask.numpy()))
    return sorted(found, key=lambda one: -one.score)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
