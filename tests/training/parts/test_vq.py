"""The VQ codec: its gradients, its codebook, what is measured, and a Janus made of it and other parts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, JanusVQVAEConfig

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.card import is_released
from janusflow.checkpoint.convert import convert
from janusflow.model.vq_codec import code_distances
from janusflow.tinyworld.source import TinyworldConfig
from janusflow.training.parts.config import PartsConfig, VqConfig, load_parts
from janusflow.training.parts.fit import step_generator
from janusflow.training.parts.pretrain import pretrain
from janusflow.training.parts.vq import MEMORY, VqLearner, measured
from tests.training.parts.test_parts import FIT, small

GOLDEN = Path(__file__).parents[2] / "golden" / "janus-small-a"
RECIPE = Path(__file__).parents[3] / "recipes" / "janus" / "parts.yaml"
VQ = VqConfig(FIT, batch_size=2, codes=16, channels=(32, 32, 32, 32), latent_channels=32)


@pytest.fixture
def learner() -> VqLearner:
    torch.manual_seed(0)
    return VqLearner(JanusVQVAEConfig(**VQ.sizes(), num_patches=8))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_gradient_goes_straight_through_and_every_parameter_learns(
    learner: VqLearner, pixels: torch.Tensor
) -> None:
    found = learner.losses(pixels, VqConfig(FIT, codes=16, commitment=0.0, continuous=0), step_generator(0, 0), 0)
    found["loss"].backward()
    learning = dict(learner.vq.named_parameters())
    for name in ("encoder.conv_in", "quant_conv", "quantize.embedding", "post_quant_conv", "decoder.conv_out"):
        gradient = learning[f"{name}.weight"].grad
        assert gradient is not None and gradient.abs().sum() > 0, name
    vectors, distances = code_distances(learner.vq, pixels)
    codes = torch.nn.functional.normalize(learner.vq.quantize.embedding(distances.argmin(-1)), dim=-1)
    wanted = (vectors - codes).square().sum(dim=-1).mean()
    assert float(found["commitment"]) == pytest.approx(float(wanted.detach()), rel=1e-4)
    torch.testing.assert_close(distances.amin(-1), (vectors - codes).square().sum(-1), atol=1e-5, rtol=1e-4)


def test_a_code_that_nothing_takes_is_replaced_by_a_vector_of_the_batch(
    learner: VqLearner, pixels: torch.Tensor
) -> None:
    vectors, distances = code_distances(learner.vq, pixels)
    chosen = distances.argmin(-1)
    learner.used.fill_(1 / 16)
    learner.used[3] = 1e-4
    with torch.no_grad():
        learner.vq.quantize.embedding.weight[3] = -vectors.flatten(0, 1).mean(dim=0)  # nearest to nothing
    before = learner.vq.quantize.embedding.weight.detach().clone()
    perplexity = learner._count(torch.full_like(chosen, 0), vectors.detach(), step_generator(0, 0))
    after = learner.vq.quantize.embedding.weight.detach()
    assert float(perplexity) == pytest.approx(1), "all vectors took one code"
    two = torch.arange(chosen.numel()).reshape(chosen.shape) % 2
    perplexity = learner._count(two, vectors.detach(), step_generator(0, 1))
    shares = torch.tensor([MEMORY * (1 - MEMORY) + (1 - MEMORY) / 2, (1 - MEMORY) / 2])
    shares /= shares.sum()
    assert float(perplexity) == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=1e-4)
    assert (after != before).any(dim=1).nonzero().tolist() == [[3]]
    assert (vectors.detach().flatten(0, 1) == after[3]).all(dim=1).any()


def test_the_first_steps_decode_vectors_which_then_are_the_codebook(learner: VqLearner, pixels: torch.Tensor) -> None:
    vectors = code_distances(learner.vq, pixels)[0].detach()
    config = VqConfig(FIT, codes=16, continuous=1)
    first = learner.losses(pixels, config, step_generator(0, 0), 0)
    image = vectors.transpose(1, 2).unflatten(2, (8, 8))
    away = learner.vq.decoder(learner.vq.post_quant_conv(image)) - pixels
    assert float(first["squared"]) == pytest.approx(float(away.square().mean()), rel=1e-4)
    assert torch.equal(learner.vq.quantize.embedding.weight.detach(), vectors.flatten(0, 1)[:16])
    later = learner.losses(pixels, config, step_generator(0, 1), 1)
    assert float(later["squared"]) != pytest.approx(float(first["squared"]), rel=1e-4)


def test_usage_is_measured_on_pictures(learner: VqLearner, pixels: torch.Tensor) -> None:
    vq: Any = learner.vq
    codes = code_distances(vq, pixels)[1].argmin(-1)
    report = measured(vq, [pixels[:1], pixels[1:]])
    assert report["codes"] == 16 and report["used"] == len(codes.unique())
    shares = [float((codes == code).double().mean()) for code in codes.unique()]
    assert report["perplexity"] == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))
    decoded = vq.decode(codes).clip(-1, 1)
    assert report["squared"] == pytest.approx(float((decoded - pixels).square().mean()), rel=1e-4)


def test_a_janus_takes_tower_llm_and_tokenizer_of_a_janusflow(tmp_path: Path) -> None:
    start = pretrain(small(tmp_path / "parts"), device="cpu")
    config = PartsConfig(str(tmp_path / "janus"), [TinyworldConfig(described=1.0)], vq=VQ, start=str(start))
    export = pretrain(config, device="cpu")
    flow: Any = JanusFlow.from_pretrained(start, device="cpu")
    model: Any = JanusFlow.from_pretrained(export, device="cpu")
    assert model.family.name == "Janus" and model.network.image_tokens == 64
    assert not is_released(open_checkpoint(export)) and is_released(open_checkpoint(GOLDEN))
    assert GenerationConfig.from_pretrained(export).generation_kwargs == {
        "boi_token_id": model.processor.image_start_id
    }
    tower, theirs = model.network.model.vision_model, flow.network.understanding_encoder
    pixels = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(tower(pixels).last_hidden_state, theirs.features(pixels), atol=1e-5, rtol=1e-4)
    ids = torch.tensor([[1, 7, 9]])
    torch.testing.assert_close(model.network(ids).logits, flow.network(ids).logits, atol=1e-5, rtol=1e-4)
    assert model.processor.tokenizer.get_vocab() == flow.processor.tokenizer.get_vocab()
    picture = model.generate("a star", seed=0, progress=False)[0]
    assert picture.size == (64, 64) and isinstance(model.ask("what?", picture, max_new_tokens=3), str)
    official = convert(export, tmp_path / "official", to="official", progress=False)
    again: Any = JanusFlow.from_pretrained(official, device="cpu")
    assert again.generate("a star", seed=0, progress=False)[0].tobytes() == picture.tobytes()
    report = json.loads((tmp_path / "janus" / "vq" / "report.json").read_text())
    assert report["codes"] == 16 and 1 <= report["used"] <= 16
    with pytest.raises(ValueError, match="a Janus model; expected a JanusFlow"):
        pretrain(PartsConfig(str(tmp_path / "no"), config.pictures, vq=VQ, start=str(export)), device="cpu")
    with pytest.raises(ValueError, match="start is nowhere, which cannot be opened: "):
        pretrain(PartsConfig(str(tmp_path / "new"), config.pictures, vq=VQ, start="nowhere"), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("vq.channels=[16,32]", r"vq.channels is \[16, 32\]; expected multiples of 32"),
        ("vae={fit: {steps: 1, learning_rate: 1.0}}", "exactly one of vae and vq"),
        ("start=somewhere", "give tower, or start=MODEL, whose own is taken; not both"),
        ("texts=[]", "texts has no source"),
        ("network={image_size: 32}", "image_size is 32 and vision_config.image_size 64; a Janus generates"),
        ("network={image_size: 60, vision_config: {image_size: 60}}", "expected a multiple of 8"),
        ("network={text_config: {num_attention_heads: 1, num_key_value_heads: 1}}", "llm.look_back needs two heads"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_parts(RECIPE, [change])


def test_a_codec_of_another_grid_than_f_enc_is_refused(tmp_path: Path) -> None:
    values = {**vars(small(tmp_path)), "vae": None, "vq": VqConfig(FIT, channels=(32, 32))}
    with pytest.raises(ValueError, match="2 levels, .* f_enc has patches of 8 pixels"):
        pretrain(PartsConfig(**values), device="cpu")
