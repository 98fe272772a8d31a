"""The small pretrained parts that the shipped model starts from: tokenizer, VAE, tower and LLM."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, SiglipTextConfig

from janusflow.config import JanusFlowConfig, siglip_config, tiny
from janusflow.data.samples import SampleConfig, SampleMaker
from janusflow.flow import standard_normal
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.model.attention import PACKED
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.processing.processor import ImageSettings, JanusFlowProcessor, TextSettings
from janusflow.tinyworld.recipe import samples as samples
from janusflow.tinyworld.scenes import COLORS, SHAPES
from janusflow.tinyworld.source import TinyworldConfig, TinyworldSource
from janusflow.training.losses.autoregressive import autoregressive_loss
from janusflow.training.packing import pack, packed_forward
from janusflow.training.parts.fit import FitConfig, Losses, fit, step_generator
from janusflow.training.parts.llm import look_back as look_back
from janusflow.training.parts.llm import spread as spread
from janusflow.training.parts.tokenizer import learn_tokenizer
from janusflow.vae import LatentCodec

VOCABULARY = 1024
DESCRIPTION_TOKENS = 72
FIRST_LOG_VARIANCE = -4.0  # of the VAE's posterior


@dataclass(frozen=True)
class PartsRecipe:
    """How the parts are pretrained that the paper takes pretrained.

    Attributes:
        vae, tower, llm: how each is fitted.
        vae_batch, tower_batch, llm_batch: samples per step.
        llm_questions: most questions about one description.
        seed: of the data; the parts draw different samples from it.
    """

    vae: FitConfig = field(
        default_factory=lambda: FitConfig(steps=2000, learning_rate=5e-3, warmup=30, ema=0.996, optimizer="muon")
    )
    tower: FitConfig = field(
        default_factory=lambda: FitConfig(steps=1200, learning_rate=2e-3, ema=0.99, optimizer="muon")
    )
    llm: FitConfig = field(
        default_factory=lambda: FitConfig(steps=1100, learning_rate=1e-3, warmup=50, ema=0.99, optimizer="muon")
    )
    vae_batch: int = 16
    tower_batch: int = 32
    llm_batch: int = 16
    llm_questions: int = 12
    seed: int = 0

    def shortened(self, steps: int) -> PartsRecipe:
        """Return a copy with at most this number of steps per part, to check that everything runs."""
        parts = {name: replace(getattr(self, name), steps=steps, warmup=1) for name in ("vae", "tower", "llm")}
        return replace(self, **parts, vae_batch=4, tower_batch=4, llm_batch=4)


def pretrain(recipe: PartsRecipe, out: Path, device: torch.device) -> Path:
    """The three parts put together as a checkpoint that stage 1 starts from."""
    folder = out / "parts"
    if not folder.is_dir():
        processor = make_processor(out / "processor")
        vae = fit_vae(recipe, out / "vae", device)
        tower = fit_tower(recipe, processor, out / "tower", device)
        network = assemble(tower, fit_llm(recipe, processor, out / "llm", device))
        _write(folder, JanusFlow(network.float().eval(), processor, LatentCodec(vae)).save_pretrained)
    return folder


def make_processor(folder: Path) -> JanusFlowProcessor:
    """The tokenizer of the tiny world with the tiny model's settings; learned once, then read from `folder`."""
    if not (folder / "processor_config.json").is_file():
        tokenizer = learn_tokenizer(samples.corpus(4000), VOCABULARY)
        processor = _processor(tokenizer, tiny())
        _write(folder, processor.save_pretrained)
    return JanusFlowProcessor.from_pretrained(folder)


def _processor(tokenizer: PreTrainedTokenizerFast, config: JanusFlowConfig) -> JanusFlowProcessor:
    text = TextSettings(num_image_tokens=config.num_understanding_tokens, system_prompt="")
    return JanusFlowProcessor(tokenizer, text, ImageSettings(image_size=config.image_size))


def fit_vae(recipe: PartsRecipe, folder: Path, device: torch.device) -> AutoencoderKL:
    """A VAE of factor 4 on scenes: absolute and squared error, and a small KL; then its scaling factor is measured."""
    if (folder / "model").is_dir():
        return AutoencoderKL.from_pretrained(folder / "model").to(device)
    torch.manual_seed(recipe.seed)
    channels = tiny().latent_channels
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=tiny().image_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).to(device)
    with torch.no_grad():  # with the noise that random weights begin with, nothing is learned at first
        vae.encoder.conv_out.weight[channels:] = 0
        vae.encoder.conv_out.bias[channels:] = FIRST_LOG_VARIANCE

    def losses(model: Any, step: int) -> Losses:
        pixels = samples.any_scenes(recipe.seed, step, recipe.vae_batch).to(device)
        posterior = model.encode(pixels).latent_dist
        noise = standard_normal(posterior.mean.shape, step_generator(recipe.seed, step)).to(device)
        output = model.decode(posterior.mean + posterior.std * noise).sample.float()
        absolute, squared = (output - pixels).abs().mean(), (output - pixels).square().mean()
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        return {"loss": absolute + 2 * squared + 1e-3 * kl, "absolute": absolute, "squared": squared, "kl": kl}

    vae = fit(vae, losses, recipe.vae, folder, title="VAE")
    with torch.inference_mode():
        latents = vae.encode(samples.any_scenes(recipe.seed, -1, 512, free_colors=0).to(device)).latent_dist.mean
    vae.register_to_config(scaling_factor=1 / latents.std().item(), shift_factor=latents.mean().item())
    _write(folder / "model", vae.save_pretrained)
    return vae


class LabelledSiglip(nn.Module):
    """SigLIP with linear heads on its patches: which pixels are not background, and the shape's kind and colour.

    The real SigLIP knows shapes from billions of pictures. Here the pairwise loss does not find them in hours,
    nor do labels of kinds; if the outlines are predicted as well, it takes minutes (docs/log.md).
    """

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        width, patch = config.vision_config.hidden_size, config.vision_config.patch_size
        self.siglip = SiglipModel(config)
        self.kind, self.color = nn.Linear(width, 1 + len(SHAPES)), nn.Linear(width, 1 + len(COLORS))
        self.mask = nn.Linear(width, patch**2)

    def patch_losses(self, patches: Tensor, scenes: samples.Described) -> Losses:
        """Return the heads' loss for the tower's last states (B, P, W), and the share of patches that are right."""
        kinds, colors = self.kind(patches).float(), self.color(patches).float()
        shown = scenes.shown.to(patches.device)
        there = shown[..., 0] > 0
        return {
            "kind": F.cross_entropy(kinds.flatten(0, 1), shown[..., 0].flatten()),
            "color": F.cross_entropy(colors.flatten(0, 1), shown[..., 1].flatten()),
            "mask": F.binary_cross_entropy_with_logits(self.mask(patches).float(), scenes.masks.to(patches.device)),
            "kinds": (kinds.argmax(dim=-1) == shown[..., 0])[there].float().mean(),
            "colors": (colors.argmax(dim=-1) == shown[..., 1])[there].float().mean(),
        }


def fit_tower(recipe: PartsRecipe, processor: JanusFlowProcessor, folder: Path, device: torch.device) -> SiglipModel:
    """SigLIP's pairwise loss between scenes and descriptions with a small text tower, and the labels of patches."""
    tower = siglip_config(width=192, depth=6, heads=3, patch_size=8, image_size=tiny().image_size)
    text = SiglipTextConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=3,
        max_position_embeddings=DESCRIPTION_TOKENS,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    learner = LabelledSiglip(SiglipConfig(text_config=text.to_dict(), vision_config=tower.to_dict())).to(device)
    with torch.no_grad():
        learner.siglip.logit_scale.fill_(2.3)
        learner.siglip.logit_bias.fill_(-10.0)

    def losses(model: Any, step: int) -> Losses:
        side = tower.image_size // tower.patch_size
        scenes = samples.described_scenes(recipe.seed, step, recipe.tower_batch, side)
        ids = processor.tokenizer(
            scenes.words, padding="max_length", truncation=True, max_length=DESCRIPTION_TOKENS, return_tensors="pt"
        ).input_ids
        output = model.siglip(input_ids=ids.to(device), pixel_values=scenes.pixels.to(device), return_loss=True)
        found = model.patch_losses(output.vision_model_output.last_hidden_state, scenes)
        right = output.logits_per_image.argmax(dim=1).cpu() == torch.arange(len(ids))
        loss = output.loss + found["kind"] + found["color"] + 2 * found["mask"]
        return {"loss": loss, "pairs": output.loss, "retrieved": right.float().mean(), **found}

    return fit(learner, losses, recipe.tower, folder, title="tower").siglip


def fit_llm(
    recipe: PartsRecipe, processor: JanusFlowProcessor, folder: Path, device: torch.device
) -> JanusFlowForConditionalGeneration:
    """Train the language model on text; the other parts of the network keep their initial values."""
    torch.manual_seed(recipe.seed)
    network = JanusFlowForConditionalGeneration(network_config(processor)).to(device)
    network.set_attn_implementation({"text_config": PACKED})
    network.requires_grad_(False)
    for part in (network.language_model, network.lm_head):
        part.requires_grad_(True)
    spread(network)
    look_back(network)

    world = TinyworldSource(TinyworldConfig(shares=samples.SHARES, questions=recipe.llm_questions), "text", recipe.seed)
    maker = SampleMaker(processor, network.config, SampleConfig())

    def losses(model: Any, step: int) -> Losses:
        numbers = range(step * recipe.llm_batch, (step + 1) * recipe.llm_batch)
        row = pack([maker.make("text", world.record(number), Random(number)) for number in numbers], device)
        logits = packed_forward(model, row).logits[0]
        return {"loss": autoregressive_loss(logits, row.labels) / len(row.labels)}

    return fit(network, losses, recipe.llm, folder, title="LLM")


def assemble(tower: SiglipModel, llm: JanusFlowForConditionalGeneration) -> JanusFlowForConditionalGeneration:
    """The pretrained LLM with the pretrained tower (without its pool head) put in."""
    state = {k: v for k, v in tower.vision_model.state_dict().items() if not k.startswith("head.")}
    llm.understanding_encoder.tower.load_state_dict(state)
    llm.set_attn_implementation("sdpa")
    return llm


def network_config(processor: JanusFlowProcessor) -> JanusFlowConfig:
    """The tiny network's, with the numbers of the processor's tokens."""
    config = tiny(len(processor.tokenizer))
    config.image_token_id = processor.image_id
    config.begin_image_token_id = processor.image_start_id
    config.end_image_token_id = processor.image_end_id
    config.text_config.bos_token_id = processor.tokenizer.bos_token_id
    config.text_config.eos_token_id = processor.tokenizer.eos_token_id
    return config


def _write(folder: Path, save: Callable[[Path], object]) -> None:
    """Write a folder atomically."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save(temporary)
    temporary.rename(folder)
