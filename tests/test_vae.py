"""The codec: scaled with the VAE's own factors, there and back, and never in float16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from janusflow import JanusFlow
from janusflow.tinyworld.captions import sample_pair
from janusflow.tinyworld.scenes import render
from janusflow.vae import WEIGHTS, WIDE, LatentCodec, SmallDecoder


def open_codec(folder: Path, dtype: torch.dtype = torch.float32) -> LatentCodec:
    return LatentCodec.from_pretrained(folder, dtype=dtype, device=torch.device("cpu"))


def test_latents_are_the_posteriors_mean_scaled(vae_folder: Path) -> None:
    codec, vae = open_codec(vae_folder), AutoencoderKL.from_pretrained(vae_folder)
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
    assert torch.allclose(codec.encode(pixels), mean * 0.13025, atol=1e-6)
    assert codec.encode(pixels).shape == (2, codec.channels, 32 // codec.downscale, 48 // codec.downscale)


def test_a_shift_is_taken_off_and_put_back(vae_folder: Path) -> None:
    plain, shifted = open_codec(vae_folder), open_codec(vae_folder)
    shifted.vae.register_to_config(shift_factor=0.7)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.allclose(shifted.encode(pixels), plain.encode(pixels) - 0.7 * 0.13025, atol=1e-6)
    assert torch.allclose(shifted.decode(shifted.encode(pixels)), plain.decode(plain.encode(pixels)), atol=1e-5)


def test_the_path_it_was_opened_from_is_not_written(vae_folder: Path, tmp_path: Path) -> None:
    open_codec(vae_folder).save_pretrained(tmp_path)
    assert str(vae_folder) not in (tmp_path / "config.json").read_text()
    assert open_codec(tmp_path).channels == 4


def test_a_checkpoint_folder_gives_its_vae_subfolder(vae_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vae").symlink_to(vae_folder)
    assert open_codec(tmp_path).channels == 4


def test_float16_and_missing_folders_are_refused(vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float16"):
        open_codec(vae_folder, torch.float16)
    with pytest.raises(ValueError, match=r"vae is .*neither an AutoencoderKL folder"):
        open_codec(tmp_path / "nowhere")


def test_a_damaged_vae_is_called_damaged(vae_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(vae_folder, tmp_path / "vae")
    weights = next((tmp_path / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"the VAE in .*vae is damaged"):
        open_codec(tmp_path)


def test_the_shipped_vae_keeps_scenes(tiny_model: JanusFlow) -> None:
    scenes = [render(sample_pair(Random(n), "dense")[1]) for n in range(8)]
    pixels = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2) / 127.5 - 1
    latents = tiny_model.codec.encode(pixels)
    assert 0.8 < float(latents.std()) < 1.2
    assert float((tiny_model.codec.decode(latents) - pixels).square().mean()) < 0.004


@pytest.mark.parametrize(("width", "dtype"), [(WIDE, torch.float32), (WIDE, torch.bfloat16), (16, torch.float32)])
def test_only_a_wide_vae_decodes_in_channels_last_memory(width: int, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(width,), layers_per_block=1, norm_num_groups=8)
    vae.save_pretrained(tmp_path / "before")
    codec, latents = open_codec(tmp_path / "before", dtype), torch.randn(2, 4, 8, 8)
    seen: list[bool] = []
    first = codec.vae.decoder.conv_in
    first.register_forward_hook(lambda *call: seen.append(call[2].is_contiguous(memory_format=torch.channels_last)))
    pixels = codec.decode(latents)
    assert seen == [width == WIDE and dtype == torch.float32]
    if dtype == torch.float32:
        with torch.no_grad():
            expected = vae.decode(latents / vae.config.scaling_factor).sample.clip(-1, 1)
        assert torch.allclose(pixels, expected, atol=1e-5)
        codec.save_pretrained(tmp_path / "after")
        before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("before", "after"))
        assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scaling_factor", {"a": 1}, "scaling_factor: Input should be a valid number"),
        ("scaling_factor", None, "scaling_factor: Input should be a valid number"),
        ("scaling_factor", 0.0, "scaling_factor: Input should be greater than"),
        ("shift_factor", "text", "shift_factor: Input should be a valid number"),
        ("block_out_channels", [10**6], "block_out_channels.0: Input should be less than"),
        ("block_out_channels", [4096], "weights, and the weight files hold"),
        ("layers_per_block", 10**6, "layers_per_block: Input should be less than"),
        ("latent_channels", 4096, "weights, and the weight files hold"),
        ("down_block_types", ["Other"], "describes no VAE that can be built"),
    ],
)
def test_the_configuration_is_compared_with_the_weights_before_it_is_built(
    vae_folder: Path, tmp_path: Path, field: str, value: object, message: str
) -> None:
    folder = Path(shutil.copytree(vae_folder, tmp_path / "vae"))
    config = json.loads((folder / "config.json").read_text())
    if field == "block_out_channels" and isinstance(value, list):
        value = value * len(config[field])
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ValueError, match=message) as caught:
        open_codec(folder)
    assert str(folder / "config.json") in str(caught.value) and "\n" not in str(caught.value)


def test_a_configuration_that_is_no_object_is_refused(vae_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vae_folder, tmp_path / "vae"))
    (folder / "config.json").write_text("null")
    with pytest.raises(ValueError, match=r"config.json is damaged: Input should be an object"):
        open_codec(folder)


def test_integer_weights_are_refused(vae_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(vae_folder, tmp_path / "vae"))
    file = next(folder.glob("*.safetensors"))
    weights = load_file(file)
    weights["decoder.conv_in.bias"] = weights["decoder.conv_in.bias"].long()
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"1 tensors: decoder.conv_in.bias of diffusion_pytorch_model.safetensors do not hold floating"
    ):
        open_codec(folder)


@pytest.fixture
def taesd(tmp_path: Path) -> Path:
    """A small autoencoder as diffusers writes it, with an encoder."""
    torch.manual_seed(0)
    widths = {"encoder_block_out_channels": (8, 8, 8), "decoder_block_out_channels": (8, 8, 8)}
    AutoencoderTiny(**widths, num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(2, 1, 1)).save_pretrained(tmp_path)
    return tmp_path


def open_small(folder: Path) -> SmallDecoder:
    return SmallDecoder.from_pretrained(folder, dtype=torch.float32, device=torch.device("cpu"))


def test_a_small_decoder_decodes_as_diffusers_does_and_is_written_again(taesd: Path, tmp_path: Path) -> None:
    latents = torch.randn(2, 4, 8, 6)
    with torch.no_grad():
        wanted = AutoencoderTiny.from_pretrained(taesd).decode(latents).sample.clip(-1, 1)
    small = open_small(taesd)
    assert torch.equal(small.decode(latents), wanted)
    assert (small.channels, small.downscale) == (4, 4)
    small.save_pretrained(tmp_path / "again")
    assert torch.equal(open_small(tmp_path / "again").decode(latents), wanted)


def test_lists_of_a_small_decoder_have_one_length(taesd: Path) -> None:
    file = taesd / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_decoder_blocks": [2, 1]}))
    with pytest.raises(ValueError, match="decoder_block_out_channels has 3 levels, but num_decoder_blocks has 2"):
        open_small(taesd)


def test_a_damaged_small_decoder_is_called_damaged(taesd: Path) -> None:
    weights = {name: value.clone() for name, value in load_file(taesd / WEIGHTS).items()}  # not of the mapped file
    lost = {name: value for name, value in weights.items() if name != "decoder.layers.0.bias"}
    save_file(lost, taesd / WEIGHTS)
    with pytest.raises(ValueError, match=r"the small decoder in .* is damaged"):
        open_small(taesd)
    broken = weights | {"decoder.layers.0.bias": torch.full((8,), torch.nan)}
    save_file(broken, taesd / WEIGHTS)
    with pytest.raises(ValueError, match=r"values that are not finite in 1 tensors: layers.0.bias"):
        open_small(taesd)
    (taesd / WEIGHTS).write_bytes(b"12")
    with pytest.raises(ValueError, match=r"the small decoder in .* is damaged") as caught:
        open_small(taesd)
    assert "\n" not in str(caught.value)
