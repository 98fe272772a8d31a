"""Answers: turns, batches, sampling, streaming, and every refusal."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from janusflow import JanusFlow
from janusflow.understanding import _TokenStreamer


def test_many_turns_with_pictures_in_each(small_model: JanusFlow, picture: Path) -> None:
    talk: list[dict[str, Any]] = []
    for question in ("what is this?", "and this?", "and both?"):
        content = f"<image_placeholder>\n{question}"
        talk.append({"role": "user", "content": content, "images": [picture]})
        answer = small_model.chat(talk, max_new_tokens=4)
        talk.append({"role": "assistant", "content": answer.strip() or "..."})
    assert len(talk) == 6


def test_a_batch_of_different_lengths_and_pictures_equals_one_by_one(small_model: JanusFlow, picture: Path) -> None:
    questions = ["hi", "what is in the picture, and where, and how many of them?", "which is larger?"]
    images: list[Any] = [None, picture, [picture, picture]]
    together = small_model.ask_batch(questions, images, max_new_tokens=8)
    alone = [small_model.ask(q, i, max_new_tokens=8) for q, i in zip(questions, images, strict=True)]
    assert together == alone


def test_streaming_gives_the_same_text_in_pieces(small_model: JanusFlow, picture: Path) -> None:
    pieces = list(small_model.stream("what is it?", picture, max_new_tokens=80))
    assert "".join(pieces) == small_model.ask("what is it?", picture, max_new_tokens=80)
    assert len(pieces) > 1


def fed(tokenizer: Any, ids: list[int]) -> _TokenStreamer:
    """A streamer after an empty prompt and these tokens."""
    streamer = _TokenStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.put(torch.zeros(1, 0))
    for index in ids:
        streamer.put(torch.tensor([index]))
    return streamer


def test_streaming_gives_every_token_as_it_comes() -> None:
    tokenizer = JanusFlow.from_pretrained("tiny", device="cpu").processor.tokenizer
    text = "a large red circle"
    ids = tokenizer.encode(text, add_special_tokens=False)
    streamer = fed(tokenizer, ids)
    assert streamer.text_queue.qsize() == len(ids) > 3, "none waits for the next"
    streamer.put(torch.tensor([tokenizer.eos_token_id]))
    streamer.end()
    assert "".join(streamer) == text


def test_streaming_waits_for_whole_characters(small_model: JanusFlow) -> None:
    tokenizer = small_model.processor.tokenizer
    text = "né 图 🙂!"
    ids = tokenizer.encode(text, add_special_tokens=False)
    streamer = fed(tokenizer, ids)
    streamer.end()
    pieces = list(streamer)
    assert "".join(pieces) == tokenizer.decode(ids) and not any("\ufffd" in piece for piece in pieces)


def test_closing_a_stream_stops_the_decoding(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = type(small_model.network).forward

    @functools.wraps(original)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(small_model.network), "forward", counted)
    stream = small_model.stream("hi", max_new_tokens=1500)
    next(stream)
    stream.close()
    assert calls < 1500


def test_a_failure_while_streaming_reaches_the_reader(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.wraps(type(small_model.network).forward)
    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(type(small_model.network), "forward", fail)
    with pytest.raises(RuntimeError, match="broken"):
        list(small_model.stream("hi", max_new_tokens=3))


def test_decoding_stops_at_the_end_token(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    end = small_model.processor.tokenizer.eos_token_id
    head = small_model.network.lm_head
    monkeypatch.setattr(head, "forward", lambda states: _always(end, states, head.out_features))
    assert small_model.ask("hi", max_new_tokens=50) == ""


def test_an_image_token_that_the_model_writes_itself_is_a_token(
    small_model: JanusFlow, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = small_model.network.lm_head
    token = small_model.processor.image_id
    monkeypatch.setattr(head, "forward", lambda states: _always(token, states, head.out_features))
    assert small_model.ask("what?", picture, max_new_tokens=3) == ""


def _always(token: int, states: torch.Tensor, vocabulary: int) -> torch.Tensor:
    logits = torch.zeros(*states.shape[:-1], vocabulary)
    logits[..., token] = 1
    return logits


def test_sampling_follows_its_seed_and_leaves_the_callers_state_alone(small_model: JanusFlow) -> None:
    settings: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 10}
    first, again, other = (small_model.ask("hi", seed=seed, **settings) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    small_model.ask("hi", seed=5, **settings)
    assert torch.equal(torch.rand(2), expected)


def test_greedy_decoding_says_what_it_does_without(small_model: JanusFlow) -> None:
    with pytest.warns(UserWarning, match="without do_sample=True, temperature and top_k mean nothing"):
        warm = small_model.ask("hi", temperature=3.0, top_k=5, max_new_tokens=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert small_model.ask("hi", max_new_tokens=4) == warm
        small_model.ask("hi", do_sample=True, temperature=3.0, top_k=5, max_new_tokens=4)


def test_an_answer_ends_with_the_context(small_model: JanusFlow) -> None:
    context = small_model.network.config.text_config.max_position_embeddings
    used = small_model.processor.encode_conversations([[{"role": "user", "content": "star " * 700}]])
    assert context > used.input_ids.shape[1] > context - 700
    small_model.ask("star " * 700, max_new_tokens=10_000)


@pytest.mark.parametrize(
    ("question", "arguments", "words"),
    [
        ("", {}, "question is ''"),
        ("  ", {}, "question is"),
        (None, {}, "question is None"),
        ("star " * 5000, {}, "tokens, its pictures included; fewer than"),
        ("hi", {"max_new_tokens": 0}, "max_new_tokens is 0"),
        ("hi", {"temperature": 0.0, "do_sample": True}, "temperature is 0.0"),
        ("hi", {"top_p": 1.5}, "top_p is 1.5"),
        ("hi", {"top_k": -1}, "top_k is -1"),
        ("hi", {"repetition_penalty": 0}, "repetition_penalty is 0"),
        ("hi", {"seed": -1}, "seed is -1"),
        ("hi", {"images": 7}, "pictures are given as one or a list"),
        ("hi", {"images": "~nobody-of-that-name/x.png"}, "does not exist"),
        ("hi", {"beams": 4}, "text decoding has no argument 'beams'; known are max_new_tokens"),
        ("hi", {"images": "missing.png"}, "does not exist"),
    ],
)
def test_what_is_not_allowed(small_model: JanusFlow, question: Any, arguments: dict[str, Any], words: str) -> None:
    images = arguments.pop("images", None)
    for ask in (small_model.ask, small_model.stream):
        if question is None and ask == small_model.stream:
            continue
        with pytest.raises(ValueError, match=words):
            ask(question, images, **arguments)


def test_no_conversation_gives_no_answer(small_model: JanusFlow) -> None:
    assert small_model.chat_batch([]) == small_model.ask_batch([], []) == []


def test_questions_and_pictures_must_go_together(small_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match="2 questions were given with pictures for 1"):
        small_model.ask_batch(["a", "b"], [None])
