"""The answers of the image endpoints, whole and as events."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from janusflow.pipelines.base import Pipeline
from janusflow.serving.api.image_body import ImageBody
from janusflow.serving.api.quality import said_quality

COMPRESSION = 90  # quality of jpeg and webp if a request names none


class ImageAnswer:
    """Response with all pictures.

    Args:
        kind: "image_generation" or "image_edit".
        body: body of the request.
        model: model that generates.
        settings: resolved settings.
    """

    def __init__(self, kind: str, body: ImageBody, model: Pipeline, settings: Mapping[str, Any]) -> None:
        self.kind, self.body, self.created = kind, body, int(time.time())
        config = model.network.config
        if "height" in settings:
            self.size = f"{settings['width']}x{settings['height']}"
            cell = config.token_size
            self.tokens = (settings["height"] // cell) * (settings["width"] // cell)
        else:
            side = model.network.drawn_size
            self.size, self.tokens = f"{side}x{side}", model.network.image_tokens
        self.seen_tokens = 0
        if "image" in settings and "height" not in settings:  # a Janus reads it as features and as codes
            self.seen_tokens = model.processor.text.num_image_tokens + self.tokens
        self.prompt_tokens = int(model.processor.encode_prompts([body.prompt])[1].sum())

    def whole(self, pictures: Sequence[dict[str, str]]) -> dict[str, Any]:
        """Return the response with all pictures, as returned by `entry`."""
        return {"created": self.created, "data": list(pictures), **self._said(), "usage": self._usage(len(pictures))}

    def entry(self, picture: Image.Image) -> dict[str, str]:
        """Return one picture of the response."""
        data = self._encoded(picture)
        if self.body.response_format == "url":
            return {"url": f"data:image/{self.body.output_format};base64,{data}"}
        return {"b64_json": data}

    def partial(self, index: int, picture: Image.Image) -> dict[str, Any]:
        """Return the event of the preview number `index`."""
        return {
            "type": f"{self.kind}.partial_image",
            "b64_json": self._encoded(picture),
            "partial_image_index": index,
            "created_at": self.created,
            **self._said(),
        }

    def completed(self, picture: Image.Image) -> dict[str, Any]:
        """Return the event of the finished picture."""
        return {
            "type": f"{self.kind}.completed",
            "b64_json": self._encoded(picture),
            "created_at": self.created,
            **self._said(),
            "usage": self._usage(1),
        }

    def _said(self) -> dict[str, str]:
        return {
            "size": self.size,
            "output_format": self.body.output_format,
            "background": "opaque",
            "quality": said_quality(self.body),
        }

    def _usage(self, pictures: int) -> dict[str, Any]:
        read, made = self.prompt_tokens + self.seen_tokens, self.tokens * pictures
        return {
            "input_tokens": read,
            "input_tokens_details": {"text_tokens": self.prompt_tokens, "image_tokens": self.seen_tokens},
            "output_tokens": made,
            "total_tokens": read + made,
        }

    def _encoded(self, picture: Image.Image) -> str:
        """Return the file in Base64; a PNG contains how the picture was generated."""
        file, compression = io.BytesIO(), self.body.output_compression
        if self.body.output_format == "png":
            picture.save(file, format="PNG")
        else:
            quality = COMPRESSION if compression is None else compression
            picture.convert("RGB").save(file, format=self.body.output_format.upper(), quality=quality)
        return base64.b64encode(file.getvalue()).decode("ascii")
