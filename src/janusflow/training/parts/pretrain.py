"""Train the parts one after the other, and put them together as the checkpoint that stage 1 starts from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from janusflow.checkpoint.card import write_trained_card
from janusflow.checkpoint.special_tokens import set_special_tokens
from janusflow.config import JanusFlowConfig
from janusflow.data.loader import worker_killed
from janusflow.data.samples import SampleConfig, SampleMaker
from janusflow.data.sources import SourceConfig
from janusflow.device import resolve_device
from janusflow.files import read_json, write_text
from janusflow.folders import put_together
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.model.janus import JanusForConditionalGeneration
from janusflow.model.janus_config import janus_config
from janusflow.pipelines.janus import Janus
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.processing.processor import ImageSettings, JanusFlowProcessor, TextSettings
from janusflow.training.distributed import World
from janusflow.training.lock import alone_in
from janusflow.training.parts.config import PartsConfig
from janusflow.training.parts.data import PICTURES, TEXTS, PictureMaker, StepBatches, TextMaker, batches, corpus
from janusflow.training.parts.llm import fit_llm
from janusflow.training.parts.tokenizer import learn_tokenizer
from janusflow.training.parts.tower import fit_tower
from janusflow.training.parts.vae import fit_vae
from janusflow.training.parts.vq import fit_vq
from janusflow.training.start import take_tower
from janusflow.training.stop import leave_at_once, on_stop
from janusflow.training.stored_settings import differences
from janusflow.vae import LatentCodec

SETTINGS = "parts.json"
CARD = "Parts for `janusflow train`, made by `janusflow pretrain`; what is between them has random weights."


def pretrain(config: PartsConfig, *, device: str = "auto") -> Path:
    """Train tokenizer, VAE or VQ codec, tower and language model, or resume with bit-identical results.

    Returns:
        The folder of a checkpoint with random weights between these parts, `config.out/export`.

    Raises:
        ValueError: if data cannot be read, too many records are broken, the folder belongs to a run with other settings
            or another process trains in it, or a loss is not finite.
    """
    out, place = Path(config.out).expanduser(), resolve_device(device)
    export = out / "export"
    with on_stop(leave_at_once), alone_in(out, World(0, 1, place, None)):
        _keep_settings(config, out)
        if (export / "config.json").is_file():
            return export
        try:
            parts = Parts(config, out, place)
            model = parts.janus() if config.vae is None else parts.janusflow()
        except RuntimeError as error:
            if not (killed := worker_killed(error, config.workers)):
                raise
            raise ValueError(killed) from error
        model.network.generation_config = set_special_tokens(model.network.config, model.processor)
        origin = None if config.start is None else parts.start.origin
        with put_together(export) as temporary:
            model.save_pretrained(temporary)
            write_trained_card(temporary, origin, title=out.resolve().name, text=CARD, base_model=config.start)
    return export


class Parts:
    """The parts of a run. Each is trained, or its training resumed, on request."""

    def __init__(self, config: PartsConfig, out: Path, device: torch.device) -> None:
        self.config, self.out, self.device = config, out, device
        if config.start is None:
            self.processor = make_processor(config, out / "processor")
            self.sizes = network_config(config, self.processor)
        else:
            self.start = opened(config.start, device)
            self.processor, self.sizes = self.start.processor, self.start.network.config
            if not isinstance(self.sizes, JanusFlowConfig):
                raise ValueError(f"start is {config.start}, a {self.start.family.name} model; expected a JanusFlow")

    def pictures(self, size: int, seed: int, sizes: Any = None) -> closing[StepBatches]:
        """Return batches of pictures of a network's size, for use in a `with` statement."""
        maker = PictureMaker(self.processor, sizes or self.sizes, SampleConfig())
        return self._batches(PICTURES, self.config.pictures, maker, size=size, seed=seed)

    def _batches(
        self, task: str, sources: Sequence[SourceConfig], maker: SampleMaker, *, size: int, seed: int
    ) -> closing[StepBatches]:
        workers, limit = self.config.workers, self.config.max_broken
        return closing(batches(task, sources, maker, size=size, seed=seed, workers=workers, max_broken=limit))

    def network(self) -> JanusFlowForConditionalGeneration:
        """Return a JanusFlow whose tower and language model are trained, or are those of `start`."""
        config, seed = self.config, self.config.seed
        if config.tower is None or config.llm is None:
            network: JanusFlowForConditionalGeneration = self.start.network
            return network
        with self.pictures(config.tower.batch_size, seed + 1) as pictures:
            tower = fit_tower(
                config.tower,
                self.sizes.vision_config,
                pictures,
                self.out / "tower",
                vocabulary=len(self.processor.tokenizer),
                pad=self.processor.tokenizer.pad_token_id,
                seed=seed,
                device=self.device,
            )
        reader, size = TextMaker(self.processor, self.sizes, SampleConfig()), config.llm.batch_size
        with self._batches(TEXTS, config.texts, reader, size=size, seed=seed) as texts:
            network = fit_llm(config.llm, self.sizes, texts, self.out / "llm", seed=seed, device=self.device)
        take_tower(network, tower.vision_model)
        return network.float().eval()

    def janusflow(self) -> JanusFlow:
        """Return the parts with a VAE."""
        assert self.config.vae is not None
        config, seed = self.config.vae, self.config.seed
        with self.pictures(config.batch_size, seed) as pictures:
            vae = fit_vae(config, self.sizes, pictures, self.out / "vae", seed=seed, device=self.device)
        return JanusFlow(self.network(), self.processor, LatentCodec(vae))

    def janus(self) -> Janus:
        """Return the parts with a VQ codec, whose codes also initialize the embeddings of codes.

        Raises:
            ValueError: if a code of the codec does not cover the same number of pixels as a patch of f_enc.
        """
        assert self.config.vq is not None
        config, seed = self.config.vq, self.config.seed
        text, vision, own = self.sizes.text_config, self.sizes.vision_config, config.sizes()
        if 2 ** (len(config.channels) - 1) != vision.patch_size:
            levels = f"{len(config.channels)} levels, of 2 ** (levels - 1) pixels a code"
            raise ValueError(f"vq.channels has {levels}; f_enc has patches of {vision.patch_size} pixels")
        sizes = janus_config(text, vision, image_token_id=self.processor.image_id, **own)
        sizes.dtype = torch.float32
        with self.pictures(config.batch_size, seed, sizes) as pictures:
            vq = fit_vq(config, sizes.vq_config, pictures, self.out / "vq", seed=seed, device=self.device)
        source = self.network()
        torch.manual_seed(seed)
        network = JanusForConditionalGeneration(sizes).to(self.device)
        network.model.language_model.load_state_dict(source.language_model.state_dict())
        network.lm_head.load_state_dict(source.lm_head.state_dict())
        network.model.vqmodel.load_state_dict(vq.state_dict())
        take_tower(network, source.understanding_encoder.tower)
        codebook = F.normalize(vq.quantize.embedding.weight.detach(), dim=-1)
        network.model.generation_embeddings.load_state_dict({"weight": codebook})
        return Janus(network.float().eval(), self.processor)


def opened(start: str, device: torch.device) -> Any:
    """Open the model in the setting `start`.

    Raises:
        ValueError: if it cannot be opened.
    """
    try:
        return JanusFlow.from_pretrained(start, dtype="float32", device=device)
    except ValueError as error:
        raise ValueError(f"start is {start}, which cannot be opened: {error}") from error


def make_processor(config: PartsConfig, folder: Path) -> JanusFlowProcessor:
    """Return the processor with a tokenizer that is learned once and then read from `folder`."""
    if not (folder / "processor_config.json").is_file():
        records, limit = config.tokenizer.records, config.max_broken
        sentences = corpus(config.pictures, config.texts, records, config.seed, max_broken=limit)
        tokenizer = learn_tokenizer(sentences, config.tokenizer.vocabulary)
        sizes = config.sizes(len(tokenizer))
        text = TextSettings(num_image_tokens=sizes.num_understanding_tokens, system_prompt="")
        with put_together(folder) as temporary:
            JanusFlowProcessor(tokenizer, text, ImageSettings(image_size=sizes.image_size)).save_pretrained(temporary)
    return JanusFlowProcessor.from_pretrained(folder)


def network_config(config: PartsConfig, processor: JanusFlowProcessor) -> JanusFlowConfig:
    """Return the dimensions of the network, with the processor's token ids."""
    sizes = config.sizes(len(processor.tokenizer))
    sizes.image_token_id = processor.image_id
    sizes.begin_image_token_id = processor.image_start_id
    sizes.end_image_token_id = processor.image_end_id
    sizes.text_config.bos_token_id = processor.tokenizer.bos_token_id
    sizes.text_config.eos_token_id = processor.tokenizer.eos_token_id
    return sizes


def _keep_settings(config: PartsConfig, out: Path) -> None:
    """Write the settings of a new run, or compare them with those of the run to continue."""
    values = json.loads(json.dumps(asdict(config)))
    settings = {name: value for name, value in values.items() if name not in ("out", "workers", "max_broken")}
    file = out / SETTINGS
    if file.is_file():
        before = read_json(file)
        known = {name: before.get(name) for name in settings} if isinstance(before, dict) else {}
        if changed := differences(known, settings):
            raise ValueError(
                f"{out} was started with other settings ({', '.join(changed)}); give the old ones again, or another "
                "out=FOLDER"
            )
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(settings, indent=1) + "\n")
