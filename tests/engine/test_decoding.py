"""Settings of answers: sampling with seeds, and what greedy decoding ignores."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from janusflow import JanusFlow
from janusflow.engine.decoding import Decoding

SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 10}


def test_sampling_follows_its_seed_and_leaves_the_callers_state_alone(small_model: JanusFlow) -> None:
    before = torch.get_rng_state()
    first, again, other = (small_model.ask("hi", seed=seed, **SAMPLED) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)
    assert small_model.ask("hi", do_sample=True, top_k=1, max_new_tokens=10) == small_model.ask("hi", max_new_tokens=10)


def test_without_a_seed_sampling_follows_the_global_generator(small_model: JanusFlow) -> None:
    torch.manual_seed(0)
    first, second = (small_model.ask("hi", **SAMPLED) for _ in range(2))
    torch.manual_seed(0)
    assert (first, second) == (small_model.ask("hi", **SAMPLED), small_model.ask("hi", **SAMPLED)) and first != second
    assert len(set(small_model.ask_batch(["hi"] * 3, [None] * 3, **SAMPLED))) == 3


def test_a_seeded_answer_does_not_depend_on_the_batch(small_model: JanusFlow, picture: Path) -> None:
    questions = ["hi", "what is in the picture, and where, and how many of them?", "hi"]
    images: list[Any] = [None, picture, None]
    together = small_model.ask_batch(questions, images, seed=7, **SAMPLED)
    alone = [small_model.ask(q, i, seed=7, **SAMPLED) for q, i in zip(questions, images, strict=True)]
    assert together == alone and together[0] == together[2]
    each = small_model.ask_batch(questions, images, seed=[7, 8, 9], **SAMPLED)
    assert each[0] == together[0] and each[1:] == [
        small_model.ask(questions[1], picture, seed=8, **SAMPLED),
        small_model.ask("hi", seed=9, **SAMPLED),
    ]
    with pytest.raises(ValueError, match="2 seeds were given for 3 conversations"):
        small_model.ask_batch(questions, images, seed=[7, 8], **SAMPLED)
    with pytest.raises(ValueError, match="seed is -1"):
        small_model.ask("hi", seed=[-1], **SAMPLED)


def test_the_default_dtype_does_not_change_what_is_sampled(small_model: JanusFlow) -> None:
    expected = small_model.ask("hi", seed=3, **SAMPLED)
    torch.set_default_dtype(torch.float64)
    try:
        assert small_model.ask("hi", seed=3, **SAMPLED) == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_greedy_decoding_says_what_it_does_without(small_model: JanusFlow) -> None:
    with pytest.warns(UserWarning, match="temperature and top_k are ignored without do_sample=True"):
        warm = small_model.ask("hi", temperature=3.0, top_k=5, max_new_tokens=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_model.ask("hi", max_new_tokens=4) == warm
        small_model.ask("hi", do_sample=True, temperature=3.0, top_k=5, max_new_tokens=4)


def test_whole_numbers_and_zero_dimensional_seeds_are_numbers(small_model: JanusFlow) -> None:
    seed: Any = np.array(3)
    decoding = Decoding(do_sample=True, temperature=1, repetition_penalty=2, top_p=1, seed=seed)
    assert (type(decoding.repetition_penalty), decoding.seed) == (float, 3)
    expected = small_model.ask("hi", max_new_tokens=3, repetition_penalty=2.0)
    assert small_model.ask("hi", max_new_tokens=3, repetition_penalty=2) == expected


def test_ignored_settings_are_named_where_the_model_is_asked(small_model: JanusFlow) -> None:
    talk = [{"role": "user", "content": "hi"}]
    calls: list[Any] = [
        lambda **options: small_model.ask("hi", **options),
        lambda **options: small_model.chat(talk, **options),
        lambda **options: small_model.chat_batch([talk], **options),
        lambda **options: small_model.ask_batch(["hi"], [None], **options),
        lambda **options: list(small_model.stream("hi", **options)),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="temperature and seed are ignored without do_sample=True") as caught:
            call(temperature=1.5, seed=1, max_new_tokens=1)
        assert [one.filename for one in caught] == [__file__]
    with pytest.warns(UserWarning, match="^seed is ignored"):
        small_model.ask("hi", seed=1, max_new_tokens=1)
