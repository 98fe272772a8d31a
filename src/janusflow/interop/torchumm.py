"""TorchUMM's inference interface for this package: the same classes, keys, defaults and results, without CUDA.

    from janusflow.interop.torchumm import InferencePipeline, InferenceRequest

or, for a program that must not be changed, `janusflow.interop.torchumm.install()` before its first `import umm`. If
TorchUMM itself is installed, `register()` adds these backbones to it.

What differs: `run_many` runs requests of one kind as one batch, with the same results as one after the other; all
pictures of a question are read, not only the first; noise comes from the pipeline's own generator, not from torch's
global one.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from janusflow.arguments import whole_number
from janusflow.interop.torchumm_backbone import BACKBONES, Backbone

TASKS = ("generation", "editing", "understanding")


@dataclass(slots=True)
class InferenceRequest:
    """One request.

    Attributes:
        backbone: backbone of the pipeline.
        task: "generation" or "understanding"; "editing" always raises an error.
        prompt: prompt of the picture to generate, or the question; without one, a picture is described.
        images: paths of the pictures to ask about.
        videos: must be empty; no model of the family reads videos.
        params: keys of `generation_cfg` or `understanding_cfg`, only for this request.
        metadata: the caller's own data.
        output_path: where pictures are saved; several get _0, _1, ... before the suffix.
    """

    backbone: str
    task: str
    prompt: str | None = None
    images: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    output_path: str | None = None

    def to_batch(self) -> dict[str, Any]:
        """Return the request without its settings: prompt, images, videos, and metadata if there are any."""
        asked = {name: getattr(self, name) for name in ("prompt", "images", "videos")}
        return {**asked, "metadata": self.metadata} if self.metadata else asked


class InferencePipeline:
    """TorchUMM's pipeline over one backbone.

    Args:
        backbone_name: "janus_flow", "janus" or "janus_pro".

    Raises:
        KeyError: for another backbone.
        ValueError: if the model cannot be opened.
    """

    def __init__(self, backbone_name: str, backbone_cfg: dict[str, Any] | None = None) -> None:
        if backbone_name not in BACKBONES:
            raise KeyError(f"Unknown backbone `{backbone_name}`. Registered backbones: {sorted(BACKBONES)}")
        self.backbone_name, self.backbone_cfg = backbone_name, backbone_cfg or {}
        self.backbone = Backbone(backbone_name)
        self.backbone.load(self.backbone_cfg)

    def run(self, payload: InferenceRequest | Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Args:
            payload: an `InferenceRequest`, or a mapping with its fields.

        Returns:
            `image`, `images` and `saved_paths` for generation; `text` and `sft_format` for understanding.

        Raises:
            ValueError: for a malformed request or one for another backbone.
            NotImplementedError: for editing and videos.
            FileNotFoundError: for a picture that does not exist.
        """
        return self.run_many([payload])[0]

    def run_many(
        self, payloads: Sequence[InferenceRequest | Mapping[str, Any]], batch_size: int = 1
    ) -> list[dict[str, Any]]:
        """Answer requests; up to `batch_size` consecutive ones with the same task and settings form one batch."""
        requests = [self._checked(payload) for payload in payloads]
        results: list[dict[str, Any]] = []
        for group in _groups(requests, batch_size):
            first = group[0]
            if first.task == "generation":
                wanted = [(request.prompt, request.output_path) for request in group]
                results += self.backbone.generate_many(wanted, first.params)
            elif first.task == "understanding":
                asked = [(request.prompt, request.images, request.videos) for request in group]
                results += self.backbone.understand_many(asked, first.params)
            else:
                results.append(self.backbone.editing())
        return results

    def _checked(self, payload: InferenceRequest | Mapping[str, Any]) -> InferenceRequest:
        request = normalize_request(payload)
        if request.backbone != self.backbone_name:
            raise ValueError(f"Pipeline backbone is `{self.backbone_name}` but request asks for `{request.backbone}`.")
        return request

    def close(self) -> None:
        """Release the model."""
        self.backbone.close()

    def __enter__(self) -> InferencePipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def normalize_request(payload: InferenceRequest | Mapping[str, Any]) -> InferenceRequest:
    """Convert a mapping to a request, and check the request.

    Raises:
        ValueError: for an unknown task, no backbone, or a generation without a prompt.
    """
    if isinstance(payload, Mapping):
        known = {name: payload[name] for name in InferenceRequest.__slots__ if payload.get(name) is not None}
        if "backbone" not in known or "task" not in known:
            raise ValueError("a request needs `backbone` and `task`.")
        payload = InferenceRequest(**known)
    if not hasattr(payload, "task"):
        raise ValueError(f"a request is an InferenceRequest or a mapping with its fields, not {payload!r:.80}")
    validate_request(payload)
    return payload


def validate_request(request: InferenceRequest) -> None:
    """Check a request.

    Raises:
        ValueError: for an unknown task, no backbone, or a task without what it needs.
    """
    if request.task not in TASKS:
        raise ValueError(f"Unsupported task: {request.task}")
    if not request.backbone:
        raise ValueError("`backbone` must be provided.")
    if request.task == "generation" and not request.prompt:
        raise ValueError("`prompt` is required for task `generation`.")
    if request.task == "editing" and not (request.prompt or request.params.get("instruction")):
        raise ValueError("Editing requires `prompt` or `params.instruction`.")
    if request.task == "editing" and not (request.images or request.params.get("image_path")):
        raise ValueError("Editing requires `images` or `params.image_path`.")


def _groups(requests: Sequence[InferenceRequest], batch_size: int) -> Iterator[list[InferenceRequest]]:
    """Yield consecutive requests that can run together."""
    whole_number("batch_size", batch_size)
    for _, run in itertools.groupby(requests, key=lambda request: (request.task, request.params)):
        members = list(run)
        for start in range(0, len(members), batch_size):
            yield members[start : start + batch_size]


# --- in place of TorchUMM, or inside it -----------------------------------------------------------------------------


def install() -> bool:
    """Make `umm.inference.pipeline` and `umm.inference.multimodal_inputs` importable where TorchUMM is not installed.

    Returns:
        Whether they lead here; False if a `umm` already exists, which is left unchanged.
    """
    present = sys.modules.get("umm")
    if present is not None:
        return getattr(present, "__janusflow__", False)
    if importlib.util.find_spec("umm") is not None:
        return False
    contents: dict[str, dict[str, Any]] = {
        "umm": {},
        "umm.inference": {"InferencePipeline": InferencePipeline, "InferenceRequest": InferenceRequest},
        "umm.inference.pipeline": {"InferencePipeline": InferencePipeline, "InferenceRequest": InferenceRequest},
        "umm.inference.multimodal_inputs": {
            "InferenceRequest": InferenceRequest,
            "normalize_request": normalize_request,
            "validate_request": validate_request,
        },
    }
    for name, members in contents.items():
        module = ModuleType(name, __doc__)
        vars(module).update(members, __janusflow__=True, __path__=[])
        sys.modules[name] = module
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)
    return True


def register() -> list[str]:
    """Register our backbones with an installed TorchUMM, in place of its own ones of the same names.

    Returns:
        Their names.

    Raises:
        ValueError: if TorchUMM is not installed.
    """
    try:
        from umm.core import registry
    except ImportError as error:
        raise ValueError("TorchUMM is not installed here; install() makes its imports lead to janusflow") from error
    for name in BACKBONES:
        registry.register("backbone", name, lambda name=name: Backbone(name))
    return list(BACKBONES)
