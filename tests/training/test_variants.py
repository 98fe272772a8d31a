"""Variants of the network: what learns in each, that they train, are saved and opened, and what they attend to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.checkpoint.layouts.official import official_config
from janusflow.config import VARIANTS, JanusFlowConfig, tiny
from janusflow.data.loader import steps
from janusflow.files import read_json
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.model.attention import PACKED
from janusflow.training.config import TrainConfig
from janusflow.training.config.sources import sources_of
from janusflow.training.losses.repa import RepaHead
from janusflow.training.packing import fill, pack, packed_forward
from janusflow.training.start import check_sizes, open_model
from janusflow.training.trainer import open_data, prepare
from tests.training.conftest import ALONE, quietly, settings, weights
from tests.training.test_packing import mixed_samples

UNDERSTOOD = {"understanding": 1, "generation": 0, "text": 0}
GENERATED = {"understanding": 0, "generation": 1, "text": 0}
BOTH = {"understanding": 1, "generation": 1, "text": 0}
PROMPTS = ["a red circle", "a much longer prompt about three yellow stars on a gray background"]  # of mixed_samples
LLM = {"language_model", "lm_head"}
BEGIN, ALIGNER = "understanding_encoder.begin_embedding", "understanding_encoder.aligner"


def variant(start: Path, out: Path, ratio: dict[str, int], encoder: str = "siglip", **changes: Any) -> TrainConfig:
    """Two steps of a variant of the small network on these tasks."""
    data = {task: [{"kind": "tinyworld"}] for task in ("understanding", "generation", "text")}
    return settings(
        start,
        out,
        steps=2,
        model={"checkpoint": str(start), "understanding_encoder": encoder},
        data={**data, "ratios": [ratio], "workers": 0},
        **changes,
    )


def learned(config: TrainConfig) -> set[str]:
    """Parts of the network with a gradient that is not zero, from the samples of the first step."""
    model = open_model(config, ALONE.device)
    state = prepare(config, ALONE, model)
    found = next(steps(open_data(config, ALONE, model, sources_of(config.data)), 0, 1, workers=0))
    for samples in fill(found.samples, config.pack_length):
        row = pack(samples, ALONE.device)
        latents = None if row.pixels is None or state.latents is None else state.latents(row.pixels).clone()
        sums = state.objective(row, latents)
        state.objective.weighted(sums, {}).backward()
    names = {name: p.grad for name, p in model.network.named_parameters() if p.grad is not None and p.grad.any()}
    return {".".join(n.split(".")[: 2 if n.startswith("understanding") else 1]) for n in names}


@pytest.mark.parametrize(
    ("encoder", "ratio", "expected"),
    [
        ("siglip", UNDERSTOOD, {*LLM, BEGIN, ALIGNER}),
        ("shared", UNDERSTOOD, {*LLM, BEGIN, "generation_encoder"}),
        ("vae", UNDERSTOOD, {*LLM, BEGIN, "understanding_encoder.latent_encoder"}),
        ("siglip", GENERATED, {"language_model", "generation_encoder", "generation_decoder"}),
        ("vae", GENERATED, {"language_model", "generation_encoder", "generation_decoder"}),
    ],
)
def test_gradients_reach_what_the_variant_says_and_only_that(
    start: Path, tmp_path: Path, encoder: str, ratio: dict[str, int], expected: set[str]
) -> None:
    parts = ["aligner", "generation", "llm"]
    assert learned(variant(start, tmp_path, ratio, encoder, parts=parts)) == expected


def test_a_frozen_begin_embedding_does_not_learn_and_an_unknown_name_is_refused(start: Path, tmp_path: Path) -> None:
    assert learned(variant(start, tmp_path, UNDERSTOOD, parts=["aligner"], freeze=[BEGIN])) == {ALIGNER}
    with pytest.raises(ValueError, match="freeze has 'begin', with which no parameter's name begins"):
        learned(variant(start, tmp_path, UNDERSTOOD, parts=["aligner"], freeze=["begin"]))
    with pytest.raises(ValueError, match="freeze is for parts that are trained in full"):
        variant(start, tmp_path, UNDERSTOOD, parts=["llm"], freeze=[BEGIN], lora={"rank": 2})


@pytest.mark.parametrize("encoder", ["vae", "shared"])
def test_a_variant_trains_is_saved_and_opened_and_does_both_tasks(start: Path, tmp_path: Path, encoder: str) -> None:
    export = quietly(variant(start, tmp_path / "first", BOTH, encoder))
    assert read_json(export / "config.json")["understanding_encoder"] == encoder
    model = JanusFlow.from_pretrained(export, device="cpu")
    (picture,) = model.generate("a star", num_inference_steps=2, seed=0)
    other = Image.new("RGB", picture.size, "white")
    said = [model.network.see(model.processor.preprocess(one)[None]) for one in (picture, other)]
    assert said[0].shape == (1, 17, 32) and not torch.equal(*said)
    assert isinstance(model.ask("what is it?", picture, max_new_tokens=3), str)
    again = weights(quietly(settings(export, tmp_path / "second", steps=1)))  # keeps the variant
    assert again.keys() == weights(export).keys()
    assert any("latent_encoder" in name for name in again) == (encoder == "vae")
    assert "understanding_encoder.aligner.weight" not in again


def test_what_a_variant_has_in_addition_starts_from_the_seed_and_the_rest_from_the_checkpoint(
    start: Path, tmp_path: Path
) -> None:
    def opened(seed: int) -> dict[str, torch.Tensor]:
        return open_model(variant(start, tmp_path, BOTH, "vae", seed=seed), ALONE.device).network.state_dict()

    first, same, other, before = opened(1), opened(1), opened(2), weights(start)
    new = "understanding_encoder.latent_encoder.patchify.weight"
    assert torch.equal(first[new], same[new]) and not torch.equal(first[new], other[new])
    assert all(torch.equal(value, before[name]) for name, value in first.items() if "latent_encoder" not in name)


def test_bidirectional_image_tokens_are_trained_as_they_are_generated(mutable_model: JanusFlow) -> None:
    """Velocities of packed rows, of the plain loop, and of transformers' layers agree, and differ from causal ones."""
    network, samples = mutable_model.network, [s for s in mixed_samples(mutable_model) if s.drawn is not None]
    row = pack([samples[0], *mixed_samples(mutable_model)[1:2], samples[2]], ALONE.device)
    x = torch.stack([s.drawn.noise for s in (samples[0], samples[2]) if s.drawn is not None])
    ids, visible = mutable_model.processor.encode_prompts(PROMPTS)
    assert row.t is not None
    found = {}
    for attention in ("causal", "bidirectional"):
        network.config.image_attention = attention
        network.set_attn_implementation({"text_config": "sdpa"})
        with torch.no_grad():
            plain = network.velocity(x, row.t, network.encode_prompts(ids, visible))
        layers = network.velocity(x, row.t, network.encode_prompts(ids, visible))
        network.set_attn_implementation({"text_config": PACKED})
        packed = packed_forward(network, row, latents=x).velocity
        torch.testing.assert_close(layers, plain, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
        found[attention] = plain
    assert not torch.allclose(found["causal"], found["bidirectional"], atol=1e-3)
    with pytest.raises(ValueError, match="generated by velocity, and trained in packed rows"):
        network(row.input_ids, latents=x, t=row.t)


def test_a_released_network_is_written_as_before_and_a_variant_only_in_our_layout(start: Path) -> None:
    config = tiny()
    assert not VARIANTS.keys() & config.to_dict().keys()
    changes = {"understanding_encoder": ("vae", "x"), "image_attention": ("bidirectional", "x")}
    for name, (value, wrong) in {**changes, "generation_merge_size": (2, 0)}.items():
        changed = JanusFlowConfig.from_dict({**config.to_dict(), name: value})
        assert changed.to_dict()[name] == value
        with pytest.raises(ValueError, match=f"{name} is {value!r}; the official layout only has"):
            official_config(changed, "float32")
        with pytest.raises(ValueError, match=f"{name} is {wrong!r}; expected "):
            JanusFlowConfig.from_dict({**config.to_dict(), name: wrong})


def test_grids_of_a_variant_must_be_equal_before_weights_are_read(small_folder: Path, start: Path) -> None:
    sizes = tiny().to_dict()
    with pytest.raises(ValueError, match="needs equal pictures and grids: understanding has 64 tokens of 64 pixels"):
        JanusFlowConfig.from_dict({**sizes, "latent_patch_size": 4, "understanding_encoder": "shared"})
    assert check_sizes(variant(start, Path("out"), BOTH, "shared")).understanding_encoder == "shared"


def test_a_network_without_its_vae_says_so(start: Path, tmp_path: Path) -> None:
    network = open_model(variant(start, tmp_path, BOTH, "shared"), ALONE.device).network
    network.encode_pixels = None
    with pytest.raises(ValueError, match="understands the VAE's latents; open it with JanusFlow.from_pretrained"):
        network.see(torch.zeros(1, 3, 64, 64))


@pytest.fixture
def merged(start: Path, tmp_path: Path) -> Path:
    """A network whose image tokens are 2 x 2 cells of g_enc's grid, with random weights."""
    model = JanusFlow.from_pretrained(start)
    sizes = {"latent_patch_size": 2, "generation_merge_size": 2}
    config = JanusFlowConfig.from_dict({**model.network.config.to_dict(), **sizes})
    torch.manual_seed(0)
    model.network = JanusFlowForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "merged")
    return tmp_path / "merged"


def test_a_picture_has_a_token_for_every_group_of_merged_cells(merged: Path) -> None:
    """64 pixels are 8 x 8 latent cells, 4 x 4 cells of g_enc, and 2 x 2 image tokens."""
    model = JanusFlow.from_pretrained(merged)
    config = model.network.config
    assert (config.token_size, config.num_generation_tokens) == (32, 4)
    encoder = model.network.generation_encoder
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        before, other = encoder(x, torch.tensor([0.5])), x.clone()
        other[..., 4:, :4] += 1  # the lower left of the four tokens
        encoder.blocks = torch.nn.ModuleList()  # they look at neighbors
        moved = (encoder(x, torch.tensor([0.5])).tokens - encoder(other, torch.tensor([0.5])).tokens).abs().sum(dim=-1)
    assert before.tokens.shape == (1, 4, 32) and before.skip.shape == (1, 16, 4, 4)
    assert (moved[0] > 0).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="height is 48; expected a positive multiple of 32 pixels"):
        model.generate("a red circle", height=48, width=64, num_inference_steps=1)


def test_the_cells_of_a_token_are_written_in_their_places(merged: Path) -> None:
    """One token changes the velocity of its own quarter of the picture only, if nothing looks at neighbors."""
    decoder = JanusFlow.from_pretrained(merged).network.generation_decoder
    decoder.blocks = torch.nn.ModuleList()
    states, skip, time = torch.randn(1, 4, 32), torch.randn(1, 16, 4, 4), torch.randn(1, 32)
    with torch.no_grad():
        before = decoder(states, skip, time)
        states[:, 1] += torch.randn(32)
        moved = (decoder(states, skip, time) != before).any(dim=1)[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:4, 4:] = True  # the upper right
    assert torch.equal(moved, expected)


def test_a_network_with_merged_cells_is_trained_as_it_generates_and_is_saved(merged: Path, tmp_path: Path) -> None:
    model = JanusFlow.from_pretrained(merged)
    network, samples = model.network, [s for s in mixed_samples(model) if s.drawn is not None]
    row = pack([samples[0], samples[2]], ALONE.device)
    x = torch.stack([s.drawn.noise for s in (samples[0], samples[2]) if s.drawn is not None])
    ids, visible = model.processor.encode_prompts(PROMPTS)
    assert row.t is not None
    plain = network.velocity(x, row.t, network.encode_prompts(ids, visible))
    network.set_attn_implementation({"text_config": PACKED})
    torch.testing.assert_close(packed_forward(network, row, latents=x).velocity, plain, atol=1e-5, rtol=1e-5)
    changes = {"data": {"generation": [{"kind": "tinyworld"}], "ratios": [GENERATED], "workers": 0}}
    export = quietly(settings(merged, tmp_path / "run", steps=2, **changes))
    assert JanusFlow.from_pretrained(export).network.config.generation_merge_size == 2
    assert learned(variant(merged, tmp_path / "two", GENERATED)) == {
        "language_model",
        "generation_encoder",
        "generation_decoder",
    }


def test_repa_compares_the_features_of_each_cell_in_its_place() -> None:
    """h writes the features of a token's cells; here it copies them out of the token."""
    config = JanusFlowConfig.from_dict({**tiny().to_dict(), "generation_merge_size": 2})
    features, width = config.vision_config.hidden_size, config.text_config.hidden_size
    head = RepaHead(config)
    states = torch.randn(1, 16, width)
    with torch.no_grad():
        head[-1].weight.copy_(torch.arange(4).repeat_interleave(features)[:, None].expand(-1, width) * 0.1)
        written = head(states).view(1, 8, 8, features)
    cells = torch.nn.Sequential.forward(head, states).view(1, 4, 4, 4, features)
    for (i, j), cell in {(0, 0): (0, 0, 0), (0, 1): (0, 0, 1), (1, 0): (0, 0, 2), (5, 6): (2, 3, 2)}.items():
        assert torch.equal(written[0, i, j], cells[0][cell])


def test_repa_needs_equal_grids_of_cells(merged: Path, tmp_path: Path) -> None:
    sizes = JanusFlow.from_pretrained(merged).network.config
    assert check_sizes(settings(merged, tmp_path)).generation_merge_size == 2  # 4 x 4 cells, and 4 x 4 tokens of f_enc
    sizes.generation_merge_size = 1
    sizes.latent_patch_size = 4
    sizes.save_pretrained(merged)
    with pytest.raises(ValueError, match="understanding has 16 tokens, generation 4"):
        check_sizes(settings(merged, tmp_path))
