"""Texts that share forwards: joining and leaving at any token changes no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.engine.text import Slots
from janusflow.engine.understanding import Decoding
from janusflow.serving import texts
from janusflow.serving.jobs import Event, Failed, TextDone, TextRequest, Token
from janusflow.serving.models import with_adapters
from janusflow.serving.runner import PipelineRunner
from janusflow.serving.scheduler import QueueSettings, Scheduler
from janusflow.serving.texts import Text, Texts
from tests.serving.test_models import save_adapter
from tests.serving.test_runner import QUESTION, question, text_of

SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 1.3, "top_p": 0.9}
TALKS: list[tuple[str, dict[str, Any]]] = [
    ("hello", {}),
    (QUESTION, {**SAMPLED, "seed": 4}),
    ("describe the picture, with every shape, color and place in it.", {"repetition_penalty": 1.3}),
    ("hello", {**SAMPLED, "seed": 5}),
    ("name three colors.", {"do_sample": True, "temperature": 0.7, "top_k": 5, "seed": 6}),
    ("what is a circle?", {**SAMPLED, "seed": 7}),
]


class Desk:
    """A scheduler whose ticks the test makes."""

    def __init__(self, **queue: int) -> None:
        self.runner = PipelineRunner()
        self.scheduler = Scheduler(self.runner, QueueSettings(**queue))

    def submit(self, *requests: TextRequest) -> tuple[list[Any], list[list[Event]]]:
        events = [list[Event]() for _ in requests]
        return self.scheduler.submit(requests, [one.append for one in events]), events

    def run(self, ticks: int = 1000) -> None:
        for _ in range(ticks):
            if self.scheduler.unfinished:
                self.scheduler.tick()

    def engine(self, model: JanusFlow) -> Texts:
        return self.runner.texts[model.network]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """How many rows each step had, and how many tokens of each row were read."""
    found: dict[str, list[Any]] = {"step": [], "read": []}
    step, read = Slots.step, Slots.read

    def stepping(self: Slots, embeds: torch.Tensor) -> torch.Tensor:
        found["step"].append(len(embeds))
        return step(self, embeds)

    def reading(self: Slots, embeds: Any, rows: Any = None) -> torch.Tensor:
        found["read"].append([len(one) for one in embeds])
        return read(self, embeds, rows)

    monkeypatch.setattr(Slots, "step", stepping)
    monkeypatch.setattr(Slots, "read", reading)
    return found


@pytest.mark.parametrize("prefill", [512, 9])
def test_texts_that_join_and_leave_at_any_token_equal_those_of_ask(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, prefill: int
) -> None:
    monkeypatch.setattr(texts, "PREFILL", prefill)
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))
    pictures = [shown if number % 2 else None for number in range(len(TALKS))]
    lengths = [3, 12, 7, 12, 1, 5]
    desk, found = Desk(max_texts=3), []
    for (asked, decoding), picture, length in zip(TALKS, pictures, lengths, strict=True):
        request = question(small_model, asked, picture, **decoding)
        request = TextRequest(request.model, request.inputs, Decoding(max_new_tokens=length, **decoding))
        found.append(desk.submit(request)[1][0])
        desk.run(2)
    desk.run()
    for (asked, decoding), picture, length, events in zip(TALKS, pictures, lengths, found, strict=True):
        alone = JanusFlow(small_model.network, small_model.processor, small_model.codec)  # remembers nothing
        assert text_of(events) == alone.ask(asked, picture, max_new_tokens=length, **decoding), (asked, length)
    assert desk.engine(small_model).rows == []


def test_texts_share_each_forward(small_model: JanusFlow, calls: dict[str, list[Any]]) -> None:
    desk = Desk()
    desk.submit(*(question(small_model, asked, **decoding) for asked, decoding in TALKS[:4]))
    desk.run()
    assert len(calls["read"]) == 1 and len(calls["read"][0]) == 4
    assert calls["step"][0] == 4 and max(calls["step"]) == 4


def test_pictures_of_texts_that_wait_are_encoded_together(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, see = list[int](), small_model.network.see

    def seen(pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return see(pixels)

    monkeypatch.setattr(small_model.network, "see", seen)
    shown = [Image.fromarray(np.full((32, 32, 3), shade, np.uint8)) for shade in (0, 90, 180)]
    desk = Desk()
    _, events = desk.submit(*(question(small_model, QUESTION, picture) for picture in shown))
    desk.run()
    assert encoded == [3]
    asked = [small_model.ask(QUESTION, picture, max_new_tokens=12) for picture in shown]
    assert [text_of(one).strip() for one in events] == asked


def test_pictures_that_cannot_be_encoded_together_are_encoded_one_by_one(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    see = small_model.network.see

    def one_by_one(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 1:
            raise RuntimeError("out of memory")
        return see(pixels)

    monkeypatch.setattr(small_model.network, "see", one_by_one)
    desk = Desk()
    _, events = desk.submit(*(question(small_model, QUESTION, Image.new("RGB", (32, 32), c)) for c in ("red", "blue")))
    desk.run()
    assert all(isinstance(one[-1], TextDone) for one in events)


def test_a_long_prompt_is_read_in_parts_while_others_decode(
    small_model: JanusFlow, calls: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()
    _, (short,) = desk.submit(question(small_model, "hello", do_sample=True, temperature=2.0, seed=0))
    desk.run(1)
    monkeypatch.setattr(texts, "PREFILL", 16)
    before = len(short)
    _, (long,) = desk.submit(question(small_model, "a red circle " * 12))
    desk.run(2)
    assert not long and len(short) == before + 2
    desk.run()
    assert max(sum(sizes) for sizes in calls["read"][1:]) == 16
    assert text_of(long) == small_model.ask("a red circle " * 12, max_new_tokens=12)


def test_several_answers_to_one_prompt_read_it_once(small_model: JanusFlow, calls: dict[str, list[Any]]) -> None:
    first = question(small_model, QUESTION, Image.new("RGB", (30, 20), "red"), **SAMPLED, seed=0)
    requests = [
        TextRequest(first.model, first.inputs, Decoding(max_new_tokens=6, **SAMPLED, seed=seed)) for seed in range(4)
    ]
    desk = Desk()
    _, events = desk.submit(*requests)
    desk.run()
    whole = first.inputs.input_ids.shape[1]
    assert calls["read"] == [[whole], [1, 1, 1]]
    shown = Image.new("RGB", (30, 20), "red")
    expected = [small_model.ask(QUESTION, shown, max_new_tokens=6, **SAMPLED, seed=seed) for seed in range(4)]
    assert list(map(text_of, events)) == expected


def test_the_next_turn_of_a_conversation_reads_only_its_new_tokens(
    small_model: JanusFlow, calls: dict[str, list[Any]]
) -> None:
    desk = Desk()
    _, (events,) = desk.submit(question(small_model, QUESTION))
    desk.run()
    talk: Any = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text_of(events) + " ok"}]
    talk.append({"role": "user", "content": "and now?"})
    inputs = small_model.processor.encode_conversations([talk])
    desk.submit(TextRequest(small_model, inputs, Decoding(max_new_tokens=2)))
    desk.run()
    assert calls["read"][-1][0] < inputs.input_ids.shape[1] - calls["read"][0][0] + 2


def test_a_cancelled_text_frees_its_row_before_the_next_token(small_model: JanusFlow) -> None:
    desk = Desk()
    jobs, events = desk.submit(*(question(small_model, asked, **SAMPLED, seed=9) for asked, _ in TALKS[:3]))
    desk.run(3)
    engine = desk.engine(small_model)
    assert len(engine.rows) == 3
    desk.scheduler.cancel(jobs[:1])
    desk.run(1)
    assert len(engine.rows) == 2 and engine.slots.lengths.count(0) == len(engine.slots.lengths) - 2
    desk.run()
    assert isinstance(events[0][-1], Failed)
    assert text_of(events[2]) == small_model.ask(TALKS[2][0], max_new_tokens=12, **SAMPLED, seed=9)
    assert set(engine.slots.lengths) == {0}


def test_a_forward_that_fails_ends_the_newest_text_only(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Slots.read

    def full(self: Slots, embeds: Any, rows: Any = None) -> torch.Tensor:
        if len(self.lengths) > 2:
            raise MemoryError("out of memory")
        return read(self, embeds, rows)

    monkeypatch.setattr(Slots, "read", full)
    desk = Desk()
    _, old = desk.submit(*(question(small_model, asked) for asked, _ in TALKS[:2]))
    desk.run(2)
    _, (newest,) = desk.submit(question(small_model, TALKS[2][0]))
    desk.run()
    assert isinstance(newest[-1], Failed)
    for (asked, _), events in zip(TALKS[:2], old, strict=True):
        assert isinstance(events[-1], TextDone)
        assert text_of(events) == small_model.ask(asked, max_new_tokens=12)


@pytest.mark.parametrize("broken", ["output head", "choose_tokens"])
def test_an_error_after_the_forward_ends_the_newest_text_only(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def full(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(rows: Any, *given: Any) -> Any:
            if len(rows) > 2:
                raise MemoryError("out of memory")
            return function(rows, *given)

        return called

    if broken == "choose_tokens":
        monkeypatch.setattr(texts, "choose_tokens", full(texts.choose_tokens))
    else:
        head = full(small_model.network.get_output_embeddings())
        monkeypatch.setattr(small_model.network, "get_output_embeddings", lambda: head)
    desk = Desk()
    _, old = desk.submit(*(question(small_model, asked, **SAMPLED, seed=3) for asked, _ in TALKS[:2]))
    desk.run(2)
    _, (newest,) = desk.submit(question(small_model, TALKS[2][0]))
    desk.run()
    assert [type(event) for event in newest] == [Failed]
    monkeypatch.undo()
    for (asked, _), events in zip(TALKS[:2], old, strict=True):
        assert text_of(events) == small_model.ask(asked, max_new_tokens=12, **SAMPLED, seed=3)
    assert set(desk.engine(small_model).slots.lengths) == {0}


def test_a_text_whose_log_probabilities_fail_ends_and_the_others_continue(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Text, piece: str, token: int, logits: torch.Tensor) -> Token:
        if self.request.top_logprobs is not None:
            raise MemoryError("out of memory")
        return Token(piece)

    monkeypatch.setattr(Text, "_with_logprobs", full)
    desk, asked = Desk(), question(small_model, "hello")
    _, (failed, other) = desk.submit(replace(asked, top_logprobs=0), asked)
    desk.run()
    assert [type(event) for event in failed] == [Failed]
    assert text_of(other) == small_model.ask("hello", max_new_tokens=12)
    assert desk.engine(small_model).rows == []


def test_texts_of_different_adapters_are_kept_apart(small_model: JanusFlow, tmp_path: Path) -> None:
    models = with_adapters("small", small_model, {"mine": save_adapter(small_model, tmp_path)})
    desk = Desk()
    _, found = desk.submit(*(question(model, QUESTION) for model in models.values()))  # type: ignore[arg-type]
    desk.run()
    expected = [model.ask(QUESTION, max_new_tokens=12) for model in models.values()]
    assert list(map(text_of, found)) == expected
    assert expected[0] != expected[1]
