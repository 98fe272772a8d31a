"""Judging: the probability of yes, and how Janus-Pro-R1 reads and redraws its own pictures, against slow versions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.engine import introspection
from janusflow.engine.editing import encode
from janusflow.engine.yes_or_no import yes_probability
from janusflow.families.descendants import DESCENDANTS
from tests.conftest import GOLDEN

PROMPT, WORDS = "a red circle", "<|User|>: a red circle\n\n<|Assistant|>:<begin_of_image>"


@pytest.fixture(scope="module")
def r1() -> Any:
    """A small Janus whose name would be that of a Janus-Pro-R1."""
    model: Any = JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")
    model.descendant = next(one for one in DESCENDANTS if one.name == "Janus-Pro-R1")
    return model


@pytest.fixture(scope="module")
def drawn(r1: Any) -> Image.Image:
    return r1.generate(PROMPT, seed=0, progress=False)[0]


def tokens(model: Any, text: str) -> list[int]:
    return model.processor.tokenizer.encode(text)[1:]


def slow_p(model: Any, embeds: torch.Tensor, yes: set[int], no: set[int]) -> float:
    states = model.network.get_decoder()(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0, -1]
    chances = model.network.lm_head(states).softmax(dim=-1)
    yes_chance, no_chance = (float(chances[list(some)].sum()) for some in (yes, no))
    return yes_chance / (yes_chance + no_chance)


@torch.inference_mode()
def test_its_judgement_is_that_of_a_slow_recomputation(r1: Any, drawn: Image.Image) -> None:
    network, encode_text = r1.network, r1.processor.tokenizer.encode
    look = network.get_input_embeddings()
    before = look(torch.tensor(encode_text(WORDS)))
    after = look(torch.tensor(tokens(r1, "<end_of_image>\nLet me think Does this image match the prompt...")))
    seen = network.see(r1.processor.preprocess(drawn)[None])[0]
    yes, no = ({tokens(r1, word)[0]} for word in ("Yes", "No"))
    expected = slow_p(r1, torch.cat([before, seen, after]), yes, no)
    other = slow_p(r1, torch.cat([before, after]), yes, no)
    assert r1.match([PROMPT], [drawn])[0] == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(other, abs=1e-4)  # the picture matters
    together = r1.match([PROMPT, "two blue squares and a star"], [drawn, drawn.rotate(90)])
    assert together[0] == pytest.approx(expected, abs=1e-5) and together[1] != together[0]


@torch.inference_mode()
def test_its_redraw_is_that_of_a_slow_recomputation(r1: Any, drawn: Image.Image) -> None:
    network, tokenizer = r1.network, r1.processor.tokenizer
    why, look = "No, there is no circle.", network.get_input_embeddings()
    words = torch.tensor(tokenizer.encode(WORDS))
    nothing = torch.full_like(words, tokenizer.pad_token_id)
    nothing[0], nothing[-1] = words[0], words[-1]
    rest = tokens(r1, "<end_of_image>\nLet me think Does this image match the prompt...") + tokens(r1, why)
    rest += tokens(r1, f"{tokenizer.eos_token}\nNext, I will draw a new image<begin_of_image>")
    same = torch.cat([network.embed_codes(encode(network, r1.processor, [drawn])[0]), look(torch.tensor(rest))])
    rows, found = torch.stack([torch.cat([look(start), same]) for start in (words, nothing)]), list[int]()
    while len(found) < network.image_tokens:
        states = network.model.language_model(inputs_embeds=rows, use_cache=False).last_hidden_state[:, -1]
        c, u = network.model.generation_head(states)
        found.append(int((u + 5 * (c - u)).argmax()))
        rows = torch.cat([rows, network.embed_codes(torch.tensor([found[-1]])).expand(2, 1, -1)], dim=1)
    read = introspection.read_again(network, r1.processor, [PROMPT], [drawn], [why], guided=True)
    from janusflow.engine.token_generation import TokenSampling, draw_codes

    owner, chance = torch.zeros(1, dtype=torch.long), torch.zeros(1, network.image_tokens)
    codes = draw_codes(network, read, owner, chance, TokenSampling(5.0, do_sample=False))
    assert codes[0].tolist() == found


def test_a_reason_begins_with_no_and_comes_from_its_seed(r1: Any, drawn: Image.Image) -> None:
    asked = (r1.network, r1.processor, [PROMPT, "a star"], [drawn, drawn])
    first, second = introspection.reasons(*asked, [1, 2])
    assert first.startswith("No") and second.startswith("No")
    assert introspection.reasons(*asked, [1, 2]) == [first, second] != introspection.reasons(*asked, [3, 4])


@torch.inference_mode()
def test_a_probability_sums_the_spellings(r1: Any) -> None:
    talk = [{"role": "user", "content": "is it red?"}]
    inputs = r1.processor.encode_conversations([talk, [{"role": "user", "content": "a much longer question: is it?"}]])
    look = r1.network.get_input_embeddings()
    rows = [ids[mask.bool()] for ids, mask in zip(inputs.input_ids, inputs.attention_mask, strict=True)]
    spelled = [{tokens(r1, word)[0] for word in words} for words in (("Yes", "yes"), ("No", "no"))]
    expected = [slow_p(r1, look(row), *spelled) for row in rows]
    found = yes_probability(r1.network, r1.processor, inputs, (("Yes", "yes"), ("No", "no")))
    assert found == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="does not tell yes from no"):
        yes_probability(r1.network, r1.processor, inputs, (("Yes",), ("Yes",)))
