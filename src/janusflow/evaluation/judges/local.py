"""Judges on this machine: a model of this family, or any transformers model with a chat template."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.judges.judge import Judge, NotJudgedError, Query
from janusflow.folders import find_folder
from janusflow.offline import cached_if_unreachable, first_line

if TYPE_CHECKING:
    from janusflow.pipelines.janusflow import JanusFlow


@dataclass(frozen=True)
class LocalOptions:
    """Options of a local judge.

    Attributes:
        max_tokens: maximum number of tokens of a reply.
        dtype: "auto" (as the checkpoint asks for), "float32", "bfloat16" or "float16".
        device: "auto" for the best one available.
    """

    max_tokens: Annotated[int, Interval(ge=1)] = 512
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        from janusflow.device import named_device

        if self.device != "auto":
            named_device(self.device)


class FamilyJudge(Judge):
    """A model of this family, asked through `JanusFlow.chat`; one question at a time.

    Raises:
        ValueError: if the model does not exist.
    """

    def __init__(self, place: str, options: LocalOptions) -> None:
        find_folder(place, weights=False)
        self.name, self.options = place, options
        self._lock = threading.Lock()

    @cached_property
    def _model(self) -> JanusFlow:
        """The pipeline, opened on first use."""
        from janusflow.pipelines.janusflow import JanusFlow

        options = self.options
        return JanusFlow.from_pretrained(self.name, dtype=options.dtype, device=options.device, progress=False)

    def answer(self, query: Query) -> str:
        """See `Judge`."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": query.system}] if query.system else []
        sampling: dict[str, Any] = {}
        if query.temperature:
            sampling = {"do_sample": True, "temperature": query.temperature, "seed": query.attempt}
        with self._lock:
            text = self._model.processor.question(query.prompt, len(query.images))
            messages.append({"role": "user", "content": text, "images": list(query.images)})
            return self._model.chat(messages, max_new_tokens=self.options.max_tokens, **sampling)


class LocalJudge(Judge):
    """A transformers model with a chat template; one question at a time.

    Args:
        place: folder or hub id. A model for pictures and text is asked with both, any other only with text.

    Raises:
        ValueError: if it cannot be opened.
    """

    def __init__(self, place: str, options: LocalOptions) -> None:
        from transformers import AutoConfig, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        self.name, self.options = place, options
        where = str(Path(place).expanduser())
        try:
            with cached_if_unreachable(where):
                config = AutoConfig.from_pretrained(where)
                self.sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
                self._processor = _open_processor(where, config) if self.sees else AutoTokenizer.from_pretrained(where)
        except (OSError, ValueError, ImportError) as error:
            raise _refusal(place, error) from error
        self._lock = threading.Lock()

    @cached_property
    def _model(self) -> Any:
        """The model, with its weights, which are read on first use."""
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        from janusflow.building import open_complete
        from janusflow.device import resolve_device

        where, device = str(Path(self.name).expanduser()), resolve_device(self.options.device)
        kind = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM
        try:
            with cached_if_unreachable(where):
                return open_complete(kind, where, dtype=self.options.dtype).to(device).eval()
        except (OSError, ValueError, ImportError) as error:
            raise _refusal(self.name, error) from error

    def answer(self, query: Query) -> str:
        """See `Judge`."""
        import torch

        if query.images and not self.sees:
            raise NotJudgedError(f"judge {self.name} only reads text, but got {len(query.images)} pictures")
        messages: list[dict[str, Any]] = [self._message("system", query.system)] if query.system else []
        messages.append(self._message("user", query.prompt, query.images))
        with self._lock, torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(query.attempt)
            read = self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
            device, dtype = self._model.device, self._model.dtype
            inputs = {name: x.to(device, dtype if x.is_floating_point() else x.dtype) for name, x in read.items()}
            sampling = {"do_sample": True, "temperature": query.temperature, "top_p": 1.0, "top_k": 0}
            decoding: dict[str, Any] = sampling if query.temperature else {"do_sample": False}
            ids = self._model.generate(**inputs, max_new_tokens=self.options.max_tokens, **decoding)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return str(self._processor.decode(new, skip_special_tokens=True))

    def _message(self, role: str, text: str, images: Sequence[Image.Image] = ()) -> dict[str, Any]:
        if not self.sees:
            return {"role": role, "content": text}
        pictures: list[dict[str, Any]] = [{"type": "image", "image": picture.convert("RGB")} for picture in images]
        return {"role": role, "content": [*pictures, {"type": "text", "text": text}]}


def _refusal(place: str, error: Exception) -> ValueError:
    """Return the error for a model that cannot be opened."""
    return ValueError(f"judge {place!r} is not a model that can be opened here: {first_line(error)}")


def _open_processor(where: str, config: Any) -> Any:
    """Open a processor with the PIL backend; leave out its video part, which needs torchvision, if necessary."""
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        return AutoProcessor.from_pretrained(where, backend="pil")
    except ImportError:
        kind: Any = PROCESSOR_MAPPING[type(config)]

    class WithoutVideo(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if "video" not in name]

    return WithoutVideo.from_pretrained(where, backend="pil")
