"""Janus: every number of the golden case, and that each mistake would be seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers import JanusForConditionalGeneration as TransformersJanus

from janusflow import JanusFlow
from janusflow.engine import token_generation
from janusflow.engine.text import Slots
from janusflow.engine.token_generation import TokenSampling
from janusflow.pipelines.janus import Janus
from tests.conftest import TOLERANCE, Golden, error

PROMPTS = ["a red circle", "two blue squares left of a small green star on a white background"]


def drawn(model: Janus, case: dict[str, Any]) -> Tensor:
    """The codes of a golden case, the likeliest each time."""
    codes = model.generate(
        case["prompt"],
        num_images_per_prompt=case["parallel_size"],
        guidance_scale=case["cfg_weight"],
        do_sample=False,
        output_type="latent",
        progress=False,
    )
    assert isinstance(codes, Tensor)
    return codes


def test_inputs_and_embeddings_of_a_batch(janus: Janus, janus_golden: Golden) -> None:
    inputs = janus.processor.encode_conversations(janus_golden.conversations)
    expected = janus_golden.tensors
    assert inputs.text == janus_golden.cases["sft"]
    assert torch.equal(inputs.input_ids, expected["und.input_ids"])
    assert torch.equal(inputs.attention_mask, expected["und.attention_mask"])
    shown = expected["und.images_emb_mask"].any(dim=-1)
    assert inputs.pixel_values is not None
    assert error(inputs.pixel_values, expected["und.pixel_values"][shown]) < TOLERANCE
    embeds = janus.network.embed(inputs.input_ids, inputs.pixel_values)
    visible = inputs.attention_mask.bool()
    assert error(embeds[visible], expected["und.inputs_embeds"][visible]) < TOLERANCE


def test_logits_and_greedy_text(janus: Janus, janus_golden: Golden, caplog: pytest.LogCaptureFixture) -> None:
    inputs = janus.processor.encode_conversations(janus_golden.conversations)
    embeds = janus.network.embed(inputs.input_ids, inputs.pixel_values)
    outputs = janus.network(inputs_embeds=embeds, attention_mask=inputs.attention_mask)
    assert error(outputs.logits[:, -1], janus_golden.tensors["und.last_logits"]) < TOLERANCE
    tokenizer = janus.processor.tokenizer
    wanted = [tokenizer.decode(row, skip_special_tokens=True) for row in janus_golden.tensors["und.greedy_tokens"]]
    length = janus_golden.tensors["und.greedy_tokens"].shape[1]
    assert janus.chat_batch(janus_golden.conversations, max_new_tokens=length) == wanted
    assert not caplog.records  # transformers' warnings
    for talk, text in zip(janus_golden.conversations, wanted, strict=True):
        assert janus.chat(talk, max_new_tokens=length) == text
        assert "".join(janus.stream(talk, max_new_tokens=length)) == text


def test_prompt_ids(janus: Janus, janus_golden: Golden) -> None:
    for case in janus_golden.cases["t2i"]:
        ids, mask = janus.processor.encode_prompts([case["prompt"]], side="left", keep_last=True)
        assert janus.processor.render_prompt(case["prompt"]) == case["text"]
        assert ids.tolist() == [case["input_ids"]] and bool(mask.all())


def test_first_logits_all_codes_and_pixels(janus: Janus, janus_golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, case in enumerate(janus_golden.cases["t2i"]):
        seen: list[Tensor] = []
        guide = TokenSampling.guide

        def spy(self: TokenSampling, logits: Tensor, seen: list[Tensor] = seen, guide: Any = guide) -> Tensor:
            seen.append(guide(self, logits))
            return seen[-1]

        monkeypatch.setattr(TokenSampling, "guide", spy)
        codes = drawn(janus, case)
        monkeypatch.undo()
        assert error(seen[0], janus_golden.tensors[f"t2i.{index}.first_logits"]) < TOLERANCE
        assert torch.equal(codes, janus_golden.tensors[f"t2i.{index}.tokens"].long())
        assert error(janus.network.decode(codes), janus_golden.tensors[f"t2i.{index}.pixels"]) < TOLERANCE


def test_codes_of_a_picture(janus: Janus, janus_golden: Golden) -> None:
    codes = janus.network.encode(janus_golden.tensors["vq.encode.input"])
    assert torch.equal(codes.flatten(), janus_golden.tensors["vq.encode.indices"])


def test_transformers_own_loop_draws_the_same(janus: Janus, janus_golden: Golden) -> None:
    case = janus_golden.cases["t2i"][0]
    tokenizer = janus.processor.tokenizer
    config = GenerationConfig(
        guidance_scale=case["cfg_weight"],
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": janus.processor.image_start_id},
    )
    codes = TransformersJanus.generate(
        janus.network,
        torch.tensor([case["input_ids"]]),
        attention_mask=torch.ones(1, len(case["input_ids"]), dtype=torch.long),
        generation_mode="image",
        generation_config=config,
    )
    assert torch.equal(codes, drawn(janus, {**case, "parallel_size": 1}))


def test_layers_with_hooks_draw_the_same_codes(
    janus: Janus, janus_golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"seed": 3, "output_type": "latent", "progress": False}
    expected = janus.generate(PROMPTS, **settings)
    monkeypatch.setattr(Slots, "step", None)  # transformers' forward runs
    calls: list[int] = []
    hook = janus.network.get_decoder().layers[0].register_forward_hook(lambda *given: calls.append(1))
    assert torch.equal(janus.generate(PROMPTS, **settings), expected)
    hook.remove()
    assert len(calls) == janus.network.image_tokens


def _hide_pads(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    read = token_generation.read_prompts

    def hiding(network: Any, ids: Tensor, visible: Tensor, pad: int, *, guided: bool) -> Any:
        found = read(network, ids, visible, pad, guided=guided)
        found.visible[len(ids) :, 1:-1] = 0
        return found

    monkeypatch.setattr("janusflow.pipelines.janus.read_prompts", hiding)


def _other_pad(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    model.processor.tokenizer.pad_token = model.processor.tokenizer.eos_token


def _no_guidance(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenSampling, "guide", lambda self, logits: logits.chunk(2)[0])


def _positions_stand_still(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Slots.step

    def still(slots: Slots, embeds: Tensor) -> Tensor:
        states = step(slots, embeds)
        for row in range(len(slots.lengths)):
            slots.forget(row, 1)
        return states

    monkeypatch.setattr(Slots, "step", still)


def _forgets_the_prompt(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    read = model.network.read

    def empty(ids: Tensor, mask: Tensor) -> Any:
        return read(torch.zeros_like(ids), mask)

    model.network.read = empty  # type: ignore[method-assign]


def _unscaled_codes(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    model.network.model.vqmodel.quantize.get_codebook_entry = lambda codes: (
        model.network.model.vqmodel.quantize.embedding(codes).view(len(codes), 4, 4, -1).permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    "mistake",
    [_hide_pads, _other_pad, _no_guidance, _positions_stand_still, _forgets_the_prompt, _unscaled_codes],
    ids=lambda mistake: mistake.__name__.strip("_"),
)
def test_a_mistake_changes_the_pictures(janus_golden: Golden, mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = JanusFlow.from_pretrained(janus_golden.folder, device="cpu")
    mistake(model, monkeypatch)
    wrong = model.network.decode(drawn(model, janus_golden.cases["t2i"][0]))
    assert error(wrong, janus_golden.tensors["t2i.0.pixels"]) > 100 * TOLERANCE
