"""transformers' `generate` with pictures: equal to the same on embedded prompts, whatever happens to the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from janusflow import JanusFlow
from tests.conftest import golden_folders

NEW = 6


@pytest.fixture(scope="module", params=["janusflow-small-a", "janus-small-a"])
def model(request: pytest.FixtureRequest) -> Any:
    (folder,) = golden_folders(request.param)
    return JanusFlow.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(4)]


def asked(model: Any, pictures: list[Image.Image], rows: int = 3) -> BatchFeature:
    """Prompts of different lengths with two pictures, one and none."""
    tag = model.processor.text.image_tag
    texts = [f"User: {tag}{tag} which?\n\nAssistant:", f"User: a longer one {tag} what is it, then?", "User: hi"][:rows]
    return model.processor(texts, pictures[: "".join(texts).count(tag)])


def both(model: Any, inputs: BatchFeature, **options: Any) -> tuple[Tensor, Tensor]:
    """New tokens from ids and pixels, and from the embedded prompt."""
    network = model.network
    options |= {"max_new_tokens": NEW, "eos_token_id": None}
    torch.manual_seed(0)
    found = network.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
    embeds = network.embed(inputs["input_ids"], inputs.get("pixel_values"))
    torch.manual_seed(0)
    return found, network.generate(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 2},
        {"use_cache": False},
        {"num_beams": 2, "use_cache": False},
        {"cache_implementation": "static"},
    ],
    ids=lambda options: "-".join(map(str, options)) or "greedy",
)
def test_each_row_keeps_its_own_pictures(model: Any, pictures: list[Image.Image], options: dict[str, Any]) -> None:
    found, expected = both(model, asked(model, pictures), **options)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("tokens", [3, 20])
def test_prompt_lookup_reads_copied_image_tokens_as_tokens(
    model: Any, pictures: list[Image.Image], tokens: int
) -> None:
    inputs = asked(model, pictures, rows=1)
    _, expected = both(model, inputs)
    found = model.network.generate(
        **inputs,
        max_new_tokens=NEW,
        eos_token_id=None,
        prompt_lookup_num_tokens=tokens,
        max_matching_ngram_size=1,
    )
    assert torch.equal(found[:, inputs["input_ids"].shape[1] :], expected)


def test_an_assistant_model_sees_the_pictures(model: Any, pictures: list[Image.Image]) -> None:
    inputs = asked(model, pictures, rows=1)
    _, expected = both(model, inputs)
    found = model.network.generate(
        **inputs, max_new_tokens=NEW, min_new_tokens=NEW, eos_token_id=None, assistant_model=model.network
    )
    assert torch.equal(found[:, inputs["input_ids"].shape[1] :], expected)


@pytest.mark.parametrize("use_cache", [True, False])
def test_an_image_token_that_the_model_writes_is_a_token(
    model: Any, pictures: list[Image.Image], use_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, token = model.network.lm_head, model.processor.image_id

    def always(states: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.full(states.shape[:-1], token), head.out_features).float()

    monkeypatch.setattr(head, "forward", always)
    for rows in (3, 1):
        inputs = asked(model, pictures, rows)
        found = model.network.generate(**inputs, max_new_tokens=3, use_cache=use_cache)
        assert (found[:, -3:] == token).all()


def test_a_conversation_continues_on_its_cache(model: Any, pictures: list[Image.Image]) -> None:
    first = asked(model, pictures, rows=1)
    options: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": None}

    def read() -> Any:
        return model.network.generate(**first, **options, return_dict_in_generate=True)

    tag = model.processor.text.image_tag
    more = model.processor([f"and {tag} this?"], pictures[2:3], add_special_tokens=False)
    ids = torch.cat([read().sequences, more["input_ids"]], dim=1)
    pixels = torch.cat([first["pixel_values"], more["pixel_values"]])
    expected = model.network.generate(input_ids=ids, pixel_values=pixels, **options)
    for given in (pixels, more["pixel_values"]):  # all pictures, or those that the cache has not read
        found = model.network.generate(
            input_ids=ids, pixel_values=given, past_key_values=read().past_key_values, **options
        )
        assert torch.equal(found, expected)
    text = model.processor(["and now?"], add_special_tokens=False)["input_ids"]
    ids = torch.cat([first["input_ids"], text], dim=1)
    expected = model.network.generate(input_ids=ids, pixel_values=first["pixel_values"], **options)
    for given in (first["pixel_values"], None):
        cache = read().past_key_values
        cache.crop(first["input_ids"].shape[1] - cache.get_seq_length())
        found = model.network.generate(input_ids=ids, pixel_values=given, past_key_values=cache, **options)
        assert torch.equal(found, expected)


def test_a_prompt_without_pictures_is_read_in_chunks(model: Any) -> None:
    ids = model.processor("a few words, and then some more of them")["input_ids"]
    expected = model.network.generate(input_ids=ids, max_new_tokens=NEW)
    assert torch.equal(model.network.generate(input_ids=ids, max_new_tokens=NEW, prefill_chunk_size=4), expected)


def test_pictures_come_with_ids_and_in_the_same_number(model: Any, pictures: list[Image.Image]) -> None:
    inputs = asked(model, pictures)
    embeds = model.network.embed(inputs["input_ids"], inputs["pixel_values"])
    with pytest.raises(ValueError, match="pixel_values were given with inputs_embeds"):
        model.network.generate(inputs_embeds=embeds, pixel_values=inputs["pixel_values"], max_new_tokens=1)
    with pytest.raises(ValueError, match="hold 48 image tokens; 2 pictures of 16"):
        model.network.generate(**{**inputs, "pixel_values": inputs["pixel_values"][:2]}, max_new_tokens=1)
    with pytest.raises(ValueError, match="hold 48 image tokens; 0 pictures"):
        model.network.generate(input_ids=inputs["input_ids"], max_new_tokens=1)
