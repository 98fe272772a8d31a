"""The parts one after the other, put together as a checkpoint that stage 1 starts from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from transformers import SiglipModel

from janusflow.config import JanusFlowConfig
from janusflow.data.samples import SampleConfig
from janusflow.device import resolve_device
from janusflow.files import read_json, write_text
from janusflow.folders import put_together
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.processing.processor import ImageSettings, JanusFlowProcessor, TextSettings
from janusflow.training.distributed import World
from janusflow.training.lock import alone_in
from janusflow.training.parts.config import PartsConfig
from janusflow.training.parts.data import PICTURES, TEXTS, Batches, PictureMaker, TextMaker, batches, corpus
from janusflow.training.parts.llm import fit_llm
from janusflow.training.parts.tokenizer import learn_tokenizer
from janusflow.training.parts.tower import fit_tower
from janusflow.training.parts.vae import fit_vae
from janusflow.training.stop import leave_at_once, on_stop
from janusflow.vae import LatentCodec

SETTINGS = "parts.json"


def pretrain(config: PartsConfig, *, device: str = "auto") -> Path:
    """Train tokenizer, VAE, tower and language model, or continue there to the bit.

    Returns:
        The folder of a checkpoint with g_enc, g_dec and aligners of random weights, `config.out/export`.

    Raises:
        ValueError: if data cannot be read, the folder belongs to a run with other settings or another process trains in
            it, or a loss is not finite.
    """
    out, place = Path(config.out), resolve_device(device)
    export = out / "export"
    with on_stop(leave_at_once), alone_in(out, World(0, 1, place, None)):
        _keep_settings(config, out)
        if (export / "config.json").is_file():
            return export
        processor = make_processor(config, out / "processor")
        sizes = network_config(config, processor)
        maker = PictureMaker(processor, sizes, SampleConfig())

        def pictures(size: int, seed: int) -> Batches:
            return batches(PICTURES, config.pictures, maker, size=size, seed=seed)

        vae = fit_vae(
            config.vae,
            sizes,
            pictures(config.vae.batch_size, config.seed),
            out / "vae",
            seed=config.seed,
            device=place,
        )
        tower = fit_tower(
            config.tower,
            sizes.vision_config,
            pictures(config.tower.batch_size, config.seed + 1),
            out / "tower",
            vocabulary=len(processor.tokenizer),
            pad=processor.tokenizer.pad_token_id,
            seed=config.seed,
            device=place,
        )
        reader = TextMaker(processor, sizes, SampleConfig())
        texts = batches(TEXTS, config.texts, reader, size=config.llm.batch_size, seed=config.seed)
        network = fit_llm(config.llm, sizes, texts, out / "llm", seed=config.seed, device=place)
        take_tower(network, tower)
        with put_together(export) as temporary:
            JanusFlow(network.float().eval(), processor, LatentCodec(vae)).save_pretrained(temporary)
    return export


def make_processor(config: PartsConfig, folder: Path) -> JanusFlowProcessor:
    """The processor with a tokenizer that is learned once, then read from `folder`."""
    if not (folder / "processor_config.json").is_file():
        sentences = corpus(config.pictures, config.texts, config.tokenizer.records, config.seed)
        tokenizer = learn_tokenizer(sentences, config.tokenizer.vocabulary)
        sizes = config.sizes(len(tokenizer))
        text = TextSettings(num_image_tokens=sizes.num_understanding_tokens, system_prompt="")
        with put_together(folder) as temporary:
            JanusFlowProcessor(tokenizer, text, ImageSettings(image_size=sizes.image_size)).save_pretrained(temporary)
    return JanusFlowProcessor.from_pretrained(folder)


def network_config(config: PartsConfig, processor: JanusFlowProcessor) -> JanusFlowConfig:
    """The dimensions of the network, with the numbers of the processor's tokens."""
    sizes = config.sizes(len(processor.tokenizer))
    sizes.image_token_id = processor.image_id
    sizes.begin_image_token_id = processor.image_start_id
    sizes.end_image_token_id = processor.image_end_id
    sizes.text_config.bos_token_id = processor.tokenizer.bos_token_id
    sizes.text_config.eos_token_id = processor.tokenizer.eos_token_id
    return sizes


def take_tower(network: JanusFlowForConditionalGeneration, tower: SiglipModel) -> None:
    """Puts the weights of a tower, without its pool head, into a network."""
    state = {name: value for name, value in tower.vision_model.state_dict().items() if not name.startswith("head.")}
    network.understanding_encoder.tower.load_state_dict(state)


def _keep_settings(config: PartsConfig, out: Path) -> None:
    """Writes the settings of a new run, or compares them with those of the one to continue."""
    settings = {name: value for name, value in json.loads(json.dumps(asdict(config))).items() if name != "out"}
    file = out / SETTINGS
    if file.is_file():
        before = read_json(file)
        changed = [name for name in settings if not isinstance(before, dict) or before.get(name) != settings[name]]
        if changed:
            raise ValueError(
                f"{out} was started with other {', '.join(changed)}; give these again, or another out=FOLDER"
            )
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(settings, indent=1) + "\n")
