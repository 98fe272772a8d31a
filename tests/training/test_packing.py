"""A pack of samples is its samples alone: losses and gradients to float32 rounding."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch

from janusflow import JanusFlow, JanusFlowForConditionalGeneration
from janusflow.data.loader import Data
from janusflow.data.mixture import Mixture
from janusflow.data.samples import Drawn, Sample, SampleMaker
from janusflow.data.templates import IGNORE, Tokens, conversation, drawing, plain_text
from janusflow.model.attention import PACKED, Documents, packed_attention
from janusflow.training.config import load_config
from janusflow.training.config.sources import sources_of, weights_of
from janusflow.training.objective import LossConfig, Objective
from janusflow.training.packing import fill, pack, packed_forward

CPU = torch.device("cpu")


def mixed_samples(model: JanusFlow) -> list[Sample]:
    """Understanding, generation (one prompt dropped) and text, of many lengths."""
    processor, generator = model.processor, torch.Generator().manual_seed(0)

    def draw(prompt: str, dropped: bool) -> Sample:
        noise = torch.randn(4, 8, 8, generator=generator)
        drawn = Drawn(torch.rand(3, 64, 64, generator=generator), noise, float(torch.rand(1, generator=generator)))
        tokens = model.network.config.num_generation_tokens
        return Sample(drawing(processor, prompt, tokens, dropped=dropped), drawn=drawn)

    def see(turns: list[tuple[str, str]]) -> Sample:
        seen = torch.rand(1, 3, 64, 64, generator=generator)
        return Sample(conversation(processor, turns), seen=seen)

    return [
        draw("a red circle", False),
        see([("<image_placeholder>\nwhat is it?", "a star"), ("sure?", "yes")]),
        Sample(plain_text(processor, "a triangle has three corners")),
        draw("two", True),
        draw("a much longer prompt about three yellow stars on a gray background", False),
        see([("<image_placeholder>\nhow many?", "two")]),
        Sample(conversation(processor, [("hello", "hi")])),
    ]


def loss_of(objective: Objective, samples: list[Sample]) -> torch.Tensor:
    """All losses of a pack, summed; latents are made up from the pixels."""
    row = pack(samples, CPU)
    return torch.stack(list(objective(row, made_up(row.pixels)).values())).sum()


def made_up(pixels: torch.Tensor | None) -> torch.Tensor | None:
    """Latents of pictures, (M, 3, 64, 64) -> (M, 4, 8, 8)."""
    return None if pixels is None else torch.nn.functional.avg_pool2d(pixels, 8)[:, [0, 1, 2, 0]]


@pytest.fixture
def network(mutable_model: JanusFlow) -> JanusFlowForConditionalGeneration:
    mutable_model.network.set_attn_implementation({"text_config": PACKED})
    return mutable_model.network.requires_grad_(True)


@pytest.fixture
def objective(network: JanusFlowForConditionalGeneration) -> Objective:
    torch.manual_seed(0)
    return Objective(network, LossConfig(repa_block=1))


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def test_losses_and_gradients_of_a_pack_are_those_of_its_samples(
    mutable_model: JanusFlow, objective: Objective
) -> None:
    samples = mixed_samples(mutable_model)
    whole = loss_of(objective, samples)
    whole.backward()
    packed = gradients(objective)
    total = 0.0
    for sample in samples:
        loss = loss_of(objective, [sample])
        loss.backward()
        total += float(loss)
    alone = gradients(objective)
    assert float(whole) == pytest.approx(total, rel=1e-5)
    assert packed.keys() == alone.keys()
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, alone[name], atol=2e-5 * float(alone[name].abs().max()) + 1e-6, rtol=1e-4)


def test_the_order_of_samples_changes_nothing(mutable_model: JanusFlow, objective: Objective) -> None:
    samples = mixed_samples(mutable_model)
    with torch.no_grad():
        first = float(loss_of(objective, samples))
        Random(0).shuffle(samples)
        assert float(loss_of(objective, samples)) == pytest.approx(first, rel=1e-5)


def test_without_the_pack_s_borders_the_loss_is_another(
    mutable_model: JanusFlow, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks above can fail."""
    samples = mixed_samples(mutable_model)
    original = Documents.of
    with torch.no_grad():
        right = float(loss_of(objective, samples))
        monkeypatch.setattr(Documents, "of", lambda lengths, device: original([sum(lengths)], device))
        assert float(loss_of(objective, samples)) != pytest.approx(right, rel=1e-3)


def test_a_dropped_prompt_is_what_guidance_masks(
    mutable_model: JanusFlow, network: JanusFlowForConditionalGeneration
) -> None:
    processor = mutable_model.processor
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([0.3])
    prefix = network.encode_prompts(*processor.encode_prompts(["a red circle"]))
    masked = network.velocity(x, t, prefix.unconditional())
    drawn = Drawn(torch.zeros(3, 64, 64), x[0], 0.3)
    row = pack([Sample(drawing(processor, "a red circle", 16, dropped=True), drawn=drawn)], CPU)
    output = packed_forward(network, row, latents=x)
    assert output.velocity is not None
    torch.testing.assert_close(output.velocity, masked, atol=1e-5, rtol=1e-5)


def test_every_part_learns_from_a_mixed_pack(mutable_model: JanusFlow, objective: Objective) -> None:
    """The begin-of-understanding embedding too: the official forward detaches it. The pool head is not used."""
    loss_of(objective, mixed_samples(mutable_model)).backward()
    still = {n for n, p in objective.network.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert {name for name in still if ".tower.head." not in name} == set()


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], [1, 40, 7, 6, 39, 2], [600, 30]])
def test_attention_sees_each_sample_alone(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 4, sum(lengths), 8, generator=generator, requires_grad=True)
    k = torch.randn(1, 2, sum(lengths), 8, generator=generator, requires_grad=True)
    v = torch.randn(1, 2, sum(lengths), 8, generator=generator, requires_grad=True)
    out, _ = packed_attention(torch.nn.Module(), q, k, v, None, documents=Documents.of(lengths, CPU))
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = (segment[:, None] == segment) & torch.ones(len(segment), len(segment), dtype=torch.bool).tril()
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(out, expected.transpose(1, 2), atol=1e-5, rtol=1e-4)
    weight = torch.randn(out.shape, generator=generator)
    found = torch.autograd.grad((out * weight).sum(), (q, k, v))
    wanted = torch.autograd.grad((expected.transpose(1, 2) * weight).sum(), (q, k, v))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_tokens_that_see_each_other_never_see_the_padding_of_their_group() -> None:
    """The shorter samples end with such tokens, so their padding repeats one of them."""
    lengths, generator = [13, 12, 12], torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, sum(lengths), 8, generator=generator) for _ in range(3))
    segment = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.cat([torch.arange(length) for length in lengths])
    inside = place > 5
    documents = Documents.of(lengths, CPU).seeing_each_other(inside)
    assert len(documents.groups) == 1
    out, _ = packed_attention(torch.nn.Module(), q, k, v, None, documents=documents)
    seen = (segment[:, None] == segment) & ((place[:, None] >= place) | (inside[:, None] & inside))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    torch.testing.assert_close(out, wanted.transpose(1, 2), atol=1e-6, rtol=1e-5)


def test_rows_are_full_and_hold_every_sample_once() -> None:
    """Above 95 % with the samples of the tiny recipe's stage 2 and with captions (log-normal, median 60 tokens)."""
    rng = Random(0)
    config = load_config(Path(__file__).parents[2] / "recipes" / "tiny" / "stage2.yaml", ["data.workers=0"])
    model = JanusFlow.from_pretrained("tiny", device="cpu")
    mixture = Mixture(config.data.ratios, weights_of(config.data), batch_size=250, seed=0)
    maker = SampleMaker(model.processor, model.network.config, config.samples)
    drawn = Data(sources_of(config.data), mixture, maker, seed=0)[1000].samples
    tiny = [len(sample.tokens) for sample in drawn] * 8
    captions = [min(max(round(rng.lognormvariate(4.1, 0.8)), 4), 1000) for _ in range(2000)]
    for lengths in (tiny, captions):
        samples = [Sample(Tokens([index] * n, [IGNORE] * n, [0] * n)) for index, n in enumerate(lengths)]
        rows = fill(samples, 4096)
        sizes = [sum(len(sample.tokens) for sample in row) for row in rows]
        assert max(sizes) <= 4096
        assert sum(sizes) / (4096 * len(rows)) > 0.95
        assert sorted(sample.tokens.ids[0] for row in rows for sample in row) == list(range(2000))


def test_a_sample_too_long_for_a_row_gets_one_of_its_own() -> None:
    samples = [Sample(Tokens([0] * n, [IGNORE] * n, [0] * n)) for n in (5, 20, 5)]
    assert [[len(sample.tokens) for sample in row] for row in fill(samples, 10)] == [[20], [5, 5]]
