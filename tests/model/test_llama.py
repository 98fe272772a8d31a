"""The loop of our own over the LLM's layers gives what transformers' forward gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from janusflow import JanusFlow
from janusflow.model import PromptPrefix
from janusflow.model.llama import TILE, causal_attention, runs_plainly
from tests.conftest import TOLERANCE, error


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)], ids=["as many", "shared"])
@pytest.mark.parametrize("new", [1, 2, TILE, 2 * TILE + 7])
@pytest.mark.parametrize("before", [0, 5])
def test_tiles_are_causal_attention_to_the_last_bits(heads: tuple[int, int], new: int, before: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, new, heads[0], 8, generator=generator).transpose(1, 2)
    k, v = (torch.randn(2, heads[1], before + new, 8, generator=generator) for _ in range(2))
    mask = torch.ones(new, before + new, dtype=torch.bool).tril(before)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(causal_attention(q, k, v), expected, atol=2e-6, rtol=1e-5)


def velocities(model: JanusFlow, x: Tensor, t: Tensor) -> tuple[PromptPrefix, Tensor]:
    """Of three prompts of different lengths with their unconditional rows, in one batch."""
    asked = model.processor.encode_prompts(["a red circle above a blue square", "two", "three stars"])
    read = model.network.encode_prompts(*asked)
    return read, model.network.velocity(x, t, PromptPrefix.concatenate(read, read.unconditional()))


def test_velocities_equal_those_of_transformers_forward(small_model: JanusFlow) -> None:
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(6, 4, 32, 24, generator=generator), torch.rand(6, generator=generator)
    with torch.inference_mode():
        assert runs_plainly(small_model.network.language_model)
        read, found = velocities(small_model, x, t)
    assert not runs_plainly(small_model.network.language_model)  # gradients are on
    expected_read, expected = velocities(small_model, x, t)
    assert error(found, expected.detach()) <= TOLERANCE
    for one, two in zip(read.layers, expected_read.layers, strict=True):
        torch.testing.assert_close(one, tuple(part.detach() for part in two), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["", "mlp", "self_attn.o_proj"])
def test_hooks_on_a_layer_or_any_part_of_it_are_called(small_folder: Path, part: str) -> None:
    model, calls = JanusFlow.from_pretrained(small_folder, device="cpu"), []
    plain = model.generate("a star", seed=0, num_inference_steps=2, output_type="latent")
    hooked_part = model.network.language_model.layers[0].get_submodule(part)
    hooked_part.register_forward_hook(lambda *given: calls.append(1))
    hooked = model.generate("a star", seed=0, num_inference_steps=2, output_type="latent")
    assert len(calls) == 3  # the prompt, and two steps
    assert error(hooked, plain) <= TOLERANCE
