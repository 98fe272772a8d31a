"""Choosing codes: with their probabilities, from the likeliest, and within the codebook."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from janusflow.engine.token_generation import TokenSampling


@pytest.fixture
def chances() -> Iterator[Tensor]:
    yield torch.rand(20000, generator=torch.Generator().manual_seed(0))


def test_codes_are_drawn_with_their_probabilities(chances: Tensor) -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0]).log().expand(len(chances), -1)
    for temperature in (1.0, 0.5):
        share = torch.bincount(TokenSampling(temperature=temperature).choose(logits, chances), minlength=5) / 20000
        wanted = (logits[0] / temperature).softmax(-1)
        assert float((share - wanted).abs().max()) < 0.01


def test_top_k_and_top_p_leave_the_likeliest(chances: Tensor) -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(len(chances), -1)
    assert set(TokenSampling(top_k=2).choose(logits, chances).tolist()) == {2, 3}
    assert set(TokenSampling(top_p=0.4).choose(logits, chances).tolist()) == {3}
    assert set(TokenSampling(top_p=0.41).choose(logits, chances).tolist()) == {2, 3}
    assert set(TokenSampling(do_sample=False).choose(logits, chances).tolist()) == {3}


def test_a_chance_of_one_minus_rounding_stays_in_the_codebook() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    chance = torch.tensor([1.0 - 2**-24])
    assert TokenSampling().choose(logits, chance).tolist() == [1]
