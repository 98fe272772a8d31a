"""Small checkpoints in every layout, and what a user does with one: describe it, ask, generate, convert."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from janusflow.training.config import LoraConfig
from janusflow.training.lora import add_adapters

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXPECTED = ("expected.json", "expected.safetensors", "image_*.png")  # the golden cases, which no checkpoint has


def digest(value: Any) -> str:
    """A short digest of bytes, an array or a tensor."""
    content = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def drawing(number: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    """A picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def write_vae(folder: Path) -> None:
    """A random VAE of factor 8 with four latent channels."""
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
    ).save_pretrained(folder)


def golden(name: str, folder: Path) -> None:
    """A golden checkpoint as `model`."""
    shutil.copytree(GOLDEN / name, folder / "small-model", ignore=shutil.ignore_patterns(*EXPECTED))


def pickled(folder: Path) -> None:
    """The official layout with weights of `torch.save`."""
    golden("janusflow-small-a", folder)
    weights = folder / "small-model" / "model.safetensors"
    torch.save(load_file(weights), folder / "small-model" / "pytorch_model.bin")
    weights.unlink()


def ours(folder: Path) -> None:
    """Our layout with a VAE, its weights in two files and an index."""
    golden("janusflow-small-a", folder / "source")
    write_vae(folder / "source" / "small-model" / "vae")
    model = convert(folder / "source" / "small-model", folder / "small-model", progress=False)
    shutil.rmtree(folder / "source")
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, model / file, {"format": "pt"})
        index.update(dict.fromkeys(part, file))
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.copy(model / "model-00001-of-00002.safetensors", folder / "outside.safetensors")


def transformers_janus(folder: Path) -> None:
    """A Janus in the layout of transformers."""
    convert(GOLDEN / "janus-small-a", folder / "small-model", to="transformers", progress=False)


def adapted(folder: Path) -> None:
    """A checkpoint, and low-rank adapters for it."""
    golden("janusflow-small-a", folder)
    model = JanusFlow.from_pretrained(folder / "small-model", device="cpu", progress=False)
    adapters = add_adapters(model.network, LoraConfig(rank=4), ["llm", "aligner"])
    torch.manual_seed(0)
    for name, parameter in adapters.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapters.peft_config["default"].base_model_name_or_path = "small-model"
    adapters.save_pretrained(folder / "small-adapter", save_embedding_layers=False)


def use_model(folder: Path, _out: Path) -> Any:
    """What a checkpoint is described as, an answer, and a picture after one step."""
    described = describe(folder / "small-model").family
    adapter = folder / "small-adapter"
    model: Any = JanusFlow.from_pretrained(
        folder / "small-model", device="cpu", progress=False, adapter=adapter if adapter.is_dir() else None
    )
    answer = model.ask("what is this?", drawing(0), max_new_tokens=6)
    options: dict[str, Any] = {} if described == "Janus" else {"num_inference_steps": 1}
    kind = "np" if (folder / "small-model" / "vae").is_dir() else "latent"
    made = model.generate("a star", seed=0, output_type=kind, progress=False, **options)
    return [described, answer, digest(np.asarray(made))]


def use_converted(folder: Path, out: Path) -> Any:
    """The files that a checkpoint is converted to."""
    made = convert(folder / "small-model", out / "converted", progress=False)
    return {
        str(file.relative_to(made)): digest(file.read_bytes()) for file in sorted(made.rglob("*")) if file.is_file()
    }
