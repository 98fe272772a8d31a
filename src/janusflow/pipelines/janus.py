"""`Janus`, the face of Janus and Janus-Pro: the same calls as `JanusFlow`, on a model that draws code by code.

model = JanusFlow.from_pretrained("deepseek-ai/Janus-Pro-1B")  # gives a Janus, because the checkpoint is one
model.generate("a red circle above a blue square")[0].save("circle.png")
model.ask("what color is the circle?", images="circle.png")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import Any, Literal, SupportsIndex, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from janusflow.arguments import UnknownArgumentError, unknown_argument, whole_number
from janusflow.checkpoint.convert import write_extras
from janusflow.device import CPU
from janusflow.engine.generation import as_pictures, check_request, choose_seeds
from janusflow.engine.settings import FlowSettings, OutputType, StepChange, StepEnd, TokenSettings
from janusflow.engine.token_generation import ReadPrompts, TokenSampling, draw_codes, read_prompts
from janusflow.model.janus import JanusForConditionalGeneration
from janusflow.model.vq_codec import VqCodec
from janusflow.pipelines.adapters import AdaptedPipeline
from janusflow.pipelines.provenance import sign
from janusflow.processing.transformers_layout import write_transformers_processor
from janusflow.progress import progress_bar


class Janus(AdaptedPipeline):
    """A network with its processor; the VQ codec is a part of the network.

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
        """A copy of the network's codec, which encodes pictures while the network is trained."""
        return VqCodec(self.network.model.vqmodel)

    def _part(self, part: str) -> nn.Module:
        return self.network if part == "network" else self.network.model.vqmodel

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
        seed: SupportsIndex | Sequence[SupportsIndex] | None = None,
        output_type: OutputType = "pil",
        batch_size: SupportsIndex = 16,
        decode_batch_size: SupportsIndex | None = None,
        callback_on_step_end: StepEnd | None = None,
        progress: bool = True,
        **others: Any,
    ) -> Any:
        """Generates pictures.

        Args:
            prompts: one or several, of any lengths.
            num_images_per_prompt: pictures of each; those of one prompt stand together in the result.
            guidance_scale: w; 1 is without guidance and half the work.
            do_sample: False takes the most likely code each time.
            temperature, top_k, top_p: of sampling.
            seed: from 0 to 2^64 - 1; picture j of every prompt gets seed + j. Or one seed per picture. The same seed
                and prompt give the same picture whatever else is in the batch.
            output_type: "pil" for a list of pictures, "np" for an array (N, S, S, 3) in [0, 1], "latent" for the codes
                (N, L).
            batch_size: how many pictures are generated at once.
            decode_batch_size: how many pictures the codec decodes at once, by default the same number.
            callback_on_step_end: watches or cancels; see `janusflow.StepEnd`.
            progress: whether to show a bar.
            **others: none; the error names what was probably meant, and arguments of JanusFlow's.

        Returns:
            As `output_type` says; N pictures in the order of the prompts.

        Raises:
            ValueError: for any value that is not allowed, in one sentence.
        """
        if others:
            self._refuse(others)
        prompts = check_request(prompts, output_type)
        each = whole_number("num_images_per_prompt", num_images_per_prompt)
        at_once = whole_number("batch_size", batch_size)
        decode = at_once if decode_batch_size is None else whole_number("decode_batch_size", decode_batch_size)
        sampling = TokenSampling(guidance_scale, do_sample, temperature, top_k, top_p)
        seeds = choose_seeds(seed, len(prompts), each)
        ids, visible = self.processor.encode_prompts(prompts, side="left", keep_last=True)
        self.check_context(visible)
        with self._working("network"):
            read = read_prompts(
                self.network,
                ids.to(self.device),
                visible.to(self.device),
                self.processor.tokenizer.pad_token_id,
                guided=guidance_scale > 1,
            )
            codes = self._draw(read, seeds, sampling, at_once, callback_on_step_end, progress)
        if output_type == "latent":
            return codes
        with self._working("codec"):
            pixels = torch.cat([self.network.decode(part) for part in codes.split(decode)])
            pictures = as_pictures(pixels.clip(-1, 1), output_type)
        if output_type != "pil":
            return pictures
        named = [prompt for prompt in prompts for _ in range(each)]
        return sign(pictures, named, seeds, asdict(sampling), self.identity(), {})

    def _refuse(self, others: Mapping[str, object]) -> None:
        """Arguments of JanusFlow's `generate`, or of nothing.

        Raises:
            UnknownArgumentError: naming what there is.
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
        chosen = super().resolve(prompt, settings)
        TokenSampling(**chosen)
        self.check_context(self.processor.encode_prompts([prompt])[1])
        return chosen

    def check_context(self, visible: Tensor) -> None:
        """Refuses prompts, of (P, T) visible tokens, that do not fit into the LLM's positions with the image tokens.

        Raises:
            ValueError: naming the longest prompt's tokens and what fits.
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
        read: ReadPrompts,
        seeds: list[int],
        sampling: TokenSampling,
        batch_size: int,
        callback: StepEnd | None,
        progress: bool,
    ) -> Tensor:
        length = self.network.image_tokens
        owner = torch.arange(read.prompts, device=self.device).repeat_interleave(len(seeds) // read.prompts)
        generators = [torch.Generator(CPU).manual_seed(seed) for seed in seeds]
        chance = torch.stack([torch.rand(length, generator=g, device=CPU, dtype=torch.float32) for g in generators])
        batches = torch.arange(len(seeds), device=self.device).split(batch_size)
        drawn = []
        with progress_bar("drawing", len(batches) * length, shown=progress) as advance:

            def after_code(step: int, codes: Tensor) -> None:
                advance()
                if callback:
                    StepChange.refuse(callback(self, step, (step + 1) / length, {"codes": codes}))

            for rows in batches:
                uniform = chance.to(self.device)[rows]
                drawn.append(draw_codes(self.network, read, owner[rows], uniform, sampling, after_code))
        return torch.cat(drawn)
