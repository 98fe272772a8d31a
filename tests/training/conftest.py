"""A network of 130,000 parameters that the training tests start from."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from transformers import LlamaConfig

from janusflow import JanusFlow, JanusFlowForConditionalGeneration
from janusflow.config import JanusFlowConfig, siglip_config
from janusflow.processing.processor import ImageSettings, JanusFlowProcessor, TextSettings
from janusflow.training.config import TrainConfig, read_config
from janusflow.training.distributed import World
from janusflow.training.parts.config import load_parts
from janusflow.training.parts.pretrain import make_processor
from janusflow.training.trainer import train
from janusflow.vae import LatentCodec

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new, very small model of the tiny world."""
    folder = tmp_path_factory.mktemp("start")
    parts = load_parts(RECIPES / "tiny" / "parts.yaml", ["tokenizer.records=300"])
    tokenizer = make_processor(parts, folder / "processor").tokenizer
    processor = JanusFlowProcessor(tokenizer, TextSettings(16, system_prompt=""), ImageSettings(64))
    config = JanusFlowConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=512,
        ),
        vision_config=siglip_config(width=24, depth=1, heads=2, patch_size=16, image_size=64, pool_head=False),
        generation_encoder_width=16,
        generation_decoder_width=16,
        image_size=64,
        image_token_id=processor.image_id,
        begin_image_token_id=processor.image_start_id,
        end_image_token_id=processor.image_end_id,
    )
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
    )
    model = JanusFlow(JanusFlowForConditionalGeneration(config).eval(), processor, LatentCodec(vae))
    model.save_pretrained(folder / "model")
    return folder / "model"


TINYWORLD = [{"kind": "tinyworld"}]
OFTEN = {"every": 2}  # checkpoints, for a run that does not end well
ALONE = World(0, 1, torch.device("cpu"), None)


def settings(start: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of a few quick steps on the tiny world."""
    values: dict[str, Any] = {
        "out": str(out),
        "parts": ["aligner", "generation", "llm", "tower"],
        "steps": 6,
        "batch_size": 6,
        "pack_length": 256,
        "precision": "float32",
        "model": {"checkpoint": str(start)},
        "data": {
            "understanding": TINYWORLD,
            "generation": TINYWORLD,
            "text": TINYWORLD,
            "ratios": [{"understanding": 2, "generation": 3, "text": 1}],
            "workers": 0,
        },
        "loss": {"repa_block": 2},
        "save": {"every": 1000},  # and at the end: half of the time of a short run went into checkpoints
        "watch": {"tensorboard": False, "curves": False},
        "optimizer": {"learning_rate": 1e-3},
    }
    return read_config({**values, **changes})


LOSSES = ("ar", "flow", "repa", "loss", "gradient")


def curve(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def values(out: Path) -> list[tuple[float, ...]]:
    return [tuple(row[name] for name in ("step", *LOSSES) if name in row) for row in curve(out)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def quietly(config: TrainConfig, **options: Any) -> Path:
    return train(config, device="cpu", progress_bar=False, **options)


class BreakingFile:
    """A file that torch writes from C++, which hides errors of `write`; at the third one, `trouble` is called first."""

    def __init__(self, file: Any, trouble: Callable[[], None]) -> None:
        self.file, self.trouble, self.writes = file, trouble, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: Any) -> int:
        self.writes += 1
        if self.writes == 3:
            self.trouble()
        written: int = self.file.write(content)
        return written


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def close(found: list[tuple[float, ...]], expected: list[tuple[float, ...]], within: float = 2e-5) -> bool:
    return len(found) == len(expected) and all(
        a == pytest.approx(b, rel=within, abs=within) for a, b in zip(found, expected, strict=True)
    )


def streaming(tmp_path: Path, workers: int) -> dict[str, Any]:
    """Data of two streamed files of twenty pictures to draw."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    for part in ("first", "second"):
        for number in range(20):
            Image.new("RGB", (64, 64), (12 * number, 0, 0)).save(data / f"{number}.png")
        rows = [json.dumps({"image": f"{number}.png", "text": f"{part} {number}"}) for number in range(20)]
        (data / f"{part}.jsonl").write_text("\n".join(rows))
    source = {"kind": "jsonl", "path": str(data), "streaming": True}
    ratios = [{"understanding": 0, "generation": 1, "text": 0}]
    return {"generation": [source], "ratios": ratios, "workers": workers}
