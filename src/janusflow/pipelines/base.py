"""What the public face of every family has: opening, describing and uploading a model, and talking with it.

model = Pipeline.from_pretrained("tiny")  # gives a JanusFlow, because the checkpoint is one
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import nn

from janusflow.arguments import checked_names, quoted
from janusflow.checkpoint import Checkpoint, find_folder, load_network, open_checkpoint, quantization
from janusflow.checkpoint.card import descendant_of, keep_licence
from janusflow.checkpoint.hub import push_to_hub
from janusflow.checkpoint.special_tokens import open_processor, set_special_tokens
from janusflow.device import resolve_device, resolve_dtype, warn_if_slow
from janusflow.engine.yes_or_no import yes_probability
from janusflow.families import Family, family_of
from janusflow.families.descendants import Descendant
from janusflow.folders import put_together
from janusflow.model.kernels import check_mode, compile_network
from janusflow.pipelines.conversation import Conversational
from janusflow.processing.images import ImageSource
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.progress import progress_bar, without_others

MATCHED = 16  # pictures that are judged at once


class Pipeline(Conversational):
    """A network with its processor.

    A family's own class adds `generate`, and overrides what is different there.

    Args:
        network: the weights.
        processor: tokenizer, templates and picture preprocessing.
    """

    network: Any
    takes_adapters: ClassVar = False
    match_question = "does this picture show {}?"  # of `match`; set another one for a model that knows it better
    sampling: ClassVar[
        tuple[str, ...]
    ] = ()  # arguments of `generate` that a picture depends on, besides prompt and seed

    def __init__(self, network: Any, processor: JanusFlowProcessor) -> None:
        self.network, self.processor = network, processor
        self.origin: Checkpoint | None = None
        self.descendant: Descendant | None = None  # which one of the family it is, as far as the checkpoint's names say
        self.quantized = False

    @classmethod
    @checked_names
    def from_pretrained(
        cls,
        path_or_id: str | Path = "tiny",
        *,
        vae: str | Path | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "auto",
        adapter: str | Path | None = None,
        sft_format: str | None = None,
        quantize: str | None = None,
        compile: str = "off",  # noqa: A002 (the name in transformers and in our recipes)
        progress: bool = True,
    ) -> Self | Any:
        """Opens a checkpoint of any family in any of its layouts: ours, the official one, PaddleNLP's, transformers'.

        What it gives is the family's pipeline: a `JanusFlow` for JanusFlow, whichever class is asked, and a
        `janusflow.pipelines.janus.Janus`, which has the same methods, for Janus and Janus-Pro.

        Args:
            path_or_id: "tiny" (the model in the package), a folder, or a hub id such as deepseek-ai/JanusFlow-1.3B.
            vae: a folder or hub id of a diffusers `AutoencoderKL`. By default the one in the checkpoint's folder, and
                stabilityai/sdxl-vae where there is none; it is fetched only when pixels are asked for.
            dtype: "auto" (what the checkpoint asks for; on a GPU bfloat16 with 4 bits), "float32", "bfloat16" or a
                torch dtype.
            device: "auto" (the best one here), or a torch device.
            adapter: a folder or hub id of low-rank adapters to put into the network; see `JanusFlow.load_adapters`.
            sft_format: another chat template than the checkpoint's: "deepseek_old" or "deepseek".
            quantize: "int8" or "int4" quantizes the large matrices to 8 or 4 bits, to run them only; other devices
                than the CPU need torchao.
            compile: "on" compiles the small operations of the network, "auto" only where a compiler exists and one
                picture takes longer than compiling, and "off" none; see `janusflow.model.kernels.compile_network`.
            progress: whether to show a bar while large weights load.

        Raises:
            ValueError: one sentence on what is missing, damaged or unknown.

        Example:
            >>> from janusflow import JanusFlow
            >>> JanusFlow.from_pretrained("tiny", device="cpu")
            JanusFlow('tiny', dtype=float32, device=cpu)
        """
        place = resolve_device(device)
        checkpoint = open_checkpoint(path_or_id)
        if vae is not None:
            try:
                vae = find_folder(vae) if Path(os.path.expanduser(vae)).exists() else vae
            except OSError as error:  # longer than any path
                raise ValueError(f"vae is {quoted(str(vae))}; {error.strerror}") from error
        processor = open_processor(checkpoint, sft_format=sft_format)
        if quantize is not None:
            quantization.check(quantize, place)
            if adapter is not None:
                raise ValueError("adapters do not go into quantized weights; merge them into a checkpoint first")
        check_mode(compile, place)
        family, own = checkpoint.family, pipeline_of(checkpoint.family)
        for name, given, taken in (("vae", vae, family.separate_vae), ("adapter", adapter, own.takes_adapters)):
            if given is not None and not taken:
                raise ValueError(f"{checkpoint.folder} is a {family.name} model, which takes no {name}; leave it out")
        stored = torch.bfloat16 if quantize == "int4" and place.type != "cpu" else checkpoint.dtype
        kind = resolve_dtype(dtype, stored)
        warn_if_slow(kind, place)
        with progress_bar("loading weights", len(checkpoint.tensors), shown=progress) as advance:
            network = load_network(checkpoint, dtype=kind, device=place, advance=advance)
        network.generation_config = set_special_tokens(network.config, processor)
        compile_network(network, compile)
        if quantize is not None:
            quantization.quantize(network, quantize)
        parts = {"folder": checkpoint.folder, "vae": vae} if family.separate_vae else {}
        model: Any = (cls if issubclass(cls, own) else own).assemble(network, processor, **parts)
        model.origin, model.quantized = checkpoint, quantize is not None
        model.descendant = descendant_of(checkpoint)
        asked = {"vae": None if vae is None else str(vae)} if family.separate_vae else {}
        model.opened = {"name": str(path_or_id), **asked, "quantize": quantize}
        return model if adapter is None else model.load_adapters(adapter)

    @classmethod
    def assemble(cls, *parts: Any, **vae: Any) -> Self:
        """A pipeline of opened parts.

        Args:
            *parts: network and processor.
            **vae: of families with a separate one: `folder`, the checkpoint's or None, and `vae`, the one asked for.
        """
        return cls(*parts, **vae)

    @property
    def family(self) -> Family:
        """Of the network."""
        return family_of(self.network.config)

    @abstractmethod
    def generate(self, *args: Any, **settings: Any) -> Any:
        """Generates pictures of prompts; see the family's own class."""

    @torch.inference_mode()
    def match(self, prompts: Sequence[str], images: Sequence[ImageSource]) -> list[float]:
        """How well pictures match their prompts in the model's own judgement, which `best_of` and `redraw` rely on.

        Args:
            prompts: one per picture.
            images: pictures.

        Returns:
            For each p(yes) / (p(yes) + p(no)) of the first token of the answer to `match_question`, in [0, 1].

        Raises:
            ValueError: if there are not the same number of both, or a picture cannot be read.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny")
            >>> [0 <= score <= 1 for score in model.match(["a red circle"], ["scene.png"])]
            [True]
        """
        if isinstance(prompts, str) or len(prompts) != len(images):
            raise ValueError(f"{quoted(prompts)} for {len(images)} pictures; give a list with one prompt per picture")
        found: list[float] = []
        for first in range(0, len(prompts), MATCHED):
            pairs = zip(prompts[first : first + MATCHED], images[first : first + MATCHED], strict=True)
            found += self._match([*pairs])
        return found

    def _match(self, pairs: Sequence[tuple[str, ImageSource]]) -> list[float]:
        asked = [self._question(self.match_question.replace("{}", prompt), image) for prompt, image in pairs]
        with self._working("network"):
            return yes_probability(self.network, self.processor, self.processor.encode_conversations(asked))

    def draw_again(
        self,
        draw: Callable[[], list[Image.Image]],
        prompts: Sequence[str],
        pictures: Sequence[Image.Image],
        seeds: Sequence[int],
        settings: Mapping[str, Any],
    ) -> tuple[list[Image.Image], list[str]]:
        """Other pictures in place of some that do not match their prompts, and the reasons, if the model gave any.

        Args:
            draw: generates them from the prompts and seeds only.
            prompts, pictures, seeds: of the pictures.
            settings: of `generate`.
        """
        return draw(), []

    def resolve(self, prompt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of `generate` for one prompt with every default, checked before anything is made.

        Args:
            prompt: of a picture.
            settings: those that are given; None is the default.

        Raises:
            ValueError: for a value that is not allowed, or a prompt that does not fit into the context.
        """
        return self.complete(settings)

    @classmethod
    def complete(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a picture depends on, as given or their defaults; nothing is checked but a preset."""
        known = signature(cls.generate).parameters
        names = [name for name in cls.sampling if name in known]
        return {name: known[name].default if settings.get(name) is None else settings[name] for name in names}

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the model as a folder that `from_pretrained` opens.

        It is written next to its place and then put there; other files of an existing folder stay.

        Raises:
            ValueError: if the weights are quantized, or the place is a file.
            OSError: if it cannot be written; what was there is untouched.

        Example:
            >>> from janusflow import JanusFlow
            >>> JanusFlow.from_pretrained("tiny").save_pretrained("my_model")
            >>> JanusFlow.from_pretrained("my_model").family.name
            'JanusFlow'
        """
        if self.quantized:
            raise ValueError("the weights are quantized; open the checkpoint without `quantize` to save it")
        with put_together(Path(folder)) as temporary, without_others():
            self.network.save_pretrained(temporary)
            self._write_parts(temporary)
            keep_licence(temporary, self.origin, Path(folder))

    def _write_parts(self, folder: Path) -> None:
        """What is saved next to the network."""
        self.processor.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads what `save_pretrained` writes, and a model card; see `janusflow.checkpoint.hub.push_to_hub`."""
        return push_to_hub(self, repo_id, **options)

    def to(self, device: str | torch.device) -> Self:
        """Moves everything to a device, to stay there."""
        self._computes_on = None
        self.network.to(resolve_device(device))
        return self

    def _part(self, part: str) -> nn.Module:
        network: nn.Module = self.network
        return network


def pipeline_of(family: Family) -> type[Pipeline]:
    """The pipeline of a family."""
    found: type[Pipeline] = resolve_name(family.pipeline)
    return found
