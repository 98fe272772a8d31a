"""The nodes: load a model, generate pictures, edit pictures, ask about pictures.

ComfyUI calls a class's `FUNCTION` with the inputs that `INPUT_TYPES` names, and expects a tuple that `RETURN_TYPES`
describes. An IMAGE is (B, height, width, 3) float32 in [0, 1], a MASK (B, height, width) in [0, 1], 1 where to edit.
The classes also run without ComfyUI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from janusflow import JanusFlow

from .images import SEEDS, as_image, as_masks, as_pictures, following
from .progress import check_interrupt, progress_bar, step_callback

MODEL = "JANUSFLOW_MODEL"
CATEGORY = "JanusFlow"
SEED = ("INT", {"default": 0, "min": 0, "max": SEEDS - 1, "control_after_generate": True})
PROMPT = ("STRING", {"multiline": True, "default": "a red circle above a blue square"})
STEPS = ("INT", {"default": 30, "min": 1, "max": 1000})
GUIDANCE = ("FLOAT", {"default": 2.0, "min": 1.0, "max": 30.0, "step": 0.1})
SOLVERS = (["euler", "heun", "midpoint", "ab2", "unipc"],)


class LoadModel:
    """Open a checkpoint of the JanusFlow family; ComfyUI keeps it until an input of this node changes."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "load"
    RETURN_TYPES: ClassVar = (MODEL,)
    RETURN_NAMES: ClassVar = ("model",)
    DESCRIPTION: ClassVar = "Opens JanusFlow, Janus or Janus-Pro: 'tiny', a folder, or a hub id."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """Return ComfyUI's description of the inputs."""
        return {
            "required": {
                "model": ("STRING", {"default": "deepseek-ai/JanusFlow-1.3B"}),
                "dtype": (["auto", "float32", "bfloat16"],),
                "device": (["auto", "cpu", "cuda", "mps", "xpu"],),
                "quantize": (["none", "int8", "int4"],),
                "offload": ("BOOLEAN", {"default": False, "tooltip": "Keep the parts in main memory between uses."}),
            },
            "optional": {
                "vae": ("STRING", {"default": "", "tooltip": "Folder or hub id, if it is not the model's own."}),
                "adapter": ("STRING", {"default": "", "tooltip": "Folder or hub id of LoRA adapters."}),
            },
        }

    def load(
        self,
        model: str,
        dtype: str = "auto",
        device: str = "auto",
        quantize: str = "none",
        offload: bool = False,
        vae: str = "",
        adapter: str = "",
    ) -> tuple[Any]:
        """Open the model.

        Raises:
            ValueError: for a model that cannot be opened; the message is one sentence.
        """
        with torch.inference_mode(False):  # else the weights could not be moved later
            opened = JanusFlow.from_pretrained(
                model,
                dtype=dtype,
                device="cpu" if offload else device,
                quantize=None if quantize == "none" else quantize,
                vae=vae or None,
                adapter=adapter or None,
            )
            return (opened.offload(device) if offload else opened,)


class Generate:
    """Generate pictures with a JanusFlow model."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "generate"
    RETURN_TYPES: ClassVar = ("IMAGE",)
    DESCRIPTION: ClassVar = "Picture i of a batch has the seed seed + i. Width and height 0 are the model's own."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return ComfyUI's description of the inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "prompt": PROMPT,
                "seed": SEED,
                "steps": STEPS,
                "guidance_scale": GUIDANCE,
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
            },
            "optional": {
                "solver": SOLVERS,
                "shift": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 20.0, "step": 0.1}),
                "width": ("INT", {"default": 0, "min": 0, "max": 4096, "step": 8}),
                "height": ("INT", {"default": 0, "min": 0, "max": 4096, "step": 8}),
            },
        }

    def generate(
        self,
        model: Any,
        prompt: str,
        seed: int,
        steps: int,
        guidance_scale: float,
        batch_size: int,
        solver: str = "euler",
        shift: float = 1.0,
        width: int = 0,
        height: int = 0,
    ) -> tuple[Tensor]:
        """Return an IMAGE (batch_size, height, width, 3).

        Raises:
            ValueError: for a value that the model does not allow; the message is one sentence.
        """
        pictures = model.generate(
            prompt,
            num_images_per_prompt=batch_size,
            seed=following(seed, batch_size),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            solver=solver,
            shift=shift,
            width=width or None,
            height=height or None,
            output_type="np",
            callback_on_step_end=step_callback(steps),
            progress=False,
        )
        return (as_image(pictures),)


class GenerateCodes:
    """Generate pictures with Janus or Janus-Pro, which write them code by code."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "generate"
    RETURN_TYPES: ClassVar = ("IMAGE",)
    DESCRIPTION: ClassVar = "For Janus and Janus-Pro. Temperature 0 takes the most likely code each time."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return ComfyUI's description of the inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "prompt": PROMPT,
                "seed": SEED,
                "guidance_scale": ("FLOAT", {"default": 5.0, "min": 1.0, "max": 30.0, "step": 0.1}),
                "temperature": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 5.0, "step": 0.05}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
            },
        }

    def generate(
        self, model: Any, prompt: str, seed: int, guidance_scale: float, temperature: float, batch_size: int
    ) -> tuple[Tensor]:
        """Return an IMAGE (batch_size, side, side, 3).

        Raises:
            ValueError: for a value that the model does not allow; the message is one sentence.
        """
        show: Callable[[int], None] | None = None

        def after_code(model: Any, step: int, t: float, tensors: Mapping[str, Tensor]) -> None:
            nonlocal show
            show = show or progress_bar(round((step + 1) / t))  # t is the share of codes that are generated
            show(step + 1)
            check_interrupt()

        pictures = model.generate(
            prompt,
            num_images_per_prompt=batch_size,
            seed=following(seed, batch_size),
            guidance_scale=guidance_scale,
            **({"temperature": temperature} if temperature else {"do_sample": False}),
            output_type="np",
            callback_on_step_end=after_code,
            progress=False,
        )
        return (as_image(pictures),)


class Edit:
    """Generate pictures from pictures: image to image, and inpainting with a mask."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "edit"
    RETURN_TYPES: ClassVar = ("IMAGE",)
    DESCRIPTION: ClassVar = (
        "Without a mask, strength says how far the result may go from the picture. With one, only pixels where it is "
        "bright are generated anew. Each picture of a batch becomes one; a single mask serves all of them."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return ComfyUI's description of the inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "image": ("IMAGE",),
                "prompt": PROMPT,
                "seed": SEED,
                "steps": STEPS,
                "guidance_scale": GUIDANCE,
                "strength": ("FLOAT", {"default": 0.6, "min": 0.01, "max": 1.0, "step": 0.01}),
            },
            "optional": {"mask": ("MASK",), "solver": SOLVERS},
        }

    def edit(
        self,
        model: Any,
        image: Tensor,
        prompt: str,
        seed: int,
        steps: int,
        guidance_scale: float,
        strength: float,
        mask: Tensor | None = None,
        solver: str = "euler",
    ) -> tuple[Tensor]:
        """Return an IMAGE with a picture for each one in `image`, of the size that the model was trained on.

        Raises:
            ValueError: for a value that the model does not allow; the message is one sentence.
        """
        pictures = as_pictures(image)
        made = model.generate(
            prompt,
            image=pictures,
            mask=None if mask is None else as_masks(mask),
            num_images_per_prompt=len(pictures),
            seed=following(seed, len(pictures)),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            strength=strength,
            solver=solver,
            output_type="np",
            callback_on_step_end=step_callback(max(1, round(steps * strength))),  # the path is shorter by that factor
            progress=False,
        )
        return (as_image(made),)


class Ask:
    """Ask a question about pictures, or about none."""

    CATEGORY: ClassVar = CATEGORY
    FUNCTION: ClassVar = "ask"
    RETURN_TYPES: ClassVar = ("STRING",)
    RETURN_NAMES: ClassVar = ("answer",)
    DESCRIPTION: ClassVar = "All pictures of the batch belong to the question. Temperature 0 is greedy."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """Return ComfyUI's description of the inputs."""
        return {
            "required": {
                "model": (MODEL,),
                "question": ("STRING", {"multiline": True, "default": "describe the picture."}),
                "max_new_tokens": ("INT", {"default": 512, "min": 1, "max": 16384}),
                "temperature": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 5.0, "step": 0.05}),
                "seed": SEED,
            },
            "optional": {"image": ("IMAGE",)},
        }

    def ask(
        self,
        model: Any,
        question: str,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        image: Tensor | None = None,
    ) -> tuple[str]:
        """Return the answer.

        Raises:
            ValueError: for an empty question, or one that does not fit into the context; the message is one sentence.
        """
        sampling = {"do_sample": True, "temperature": temperature, "seed": seed} if temperature else {}
        images = None if image is None else as_pictures(image)
        pieces = []
        for piece in model.stream(question, images=images, max_new_tokens=max_new_tokens, **sampling):
            check_interrupt()
            pieces.append(piece)
        return ("".join(pieces),)


NODE_CLASS_MAPPINGS = {
    "JanusFlowLoadModel": LoadModel,
    "JanusFlowGenerate": Generate,
    "JanusFlowGenerateCodes": GenerateCodes,
    "JanusFlowEdit": Edit,
    "JanusFlowAsk": Ask,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "JanusFlowLoadModel": "Load JanusFlow Model",
    "JanusFlowGenerate": "JanusFlow: Generate",
    "JanusFlowGenerateCodes": "Janus / Janus-Pro: Generate",
    "JanusFlowEdit": "JanusFlow: Edit (Image to Image, Inpaint)",
    "JanusFlowAsk": "JanusFlow: Ask",
}
