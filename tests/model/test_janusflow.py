"""The network as a transformers model: Auto classes, files, losses, gradients, refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForImageTextToText, Trainer, TrainingArguments

from janusflow import JanusFlow, JanusFlowConfig, JanusFlowForConditionalGeneration
from janusflow.config import tiny
from janusflow.model import PromptPrefix
from janusflow.model.prefix import CACHE
from tests.conftest import GOLDEN, TOLERANCE


def test_auto_classes_know_it(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.network.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), JanusFlowConfig)
    network = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(network, JanusFlowForConditionalGeneration)
    assert all(torch.equal(network.state_dict()[k], v) for k, v in small_model.network.state_dict().items())


def test_a_fresh_network_has_sane_initial_values() -> None:
    torch.manual_seed(0)
    network = JanusFlowForConditionalGeneration(tiny(512))
    assert sum(p.numel() for p in network.parameters()) == 13_138_512
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert network.understanding_encoder.begin_embedding.abs().sum() > 0
    ids = torch.randint(0, 500, (2, 5))
    prefix = network.encode_prompts(ids, torch.ones_like(ids))
    v = network.velocity(torch.randn(2, 4, 16, 16), torch.rand(2), prefix)
    assert v.shape == (2, 4, 16, 16)
    assert torch.isfinite(v).all()


def test_labels_give_the_mean_next_token_loss(small_model: JanusFlow) -> None:
    ids = torch.randint(0, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :4] = -100
    output = small_model.network(input_ids=ids, labels=labels)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert float(output.loss) == pytest.approx(float(expected), rel=1e-5)


def test_image_tokens_and_pictures_must_agree(small_model: JanusFlow) -> None:
    network, processor = small_model.network, small_model.processor
    ids = torch.tensor([[5, processor.image_start_id, *[processor.image_id] * 16, processor.image_end_id]])
    with pytest.raises(ValueError, match="16 image tokens; 0 pictures"):
        network.embed(ids)
    with pytest.raises(ValueError, match="16 image tokens; 2 pictures of 16"):
        network.embed(ids, torch.zeros(2, 3, 64, 64))
    with pytest.raises(ValueError, match="0 <begin_of_image> tokens"):
        network.embed(torch.where(ids == processor.image_start_id, 5, ids), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        network()


def test_a_prefix_can_be_used_any_number_of_times(small_model: JanusFlow) -> None:
    network = small_model.network
    prefix = network.encode_prompts(*small_model.processor.encode_prompts(["a red circle", "two"]))
    lengths = [k.shape[-2] for k, _ in prefix.layers]
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.7])
    first, again = network.velocity(x, t, prefix), network.velocity(x, t, prefix)
    assert torch.equal(first, again)
    assert [k.shape[-2] for k, _ in prefix.layers] == lengths
    rows = torch.tensor([1, 0, 1])
    other = network.velocity(x[rows], t[rows], prefix.select(rows))
    torch.testing.assert_close(other, first[rows], atol=1e-5, rtol=1e-5)


def test_the_unconditional_prefix_is_bos_alone_with_the_prompts_positions(small_model: JanusFlow) -> None:
    network, processor = small_model.network, small_model.processor
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([0.4])
    prefix = network.encode_prompts(*processor.encode_prompts(["a red circle"]))
    bos = torch.tensor([[processor.tokenizer.bos_token_id]])
    alone = network.encode_prompts(bos, torch.ones_like(bos))
    kept = PromptPrefix(alone.layers, alone.visible, prefix.lengths)
    torch.testing.assert_close(
        network.velocity(x, t, prefix.unconditional()), network.velocity(x, t, kept), atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(network.velocity(x, t, kept), network.velocity(x, t, alone), atol=1e-4)


def test_configs_that_make_no_network_are_refused() -> None:
    for patch in (3, 1):
        with pytest.raises(ValueError, match=f"latent_patch_size is {patch}"):
            JanusFlowConfig(latent_patch_size=patch)
    with pytest.raises(ValueError, match="image_size is 100; expected a multiple of 16"):
        JanusFlowConfig(image_size=100)


# --- gradient checkpointing and offload ------------------------------------------------------------------------------


def gradients(network: JanusFlowForConditionalGeneration, asked: tuple[Tensor, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """A velocity and the gradients of its sum of squares, through the prefix too."""
    network.zero_grad()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    v = network.velocity(x, torch.tensor([0.3, 0.6]), network.encode_prompts(*asked))
    v.square().sum().backward()
    return v.detach(), [p.grad.clone() for p in network.language_model.parameters() if p.grad is not None]


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_neither_velocity_nor_gradients(small_folder: Path, reentrant: bool) -> None:
    model = JanusFlow.from_pretrained(small_folder, device="cpu")
    network = model.network.train().requires_grad_(True)
    asked = model.processor.encode_prompts(["a red circle", "two blue stars above a line"])
    other = model.processor.encode_prompts(["a green cross", "three lines"])
    plain, expected = gradients(network, asked)
    network.activation_checkpointing_enable({"use_reentrant": reentrant})
    found, grads = gradients(network, asked)
    torch.testing.assert_close(found, plain)
    assert len(grads) == len(expected)
    for one, two in zip(grads, expected, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(gradients(network, other)[0], plain, atol=1e-3), "the prompt makes no difference"
    assert not any(layer._can_checkpoint_with_cache for layer in network.language_model.layers)
    funcs = [layer._gradient_checkpointing_func.keywords["use_reentrant"] for layer in network.language_model.layers]
    assert funcs == [reentrant] * len(funcs), "the caller's own checkpointing is restored"


def test_answers_are_the_same_under_gradient_checkpointing(small_folder: Path, picture: Path) -> None:
    for folder in (small_folder, GOLDEN / "janus-small-a"):
        model = JanusFlow.from_pretrained(folder, device="cpu")
        plain = model.ask("what is it?", picture, max_new_tokens=8)
        model.network.train().activation_checkpointing_enable()
        assert model.ask("what is it?", picture, max_new_tokens=8) == plain


def test_janus_generates_the_same_codes_under_gradient_checkpointing() -> None:
    model = JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")
    settings: dict[str, Any] = {"seed": 0, "output_type": "latent", "do_sample": False}
    plain = model.generate(["a red circle", "two stars"], **settings)
    model.network.train().activation_checkpointing_enable()
    assert torch.equal(model.generate(["a red circle", "two stars"], **settings), plain)


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_offloaded_weights_generate_and_answer_as_those_in_memory(
    small_model: JanusFlow, tmp_path: Path, picture: Path, place: str
) -> None:
    small_model.network.save_pretrained(tmp_path / "network")
    parts = [name for name, _ in small_model.network.named_children()]
    network = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "network",
        device_map=dict.fromkeys(parts, place) | {"lm_head": "cpu"},
        offload_folder=tmp_path / "offload",
    )
    if place == "disk":
        assert {p.device.type for p in network.generation_decoder.parameters()} == {"meta"}
    assert network.device.type == "cpu"
    offloaded = JanusFlow(network, small_model.processor, small_model.codec)
    settings: dict[str, Any] = {"seed": 0, "num_inference_steps": 2, "output_type": "np"}
    expected = small_model.generate("a red circle", **settings)
    assert np.abs(offloaded.generate("a red circle", **settings) - expected).max() <= TOLERANCE
    question: dict[str, Any] = {"images": picture, "max_new_tokens": 4}
    assert offloaded.ask("what is it?", **question) == small_model.ask("what is it?", **question)
    assert "".join(offloaded.stream("what is it?", **question)) == small_model.ask("what is it?", **question)


def test_the_last_convolution_is_float32_whatever_the_weights_and_autocast(small_model: JanusFlow) -> None:
    half = copy.deepcopy(small_model.network).bfloat16()
    prefix = half.encode_prompts(*small_model.processor.encode_prompts(["a red circle"]))
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4])
    v = half.velocity(x, t, prefix)
    assert v.dtype == torch.float32 and not torch.equal(v, v.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        prefix = small_model.network.encode_prompts(*small_model.processor.encode_prompts(["a red circle"]))
        v = small_model.network.velocity(x, t, prefix)
    assert v.dtype == torch.float32 and not torch.equal(v, v.bfloat16().float())


def test_the_trainer_of_transformers_accumulates_gradients(small_model: JanusFlow, tmp_path: Path) -> None:
    """Two answers of different lengths: one batch of two, and two batches of one, must give the same step."""
    ids = torch.randint(5, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :6] = -100
    rows = [{"input_ids": i, "labels": label} for i, label in zip(ids, labels, strict=True)]
    pace: dict[str, Any] = {"learning_rate": 1.0, "optim": "sgd", "max_grad_norm": 0.0, "max_steps": 1}
    quiet: dict[str, Any] = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    losses, heads = [], []
    for size in (2, 1):
        network = copy.deepcopy(small_model.network).requires_grad_()
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=2 // size,
            logging_steps=1,
            **pace,
            **quiet,
        )
        trainer = Trainer(network, arguments, train_dataset=rows)
        losses.append(trainer.train().training_loss)
        heads.append(network.lm_head.weight.detach() - small_model.network.lm_head.weight.detach())
    expected = float(small_model.network(input_ids=ids, labels=labels).loss)
    assert losses == pytest.approx([expected, expected], rel=1e-4)
    assert heads[0].abs().max() > 0
    torch.testing.assert_close(heads[1], heads[0], rtol=1e-3, atol=1e-6)


def test_the_cache_has_two_names(small_model: JanusFlow) -> None:
    network, ids = small_model.network, torch.arange(6)[None] + 5
    whole = network(input_ids=ids).logits[:, -1]
    for name in ("past_key_values", "cache"):
        read = network(input_ids=ids[:, :-1], use_cache=True)
        after = network(input_ids=ids[:, -1:], **{name: getattr(read, CACHE)})
        assert torch.allclose(after.logits[:, -1], whole, atol=1e-5)
        assert getattr(after, CACHE).get_seq_length() == 6
    held = getattr(read, CACHE)
    with pytest.raises(ValueError, match="two names of one argument"):
        network(input_ids=ids[:, -1:], past_key_values=held, cache=held)


def test_forward_refuses_what_it_would_not_use(small_model: JanusFlow) -> None:
    network, ids = small_model.network, torch.tensor([[5, 6, 7]])
    embeds, pixels = network.get_input_embeddings()(ids), torch.zeros(1, 3, 64, 64)
    with pytest.raises(ValueError, match="pixel_value, token_types: unknown to forward"):
        network(input_ids=ids, pixel_value=pixels, token_types=1)
    with pytest.raises(ValueError, match="pixel_values and latents need input_ids"):
        network(inputs_embeds=embeds, pixel_values=pixels)
    with pytest.raises(ValueError, match="give latents and their times t together"):
        network(input_ids=ids, latents=torch.zeros(1, 4, 8, 8))
    states = network(input_ids=ids, output_hidden_states=True, token_types=None).hidden_states
    assert states is not None and torch.equal(network(input_ids=ids, return_dict=False)[0], network(ids).logits)
