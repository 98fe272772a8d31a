"""CLIP from transformers: embeddings of pictures and texts, whose cosine is their similarity; the color of an object.

The image processor is the version for PIL and numpy, so torchvision is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from janusflow.building import open_complete
from janusflow.device import resolve_device
from janusflow.evaluation.vision.detection import Detection
from janusflow.offline import cached_if_unreachable, first_line

if TYPE_CHECKING:
    from torch import Tensor

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
BACKGROUND = "#999"  # color of a crop outside the object's mask
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
LONGEST = 77  # tokens of a text; the rest is truncated


class Clip:
    """A CLIP model with its processors."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        self.model, self.processor, self.tokenizer = model.eval(), processor, tokenizer

    @classmethod
    def open(cls, name: str, *, device: str = "auto") -> Clip:
        """Open a CLIP model from a folder or the hub.

        Raises:
            ValueError: if it cannot be read.
        """
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        try:
            with cached_if_unreachable(name):
                model = open_complete(CLIPModel, name).to(resolve_device(device))
                return cls(model, CLIPImageProcessorPil.from_pretrained(name), AutoTokenizer.from_pretrained(name))
        except (OSError, KeyError) as error:
            wanted = "a folder with a transformers CLIPModel and its processors, or its name on the hub"
            raise ValueError(
                f"CLIP model {name!r} cannot be opened; expected {wanted} ({first_line(error)})"
            ) from error

    def pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Return embeddings of pictures: (N, D) float32 of length 1 on the CPU."""
        inputs = self.processor(images=[picture.convert("RGB") for picture in pictures], return_tensors="pt")
        return self._vectors("get_image_features", pixel_values=inputs["pixel_values"])

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings of texts: (N, D) float32 of length 1 on the CPU."""
        longest = min(LONGEST, self.model.config.text_config.max_position_embeddings)
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return self._vectors(
            "get_text_features", input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )

    def _vectors(self, method: str, **inputs: Tensor) -> Tensor:
        import torch
        from torch.nn import functional as F

        with torch.inference_mode():
            moved = {name: value.to(self.model.device) for name, value in inputs.items()}
            vectors: Tensor = getattr(self.model, method)(**moved).pooler_output
        return F.normalize(vectors.float(), dim=-1).cpu()


class ColorNamer:
    """Name the color of objects with CLIP, zero-shot over ten colors, with the mean embedding of three templates."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._known: dict[str, Tensor] = {}

    def __call__(self, picture: Image.Image, objects: Sequence[Detection]) -> list[str]:
        """Return a color from `COLORS` for each object of one class."""
        if not objects:
            return []
        crops = [object_crop(picture, one) for one in objects]
        likeness = self.clip.pictures(crops) @ self._colors(objects[0].name).T  # (objects, colors)
        return [COLORS[index] for index in likeness.argmax(dim=1).tolist()]

    def _colors(self, name: str) -> Tensor:
        if name not in self._known:
            from torch.nn import functional as F

            texts = [form.format(color=color, name=name) for color in COLORS for form in TEMPLATES]
            vectors = self.clip.texts(texts).unflatten(0, (len(COLORS), len(TEMPLATES)))
            self._known[name] = F.normalize(vectors.mean(dim=1), dim=-1)
        return self._known[name]


def object_crop(picture: Image.Image, found: Detection) -> Image.Image:
    """Crop a picture to an object's box; pixels outside its mask are grey."""
    picture = picture.convert("RGB")
    if found.mask is not None:
        mask = Image.fromarray(np.where(found.mask, 255, 0).astype(np.uint8))
        picture = Image.composite(picture, Image.new("RGB", picture.size, BACKGROUND), mask)
    left, top, right, bottom = (round(edge) for edge in found.box)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
