"""The network computes what the official code computes, number for number, and a broken one does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from janusflow import JanusFlow
from janusflow.model import PromptPrefix
from janusflow.model.generation_encoder import EncodedLatent
from tests.conftest import TOLERANCE, Golden, error


def trajectory(model: JanusFlow, golden: Golden, case: int) -> list[Tensor]:
    """The latent after each step of a golden generation case."""
    wanted, steps = golden.cases["t2i"][case], []

    def note(model: JanusFlow, step: int, t: float, state: dict[str, Tensor]) -> None:
        steps.append(state["latents"])

    model.generate(
        wanted["prompt"],
        num_images_per_prompt=wanted["parallel_size"],
        num_inference_steps=wanted["num_inference_steps"],
        guidance_scale=wanted["cfg_weight"],
        latents=golden.tensors[f"t2i.{case}.z0"],
        output_type="latent",
        callback_on_step_end=note,
    )
    return steps


def trajectory_error(model: JanusFlow, golden: Golden, case: int) -> float:
    steps = trajectory(model, golden, case)
    assert len(steps) == golden.cases["t2i"][case]["num_inference_steps"]
    return max(error(z, golden.tensors[f"t2i.{case}.z{k}"]) for k, z in enumerate(steps, start=1))


def states_and_velocity(model: JanusFlow, x: Tensor, t: Tensor, prefix: PromptPrefix) -> tuple[Tensor, Tensor]:
    """The LLM's states at the image tokens, as g_dec gets them, and the velocity."""
    kept: list[Tensor] = []
    hook = model.network.generation_decoder.norm.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    velocity = model.network.velocity(x, t, prefix)
    hook.remove()
    return kept[0], velocity


def vision_error(model: JanusFlow, golden: Golden) -> float:
    """Of the features of the batch's first pictures, which are the ones that the golden file keeps."""
    expected = golden.tensors["und.vision_features"]
    used = golden.tensors["und.images_emb_mask"].any(dim=-1)
    pixels = golden.tensors["und.pixel_values"][used][: len(expected)]
    with torch.inference_mode():
        return error(model.network.understanding_encoder.features(pixels), expected)


def test_pixels_ids_and_masks_are_the_official_ones(golden: Golden, golden_model: JanusFlow) -> None:
    processor = golden_model.processor
    for name, expected in golden.tensors.items():
        if name.startswith("pixel_values."):
            found = processor.preprocess(golden.folder / f"image_{name.split('.')[1]}.png")
            assert error(found, expected) <= TOLERANCE
    for messages, text, ids in zip(golden.conversations, golden.cases["sft"], golden.cases["input_ids"], strict=True):
        alone = processor.encode_conversations([messages])
        assert alone.text == [text]
        assert alone.input_ids.tolist() == [ids]
    batch = processor.encode_conversations(golden.conversations[:2])
    assert torch.equal(batch.input_ids, golden.tensors["und.input_ids"])
    assert torch.equal(batch.attention_mask, golden.tensors["und.attention_mask"])
    used = golden.tensors["und.images_emb_mask"].any(dim=-1)
    assert batch.pixel_values is not None
    assert error(batch.pixel_values, golden.tensors["und.pixel_values"][used]) <= TOLERANCE


def test_generation_prompts_are_the_official_ones(golden: Golden, golden_model: JanusFlow) -> None:
    for case in golden.cases["t2i"]:
        assert golden_model.processor.render_prompt(case["prompt"]) == case["text"]
        ids, mask = golden_model.processor.encode_prompts([case["prompt"]])
        assert ids.tolist() == [case["input_ids"][:-1]]
        assert mask.all()


@torch.inference_mode()
def test_understanding_features_embeddings_and_logits(golden: Golden, golden_model: JanusFlow) -> None:
    assert vision_error(golden_model, golden) <= TOLERANCE
    batch = golden_model.processor.encode_conversations(golden.conversations[:2])
    embeds = golden_model.network.embed(batch.input_ids, batch.pixel_values)
    assert error(embeds, golden.tensors["und.inputs_embeds"]) <= TOLERANCE
    output = golden_model.network(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values,
        attention_mask=batch.attention_mask,
        logits_to_keep=1,
    )
    assert error(output.logits[:, 0], golden.tensors["und.last_logits"]) <= TOLERANCE


def test_greedy_answers_in_a_batch_alone_and_streamed(golden: Golden, golden_model: JanusFlow) -> None:
    conversations, expected = golden.conversations[:2], golden.cases["greedy_text"]
    length = golden.tensors["und.greedy_tokens"].shape[1]
    assert golden_model.chat_batch(conversations, max_new_tokens=length) == expected
    assert [golden_model.chat(messages, max_new_tokens=length) for messages in conversations] == expected
    assert ["".join(golden_model.stream(m, max_new_tokens=length)) for m in conversations] == expected


@torch.inference_mode()
def test_greedy_tokens_through_transformers_own_generate(golden: Golden, golden_model: JanusFlow) -> None:
    batch = golden_model.processor.encode_conversations(golden.conversations[:2])
    expected = golden.tensors["und.greedy_tokens"]
    tokenizer = golden_model.processor.tokenizer
    ids = golden_model.network.generate(
        input_ids=batch.input_ids,
        pixel_values=batch.pixel_values,
        attention_mask=batch.attention_mask,
        max_new_tokens=expected.shape[1],
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    assert torch.equal(ids[:, batch.input_ids.shape[1] :], expected)


@torch.inference_mode()
def test_first_step_encoder_time_states_and_velocities(golden: Golden, golden_model: JanusFlow) -> None:
    network = golden_model.network
    for index, case in enumerate(golden.cases["t2i"]):
        expected = {k.split("step0.")[1]: v for k, v in golden.tensors.items() if k.startswith(f"t2i.{index}.step0.")}
        x = golden.tensors[f"t2i.{index}.z0"]
        count = len(x)
        prefix = network.encode_prompts(*golden_model.processor.encode_prompts([case["prompt"]]))
        rows = prefix.select(torch.zeros(count, dtype=torch.long))
        both, twice = PromptPrefix.concatenate(rows, rows.unconditional()), torch.cat([x, x])
        t = torch.zeros(2 * count)
        encoded = network.generation_encoder(twice, t)
        assert error(encoded.skip, expected["enc"]) <= TOLERANCE
        assert error(encoded.time, expected["temb"]) <= TOLERANCE
        states, velocity = states_and_velocity(golden_model, twice, t, both)
        assert error(states, expected["hidden"]) <= TOLERANCE
        assert error(velocity[:count], expected["v_cond"]) <= TOLERANCE
        assert error(velocity[count:], expected["v_uncond"]) <= TOLERANCE


def test_whole_trajectories_in_a_batch_and_one_at_a_time(golden: Golden, golden_model: JanusFlow) -> None:
    for index, case in enumerate(golden.cases["t2i"]):
        assert trajectory_error(golden_model, golden, index) <= TOLERANCE
        last = golden.tensors[f"t2i.{index}.z{case['num_inference_steps']}"]
        for row in range(case["parallel_size"]):
            alone = golden_model.generate(
                case["prompt"],
                num_inference_steps=case["num_inference_steps"],
                guidance_scale=case["cfg_weight"],
                latents=golden.tensors[f"t2i.{index}.z0"][row : row + 1],
                output_type="latent",
            )
            assert error(alone, last[row : row + 1]) <= TOLERANCE


def test_different_prompts_in_one_batch_give_what_each_gives_alone(golden: Golden, golden_model: JanusFlow) -> None:
    prompts = [case["prompt"] for case in golden.cases["t2i"]]
    together = golden_model.generate(prompts, seed=3, num_inference_steps=5, output_type="latent")
    for index, prompt in enumerate(prompts):
        alone = golden_model.generate(prompt, seed=3, num_inference_steps=5, output_type="latent")
        assert error(together[index : index + 1], alone) <= TOLERANCE


def test_bfloat16_stays_within_three_percent(golden: Golden) -> None:
    model = JanusFlow.from_pretrained(golden.folder, dtype="bfloat16", device="cpu")
    for index, case in enumerate(golden.cases["t2i"]):
        last = golden.tensors[f"t2i.{index}.z{case['num_inference_steps']}"]
        found = trajectory(model, golden, index)[-1]
        assert found.dtype == torch.float32
        assert float((found - last).norm() / last.norm()) <= 0.03


# --- broken on purpose: each of these must be noticed -----------------------------------------------------------------


def drop_prompt(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromptPrefix, "select", lambda self, rows: _select(self.unconditional(), rows))


def zero_time_token(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, decode, kept = model.network.generation_encoder, model.network.generation_decoder, []

    def without(latent: Tensor, t: Tensor) -> EncodedLatent:
        encoded = type(encode).forward(encode, latent, t)
        kept.append(encoded.time)
        return EncodedLatent(encoded.tokens, torch.zeros_like(encoded.time), encoded.skip)

    monkeypatch.setattr(encode, "forward", without)

    def shared(states: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        real = kept.pop()
        return type(decode).forward(decode, states, skip, real.repeat(len(states) // len(real), 1))

    monkeypatch.setattr(decode, "forward", shared)


def unmask_unconditional(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(self: PromptPrefix) -> PromptPrefix:
        pads = [(torch.zeros_like(k), torch.zeros_like(v)) for k, v in self.layers]
        layers = [
            (torch.cat([k[:, :, :1], zk[:, :, 1:]], 2), torch.cat([v[:, :, :1], zv[:, :, 1:]], 2))
            for (k, v), (zk, zv) in zip(self.layers, pads, strict=True)
        ]
        return PromptPrefix(layers, self.visible, self.lengths)

    monkeypatch.setattr(PromptPrefix, "unconditional", shown)


def leave_out_guidance(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusflow.engine.jobs.combine", lambda conditional, unconditional, scale: conditional)


def look_both_ways(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    def both_ways(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    monkeypatch.setattr("janusflow.model.prefix.causal_attention", both_ways)


def remove_skip(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = model.network.generation_decoder
    monkeypatch.setattr(
        decode, "forward", lambda s, skip, time: type(decode).forward(decode, s, torch.zeros_like(skip), time)
    )


def remove_llm(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = model.network.generation_decoder
    monkeypatch.setattr(
        decode, "forward", lambda s, skip, time: type(decode).forward(decode, torch.zeros_like(s), skip, time)
    )


def shift_positions(model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(self: PromptPrefix) -> PromptPrefix:
        rows = _unconditional(self)
        return PromptPrefix(rows.layers, rows.visible, torch.ones_like(rows.lengths))

    monkeypatch.setattr(PromptPrefix, "unconditional", alone)


_select, _unconditional = PromptPrefix.select, PromptPrefix.unconditional

MUTANTS = [
    drop_prompt,
    zero_time_token,
    unmask_unconditional,
    leave_out_guidance,
    look_both_ways,
    remove_skip,
    remove_llm,
    shift_positions,
]


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_broken_generation_is_noticed(
    mutate: Callable[[JanusFlow, pytest.MonkeyPatch], None],
    golden: Golden,
    mutable_model: JanusFlow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutate(mutable_model, monkeypatch)
    worst = max(trajectory_error(mutable_model, golden, case) for case in range(len(golden.cases["t2i"])))
    assert worst > 30 * TOLERANCE


def test_the_tanh_gelu_is_noticed(golden: Golden, mutable_model: JanusFlow) -> None:
    changed = 0
    for module in mutable_model.network.understanding_encoder.tower.modules():
        if isinstance(getattr(module, "activation_fn", None), nn.Module):
            module.activation_fn = ACT2FN["gelu_pytorch_tanh"]
            changed += 1
    assert changed
    assert vision_error(mutable_model, golden) > 1.5 * TOLERANCE


def test_a_begin_embedding_left_out_is_noticed(golden: Golden, mutable_model: JanusFlow) -> None:
    mutable_model.network.understanding_encoder.begin_embedding.data.zero_()
    batch = mutable_model.processor.encode_conversations(golden.conversations[:2])
    with torch.inference_mode():
        embeds = mutable_model.network.embed(batch.input_ids, batch.pixel_values)
    assert error(embeds, golden.tensors["und.inputs_embeds"]) > TOLERANCE
