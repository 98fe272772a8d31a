"""A face in diffusers' style, so that code written for a diffusers pipeline needs one changed line.

pipe = JanusFlowPipeline.from_pretrained("tiny").to("cpu")
pipe(prompt=["a red circle", "two stars"], num_inference_steps=30, guidance_scale=2.0).images[0].save("circle.png")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from janusflow.device import cast, resolve_device, resolve_dtype
from janusflow.janus import Janus
from janusflow.pipeline import JanusFlow
from janusflow.vae import LatentCodec, check_dtype

NEEDLESS = ("use_safetensors", "low_cpu_mem_usage")  # diffusers' options that change nothing here
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
        dtype: str | torch.dtype | None = None,
        vae: AutoencoderKL | str | Path | None = None,
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> JanusFlowPipeline:
        """Opens any checkpoint that `JanusFlow.from_pretrained` opens; as with diffusers, on the CPU until `to`.

        Args:
            pretrained_model_name_or_path: "tiny", a folder or a hub id.
            torch_dtype, dtype: of the weights; "auto" is what the checkpoint asks for.
            vae: an opened one, or as in `JanusFlow.from_pretrained`.
            device: where to open it.
            **options: of `JanusFlow.from_pretrained`, such as `quantize`; diffusers' `use_safetensors` and
                `low_cpu_mem_usage` say what is always so here, and one that is None says nothing.

        Raises:
            ValueError: if it cannot be opened, is a Janus, which has no path of latents, or for another option.
        """
        path = pretrained_model_name_or_path
        told = {name: value for name, value in options.items() if name not in NEEDLESS and value is not None}
        odd = next((name for name in told if name not in signature(JanusFlow.from_pretrained).parameters), None)
        if odd is not None:
            raise ValueError(f"{odd} is given; from_pretrained here opens folders and hub ids as they are, without it")
        place = None if isinstance(vae, AutoencoderKL) else vae
        model = JanusFlow.from_pretrained(path, dtype=dtype or torch_dtype, vae=place, device=device, **told)
        if isinstance(model, Janus):
            raise ValueError(f"{str(path)!r} is a Janus model, which draws code by code; use JanusFlow.from_pretrained")
        if isinstance(vae, AutoencoderKL):
            model.vae = LatentCodec(vae.to(model.device, model.network.dtype))
        return cls(model)

    def save_pretrained(self, save_directory: str | Path, *, safe_serialization: bool = True) -> None:
        """Writes the folder that `from_pretrained` opens; always as safetensors.

        Raises:
            ValueError: if they are not wanted.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization is False; weights are written as safetensors alone")
        self.model.save_pretrained(save_directory)

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> JanusFlowPipeline:
        """Moves everything to a device, casts it to a dtype, or both."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None:
            check_dtype(resolve_dtype(dtype, dtype))
            cast(self.model.network, dtype)
            if isinstance(self.model.vae, LatentCodec):  # one that is opened later takes the network's
                self.model.vae.vae.to(dtype)
        if device is not None:
            self.model.to(device)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        return self.model.network.dtype

    @property
    def vae(self) -> AutoencoderKL:
        """The VAE."""
        return self.model.codec.vae

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer."""
        return self.model.processor.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.model.device

    @property
    def components(self) -> dict[str, Any]:
        """What another pipeline on the same weights is made of: `JanusFlowPipeline(**pipe.components)`."""
        return {"model": self.model}

    def set_progress_bar_config(self, *, disable: bool = False, **_others: Any) -> None:
        """Shows or hides the bar."""
        self._progress = not disable

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: str | torch.device | None = None) -> None:
        """Network and VAE wait in main memory, and the one that works is on the device; see `JanusFlow.offload`."""
        place = resolve_device("auto" if device is None else device)
        self.model.offload(place if gpu_id is None else f"{place.type}:{gpu_id}")

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """As `enable_model_cpu_offload`; layers are not moved one by one."""
        self.enable_model_cpu_offload(gpu_id, device)

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Nothing: attention over 577 tokens needs no slices."""

    def disable_attention_slicing(self) -> None:
        """Nothing, likewise."""

    def enable_vae_tiling(self) -> None:
        """Decodes a large picture in tiles, for little memory."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decodes whole pictures."""
        self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Decodes one picture at a time, for little memory."""
        self._decode_at_once = 1

    def disable_vae_slicing(self) -> None:
        """Decodes as many pictures at a time as are painted."""
        self._decode_at_once = None

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float | None = 2.0,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **options: Any,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Paints.

        Args:
            prompt, height, width, num_inference_steps, guidance_scale, num_images_per_prompt, generator, latents,
                output_type: as in `JanusFlow.generate`; "pt" too, a tensor (N, 3, height, width) in [0, 1]. As in
                diffusers a guidance_scale from 0 to 1, or None, is without guidance.
            image, mask_image, strength: of image to image and inpainting.
            negative_prompt: an empty one; JanusFlow's guidance is against the empty prompt that it was trained with.
            return_dict: False gives a tuple.
            callback_on_step_end: called with (pipe, step, t, {"latents": x}); what it gives back replaces x.
            callback_on_step_end_tensor_inputs: which tensors it gets; there are the latents alone.
            **options: further arguments of `JanusFlow.generate`, such as `solver` or `guidance_interval`.

        Returns:
            `.images`.

        Raises:
            ValueError: for any value that is not allowed, in one sentence.
        """
        unknown = set(callback_on_step_end_tensor_inputs) - {"latents"}
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs names {sorted(unknown)[0]!r}; there are the latents")
        if any([negative_prompt] if negative_prompt is None or isinstance(negative_prompt, str) else negative_prompt):
            raise ValueError("negative_prompt is given; JanusFlow's guidance knows the empty prompt alone")
        if prompt is None:
            raise ValueError("prompt is None; a prompt is some text, or a list of such")
        odd = next((name for name in options if name not in signature(self.model.generate).parameters), None)
        if odd is not None:
            raise ValueError(f"{odd} is given, which JanusFlow does not draw with")
        told: dict[str, Any] = {
            "height": height,
            "width": width,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": 1.0 if guidance_scale is None or 0 <= guidance_scale < 1 else guidance_scale,
            "num_images_per_prompt": num_images_per_prompt,
            "generator": generator,
            "latents": latents,
            "image": image,
            "mask": mask_image,
            "strength": strength,
            "output_type": "np" if output_type == "pt" else output_type,
            "decode_batch_size": self._decode_at_once,
            "callback_on_step_end": self._called_back(callback_on_step_end),
            "progress": self._progress,
        }
        painted = self.model.generate(prompt, **{**told, **options})
        if output_type == "pt":
            painted = torch.from_numpy(painted).permute(0, 3, 1, 2)
        return ImagePipelineOutput(images=painted) if return_dict else (painted,)

    def _called_back(self, callback: StepEnd | None) -> Any:
        if callback is None:
            return None
        return lambda _model, step, t, tensors: callback(self, step, t, tensors)
