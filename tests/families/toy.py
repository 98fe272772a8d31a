"""A family of its own in one file: a Llama that reads picture patches and generates pictures of 64 flat cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, LlamaConfig, LlamaModel, PreTrainedConfig, PreTrainedModel, SiglipVisionConfig
from transformers.configuration_utils import SubConfigSpec

from janusflow.engine.generation import as_pictures
from janusflow.families import Family
from janusflow.families.layout import Layout, Source, own_layout
from janusflow.model.janusflow import GENERATION_TOKEN, JanusFlowOutput
from janusflow.model.picture_prompts import PicturePrompts
from janusflow.pipelines.base import Pipeline
from janusflow.processing.processor import JanusFlowProcessor

SIDE, CELL, PATCH = 64, 8, 16  # pixels of a picture, of a generated cell, and of a patch that is seen


class ToyConfig(PreTrainedConfig):
    model_type = "toy"
    sub_configs_defaults: ClassVar = {
        "text_config": SubConfigSpec(LlamaConfig),
        "vision_config": SubConfigSpec(SiglipVisionConfig),
    }
    text_config: Any = None
    vision_config: Any = None
    image_token_id: int = 0
    tie_word_embeddings: bool = False
    image_size: int = SIDE
    latent_channels: int = 3
    latent_size: int = SIDE // CELL
    num_understanding_tokens: int = (SIDE // PATCH) ** 2
    num_generation_tokens: int = (SIDE // CELL) ** 2


class ToyNetwork(PicturePrompts, PreTrainedModel, GenerationMixin):
    config_class = ToyConfig
    base_model_prefix = "language_model"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.eye = nn.Conv2d(3, width, PATCH, PATCH)
        self.reader, self.writer = nn.Linear(4, width), nn.Linear(width, 3)  # color and time of a cell; its velocity
        self.language_model = LlamaModel(config.text_config)
        self.lm_head = nn.Linear(width, config.text_config.vocab_size, bias=False)
        self.post_init()

    @property
    def num_understanding_tokens(self) -> int:
        return int(self.config.num_understanding_tokens)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None = None, cells: Tensor | None = None) -> Tensor:
        embeds = self.language_model.embed_tokens(input_ids.clamp(min=0))
        seen = None if pixel_values is None else rearrange(self.eye(pixel_values), "n d h w -> n (h w) d")
        for token, values in ((self.config.image_token_id, seen), (GENERATION_TOKEN, cells)):
            if values is not None:
                embeds = embeds.masked_scatter((input_ids == token)[..., None], values.to(embeds.dtype))
        return embeds

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        latents: Tensor | None = None,
        t: Tensor | None = None,
        attention_mask: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> JanusFlowOutput:
        cells = None
        if latents is not None and t is not None:
            flat = rearrange(latents, "n c h w -> n (h w) c")
            cells = self.reader(torch.cat([flat, t[:, None, None].expand(*flat.shape[:2], 1)], dim=-1))
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = self.embed(input_ids, pixel_values, cells)
        assert inputs_embeds is not None
        output = self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, **options)
        states, velocity = output.last_hidden_state, None
        if latents is not None and input_ids is not None:
            velocity = self.writer(states[input_ids == GENERATION_TOKEN]).float()
            velocity = rearrange(velocity, "(n h w) c -> n c h w", n=len(latents), h=latents.shape[2])
        kept = states[:, logits_to_keep] if isinstance(logits_to_keep, Tensor) else states
        return JanusFlowOutput(logits=self.lm_head(kept), past_key_values=output.past_key_values, velocity=velocity)


class Cells:
    """A picture as the mean colors of its cells, and back."""

    def encode(self, pixels: Tensor) -> Tensor:
        return F.avg_pool2d(pixels, CELL)

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=CELL).clip(-1, 1)


class Toy(Pipeline):
    network: ToyNetwork
    codec = Cells()
    sampling = ("num_inference_steps",)

    @torch.inference_mode()
    def generate(self, prompts: list[str], *, num_inference_steps: int = 4, seed: int = 0) -> list[Image.Image]:
        sizes, pictures = self.network.config, []
        for prompt in prompts:
            ids, _ = self.processor.encode_prompts([prompt], keep_last=True)
            places = torch.full((1, sizes.num_generation_tokens), GENERATION_TOKEN)
            x = torch.randn(1, 3, SIDE // CELL, SIDE // CELL, generator=torch.Generator().manual_seed(seed))
            for step in range(num_inference_steps):
                t = torch.full((1,), step / num_inference_steps)
                x = x + self.network(torch.cat([ids, places], dim=1), latents=x, t=t).velocity / num_inference_steps
            pictures += as_pictures(self.codec.decode(x), "pil")
        return pictures


def write_old(config: ToyConfig, processor: JanusFlowProcessor, folder: Path, dtype: str) -> None:
    OWN.write(config, processor, folder, dtype)  # type: ignore[misc]
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"toy"', '"old_toy"'))


OWN = own_layout(ToyConfig)
OLD = Layout(
    "old",
    detect=lambda raw, files: raw.get("model_type") == "old_toy",
    read_config=lambda raw, ids, names: ToyConfig.from_dict({**raw, "model_type": "toy"}),
    source=lambda name: Source((f"old.{name}",)),
    write=write_old,
)
FAMILY = Family(
    name="Toy",
    config=ToyConfig,
    network=ToyNetwork,
    layouts=(OWN, OLD),
    pipeline=f"{__name__}:Toy",
    seen_tokens=lambda config: config.num_understanding_tokens,
    drawn_tokens=lambda config: config.num_generation_tokens,
    picture=lambda config: (config.image_size, f"{config.num_generation_tokens} cells"),
    parts={"eye": "patches to embeddings", "language_model": "LLM", "lm_head": "LLM head"},
    trainable={"generation": ("reader.", "writer."), "llm": ("language_model.", "lm_head."), "aligner": ("eye.",)},
)
