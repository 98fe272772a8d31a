"""Training sequences are those that the processor makes, with labels where the assistant speaks."""

from __future__ import annotations

import pytest

from janusflow import JanusFlow
from janusflow.data.templates import IGNORE, conversation, drawing, plain_text
from janusflow.model.janusflow import GENERATION_TOKEN

TURNS = [("<image_placeholder>\nwhat is it?", "a red circle"), ("sure?", "yes")]


def test_a_conversation_has_the_ids_of_its_rendered_text(small_model: JanusFlow) -> None:
    processor = small_model.processor
    messages = []
    for question, answer in TURNS:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    expected = processor.lay_pictures(processor.tokenizer.encode(processor.render(messages)), 1)
    tokens = conversation(processor, TURNS)
    assert tokens.ids == expected
    assert tokens.positions == list(range(len(tokens)))
    told = [label for label in tokens.labels if label != IGNORE]
    assert processor.tokenizer.decode(told) == " a red circle<｜end▁of▁sentence｜> yes<｜end▁of▁sentence｜>"
    assert all(label in (IGNORE, token) for token, label in zip(tokens.ids, tokens.labels, strict=True))


@pytest.mark.parametrize("system", [None, "be brief", ""])
def test_a_picture_of_a_later_turn_and_a_system_prompt_stand_as_chat_has_them(
    small_model: JanusFlow, system: str | None
) -> None:
    processor = small_model.processor
    turns = [("hello", "hi"), ("<image_placeholder>\nwhat is it?", "a star"), ("and <image_placeholder>?", "a cross")]
    messages = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    expected = processor.lay_pictures(processor.tokenizer.encode(processor.render(messages)), 2)
    assert conversation(processor, turns, system=system).ids == expected


def test_plain_text_is_labelled_throughout(small_model: JanusFlow) -> None:
    tokens = plain_text(small_model.processor, "a triangle has three corners")
    assert tokens.labels == [IGNORE, *tokens.ids[1:]]
    assert tokens.ids[-1] == small_model.processor.tokenizer.eos_token_id


def test_a_drawing_is_its_prompt_the_time_token_and_the_picture(small_model: JanusFlow) -> None:
    processor = small_model.processor
    prompt = processor.tokenizer.encode(processor.render_prompt("a red circle"))
    tokens = drawing(processor, "a red circle", 16, dropped=False)
    assert tokens.ids == prompt + [GENERATION_TOKEN] * 16
    assert tokens.ids[len(prompt) - 1] == processor.image_start_id
    assert tokens.positions == list(range(len(prompt) + 16))
    assert set(tokens.labels) == {IGNORE}


@pytest.mark.parametrize("chat", [True, False])
def test_a_dropped_prompt_leaves_bos_and_keeps_the_positions(small_model: JanusFlow, chat: bool) -> None:
    whole = drawing(small_model.processor, "a red circle", 16, dropped=False, chat=chat)
    dropped = drawing(small_model.processor, "a red circle", 16, dropped=True, chat=chat)
    assert dropped.ids == [whole.ids[0], *whole.ids[-17:]]
    assert dropped.positions == [0, *whole.positions[-17:]]
