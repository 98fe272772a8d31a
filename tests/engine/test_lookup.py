"""Prompt lookup: the answers are those without it, in fewer passes, and pictures are not copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.lookup import copied
from janusflow.engine.text import Slots
from tests.conftest import Golden


def test_the_longest_and_latest_match_is_copied() -> None:
    assert copied([1, 2, 3, 50, 9, 2, 3, 60, 70, 1, 2, 3], 2) == [50, 9]
    assert copied([2, 3, 50, 2, 3, 60, 2, 3], 5) == [60, 2, 3]
    assert copied([3, 50, 9, 3], 5) == [], "one word is not enough"
    assert copied([2, 3, 50, 2, 3], 0) == []


def test_picture_tokens_are_neither_matched_nor_copied() -> None:
    assert copied([2, 3, 50, -7, -7, 2, 3], 5) == [50]
    assert copied([2, 3, -7, -7, 50, 2, 3], 5) == []
    assert copied([-7, -7, -7, 50, -7, -7], 5) == []


@pytest.mark.parametrize("ahead", [1, 5])
def test_answers_are_those_of_plain_greedy_decoding(
    small_model: JanusFlow, golden: Golden, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    passes: list[int] = []
    read, step = Slots.read, Slots.step

    def counted(slots: Slots, *args: Any, **options: Any) -> Tensor:
        passes.append(1)
        return read(slots, *args, **options)

    def stepped(slots: Slots, embeds: Tensor) -> Tensor:
        passes.append(1)
        return step(slots, embeds)

    monkeypatch.setattr(Slots, "read", counted)
    monkeypatch.setattr(Slots, "step", stepped)
    talks = [*golden.conversations, [{"role": "user", "content": "two red stars and two red stars and two red stars"}]]
    talks.append([{"role": "user", "content": "a b a b a b a b a b a b"}])
    plain, before = [], 0
    for talk in talks:
        small_model.__dict__.pop("_memory", None)
        plain.append(small_model.chat(talk, max_new_tokens=60))
    before, passes[:] = len(passes), []
    for talk, answer in zip(talks, plain, strict=True):
        small_model.__dict__.pop("_memory", None)
        assert small_model.chat(talk, max_new_tokens=60, prompt_lookup=ahead) == answer
        small_model.__dict__.pop("_memory", None)
        assert "".join(small_model.stream(talk, max_new_tokens=60, prompt_lookup=ahead)) == answer
    assert len(passes) / 2 < before, "some guesses are right"


def test_sampling_and_the_repetition_penalty_choose_as_without(small_model: JanusFlow, picture: Path) -> None:
    for options in ({"repetition_penalty": 1.1}, {"do_sample": True, "temperature": 0.3, "seed": 5}):
        asked: dict[str, Any] = {"max_new_tokens": 40, **options}
        found = [small_model.ask("is it red? is it red?", picture, **asked, prompt_lookup=n) for n in (0, 4)]
        assert found[0] == found[1]


def test_a_wrong_guess_leaves_nothing_behind(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusflow.engine.understanding.copied", lambda known, most: [9] * most)
    talk: list[dict[str, Any]] = [{"role": "user", "content": "what is it?"}]
    small_model.__dict__.pop("_memory", None)
    answer = small_model.chat(talk, max_new_tokens=12, prompt_lookup=3)
    talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "and now?"}]
    after = small_model.chat(talk, max_new_tokens=12)
    small_model.__dict__.pop("_memory", None)
    assert small_model.chat(talk[:1], max_new_tokens=12) == answer
    small_model.__dict__.pop("_memory", None)
    assert small_model.chat(talk, max_new_tokens=12) == after


def test_more_tokens_than_allowed_are_refused(small_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match="prompt_lookup is 65"):
        small_model.ask("hi", prompt_lookup=65)
    slots = Slots(small_model.network.language_model, 1, 8)
    with torch.inference_mode():
        embeds = small_model.network.language_model.embed_tokens(torch.tensor([1, 5, 9]))
        every = slots.read([embeds], every=True)
        slots.forget(0, 2)
        again = slots.read([embeds[1:]], every=True)
    assert slots.lengths == [3] and torch.allclose(again, every[1:], atol=1e-5)
