"""Editing as Janus-4o does it, against a slow recomputation from its description."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from janusflow import JanusFlow
from janusflow.engine.editing import edit_ids, encode
from janusflow.engine.token_generation import TokenSampling
from janusflow.model.janusflow import GENERATION_TOKEN
from tests.conftest import GOLDEN

PROMPT = "make it a red circle"


@pytest.fixture(scope="module")
def janus() -> Any:
    return JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")


@pytest.fixture(scope="module")
def source() -> Image.Image:
    return Image.open(GOLDEN / "janus-small-a" / "image_0.png").convert("RGB")


def slow_codes(model: Any, picture: Image.Image, weight: float, image_weight: float) -> list[int]:
    """The likeliest codes, with the whole sequence of all three rows read again for each code."""
    network, tokenizer = model.network, model.processor.tokenizer
    places = model.processor.text.num_image_tokens
    seen, drawn = "<image_placeholder>" * places, tokenizer.pad_token * network.image_tokens
    pictures = f"<begin_of_image>{seen}<end_of_image><begin_of_image>{drawn}<end_of_image>"
    ids = torch.tensor(tokenizer.encode(f"<|User|>: {pictures}{PROMPT}\n\n<|Assistant|>:<begin_of_image>"))
    features = network.see(model.processor.preprocess(picture)[None])[0]
    codes = encode(network, model.processor, [picture])[0]
    look = network.get_input_embeddings()
    part = look(ids)
    first = int((ids == tokenizer.convert_tokens_to_ids("<image_placeholder>")).nonzero()[0])
    part[first : first + places] = features
    full = part.clone()
    full[first + places + 2 : first + places + 2 + len(codes)] = network.embed_codes(codes)
    nothing = torch.full_like(ids, tokenizer.pad_token_id)
    nothing[0], nothing[-1] = ids[0], ids[-1]
    rows, found = torch.stack([full, part, look(nothing)]), list[int]()
    while len(found) < network.image_tokens:
        states = network.model.language_model(inputs_embeds=rows, use_cache=False).last_hidden_state[:, -1]
        f, p, u = network.model.generation_head(states)
        guided = u + weight * ((f + image_weight * p) / (1 + image_weight) - u)
        found.append(int(guided.argmax()))
        rows = torch.cat([rows, network.embed_codes(torch.tensor([found[-1]])).expand(3, 1, -1)], dim=1)
    return found


@torch.inference_mode()
def test_codes_are_those_of_a_slow_recomputation(janus: Any, source: Image.Image) -> None:
    asked = {"image": source, "do_sample": False, "output_type": "latent", "progress": False}
    slow = {
        weights: slow_codes(janus, source, *weights) for weights in ((5.0, 5.0), (3.0, 0.5), (1.0, 2.0), (5.0, 0.0))
    }
    assert len({tuple(codes) for codes in slow.values()}) > 1  # the weights matter, so that a wrong formula is seen
    for (weight, image_weight), codes in slow.items():
        found = janus.generate(PROMPT, guidance_scale=weight, image_guidance_scale=image_weight, **asked)
        assert found[0].tolist() == codes, (weight, image_weight)
    assert janus.generate(PROMPT, **asked)[0].tolist() == slow[5.0, 5.0]  # both are 5 by default


def test_the_three_rows_are_combined_as_published() -> None:
    rows: Tensor = torch.tensor([[1.0, 0.0], [4.0, 2.0], [0.5, 8.0]])
    mixed = (rows[0] + 5 * rows[1]) / 6
    assert torch.allclose(TokenSampling(5.0, image_guidance_scale=5.0).guide(rows)[0], rows[2] + 5 * (mixed - rows[2]))
    assert torch.allclose(TokenSampling(1.0, image_guidance_scale=5.0).guide(rows[:2])[0], mixed)
    assert torch.allclose(TokenSampling(2.0).guide(rows[:2])[0], rows[1] + 2 * (rows[0] - rows[1]))


def test_the_picture_stands_twice_before_the_words(janus: Any) -> None:
    ids, visible = edit_ids(janus.processor, [PROMPT, "x"], 16)
    row, processor = ids[0].tolist(), janus.processor
    begin, end = processor.image_start_id, processor.image_end_id
    first = row.index(begin)
    pictures = [begin, *[processor.image_id] * 16, end, begin, *[GENERATION_TOKEN] * 16, end]
    assert row[first : first + 36] == pictures and row[-1] == begin and processor.tokenizer.decode(row[first + 36 :])
    assert visible[1].sum() < visible[0].sum() == len(row)


def test_each_picture_of_a_batch_is_edited_as_alone(janus: Any, source: Image.Image) -> None:
    other = source.rotate(90)
    asked = {"output_type": "latent", "progress": False}
    together = janus.generate([PROMPT, "a star"], image=[source, other], num_images_per_prompt=2, seed=3, **asked)
    alone = janus.generate("a star", image=other, seed=4, **asked)
    assert torch.equal(together[3], alone[0])
    assert not torch.equal(janus.generate("a star", image=source, seed=4, **asked)[0], alone[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image_guidance_scale": 2.0}, "image_guidance_scale needs an image to edit"),
        ({"image": "source", "image_guidance_scale": -1.0}, "image_guidance_scale is -1.0; expected a number from 0"),
        ({"image": "source", "strength": 0.5}, "strength: not for a Janus model"),
        ({"image": ["source"] * 3}, "3 images were given for 1 prompt"),
    ],
)
def test_what_cannot_be_edited_is_one_sentence(janus: Any, source: Any, arguments: dict[str, Any], said: str) -> None:
    image = arguments.get("image")
    given = {"image": source if image == "source" else [source] * 3} if image else {}
    with pytest.raises(ValueError, match=said):
        janus.generate("a star", progress=False, **{**arguments, **given})


def test_a_prompt_to_edit_by_has_words_and_no_picture_of_its_own(janus: Any, source: Image.Image) -> None:
    with pytest.raises(ValueError, match="prompt is ' '; expected a text that is not empty"):
        janus.generate(" ", image=source, progress=False)
    with pytest.raises(ValueError, match="has 2 <image_placeholder>, but 1 picture was given"):
        janus.generate("<image_placeholder> a star", image=source, progress=False)
