"""A face in diffusers' style, so that code written for a diffusers pipeline needs one changed line.

pipe = JanusFlowPipeline.from_pretrained("tiny").to("cpu")
pipe(prompt=["a red circle", "two stars"], num_inference_steps=30, guidance_scale=2.0).images[0].save("circle.png")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from torch import Tensor

from janusflow.janus import Janus
from janusflow.pipeline import JanusFlow

StepEnd = Callable[["JanusFlowPipeline", int, float, dict[str, Tensor]], "dict[str, Tensor]"]


class JanusFlowPipeline:
    """`JanusFlow.generate` with the names, the call and the output of diffusers' pipelines.

    Args:
        model: an opened JanusFlow.
    """

    def __init__(self, model: JanusFlow) -> None:
        self.model = model
        self._progress = True
        self._decode_at_once: int | None = None

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: str | torch.dtype = "auto",
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> JanusFlowPipeline:
        """Opens any checkpoint that `JanusFlow.from_pretrained` opens; as with diffusers, on the CPU until `to`.

        Args:
            pretrained_model_name_or_path: "tiny", a folder or a hub id.
            torch_dtype: of the weights; "auto" is what the checkpoint asks for.
            device: where to open it.
            **options: of `JanusFlow.from_pretrained`, such as `vae`.

        Raises:
            ValueError: if it cannot be opened, or is a Janus, which has no path of latents.
        """
        path = pretrained_model_name_or_path
        model = JanusFlow.from_pretrained(path, dtype=torch_dtype, device=device, **options)
        if isinstance(model, Janus):
            raise ValueError(f"{str(path)!r} is a Janus model, which draws code by code; use JanusFlow.from_pretrained")
        return cls(model)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the folder that `from_pretrained` opens."""
        self.model.save_pretrained(save_directory)

    def to(self, device: str | torch.device) -> JanusFlowPipeline:
        """Moves everything to a device."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.device

    @property
    def components(self) -> dict[str, Any]:
        """The parts by name: network, vae, processor, tokenizer."""
        model = self.model
        return {
            "network": model.network,
            "vae": model.codec.vae,
            "processor": model.processor,
            "tokenizer": model.processor.tokenizer,
        }

    def set_progress_bar_config(self, *, disable: bool = False, **_others: Any) -> None:
        """Shows or hides the bar."""
        self._progress = not disable

    def enable_model_cpu_offload(self, device: str | torch.device = "auto") -> None:
        """Network and VAE wait in main memory; see `JanusFlow.offload`."""
        self.model.offload(device)

    def enable_vae_slicing(self) -> None:
        """Decodes one picture at a time, for little memory."""
        self._decode_at_once = 1

    def disable_vae_slicing(self) -> None:
        """Decodes as many pictures at a time as are painted."""
        self._decode_at_once = None

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 2.0,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float | None = None,
        negative_prompt: None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        **options: Any,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Paints.

        Args:
            prompt, height, width, num_inference_steps, guidance_scale, num_images_per_prompt, generator, latents,
                output_type: as in `JanusFlow.generate`.
            image, mask_image, strength: of image to image and inpainting.
            negative_prompt: none; JanusFlow's guidance is against the empty prompt that it was trained with.
            return_dict: False gives a tuple.
            callback_on_step_end: called with (pipe, step, t, {"latents": x}); what it gives back replaces x.
            **options: further arguments of `JanusFlow.generate`, such as `solver` or `guidance_interval`.

        Returns:
            `.images`.

        Raises:
            ValueError: for any value that is not allowed, in one sentence.
        """
        if negative_prompt is not None:
            raise ValueError("negative_prompt is given; JanusFlow's guidance knows the empty prompt alone")
        painted = self.model.generate(
            prompt,
            height=height,
            width=width,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            latents=latents,
            image=image,
            mask=mask_image,
            strength=strength,
            output_type=output_type,  # type: ignore[arg-type]
            decode_batch_size=self._decode_at_once,
            callback_on_step_end=self._called_back(callback_on_step_end),
            progress=self._progress,
            **options,
        )
        return ImagePipelineOutput(images=painted) if return_dict else (painted,)

    def _called_back(self, callback: StepEnd | None) -> Any:
        if callback is None:
            return None
        return lambda _model, step, t, tensors: callback(self, step, t, tensors)
