"""Slots and memory: rows of different lengths, turns that are read once, pictures that are encoded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine import jobs, text
from janusflow.engine.text import Memory, Slots, plain_llm
from janusflow.model.kernels import Kernels
from tests.conftest import TOLERANCE, error

IDS = [[1, 5, 9, 33, 7], [1, 8], [1, 4, 300, 20, 21, 22, 23, 24]]


def states(model: JanusFlow, ids: list[int]) -> Tensor:
    """Of every token, by transformers."""
    network = model.network
    found: Tensor = network.language_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return found


@torch.inference_mode()
@pytest.mark.parametrize("at_once", [text.PREFILL_TOKENS, 6])
def test_rows_of_different_lengths_are_read_and_continued_as_each_alone(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(text, "PREFILL_TOKENS", at_once)
    llm = plain_llm(small_model.network)
    assert llm is not None
    slots = Slots(llm, len(IDS), 20)
    slots.restore(2, [(k[0, :, :4], v[0, :, :4]) for k, v in prefix(small_model, IDS[2])])
    new = [ids[slots.lengths[row] :] for row, ids in enumerate(IDS)]
    found = slots.read([llm.embed_tokens(torch.tensor(ids)) for ids in new])
    after = [slots.step(llm.embed_tokens(torch.tensor([token] * 3))) for token in (11, 12)]
    for row, ids in enumerate(IDS):
        expected = states(small_model, [*ids, 11, 12])
        assert error(torch.stack([found[row], after[0][row], after[1][row]]), expected[-3:]) <= TOLERANCE
    assert slots.lengths == [len(ids) + 2 for ids in IDS]


class Repeated:
    """Stands for a CUDA graph: it calls the function several times on the same places, and gives the last result."""

    count = 0

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function, self.places = function, list[Tensor]()

    def __call__(self, *inputs: Tensor) -> Tensor:
        Repeated.count += 1
        if not self.places:
            self.places = [value.clone() for value in inputs]
            self.function(*self.places)
        for place, value in zip(self.places, inputs, strict=True):
            place.copy_(value)
        self.function(*self.places)
        return self.function(*self.places)


def test_steps_of_fixed_shapes_give_the_same(
    mutable_model: JanusFlow, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = mutable_model, {"seed": 3, "num_inference_steps": 3, "output_type": "latent", "progress": False}

    def results() -> tuple[str, list[str], Tensor]:
        model.__dict__.pop("_memory", None)
        one = model.ask("what is it?", picture, max_new_tokens=12)
        several = model.ask_batch(["hi", "what is it, and where?"], [None, picture], max_new_tokens=12)
        return one, several, model.generate(["a star", "two blue circles"], **settings)

    plain = results()
    monkeypatch.setattr(text, "Graphed", Repeated)
    monkeypatch.setattr(jobs, "Graphed", Repeated)
    model.network.language_model.__dict__["kernels"] = Kernels(graphs=True)
    fixed = results()
    assert fixed[:2] == plain[:2] and error(fixed[2], plain[2]) <= TOLERANCE
    assert Repeated.count == 11 + 11 + 3


def prefix(model: JanusFlow, ids: list[int]) -> list[tuple[Tensor, Tensor]]:
    asked = torch.tensor([ids])
    return model.network.encode_prompts(asked, torch.ones_like(asked)).layers


def counted(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Tokens that are read at once, and pictures that are encoded at once."""
    calls: dict[str, list[int]] = {"read": [], "see": []}
    read, see = Slots.read, type(model.network).see

    def reading(self: Slots, embeds: Any) -> Tensor:
        calls["read"].append(sum(map(len, embeds)))
        return read(self, embeds)

    def seeing(self: Any, pixel_values: Tensor) -> Tensor:
        calls["see"].append(len(pixel_values))
        return see(self, pixel_values)

    monkeypatch.setattr(Slots, "read", reading)
    monkeypatch.setattr(type(model.network), "see", seeing)
    return calls


def test_a_next_turn_reads_only_its_new_tokens(
    mutable_model: JanusFlow, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = mutable_model, counted(mutable_model, monkeypatch)
    question = model.processor.question("what is it?", 1)
    talk: list[dict[str, Any]] = [{"role": "user", "content": question, "images": [picture]}]
    talk.append({"role": "assistant", "content": model.chat(talk, max_new_tokens=4) + " ok"})
    talk.append({"role": "user", "content": "and now?"})
    second = model.chat(talk, max_new_tokens=4)
    whole = model.processor.encode_conversations([talk]).input_ids.shape[1]
    assert calls["see"] == [1]
    assert 0 < calls["read"][1] < whole / 2 < calls["read"][0]
    assert "".join(model.stream(talk, max_new_tokens=4)) == second and calls["read"][2] == 1
    model.__dict__.pop("_memory")
    assert model.chat(talk, max_new_tokens=4) == second and calls["read"][3] == whole


def test_other_pictures_and_other_weights_are_read_anew(
    mutable_model: JanusFlow, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = mutable_model, counted(mutable_model, monkeypatch)
    other = Image.new("RGB", (40, 24), (200, 0, 0))
    first = model.ask("what?", picture, max_new_tokens=4)
    model.ask("what?", other, max_new_tokens=4)
    assert calls["see"] == [1, 1]
    assert calls["read"][1] > model.network.num_understanding_tokens
    assert model.ask_batch(["what?"] * 3, [other, picture, picture], max_new_tokens=4)[1:] == [first, first]
    assert calls["see"] == [1, 1]
    with torch.no_grad():
        model.network.lm_head.weight.mul_(2)
    model.ask("what?", picture, max_new_tokens=4)
    assert calls["see"] == [1, 1, 1] and calls["read"][-1] == calls["read"][0]
    weight = model.network.language_model.layers[0].self_attn.k_proj.weight
    with torch.no_grad():
        weight.view(-1)[1] += 1  # one that the digest of weights does not read
    model.ask("what?", picture, max_new_tokens=4)
    assert calls["read"][-1] == calls["read"][0]


def test_memory_is_bounded_and_keeps_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "KEPT_TOKENS", 10)
    monkeypatch.setattr(text, "KEPT_PICTURES", 2)
    memory = Memory()
    for start in (1, 2, 3):
        ids = np.arange(start * 10, start * 10 + 4)
        memory.keep(ids, [(torch.full((1, 4, 2), float(start)), torch.zeros(1, 4, 2))])
        if start == 2:
            assert memory.recall(np.array([10, 11, 99])) is not None
    assert memory.recall(np.arange(20, 25)) is None, "the one used longest ago"
    (found,) = memory.recall(np.arange(10, 14)) or []
    assert found[0].shape == (1, 3, 2), "one token is left to read"
    memory.keep(np.arange(50, 61), [(torch.zeros(1, 11, 2), torch.zeros(1, 11, 2))])
    assert memory.recall(np.arange(10, 14)) is not None, "a conversation that is too long replaces no other"
    pixels = torch.arange(3.0).view(3, 1, 1, 1)
    sizes: list[int] = []

    def encode(new: Tensor) -> Tensor:
        sizes.append(len(new))
        return new[:, :, 0] + 1

    seen, numbers = memory.pictures(pixels[[0, 1, 0]], encode)
    assert seen.flatten().tolist() == [1, 2, 1] and numbers[0] == numbers[2] != numbers[1]
    memory.pictures(pixels[[2, 1]], encode)
    memory.pictures(pixels[[0]], encode)
    assert sizes == [2, 1, 1]


@torch.inference_mode()
def test_rows_join_leave_and_move_without_changing_the_others(small_model: JanusFlow) -> None:
    llm = plain_llm(small_model.network)
    assert llm is not None
    embeds = [llm.embed_tokens(torch.tensor(ids)) for ids in IDS]
    slots = Slots(llm, 0, 4)
    slots.resize(2, 8)
    slots.read(embeds[:2])
    slots.step(llm.embed_tokens(torch.tensor([11])))  # of the first row only
    slots.resize(3, 16)
    slots.read(embeds[2:], [2])
    assert slots.lengths == [6, 2, 8]
    slots.move(2, 0)
    assert slots.lengths == [8, 2, 0]
    found = slots.step(llm.embed_tokens(torch.tensor([12, 13])))
    for state, ids in zip(found, ([*IDS[2], 12], [*IDS[1], 13]), strict=True):
        assert error(state, states(small_model, ids)[-1]) <= TOLERANCE
