"""The base class of every family's pipeline: open, describe and upload a model, and talk with it.

model = Pipeline.from_pretrained("tiny")  # returns a JanusFlow, because the checkpoint is one
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
from janusflow.pipelines.conversation import Conversational, is_one_picture
from janusflow.processing.chat_template import without_tags
from janusflow.processing.images import ImageSource
from janusflow.processing.processor import JanusFlowProcessor
from janusflow.progress import progress_bar, without_others

MATCHED = 16  # pictures judged at once


class Pipeline(Conversational):
    """A network with its processor.

    Each family's own class adds `generate` and overrides what differs.

    Args:
        network: the weights.
        processor: tokenizer, templates and picture preprocessing.
    """

    network: Any
    takes_adapters: ClassVar = False
    _parts: ClassVar[tuple[str, ...]] = ()  # folders of the parts that are saved next to the network
    match_question = "does this picture show {}?"  # asked by `match`; set another one that a model knows better
    sampling: ClassVar[
        tuple[str, ...]
    ] = ()  # arguments of `generate` that a picture depends on, besides prompt and seed

    def __init__(self, network: Any, processor: JanusFlowProcessor) -> None:
        self.network, self.processor = network, processor
        self.origin: Checkpoint | None = None
        self.descendant: Descendant | None = None  # which model of the family it is, if the checkpoint's names show it
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
        """Open a checkpoint of any family in any layout: ours, the official one, PaddleNLP's or transformers'.

        The result is the pipeline of the checkpoint's family, whichever class this is called on: a `JanusFlow` for
        JanusFlow, and a `janusflow.pipelines.janus.Janus`, which has the same methods, for Janus and Janus-Pro.

        Args:
            path_or_id: "tiny" (the model in the package), a folder, or a hub id such as deepseek-ai/JanusFlow-1.3B.
            vae: a folder or hub id of a diffusers `AutoencoderKL`. By default the one in the checkpoint's folder, or
                stabilityai/sdxl-vae if there is none; it is downloaded only when pixels are needed.
            dtype: "auto" (the checkpoint's dtype; on a GPU, bfloat16 with 4 bits), "float32", "bfloat16" or a torch
                dtype.
            device: "auto" (the best one available), or a torch device.
            adapter: a folder or hub id of low-rank adapters to load; see `JanusFlow.load_adapters`.
            sft_format: a chat template to use instead of the checkpoint's: "deepseek_old" or "deepseek".
            quantize: "int8" or "int4" quantizes the large matrices to 8 or 4 bits, for inference only; devices other
                than the CPU need torchao.
            compile: "on" compiles the small operations of the network, "auto" does so only if a compiler exists and one
                picture takes longer than compiling, and "off" compiles nothing; see
                `janusflow.model.kernels.compile_network`.
            progress: whether to show a progress bar while large weights load.

        Raises:
            ValueError: if anything is missing, damaged or unknown; the message is one sentence.

        Example:
            >>> from janusflow import JanusFlow
            >>> JanusFlow.from_pretrained("tiny", device="cpu")
            JanusFlow('tiny', dtype=float32, device=cpu)
        """
        place = resolve_device(device)
        checkpoint = open_checkpoint(path_or_id)
        if vae is not None:
            try:
                vae = find_folder(vae, what="vae") if Path(os.path.expanduser(vae)).exists() else vae
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
        """Build a pipeline from opened parts.

        Args:
            *parts: network and processor.
            **vae: for families with a separate VAE: `folder`, the checkpoint's or None, and `vae`, the requested VAE.
        """
        return cls(*parts, **vae)

    @property
    def family(self) -> Family:
        """The family of the network."""
        return family_of(self.network.config)

    @abstractmethod
    def generate(self, *args: Any, **settings: Any) -> Any:
        """Generate pictures from prompts; see the family's own class."""

    @torch.inference_mode()
    def match(self, prompts: Sequence[str], images: Sequence[ImageSource]) -> list[float]:
        """Score how well pictures match their prompts in the model's own judgement; used by `best_of` and `redraw`.

        Args:
            prompts: one per picture.
            images: pictures.

        Returns:
            For each picture, p(yes) / (p(yes) + p(no)) of the first token of the answer to `match_question`, in [0, 1].

        Raises:
            ValueError: if the numbers of prompts and pictures differ, or a picture cannot be read.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny")
            >>> [0 <= score <= 1 for score in model.match(["a red circle"], ["scene.png"])]
            [True]
        """
        if is_one_picture(images):
            raise ValueError("images is one picture; give a list with one picture per prompt")
        if isinstance(prompts, str) or len(prompts) != len(images):
            raise ValueError(f"{quoted(prompts)} for {len(images)} pictures; give a list with one prompt per picture")
        found: list[float] = []
        for first in range(0, len(prompts), MATCHED):
            pairs = zip(prompts[first : first + MATCHED], images[first : first + MATCHED], strict=True)
            found += self._match([*pairs])
        return found

    def _match(self, pairs: Sequence[tuple[str, ImageSource]]) -> list[float]:
        text = self.processor.text
        asked = [
            self._question(self.match_question.replace("{}", without_tags(text, prompt)), image)
            for prompt, image in pairs
        ]
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
        """Replace pictures that do not match their prompts; also return the model's reasons, if it gave any.

        Args:
            draw: generates new pictures only from the prompts and seeds.
            prompts, pictures, seeds: the prompts, the pictures to replace, and the seeds of the new pictures.
            settings: the other arguments of `generate`.
        """
        return draw(), []

    def resolve(self, prompt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of `generate` for one prompt with all defaults, checked before anything is generated.

        Args:
            prompt: the prompt of a picture.
            settings: the given settings; None stands for the default.

        Raises:
            ValueError: for a value that is not allowed, or a prompt that does not fit into the context.
        """
        return self.complete(settings)

    @classmethod
    def complete(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that a picture depends on, as given or by default; only a preset is checked."""
        known = signature(cls.generate).parameters
        names = [name for name in cls.sampling if name in known]
        return {name: known[name].default if settings.get(name) is None else settings[name] for name in names}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder that `from_pretrained` opens.

        The files are written next to the folder and then moved into it. In an existing folder, they replace an earlier
        model with its VAE; other files stay.

        Raises:
            ValueError: if the weights are quantized, or `folder` is a file.
            OSError: if the files cannot be written; an existing folder is then left unchanged.

        Example:
            >>> from janusflow import JanusFlow
            >>> JanusFlow.from_pretrained("tiny").save_pretrained("my_model")
            >>> JanusFlow.from_pretrained("my_model").family.name
            'JanusFlow'
        """
        if self.quantized:
            raise ValueError("the weights are quantized; open the checkpoint without `quantize` to save it")
        place = Path(folder).expanduser()
        with put_together(place, whole=self._parts) as temporary, without_others():
            self.network.save_pretrained(temporary)
            self._write_parts(temporary)
            keep_licence(temporary, self.origin, place)

    def _write_parts(self, folder: Path) -> None:
        """Save everything but the network."""
        self.processor.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes, and a model card; see `janusflow.checkpoint.hub.push_to_hub`."""
        return push_to_hub(self, repo_id, **options)

    def to(self, device: str | torch.device) -> Self:
        """Move everything to a device and keep it there."""
        self._computes_on = None
        self.network.to(resolve_device(device))
        return self

    def _part(self, part: str) -> nn.Module:
        network: nn.Module = self.network
        return network


def pipeline_of(family: Family) -> type[Pipeline]:
    """Return the pipeline class of a family."""
    found: type[Pipeline] = resolve_name(family.pipeline)
    return found
