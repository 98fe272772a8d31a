"""Losses of Janus in the trainer: as in transformers, in the official code and in a slow recomputation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration as TransformersJanus

from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.data.records import Record
from janusflow.data.samples import Drawn, Sample, SampleConfig, SampleMaker
from janusflow.data.templates import conversation, drawing, plain_text
from janusflow.model.attention import PACKED
from janusflow.model.janus import without_words
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.pipelines.janus import Janus
from janusflow.training.anchor import Anchor
from janusflow.training.losses import LossConfig
from janusflow.training.objective import Objective
from janusflow.training.packing import pack
from tests.conftest import TOLERANCE, error

GOLDEN = Path(__file__).parents[1] / "golden" / "janus-small-a"
CPU = torch.device("cpu")
LENGTH = 16  # codes of a picture


@pytest.fixture
def janus() -> Janus:
    model: Any = JanusFlow.from_pretrained(GOLDEN, device="cpu")
    model.network.set_attn_implementation({"text_config": PACKED})
    model.network.requires_grad_(True).train()
    return model


def mixed_samples(model: Janus) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    processor, tag = model.processor, model.processor.text.image_tag

    def draw(prompt: str, dropped: bool) -> Sample:
        pixels = torch.rand(3, 64, 64, generator=generator) * 2 - 1
        tokens = drawing(processor, prompt, LENGTH, dropped=dropped, without_words=without_words)
        return Sample(tokens, drawn=Drawn(pixels, None, 0.0))

    seen = torch.rand(1, 3, 64, 64, generator=generator)
    return [
        draw("a red circle", False),
        Sample(conversation(processor, [(f"{tag}\nwhat is it?", "a star"), ("sure?", "yes")]), seen=seen),
        Sample(plain_text(processor, "a triangle has three corners")),
        draw("two yellow stars on a gray background", True),
        draw("a cat", False),
    ]


def sums(model: Janus, objective: Objective, samples: list[Sample]) -> dict[str, Tensor]:
    row = pack(samples, CPU)
    codes = None if row.pixels is None else model.codec.encode(row.pixels).clone()
    return objective(row, codes)


def by_transformers(network: Any, codes_of: Callable[[Tensor], Tensor], sample: Sample) -> Tensor:
    """The loss of a sample summed over its labels, by transformers' own network and forward."""
    ids = torch.tensor([sample.tokens.ids])
    if sample.drawn is None:
        labels = torch.tensor([sample.tokens.labels])
        return network(input_ids=ids, pixel_values=sample.seen, labels=labels).loss * int((labels[:, 1:] != -100).sum())
    codes = codes_of(sample.drawn.pixels[None])
    prompt = ids[:, : -codes.shape[1]]
    embeds = network.get_input_embeddings()(prompt)
    embeds = torch.cat([embeds, network.prepare_embeddings_for_image_generation(codes)], dim=1)
    states = network.model(inputs_embeds=embeds).last_hidden_state[:, prompt.shape[1] - 1 : -1]
    return F.cross_entropy(network.model.generation_head(states)[0], codes[0], reduction="sum")


def one_by_one(network: Any, codes_of: Callable[[Tensor], Tensor], sample: Sample) -> Tensor:
    """The same for codes, slowly: the whole prefix is read again for each code, as generation would."""
    assert sample.drawn is not None
    codes = codes_of(sample.drawn.pixels[None])[0]
    embeds = network.get_input_embeddings()(torch.tensor([sample.tokens.ids[:-LENGTH]]))
    total = torch.zeros(())
    for code in codes:
        logits = network.model.generation_head(network.model(inputs_embeds=embeds).last_hidden_state[:, -1])[0]
        total = total - logits.log_softmax(dim=-1)[code]
        embeds = torch.cat([embeds, network.prepare_embeddings_for_image_generation(code[None, None])], dim=1)
    return total


def test_losses_are_those_of_transformers_and_of_a_slow_recomputation(janus: Janus, tmp_path: Path) -> None:
    convert(GOLDEN, tmp_path / "theirs", to="transformers", progress=False)
    theirs = TransformersJanus.from_pretrained(tmp_path / "theirs").eval()
    objective, samples = Objective(janus.network, LossConfig()), mixed_samples(janus)
    found = sums(janus, objective, samples)
    assert set(objective.terms) == {"ar", "codes"}
    with torch.no_grad():
        wanted = [by_transformers(theirs, janus.network.encode, sample) for sample in samples]
        slow = [one_by_one(theirs, janus.network.encode, sample) for sample in samples if sample.drawn is not None]
    drawn = [sample.drawn is not None for sample in samples]
    codes = sum(loss for loss, of in zip(wanted, drawn, strict=True) if of)
    texts = sum(loss for loss, of in zip(wanted, drawn, strict=True) if not of)
    torch.testing.assert_close(found["codes"], torch.as_tensor(codes), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found["codes"], torch.as_tensor(sum(slow)), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found["ar"], torch.as_tensor(texts), atol=1e-4, rtol=1e-5)
    counts = {name: count for term in objective.terms.values() for name, count in term.counts(samples).items()}
    assert counts["codes"] == 3 * LENGTH
    weighted = objective.weighted(found, counts)
    torch.testing.assert_close(weighted, found["codes"] / counts["codes"] + found["ar"] / counts["ar"])


@pytest.mark.parametrize("index", [0, 1])
def test_a_dropped_prompt_is_the_row_without_words_of_the_official_code(janus: Janus, index: int) -> None:
    case = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))["t2i"][index]
    expected = load_file(GOLDEN / "expected.safetensors")[f"t2i.{index}.first_logits"]
    codes = torch.zeros(1, LENGTH, dtype=torch.long)

    def first(dropped: bool) -> Tensor:
        tokens = drawing(janus.processor, case["prompt"], LENGTH, dropped=dropped, without_words=without_words)
        row = pack([Sample(tokens, drawn=Drawn(torch.zeros(3, 64, 64), None, 0.0))], CPU)
        output = janus.network(row.input_ids, position_ids=row.position_ids, latents=codes)
        return output.code_logits[0, 0]

    with torch.no_grad():
        words, without = first(False), first(True)
    guided = without + case["cfg_weight"] * (words - without)
    assert error(guided.expand_as(expected), expected) < TOLERANCE


def test_the_pad_token_is_that_of_the_release(janus: Janus) -> None:
    record = Record("a", (Image.new("RGB", (64, 64)),), text="a red circle")
    maker = SampleMaker(janus.processor, janus.network.config, SampleConfig(prompt_dropout=1.0))
    pads = []
    for pad in ("<｜▁pad▁｜>", "<|User|>"):
        janus.processor.tokenizer.pad_token = pad
        pads.append(janus.processor.tokenizer.pad_token_id)
        ids = maker.make("generation", record, Random(0)).tokens.ids
        before = ids[: ids.index(GENERATION_TOKEN)]
        assert set(before[1:-1]) == {pads[-1]} and len(before) > 3
        assert before[0] == janus.processor.tokenizer.bos_token_id and before[-1] == janus.processor.image_start_id
    assert pads[0] != pads[1]
    with pytest.raises(ValueError, match="belongs to a noise, but the model generates codes"):
        maker.make("generation", Record("b", record.images, text="b", noise_seed=1), Random(0))


def test_a_pack_is_its_samples_alone(janus: Janus) -> None:
    objective, samples = Objective(janus.network, LossConfig()), mixed_samples(janus)

    def gradients(groups: list[list[Sample]]) -> tuple[float, dict[str, Tensor]]:
        objective.zero_grad()
        total = 0.0
        for group in groups:
            loss = torch.stack(list(sums(janus, objective, group).values())).sum()
            loss.backward()
            total += float(loss)
        return total, {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}

    whole, packed = gradients([samples])
    each, alone = gradients([[sample] for sample in samples])
    assert whole == pytest.approx(each, rel=1e-5)
    assert packed.keys() == alone.keys()
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, alone[name], atol=2e-5 * float(alone[name].abs().max()) + 1e-6, rtol=1e-4)
    still = {name for name, gradient in packed.items() if not gradient.any()}
    assert all("vqmodel" in name for name in still), "every part but the codec learns"


def test_an_anchored_picture_asks_for_nothing_while_nothing_has_changed(janus: Janus) -> None:
    anchor, samples = Anchor(janus.network), mixed_samples(janus)
    samples = [Sample(s.tokens, s.seen, s.drawn, anchored=index != 4) for index, s in enumerate(samples)]
    objective = Objective(janus.network, LossConfig(anchor=2.0))
    row = pack(samples, CPU)
    codes = janus.codec.encode(row.pixels).clone()  # type: ignore[arg-type]
    row, codes = anchor(samples, row, codes)  # type: ignore[assignment]
    free = float(sums(janus, Objective(janus.network, LossConfig()), [samples[4]])["codes"])
    assert float(objective(row, codes)["codes"]) == pytest.approx(free, rel=1e-4)
    with torch.no_grad():
        janus.network.model.generation_head.vision_head.weight.mul_(1.5)
    assert float(objective(row, codes)["codes"]) > 1.001 * free
