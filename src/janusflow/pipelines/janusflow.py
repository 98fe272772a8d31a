"""`JanusFlow`, the main pipeline: opens a checkpoint, generates images from text, answers questions about images.

model = JanusFlow.from_pretrained("tiny")
model.generate("a red circle above a blue square")[0].save("circle.png")
model.ask("what color is the circle?", images="circle.png")
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, SupportsIndex, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from janusflow.arguments import checked_names, whole_number
from janusflow.engine import generation
from janusflow.engine.generation import Sampling
from janusflow.engine.inpainting import KnownPicture, known_picture
from janusflow.engine.jobs import Job, run, start_of_path
from janusflow.engine.settings import FlowSettings, OutputType, StepChange, StepEnd
from janusflow.engine.size import Size, check_context, check_size
from janusflow.pipelines.digests import input_digests
from janusflow.pipelines.latents import LatentPipeline
from janusflow.pipelines.procedures import staged
from janusflow.pipelines.provenance import sign
from janusflow.presets import KNOBS, preset_of
from janusflow.processing.images import ImageSource
from janusflow.progress import progress_bar


class JanusFlow(LatentPipeline):
    """A network with its processor and VAE.

    Calls may run in several threads at once; see `janusflow.pipelines.conversation.Conversational`.

    Args:
        network: the weights.
        processor: tokenizer, templates and picture preprocessing.
        vae: the VAE, or where to find it; it is opened when pixels are first needed.
        preview_decoder: a small decoder for the VAE's latents, or where to find it, if there is one.
    """

    sampling = (*Sampling.__dataclass_fields__, "preset", "decoder")
    _warned_of_size = False

    # --- from words to pictures -------------------------------------------------------------------------------------

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: Literal["pil"] = "pil", **settings: Unpack[FlowSettings]
    ) -> list[Image.Image]: ...

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: Literal["np"], **settings: Unpack[FlowSettings]
    ) -> np.ndarray: ...

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: Literal["latent"], **settings: Unpack[FlowSettings]
    ) -> Tensor: ...

    @overload
    def generate(
        self, prompts: str | Sequence[str], *, output_type: OutputType, **settings: Unpack[FlowSettings]
    ) -> list[Image.Image] | np.ndarray | Tensor: ...

    @staged
    @checked_names
    @torch.inference_mode()
    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        num_images_per_prompt: SupportsIndex = 1,
        preset: str | None = None,
        num_inference_steps: SupportsIndex | None = None,
        guidance_scale: float = 2.0,
        guidance_interval: tuple[float, float] | None = None,
        solver: str | None = None,
        shift: float | None = None,
        height: SupportsIndex | None = None,
        width: SupportsIndex | None = None,
        seed: SupportsIndex | Sequence[SupportsIndex] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        image: ImageSource | Sequence[ImageSource] | None = None,
        mask: ImageSource | Sequence[ImageSource] | None = None,
        strength: float | None = None,
        paste_original: bool = True,
        decoder: str | None = None,
        plan: bool | str = False,
        best_of: SupportsIndex = 1,
        redraw: SupportsIndex = 0,
        output_type: OutputType = "pil",
        batch_size: SupportsIndex = 16,
        decode_batch_size: SupportsIndex | None = None,
        callback_on_step_end: StepEnd | None = None,
        progress: bool = True,
    ) -> Any:
        """Generate pictures.

        Args:
            prompts: one or several, of any lengths.
            num_images_per_prompt: number of pictures per prompt, which are adjacent in the result.
            preset: "exact" (the default), "balanced" or "fast"; sets `num_inference_steps`, `guidance_interval`,
                `solver`, `shift` and `decoder` unless they are given; see `janusflow.presets`.
            num_inference_steps: number of ODE steps; 30 by default.
            guidance_scale: guidance weight w; 1 disables guidance and halves the work.
            guidance_interval: range of t in [0, 1] (0 noise, 1 picture) in which guidance acts; all with "exact".
            solver: euler (the default), heun, midpoint, ab2 or unipc.
            shift: shift of the time grid; a value above 1 puts more steps near the noise. 1 by default.
            height, width: multiples of the side of an image token (16 in the released checkpoints); by default the size
                that the weights were trained at.
            seed: a number from 0 to 2^64 - 1, where picture j of every prompt gets seed + j, or one seed per picture.
                The same seed and prompt give the same picture whatever else is in the batch.
            generator: one torch generator, or one per picture, instead of seeds.
            latents: the noise itself, (N, C, H, W), instead of seeds.
            image: a picture to start from, or one per prompt or per generated picture (image to image): files, PIL
                images, arrays (N, height, width, 3) or tensors (N, 3, height, width) in [0, 1], or latents of the
                requested size. It is resized to cover height x width and cropped in the middle.
            mask: bright and opaque where `image` is to be regenerated (inpainting): pictures, or arrays of bools or
                numbers. Pixels of at least half the range count, as in diffusers.
            strength: how far the result may move away from `image`, in (0, 1]: the path starts at t = 1 - strength. By
                default 0.6, and 1 with a mask.
            paste_original: whether to paste back the pixels that the mask keeps, so that they are exactly those of
                `image` (resized and cropped). Otherwise only the latent keeps them, in cells of 8 x 8 pixels, and the
                VAE changes them. Latent output has no pixels to paste.
            decoder: "vae" (the default), or "small" for the model's small decoder, which is less exact.
            plan: whether the model first writes a plan of what each picture will show, and generates from prompt and
                plan; or your own instruction for the plan, with {} for the prompt.
            best_of: number of pictures generated for each returned one, which is the one that matches its prompt best
                in the model's own judgement (`match`).
            redraw: how many times a picture may be generated again while the model judges that it does not match.
            output_type: "pil" for a list of pictures, "np" for an array (N, height, width, 3) in [0, 1], "latent" for
                a tensor (N, C, H, W).
            batch_size: number of pictures generated at once.
            decode_batch_size: number of latents that the VAE decodes at once; `batch_size` by default. 1 needs the
                least memory.
            callback_on_step_end: callback that watches, steers or cancels the generation; see `janusflow.StepEnd`.
            progress: whether to show a progress bar.

        Returns:
            N pictures in the order of the prompts, in the form of `output_type`.

        Raises:
            ValueError: for any value that is not allowed, in one sentence.
            UnknownArgumentError: a ValueError and TypeError, for an unknown argument; suggests the name probably meant.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny")
            >>> (picture,) = model.generate("a red circle above a blue square", seed=0)
            >>> picture.size
            (64, 64)
        """
        prompts = generation.check_request(prompts, output_type)
        each = whole_number("num_images_per_prompt", num_images_per_prompt)
        at_once = whole_number("batch_size", batch_size)
        decode = at_once if decode_batch_size is None else whole_number("decode_batch_size", decode_batch_size)
        strength = generation.choose_strength(strength, image=image is not None, mask=mask is not None)
        asked_for = dict(zip(KNOBS, (num_inference_steps, solver, shift, guidance_interval, decoder), strict=True))
        knobs = preset_of(preset, **asked_for)
        sampling = Sampling(guidance_scale=guidance_scale, strength=strength, **knobs.sampling())
        config = self.network.config
        size = Size(len(prompts), each, *check_size(config, height, width, latents))
        cell = config.token_size
        ids, visible = self.processor.encode_prompts(prompts)
        check_context(config, visible, (size.height // cell) * (size.width // cell))
        self._warn_of_size(size.height, size.width)
        if output_type != "latent":
            _ = self.codec  # report a missing VAE before anything is generated, not afterwards
            _ = self.small_decoder if knobs.decoder == "small" else None
        seeds, seed = generation.seeds_of(size, seed, generator, latents)
        noise = generation.choose_noise(config, size, seed, generator, latents).to(self.device)
        given = {name: source for name, source in (("image", image), ("mask", mask)) if source is not None}
        inputs = {name: size.spread(name, input_digests(name, source)) for name, source in given.items()}
        with self._working("vae" if image is not None else None):
            known, kept = (None, None) if image is None else known_picture(self.codec, size, image, mask, self.device)
        with self._working("network"):
            asked = ids.to(self.device), visible.to(self.device)
            made, changed = self._generate(asked, noise, known, sampling, at_once, callback_on_step_end, progress)
        if output_type == "latent":
            return made
        with self._working(knobs.decoder):
            pixels = torch.cat([self.decode(part, knobs.decoder) for part in made.split(decode)])
            pictures = generation.as_pictures(pixels, output_type, kept if paste_original else None)
        if output_type != "pil":
            return pictures
        settings = {**asdict(sampling), **knobs.recorded(), "height": size.height, "width": size.width}
        if not given:
            settings.pop("strength")
        if mask is not None:
            settings["paste_original"] = bool(paste_original)
        spread = size.spread("prompt", prompts)
        return sign(pictures, spread, seeds, settings, self.identity(), inputs, changed=changed)

    def resolve(self, prompt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `Pipeline.resolve`; a preset is replaced by its settings."""
        chosen = self.complete(settings)
        decoder = {name: chosen.pop(name) for name in ("decoder",) if name in chosen}
        _ = self.small_decoder if decoder else None  # report a missing one now
        image, mask = settings.get("image"), settings.get("mask")
        chosen["strength"] = generation.choose_strength(
            chosen.get("strength"), image=image is not None, mask=mask is not None
        )
        Sampling(**chosen)
        config = self.network.config
        height, width = check_size(config, settings.get("height"), settings.get("width"), None)
        cell = config.token_size
        check_context(config, self.processor.encode_prompts([prompt])[1], (height // cell) * (width // cell))
        if image is None:
            chosen.pop("strength")
        if mask is not None:
            pasted = settings.get("paste_original")
            chosen["paste_original"] = True if pasted is None else bool(pasted)
        return {**chosen, **decoder, "height": height, "width": width, "image": image, "mask": mask}

    @classmethod
    def complete(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """See `Pipeline.complete`; a preset is replaced by its settings."""
        chosen = super().complete(settings)
        knobs = preset_of(chosen.pop("preset"), **{name: chosen.pop(name) for name in KNOBS})
        return {**chosen, **knobs.sampling(), **knobs.recorded()}

    def _generate(
        self,
        asked: tuple[Tensor, Tensor],
        noise: Tensor,
        known: KnownPicture | None,
        sampling: Sampling,
        batch_size: int,
        callback: StepEnd | None,
        progress: bool,
    ) -> tuple[Tensor, list[bool]]:
        """Return x_1 of all pictures, and whether the callback changed each of them.

        Pictures of one prompt are adjacent in `noise`. A batch reads only its own prompts.
        """
        ids, visible = asked
        prompts = len(ids)
        owner = torch.arange(prompts, device=self.device).repeat_interleave(len(noise) // prompts)
        batches = torch.arange(len(noise), device=self.device).split(min(batch_size, len(noise)))
        steps = len(sampling.times()) - 1
        made: list[Tensor] = []
        altered: list[bool] = []
        stopped = changed = False
        scale = sampling.guidance_scale
        with progress_bar("generating", len(batches) * steps, shown=progress) as advance:

            def after_step(step: int, t: float, x: Tensor) -> StepChange:
                nonlocal stopped, changed, scale
                advance()
                if callback is None:
                    return StepChange()
                before = x.clone()  # a callback may write into x
                change = StepChange.read(callback(self, step, t, {"latents": x}), before)
                last = step + 1 == steps
                changed = changed or change.changes(before, scale, last=last) or not torch.equal(x, before)
                scale = scale if change.guidance_scale is None else change.guidance_scale
                stopped = change.stop
                return change

            for rows in batches:
                part = None if known is None else known.select(rows)
                if stopped:
                    made.append(start_of_path(noise[rows], sampling, part))
                    altered += [True] * len(rows)
                    continue
                changed, scale = False, sampling.guidance_scale
                first, last = int(owner[rows[0]]), int(owner[rows[-1]])
                read = self.network.encode_prompts(ids[first : last + 1], visible[first : last + 1])
                own = read.select(owner[rows] - first)
                made += run(self.network, [Job(own, noise[rows], sampling, known=part, callback=after_step)])
                altered += [changed] * len(rows)
        return torch.cat(made), altered

    def _warn_of_size(self, height: int, width: int) -> None:
        trained = self.network.config.image_size
        if (height, width) != (trained, trained) and not self._warned_of_size:
            self._warned_of_size = True
            warnings.warn(
                f"generating at {width} x {height} (width x height); "
                f"these weights were trained at {trained} x {trained}",
                stacklevel=6,  # the line that calls `generate`
            )
