"""A pipeline in diffusers' style, so that code written for a diffusers pipeline needs one changed line.

pipe = JanusFlowPipeline.from_pretrained("tiny").to("cpu")
pipe(prompt=["a red circle", "two stars"], num_inference_steps=30, guidance_scale=2.0).images[0].save("circle.png")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, SupportsIndex

import torch
from diffusers import AutoencoderKL, ImagePipelineOutput
from diffusers.callbacks import IPAdapterScaleCutoffCallback, MultiPipelineCallbacks, PipelineCallback
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from janusflow.arguments import number_from, quoted, suggestion, unknown_argument, whole_number
from janusflow.device import cast, resolve_device, resolve_dtype
from janusflow.engine.generation import Sampling, choose_strength
from janusflow.engine.settings import OUTPUT_TYPES, StepEnd
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.presets import preset_of
from janusflow.vae import LatentCodec, check_dtype, check_vae

NEEDLESS = ("use_safetensors", "low_cpu_mem_usage")  # diffusers' options that have no effect here
CONDITIONS = ("prompt_embeds", "pooled_prompt_embeds", "add_text_embeds", "add_time_ids", "image")
"""Tensors that diffusers' own callbacks ask for; JanusFlow's only condition, the prompts, stands for all of them."""


class JanusFlowPipeline:
    """`JanusFlow.generate` with the names, the call and the output of diffusers' pipelines."""

    _callback_tensor_inputs: ClassVar = ["latents", "prompt_embeds"]

    def __init__(self, model: JanusFlow) -> None:
        self.model = model
        self._progress = True
        self._decode_at_once: int | None = None
        self._interrupt = False  # set by a callback or another thread: no further step is run
        self._guidance_scale = 1.0  # of the next step; callbacks may set it
        self._num_timesteps = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

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
        """Open any checkpoint that `JanusFlow.from_pretrained` opens; as in diffusers, on the CPU until `to`.

        Args:
            pretrained_model_name_or_path: "tiny", a folder or a hub id.
            torch_dtype, dtype: dtype of the weights; "auto" is the checkpoint's.
            vae: an opened VAE, which is moved to the device and keeps its dtype, or as in `JanusFlow.from_pretrained`.
            device: the device to open it on.
            **options: options of `JanusFlow.from_pretrained`, such as `quantize`; diffusers' `use_safetensors` and
                `low_cpu_mem_usage` describe what is always the case here, and an option that is None is ignored.

        Raises:
            ValueError: if it cannot be opened, is another model, which has no path of latents, or an option is unknown.
        """
        path = pretrained_model_name_or_path
        told = {name: value for name, value in options.items() if name not in NEEDLESS and value is not None}
        odd = next((name for name in told if name not in signature(JanusFlow.from_pretrained).parameters), None)
        if odd is not None:
            near = suggestion(odd, [*signature(JanusFlow.from_pretrained).parameters])
            raise ValueError(
                f"{odd} is given; from_pretrained here opens folders and hub ids as they are, without it{near}"
            )
        place = None if isinstance(vae, AutoencoderKL) else vae
        model = JanusFlow.from_pretrained(path, dtype=dtype or torch_dtype, vae=place, device=device, **told)
        if not isinstance(model, JanusFlow):
            kind = type(model).__name__
            raise ValueError(
                f"{quoted(str(path))} is a {kind} model, which has no path of latents; use JanusFlow.from_pretrained"
            )
        if isinstance(vae, AutoencoderKL):
            check_dtype(vae.dtype)
            codec = LatentCodec(vae.to(model.device))
            check_vae(codec, type(vae).__name__, model.network.config)
            model.vae, model.preview_decoder = codec, None
        return cls(model)

    def save_pretrained(self, save_directory: str | Path, *, safe_serialization: bool = True) -> None:
        """Write a folder that `from_pretrained` opens; always as safetensors.

        It has no `model_index.json`, so diffusers' own `DiffusionPipeline.from_pretrained` does not open it.

        Raises:
            ValueError: if `safe_serialization` is False.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization is False; weights are written as safetensors alone")
        self.model.save_pretrained(save_directory)

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: str | torch.dtype | None = None
    ) -> JanusFlowPipeline:
        """Move everything to a device, cast it to a dtype, or both."""
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype is not None:
            dtype = resolve_dtype(dtype, self.dtype)
            check_dtype(dtype)
            cast(self.model.network, dtype)
            if isinstance(self.model.vae, LatentCodec):  # one that is opened later takes the network's
                cast(self.model.vae.vae, dtype)
        if device is not None:
            self.model.to(device)
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network's weights."""
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
        """The device that the network computes on."""
        return self.model.device

    @property
    def interrupt(self) -> bool:
        """Whether the current call runs no further step; a callback sets `_interrupt`, as in diffusers."""
        return self._interrupt

    @property
    def guidance_scale(self) -> float:
        """The guidance scale of the next step; a callback sets `_guidance_scale`, as in diffusers."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether `guidance_scale` is above 1. Outside `guidance_interval`, guidance has no effect even then."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """The number of steps of the current call."""
        return self._num_timesteps

    @property
    def components(self) -> dict[str, Any]:
        """The parts of another pipeline on the same weights: `JanusFlowPipeline(**pipe.components)`."""
        return {"model": self.model}

    def set_progress_bar_config(self, *, disable: bool = False, **_others: Any) -> None:
        """Show or hide the progress bar."""
        self._progress = not disable

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: str | torch.device | None = None) -> None:
        """Keep network and VAE in main memory, and only the running one on the device; see `JanusFlow.offload`."""
        place = resolve_device("auto" if device is None else device)
        self.model.offload(place if gpu_id is None else f"{place.type}:{gpu_id}")

    def enable_sequential_cpu_offload(
        self, gpu_id: int | None = None, device: str | torch.device | None = None
    ) -> None:
        """Do the same as `enable_model_cpu_offload`; layers are not moved one by one."""
        self.enable_model_cpu_offload(gpu_id, device)

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Do nothing: attention over 577 tokens needs no slices."""

    def disable_attention_slicing(self) -> None:
        """Do nothing, as `enable_attention_slicing`."""

    def enable_vae_tiling(self) -> None:
        """Decode large pictures in tiles, to save memory."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decode whole pictures."""
        self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Decode one picture at a time, to save memory."""
        self._decode_at_once = 1

    def disable_vae_slicing(self) -> None:
        """Decode the same number of pictures at a time as are generated."""
        self._decode_at_once = None

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        height: SupportsIndex | None = None,
        width: SupportsIndex | None = None,
        num_inference_steps: SupportsIndex | None = None,
        guidance_scale: float | None = 2.0,
        num_images_per_prompt: SupportsIndex = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = ("latents",),
        **options: Any,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate pictures.

        Args:
            prompt, height, width, num_inference_steps, guidance_scale, num_images_per_prompt, generator, latents,
                output_type: as in `JanusFlow.generate`; `output_type` may also be "pt", a tensor (N, 3, height, width)
                in [0, 1]. As in diffusers, a guidance_scale from 0 to 1, or None, disables guidance.
            image, mask_image, strength: inputs of image to image and inpainting; outputs of this pipeline with any
                `output_type` can be given, also latents of the same size.
            negative_prompt: must be empty; JanusFlow's guidance uses the empty prompt that it was trained with.
            return_dict: False returns a tuple.
            callback_on_step_end: called with (pipe, step, t, tensors), t in (0, 1]; returned latents replace x. It may
                set `pipe._interrupt = True` (the pictures are returned as they are) and `pipe._guidance_scale`, as
                diffusers' own callbacks do (`SDCFGCutoffCallback`, ...).
            callback_on_step_end_tensor_inputs: tensors that it gets: latents, and prompt_embeds, which are read-only.
            **options: other arguments of `JanusFlow.generate`, such as `solver`, `seed` or `paste_original`.

        Returns:
            `.images`.

        Raises:
            ValueError: for any value that is not allowed, in one sentence.
        """
        names = _tensor_names(callback_on_step_end, callback_on_step_end_tensor_inputs)
        if prompt is None:
            raise ValueError("prompt is None; a prompt is some text, or a list of such")
        if output_type not in (*OUTPUT_TYPES, "pt"):
            raise ValueError(f"output_type is {quoted(output_type)}; choose from {', '.join(OUTPUT_TYPES)}, pt")
        if mask_image is not None and options.get("mask") is not None:
            raise ValueError("mask_image and mask are both given; give one of them")
        self._check_arguments(negative_prompt, options)
        scale = _scale(guidance_scale)
        knobs = preset_of(options.get("preset"), num_inference_steps=num_inference_steps)
        steps = whole_number("num_inference_steps", knobs.num_inference_steps)
        start = choose_strength(
            strength, image=image is not None, mask=mask_image is not None or options.get("mask") is not None
        )
        self._interrupt, self._num_timesteps = False, len(Sampling(steps, strength=start).times()) - 1
        args: dict[str, Any] = {"height": height, "width": width, "num_inference_steps": steps, "guidance_scale": scale}
        args |= {"num_images_per_prompt": num_images_per_prompt, "generator": generator, "latents": latents}
        args |= {"image": image, "mask": mask_image, "strength": strength}
        args |= {"output_type": "np" if output_type == "pt" else output_type, "decode_batch_size": self._decode_at_once}
        args |= {"callback_on_step_end": self._called_back(callback_on_step_end, names, prompt, scale)}
        args["progress"] = self._progress
        pictures: Any = self.model.generate(prompt, **{**args, **options})
        if output_type == "pt":
            pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        return ImagePipelineOutput(images=pictures) if return_dict else (pictures,)

    def _check_arguments(self, negative_prompt: str | Sequence[str] | None, options: Mapping[str, Any]) -> None:
        """Reject a negative prompt, and options that `JanusFlow.generate` does not have."""
        if any([negative_prompt] if negative_prompt is None or isinstance(negative_prompt, str) else negative_prompt):
            raise ValueError("negative_prompt is given; JanusFlow's guidance only knows the empty prompt")
        known = [*signature(self.model.generate).parameters]
        if odd := [name for name in options if name not in known]:
            raise unknown_argument(odd, [*signature(self.__call__).parameters, *known], of="the pipeline's call")

    def _called_back(self, callback: Any, names: Sequence[str], prompt: str | Sequence[str], scale: float) -> StepEnd:
        """Wrap `callback`, or None, for `JanusFlow.generate`; `_interrupt` and `_guidance_scale` are obeyed."""
        conditions: dict[str, Tensor] = {}

        def called_back(_model: Any, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Any]:
            if step == 0:  # of each batch
                self._guidance_scale = scale
            if callback is None:
                return {"stop": self._interrupt}
            if not conditions:
                conditions.update({name: self._prompt_embeds(prompt) for name in names if name != "latents"})
            given = {name: tensors["latents"] if name == "latents" else conditions[name] for name in names}
            returned = _read(callback(self, step, t, dict(given)))
            _check_unchanged(conditions, returned)
            change = {"guidance_scale": _scale(self._guidance_scale), "stop": self._interrupt}
            return {"latents": returned.get("latents"), **change}

        self._guidance_scale = scale
        return called_back

    def _prompt_embeds(self, prompt: str | Sequence[str]) -> Tensor:
        """Return the LLM's input embeddings of the prompts, (P, T, D): `prompt_embeds` of other pipelines."""
        ids, _ = self.model.processor.encode_prompts([prompt] if isinstance(prompt, str) else list(prompt))
        embeds: Tensor = self.model.network.get_input_embeddings()(ids.to(self.device))
        return embeds


def _scale(guidance_scale: float | None) -> float:
    """Convert diffusers' guidance scale: values from 0 to 1, and None, disable guidance."""
    scale = 1.0 if guidance_scale is None else number_from("guidance_scale", guidance_scale, 0)
    return max(scale, 1.0)


def _read(returned: Any) -> Mapping[str, Any]:
    """Check what a callback returned: None, or tensors by name."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        kind = type(returned).__name__
        raise ValueError(f"callback_on_step_end returned a {kind}; expected None or a mapping with latents")
    if odd := [str(name) for name in returned if name not in ("latents", *CONDITIONS)]:
        raise unknown_argument(odd, ["latents"], of="the mapping that callback_on_step_end returned")
    return returned


def _tensor_names(callback: Any, names: Sequence[str] | None) -> list[str]:
    """Return the names of the tensors that a callback gets."""
    official = list(callback.callbacks) if isinstance(callback, MultiPipelineCallbacks) else [callback]
    if any(isinstance(one, IPAdapterScaleCutoffCallback) for one in official):
        raise ValueError("callback_on_step_end is an IPAdapterScaleCutoffCallback; JanusFlow has no IP adapter")
    own = isinstance(callback, PipelineCallback | MultiPipelineCallbacks)
    asked = list(callback.tensor_inputs if own else names or ())
    known = ("latents", *CONDITIONS) if own else tuple(JanusFlowPipeline._callback_tensor_inputs)
    if unknown := sorted(set(asked) - set(known)):
        raise ValueError(
            f"callback_on_step_end_tensor_inputs names {quoted(unknown[0])}; there are {' and '.join(known)}"
        )
    return asked


def _check_unchanged(given: Mapping[str, Tensor], returned: Mapping[str, Any]) -> None:
    """Reject prompts that differ from those that were read; the rows that are left without guidance are the same."""
    for name, tensor in given.items():
        new = returned.get(name)
        if new is not None and not torch.equal(new, tensor[len(tensor) - len(new) :]):
            raise ValueError(f"the callback replaced {name}; JanusFlow reads its prompts before the first step")
