"""Answers: turns, batches, sampling, streaming, and every refusal."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from janusflow import JanusFlow
from janusflow.engine.understanding import Pieces


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


def test_streaming_gives_every_token_as_it_comes() -> None:
    tokenizer = JanusFlow.from_pretrained("tiny", device="cpu").processor.tokenizer
    text = "a large red circle"
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    pieces = Pieces(tokenizer)
    found = [pieces.add(token) for token in ids]
    assert "".join(found) == text
    assert len(found) > 4 and all(found[:-1]), "none waits for the next"


def test_streaming_waits_for_whole_characters(small_model: JanusFlow) -> None:
    tokenizer = small_model.processor.tokenizer
    ids = tokenizer.encode("né 图 🙂!", add_special_tokens=False)
    pieces = Pieces(tokenizer)
    found = [pieces.add(token) for token in ids]
    assert "".join(found) == tokenizer.decode(ids) and not any("\ufffd" in piece for piece in found)


@pytest.fixture(params=["engine", "transformers"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to decode."""
    if request.param == "transformers":
        monkeypatch.setattr("janusflow.engine.understanding.plain_llm", lambda network: None)
    return str(request.param)


def test_closing_a_stream_stops_the_decoding(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, either: str
) -> None:
    calls, head = 0, small_model.network.lm_head
    original = head.forward

    def counted(states: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return original(states)

    monkeypatch.setattr(head, "forward", counted)
    stream = small_model.stream("hi", max_new_tokens=1500)
    next(stream)
    stream.close()
    assert 0 < calls < 20


def test_a_failure_while_streaming_reaches_the_reader(
    small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, either: str
) -> None:
    def fail(states: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken")

    monkeypatch.setattr(small_model.network.lm_head, "forward", fail)
    with pytest.raises(RuntimeError, match="broken"):
        list(small_model.stream("hi", max_new_tokens=3))


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.5}, {"do_sample": True, "seed": [3, 4, 5]}])
def test_the_engine_says_what_transformers_does(
    small_model: JanusFlow, picture: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ["hi", "what is in the picture, and where, and how many of them?", "which is larger?"]
    images: list[Any] = [None, picture, [picture, picture]]
    found = small_model.ask_batch(questions, images, max_new_tokens=12, **options)
    monkeypatch.setattr("janusflow.engine.understanding.plain_llm", lambda network: None)
    seeds = options.pop("seed", [None] * 3)
    for question, image, seed, said in zip(questions, images, seeds, found, strict=True):
        assert small_model.ask(question, image, max_new_tokens=12, seed=seed, **options) == said


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


SAMPLED: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 10}


def test_threads_get_what_each_call_gives_alone(small_model: JanusFlow, picture: Path) -> None:
    def ask(seed: int) -> str:
        return small_model.ask("what is it?", picture, seed=seed, **SAMPLED)

    def stream(seed: int) -> str:
        return "".join(small_model.stream("what is it?", picture, seed=seed, **SAMPLED))

    def draw(seed: int) -> bytes:
        options: dict[str, Any] = {"num_inference_steps": 2, "output_type": "latent", "progress": False}
        return bytes(small_model.generate("a star", seed=seed, **options).numpy().tobytes())

    calls = [(call, seed) for seed in range(4) for call in (ask, stream, draw)]
    expected = [call(seed) for call, seed in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        found = list(pool.map(lambda pair: pair[0](pair[1]), calls))
    assert found == expected and len(set(expected)) == 8


def test_streams_in_turn_and_random_calls_between_change_nothing(small_model: JanusFlow) -> None:
    questions = ("hi", "what is it?")
    expected = [small_model.ask(question, seed=5, **SAMPLED) for question in questions]
    streams = [small_model.stream(question, seed=5, **SAMPLED) for question in questions]
    found = ["", ""]
    for pieces in itertools.zip_longest(*streams, fillvalue=""):
        torch.rand(3)
        found = [said + piece for said, piece in zip(found, pieces, strict=True)]
    assert found == expected


def test_offloaded_streams_in_turn_share_the_device(mutable_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both devices are the CPU here; what is watched is when the network moves."""
    model, moves = mutable_model.offload("cpu"), []
    monkeypatch.setattr(model.network, "to", lambda place: moves.append(str(place)))
    first, second = model.stream("hi", max_new_tokens=8), model.stream("what?", max_new_tokens=3)
    moves.clear()
    next(first)
    assert "".join(second)
    assert moves == ["cpu"], "the first stream still needs the network"
    list(first)
    assert len(moves) == 2


def test_an_answer_continues_a_message_of_the_assistant(tiny_model: JanusFlow) -> None:
    scene = Image.new("RGB", (64, 64), (255, 255, 255))
    ImageDraw.Draw(scene).ellipse((16, 16, 48, 48), fill=(220, 30, 30))
    content = tiny_model.processor.question("describe the picture.", 1)
    asked = {"role": "user", "content": content, "images": [scene]}
    whole = tiny_model.chat([asked])
    words = whole.split(" ")
    assert len(words) > 4
    contents: list[Any] = [" ".join(words[:3]), f"{words[0]} \n", [{"type": "text", "text": words[0]}], " "]
    talks = [[asked, {"role": "assistant", "content": content}] for content in contents]
    rests = [" " + " ".join(words[3:]), *[" " + " ".join(words[1:])] * 2, whole]
    assert tiny_model.chat_batch([*talks, [asked]]) == [*rests, whole]
    assert "".join(tiny_model.stream(talks[0])) == rests[0]


def test_text_and_spaces_of_a_continued_message(small_model: JanusFlow) -> None:
    processor, network = small_model.processor, small_model.network
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "It is "}]
    prompt = processor.render(talk[:1])
    assert processor.render(talk, continue_final_message=True) == f"{prompt} It is"
    assert processor.render(talk) == f"{prompt} It is{processor.tokenizer.eos_token}"
    ids = torch.tensor([processor.tokenizer.encode(f"{prompt} It is")])
    said = network.generate(input_ids=ids, max_new_tokens=8)[0, ids.shape[1] :]
    assert small_model.chat(talk, max_new_tokens=8) == processor.tokenizer.decode(said, skip_special_tokens=True)


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
        ("hi", {"top_p": 1e-300}, "top_p is 1e-300; expected a number from 1e-06 to 1"),
        ("hi", {"temperature": 1e-45}, "temperature is 1e-45; expected a number from 1e-06 to 1e\\+06"),
        ("hi", {"repetition_penalty": 1e-45}, "repetition_penalty is 1e-45; expected a number from"),
        ("hi", {"top_k": -1}, "top_k is -1"),
        ("hi", {"repetition_penalty": 0}, "repetition_penalty is 0"),
        ("hi", {"seed": -1}, "seed is -1"),
        ("hi", {"images": 7}, "images is 7; expected a picture or a list"),
        ("hi", {"images": "~nobody-of-that-name/x.png"}, "does not exist"),
        ("hi", {"beams": 4}, "has no argument 'beams'; choose from question, images, max_new_tokens"),
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


def test_one_picture_for_a_batch_of_questions_is_refused(small_model: JanusFlow, picture: Path) -> None:
    one = Image.open(picture)
    for images in (one, picture, str(picture), picture.read_bytes(), np.asarray(one)):
        with pytest.raises(ValueError, match="images is one picture; give a list with the pictures of each question"):
            small_model.ask_batch(["what?"], images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="images is None; give a list"):
        small_model.ask_batch(["what?"], None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="questions is one text"):
        small_model.ask_batch("a", [None])
    batch = np.stack([np.asarray(one)] * 2)
    assert small_model.ask_batch(["a", "b"], batch, max_new_tokens=2) == small_model.ask_batch(
        ["a", "b"], [one, one], max_new_tokens=2
    )


def test_pictures_of_a_message_may_be_arrays_and_tensors(small_model: JanusFlow) -> None:
    picture = np.full((64, 64, 3), 200, np.uint8)
    tag = small_model.processor.text.image_tag

    def said(images: Any) -> str:
        return small_model.chat([{"role": "user", "content": f"{tag}\nwhat?", "images": images}], max_new_tokens=4)

    expected = said([Image.fromarray(picture)])
    assert said(picture) == said([picture]) == said(torch.from_numpy(picture).permute(2, 0, 1) / 255) == expected


def test_an_empty_answer_may_be_sent_back(small_model: JanusFlow) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "?"}]
    assert small_model.chat(turns, max_new_tokens=2) == small_model.chat_batch([turns], max_new_tokens=2)[0]
