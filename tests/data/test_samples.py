"""Records become samples as their stage has it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.data.records import Record
from janusflow.data.samples import Sample, SampleConfig, SampleMaker, square
from janusflow.data.templates import IGNORE
from janusflow.model.janusflow import GENERATION_TOKEN

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))
CAPTIONED = Record("captioned", (PICTURE,), text="a red circle")
TALK = Record("talk", (PICTURE,), turns=(("what is it?", "a star"), ("sure?", "yes")))


def maker(model: JanusFlow, **changes: object) -> SampleMaker:
    return SampleMaker(model.processor, model.network.config, SampleConfig(**changes))  # type: ignore[arg-type]


def texts(model: JanusFlow, sample: Sample) -> tuple[str, str]:
    """What is asked and what is told, without image tokens."""
    tokenizer, image = model.processor.tokenizer, model.processor.image_id
    pairs = list(zip(sample.tokens.ids, sample.tokens.labels, strict=True))
    asked = [token for token, label in pairs if label == IGNORE and token not in (image, GENERATION_TOKEN)]
    return tokenizer.decode(asked), tokenizer.decode([token for token, label in pairs if label != IGNORE])


def test_conversations_are_the_same_in_both_templates(small_model: JanusFlow) -> None:
    for template in ("chat", "pretraining"):
        sample = maker(small_model, template=template).make("understanding", TALK, Random(0))
        asked, told = texts(small_model, sample)
        assert "User: <begin_of_image><end_of_image>\nwhat is it?\n\nAssistant:" in asked
        assert told == " a star<｜end▁of▁sentence｜> yes<｜end▁of▁sentence｜>"
        assert sample.seen is not None
        assert sample.seen.shape == (1, 3, 64, 64)


def test_a_conversation_shows_pictures_in_any_turn_or_none(small_model: JanusFlow) -> None:
    tag = "<image_placeholder>"
    turns = (("hello", "hi"), (f"{tag} what is it?", "a star"), (f"and {tag}?", "a cross"))
    sample = maker(small_model).make("understanding", Record("r", (PICTURE, PICTURE), turns=turns), Random(0))
    assert sample.seen is not None and sample.seen.shape == (2, 3, 64, 64)
    assert texts(small_model, sample)[1].count("<｜end▁of▁sentence｜>") == 3
    text = maker(small_model).make("understanding", Record("r", turns=(("hello", "hi"),), system="be brief"), Random(0))
    assert text.seen is None and "be brief\n\nUser: hello" in texts(small_model, text)[0]


def test_captions_are_asked_for_as_the_stage_does(small_model: JanusFlow) -> None:
    asked, told = texts(
        small_model, maker(small_model, template="pretraining").make("understanding", CAPTIONED, Random(0))
    )
    assert asked.startswith("<｜begin▁of▁sentence｜><begin_of_image><end_of_image>\n")
    assert "User" not in asked
    assert told == "a red circle<｜end▁of▁sentence｜>"
    asked, told = texts(small_model, maker(small_model).make("understanding", CAPTIONED, Random(0)))
    assert "User: <begin_of_image><end_of_image>\n" in asked
    assert told == " a red circle<｜end▁of▁sentence｜>"


def test_pictures_are_drawn_from_prompts_as_the_stage_does(small_model: JanusFlow) -> None:
    processor = small_model.processor
    plain = maker(small_model, template="pretraining", prompt_dropout=0.0).make("generation", CAPTIONED, Random(0))
    asked, told = texts(small_model, plain)
    assert (asked, told) == ("<｜begin▁of▁sentence｜>a red circle<begin_of_image>", "")
    chat = maker(small_model, prompt_dropout=0.0).make("generation", CAPTIONED, Random(0))
    assert texts(small_model, chat)[0] == "<｜begin▁of▁sentence｜>" + processor.render_prompt("a red circle")
    for sample in (plain, chat):
        assert sample.drawn is not None
        assert sample.drawn.pixels.shape == (3, 64, 64)
        assert sample.drawn.noise.shape == (4, 8, 8)
        assert sample.tokens.ids.count(GENERATION_TOKEN) == 16


def test_chance_is_the_given_one_alone(small_model: JanusFlow) -> None:
    make = maker(small_model)
    one, same, other = (make.make("generation", CAPTIONED, Random(seed)).drawn for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    assert one.t == same.t != other.t
    assert torch.equal(one.noise, same.noise)
    assert torch.equal(one.pixels, same.pixels)
    assert not torch.equal(one.pixels, other.pixels)


def test_times_and_dropped_prompts_have_their_distributions(small_model: JanusFlow) -> None:
    make = maker(small_model, prompt_dropout=0.1, time_mean=-0.5, time_scale=0.8)
    found = [make.make("generation", CAPTIONED, Random(n)) for n in range(1500)]
    logits = torch.logit(torch.tensor([sample.drawn.t for sample in found if sample.drawn]))
    assert float(logits.mean()) == pytest.approx(-0.5, abs=0.08)
    assert float(logits.std()) == pytest.approx(0.8, abs=0.06)
    assert 0.07 < sum(len(sample.tokens) == 1 + 1 + 16 for sample in found) / 1500 < 0.13
    uniform = [maker(small_model, time="uniform").make("generation", CAPTIONED, Random(n)).drawn for n in range(800)]
    times = torch.tensor([drawn.t for drawn in uniform if drawn])
    assert float(times.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(times.std()) == pytest.approx(1 / 12**0.5, abs=0.02)


def test_prompts_are_dropped_in_the_pretraining_template_too(small_model: JanusFlow) -> None:
    make = maker(small_model, prompt_dropout=0.5, template="pretraining")
    found = [make.make("generation", CAPTIONED, Random(n)) for n in range(200)]
    assert 70 < sum(len(sample.tokens) == 1 + 1 + 16 for sample in found) < 130


def test_padded_pictures_are_whole_and_the_share_cropped_is_known(small_model: JanusFlow) -> None:
    wide = Image.new("RGB", (120, 40), "red")
    wide.paste("blue", (0, 0, 10, 40))
    record = Record("wide", (wide,), text="a chart")
    make = maker(small_model)
    cropped, whole = (make.make("generation", record, Random(0), crop=crop).drawn for crop in (None, "pad"))
    assert cropped is not None and whole is not None
    assert cropped.cropped == pytest.approx(2 / 3) and whole.cropped == 0
    assert torch.equal(whole.noise, cropped.noise) and whole.t == cropped.t
    levels = ((whole.pixels + 1) * 127.5).round().int()
    assert levels[:, 0, 0].tolist() == [255, 255, 255] and levels[:, 32, 63].tolist() == [255, 0, 0]
    assert levels[:, 32, 0].tolist() == [0, 0, 255]
    same = maker(small_model, crop="pad").make("generation", record, Random(0)).drawn
    assert same is not None and torch.equal(same.pixels, whole.pixels)


def test_crops_are_square_whole_height_and_random_or_centered() -> None:
    wide = Image.new("RGB", (192, 64))
    for column in range(192):
        wide.paste((column, 0, 0), (column, 0, column + 1, 64))
    center = square(wide, 64, None)
    assert round(float((center[0, 0, 0] + 1) * 127.5)) == 64
    lefts = {round(float((square(wide, 64, Random(seed))[0, 0, 0] + 1) * 127.5)) for seed in range(60)}
    assert len(lefts) > 30
    assert min(lefts) >= 0
    assert max(lefts) <= 128
    assert square(Image.new("RGB", (30, 20)), 64, None).shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("task", "record", "words"),
    [
        ("understanding", Record("r", text="x"), "no picture to understand"),
        ("generation", Record("r", (PICTURE,)), "is not one picture with a text"),
        ("generation", Record("r", (PICTURE, PICTURE), text="x"), "2 pictures"),
        ("generation", Record("r", (b"broken",), text="x"), "not a readable image"),
        ("understanding", Record("r", ("missing.png",), text="x"), "does not exist"),
        ("understanding", Record("r", (PICTURE,)), "says nothing about its picture"),
        ("understanding", Record("r", (PICTURE,), text="star " * 9000), "more than 2048"),
        ("understanding", Record("r", (PICTURE,), turns=(("what?", "<image_placeholder> it is"),)), "where no picture"),
        ("generation", Record("r", (PICTURE,), text="a <image_placeholder>"), "where no picture"),
        ("text", Record("r"), "has no text"),
    ],
)
def test_records_that_do_not_serve(small_model: JanusFlow, task: str, record: Record, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        maker(small_model).make(task, record, Random(0))


def test_of_a_long_text_a_part_is_taken(small_model: JanusFlow) -> None:
    words = " ".join(str(number) for number in range(3000))
    first, other = (maker(small_model).make("text", Record("r", text=words), Random(seed)) for seed in (0, 1))
    assert len(first.tokens) == len(other.tokens) == 2048
    assert first.tokens.ids != other.tokens.ids
    assert first.tokens.ids[0] == small_model.processor.tokenizer.bos_token_id
    assert first.tokens.labels[1:] == first.tokens.ids[1:]
