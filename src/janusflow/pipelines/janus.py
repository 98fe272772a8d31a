"""`Janus`, the pipeline of Janus and Janus-Pro: the same calls as `JanusFlow`, on a model that generates code by code.

model = JanusFlow.from_pretrained("deepseek-ai/Janus-Pro-1B")  # returns a Janus, because the checkpoint is one
model.generate("a red circle above a blue square")[0].save("circle.png")
model.ask("what color is the circle?", images="circle.png")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, Literal, SupportsIndex, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.arguments import UnknownArgumentError, unknown_argument, whole_number
from janusflow.checkpoint.convert import write_extras
from janusflow.device import CPU
from janusflow.engine import introspection
from janusflow.engine.editing import edit_ids, read_edits
from janusflow.engine.generation import as_pictures, check_request, choose_seeds
from janusflow.engine.settings import FlowSettings, OutputType, StepChange, StepEnd, TokenSettings
from janusflow.engine.size import Size
from janusflow.engine.token_generation import ReadPrompts, TokenSampling, draw_codes, read_prompts
from janusflow.engine.yes_or_no import yes_probability
from janusflow.model.janus import JanusForConditionalGeneration
from janusflow.model.vq_codec import VqCodec
from janusflow.pipelines.adapters import AdaptedPipeline
from janusflow.pipelines.procedures import staged
from janusflow.pipelines.provenance import input_digests, sign
from janusflow.processing.images import ImageSource, listed, load_image
from janusflow.processing.transformers_layout import write_transformers_processor
from janusflow.progress import progress_bar

IMAGE_GUIDANCE = 5.0  # as in Janus-4o's demo


class Janus(AdaptedPipeline):
    """A network with its processor; the VQ codec is part of the network.

    Calls may run in several threads at once; see `janusflow.pipelines.conversation.Conversational`.

    Args:
        network: the weights.
        processor: tokenizer, templates and picture preprocessing.
    """

    network: JanusForConditionalGeneration
    sampling = tuple(TokenSampling.__dataclass_fields__)

    def _write_parts(self, folder: Path) -> None:
        write_transformers_processor(self.processor, folder)
        if self.origin is not None and self.origin.folder.is_dir():
            write_extras(self.origin, folder)

    @property
    def codec(self) -> VqCodec:
        """A copy of the network's codec, to encode pictures while the network is trained."""
        return VqCodec(self.network.model.vqmodel)

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: Literal["pil"] = "pil", **settings: Unpack[TokenSettings]
    ) -> list[Image.Image]: ...

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: Literal["np"], **settings: Unpack[TokenSettings]
    ) -> np.ndarray: ...

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: Literal["latent"], **settings: Unpack[TokenSettings]
    ) -> Tensor: ...

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: OutputType, **settings: Unpack[TokenSettings]
    ) -> list[Image.Image] | np.ndarray | Tensor: ...

    @staged
    @torch.inference_mode()
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        num_images_per_prompt: SupportsIndex = 1,
        guidance_scale: float = 5.0,
        do_sample: bool = True,
        temperature: float = 1.0,
        top_k: SupportsIndex = 0,
        top_p: float = 1.0,
        image: ImageSource | Sequence[ImageSource] | None = None,
        image_guidance_scale: float | None = None,
        plan: bool | str = False,
        best_of: SupportsIndex = 1,
        redraw: SupportsIndex = 0,
        seed: SupportsIndex | Sequence[SupportsIndex] | None = None,
        output_type: OutputType = "pil",
        batch_size: SupportsIndex = 16,
        decode_batch_size: SupportsIndex | None = None,
        callback_on_step_end: StepEnd | None = None,
        progress: bool = True,
        **others: Any,
    ) -> Any:
        """Generate pictures.

        Args:
            prompts: one or several, of any lengths.
            num_images_per_prompt: number of pictures per prompt, which are adjacent in the result.
            guidance_scale: guidance weight w; 1 disables guidance and halves the work.
            do_sample: whether to sample; False takes the most likely code each time.
            temperature, top_k, top_p: sampling parameters.
            image: a picture to edit as the prompt says, or one per prompt or per generated picture. Janus-4o was
                trained for this.
            image_guidance_scale: weight w' of the row that sees the picture's features but not its codes, from 0; 5 by
                default. A larger value leaves more freedom.
            plan, best_of, redraw: see `JanusFlow.generate`. Janus-Pro-R1 sees its reasons and the previous picture when
                it generates again.
            seed: a number from 0 to 2^64 - 1, where picture j of every prompt gets seed + j, or one seed per picture.
                The same seed and prompt give the same picture whatever else is in the batch.
            output_type: "pil" for a list of pictures, "np" for an array (N, S, S, 3) in [0, 1], "latent" for the codes
                (N, L).
            batch_size: number of pictures generated at once.
            decode_batch_size: number of pictures that the codec decodes at once; `batch_size` by default.
            callback_on_step_end: callback that watches or cancels the generation; see `janusflow.StepEnd`.
            progress: whether to show a progress bar.
            **others: not allowed; the error suggests the name probably meant, and names arguments of JanusFlow.

        Returns:
            N pictures in the order of the prompts, in the form of `output_type`.

        Raises:
            ValueError: for any value that is not allowed, in one sentence.
        """
        if others:
            self._refuse(others)
        prompts = check_request(prompts, output_type)
        each = whole_number("num_images_per_prompt", num_images_per_prompt)
        at_once = whole_number("batch_size", batch_size)
        decode = at_once if decode_batch_size is None else whole_number("decode_batch_size", decode_batch_size)
        edited = edit_scale(image, image_guidance_scale)
        sampling = TokenSampling(guidance_scale, do_sample, temperature, top_k, top_p, edited)
        seeds, size = choose_seeds(seed, len(prompts), each), Size(len(prompts), each, 0, 0)
        named, sources = size.spread("prompt", prompts), None
        if image is not None:
            sources = size.spread("image", [load_image(source) for source in listed(image)])
            prompts = named
        inputs = {} if image is None else {"image": size.spread("image", input_digests("image", image))}
        self.check_context(self._ids(prompts, edited=image is not None)[1])

        def read(part: slice) -> ReadPrompts:
            return self.read(prompts[part], None if sources is None else sources[part], guided=guidance_scale > 1)

        with self._working("network"):
            codes = self._draw(read, len(prompts), seeds, sampling, at_once, callback_on_step_end, progress)
        if output_type == "latent":
            return codes
        pictures = self._pictures(codes, output_type, decode)
        if output_type != "pil":
            return pictures
        return sign(pictures, named, seeds, _recorded(sampling), self.identity(), inputs)

    def _pictures(self, codes: Tensor, output_type: OutputType, at_once: int) -> Any:
        with self._working("network"):  # whose part the codec is: one that leaves the device would take it along
            pixels = torch.cat([self.network.decode(part) for part in codes.split(at_once)])
            return as_pictures(pixels.clip(-1, 1), output_type)

    def _ids(self, prompts: Sequence[str], *, edited: bool) -> tuple[Tensor, Tensor]:
        if edited:
            return edit_ids(self.processor, prompts, self.network.image_tokens)
        return self.processor.encode_prompts(prompts, side="left", keep_last=True)

    def read(self, prompts: Sequence[str], images: Sequence[Image.Image] | None, *, guided: bool) -> ReadPrompts:
        """Read prompts, with or without pictures to edit.

        Args:
            prompts: texts.
            images: one per prompt, in RGB; None to edit none.
            guided: whether to add a row without words.
        """
        if images is not None:
            return read_edits(self.network, self.processor, prompts, images, guided=guided)
        ids, visible = (part.to(self.device) for part in self._ids(prompts, edited=False))
        return read_prompts(self.network, ids, visible, self.processor.tokenizer.pad_token_id, guided=guided)

    # --- Janus-Pro-R1 -----------------------------------------------------------------------------------------------

    @property
    def introspects(self) -> bool:
        """Whether the model reads its own pictures again, as Janus-Pro-R1 does."""
        return self.descendant is not None and self.descendant.introspects

    def _match(self, pairs: Sequence[tuple[str, ImageSource]]) -> list[float]:
        if not self.introspects:
            return super()._match(pairs)
        prompts, pictures = [prompt for prompt, _ in pairs], [load_image(picture) for _, picture in pairs]
        inputs = introspection.check_inputs(self.processor, prompts, pictures)
        with self._working("network"):
            return yes_probability(self.network, self.processor, inputs, introspection.SPELLINGS)

    def draw_again(
        self,
        draw: Callable[[], list[Image.Image]],
        prompts: Sequence[str],
        pictures: Sequence[Image.Image],
        seeds: Sequence[int],
        settings: Mapping[str, Any],
    ) -> tuple[list[Image.Image], list[str]]:
        """See `Pipeline.draw_again`; Janus-Pro-R1 sees the picture and its reasons, unless it edits."""
        if not self.introspects or settings.get("image") is not None:
            return super().draw_again(draw, prompts, pictures, seeds, settings)
        sampling = TokenSampling(**{name: settings[name] for name in self.sampling if name in settings})
        network, processor, at_once = self.network, self.processor, int(settings.get("batch_size", 16))
        decode = settings.get("decode_batch_size")
        why: list[str] = []

        def read(part: slice) -> ReadPrompts:
            seen = network, processor, prompts[part], pictures[part]
            why.extend(introspection.reasons(*seen, seeds[part]))
            again = introspection.read_again(*seen, why[part], guided=sampling.guidance_scale > 1)
            self.check_context(again.visible)
            return again

        with torch.inference_mode(), self._working("network"):
            shown, callback = settings.get("progress", True), settings.get("callback_on_step_end")
            codes = self._draw(read, len(prompts), list(seeds), sampling, at_once, callback, shown)
        drawn = self._pictures(codes, "pil", at_once if decode is None else int(decode))
        return sign(drawn, prompts, seeds, _recorded(sampling), self.identity(), {}), why

    def _refuse(self, others: Mapping[str, object]) -> None:
        """Reject arguments that only JanusFlow's `generate` takes, or that are unknown.

        Raises:
            UnknownArgumentError: names the arguments that exist.
        """
        if unknown := [name for name in others if name not in FlowSettings.__annotations__]:
            known = [name for name in signature(self.generate).parameters if name != "others"]
            raise unknown_argument(unknown, known, of="generate")
        known = ["guidance_scale", "do_sample", "temperature", "top_k", "top_p"]
        raise UnknownArgumentError(
            f"{', '.join(sorted(others))}: not for a Janus model, which generates code by code with {', '.join(known)}"
        )

    def resolve(self, prompt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `Pipeline.resolve`."""
        image, chosen = settings.get("image"), super().resolve(prompt, settings)
        chosen["image_guidance_scale"] = edit_scale(image, chosen["image_guidance_scale"])
        recorded = _recorded(TokenSampling(**chosen))
        self.check_context(self._ids([prompt], edited=image is not None)[1])
        return recorded if image is None else {**recorded, "image": image}

    def check_context(self, visible: Tensor) -> None:
        """Check that prompts, of (P, T) visible tokens, fit into the LLM's positions together with the image tokens.

        Raises:
            ValueError: if one does not; names the longest prompt's tokens and the maximum.
        """
        longest, drawn = int(visible.sum(dim=1).max()), self.network.image_tokens
        room = self.network.config.text_config.max_position_embeddings
        if longest + drawn > room:
            raise ValueError(
                f"a prompt has {longest} tokens; next to {drawn} image tokens the model's context of {room} "
                f"holds at most {max(room - drawn, 0)}"
            )

    def _draw(
        self,
        read: Callable[[slice], ReadPrompts],
        prompts: int,
        seeds: list[int],
        sampling: TokenSampling,
        batch_size: int,
        callback: StepEnd | None,
        progress: bool,
    ) -> Tensor:
        """Generate the codes of pictures, (N, L), reading only the prompts of one batch at a time.

        Args:
            read: reads a part of the prompts.
            prompts: number of prompts; each has the same number of seeds.
            seeds, sampling, batch_size, callback, progress: see `generate`.
        """
        length, each = self.network.image_tokens, len(seeds) // prompts
        generators = [torch.Generator(CPU).manual_seed(seed) for seed in seeds]
        chance = torch.stack([torch.rand(length, generator=g, device=CPU, dtype=torch.float32) for g in generators])
        batches = torch.arange(len(seeds), device=self.device).split(min(batch_size, len(seeds)))
        drawn, part, found = [], slice(0), None
        with progress_bar("generating", len(batches) * length, shown=progress) as advance:

            def after_code(step: int, codes: Tensor) -> None:
                advance()
                if callback:
                    StepChange.refuse(callback(self, step, (step + 1) / length, {"codes": codes}))

            for rows in batches:
                own = slice(int(rows[0]) // each, int(rows[-1]) // each + 1)
                if found is None or own != part:  # else the batch continues the prompt of the one before
                    part, found = own, read(own)
                uniform = chance.to(self.device)[rows]
                drawn.append(draw_codes(self.network, found, rows // each - part.start, uniform, sampling, after_code))
        return torch.cat(drawn)


def edit_scale(image: object, scale: float | None) -> float | None:
    """Return `image_guidance_scale` as given, or its default if there is a picture.

    Raises:
        ValueError: if it is given without a picture.
    """
    if image is None and scale is not None:
        raise ValueError("image_guidance_scale needs an image to edit")
    return IMAGE_GUIDANCE if image is not None and scale is None else scale


def _recorded(sampling: TokenSampling) -> dict[str, Any]:
    return {name: value for name, value in asdict(sampling).items() if value is not None}
