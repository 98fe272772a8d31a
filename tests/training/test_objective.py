"""The losses against plain, slow re-computations of the paper's formulas."""

from __future__ import annotations

import pytest
import torch

from janusflow import JanusFlow
from janusflow.data.samples import Drawn, Sample
from janusflow.data.templates import IGNORE, drawing
from janusflow.model.attention import PACKED
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.training.losses import LossConfig
from janusflow.training.losses.autoregressive import autoregressive_loss
from janusflow.training.losses.rectified_flow import rectified_flow_loss
from janusflow.training.objective import Objective
from janusflow.training.packing import pack, packed_forward
from tests.training.test_packing import made_up, mixed_samples


def test_autoregressive_loss_token_by_token() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 30, generator=generator), torch.randint(0, 30, (7,), generator=generator)
    slow = 0.0
    for row, label in zip(logits.double(), labels, strict=True):
        slow -= float(row[label] - torch.log(torch.exp(row).sum()))
    assert float(autoregressive_loss(logits, labels)) == pytest.approx(slow, rel=1e-5)
    assert float(autoregressive_loss(logits[:0], labels[:0])) == 0


def test_rectified_flow_loss_value_by_value() -> None:
    generator = torch.Generator().manual_seed(0)
    v, x1, x0 = (torch.randn(3, 4, 2, 2, generator=generator) for _ in range(3))
    slow = 0.0
    for picture in range(3):
        total = 0.0
        for value, data, noise in zip(v[picture].flatten(), x1[picture].flatten(), x0[picture].flatten(), strict=True):
            total += float(value - (data - noise)) ** 2
        slow += total / 16
    assert float(rectified_flow_loss(v, latents=x1, noise=x0)) == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("dropped", [False, True])
def test_training_predicts_what_sampling_will_ask_for(mutable_model: JanusFlow, dropped: bool) -> None:
    """The velocity of a training sample is that of sampling: of the prompt, or of guidance's row without it."""
    model, prompt = mutable_model, "a red circle above a blue square"
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([0.3])
    ids, mask = model.processor.encode_prompts([prompt])
    with torch.no_grad():
        prefix = model.network.encode_prompts(ids, mask)
        expected = model.network.velocity(x, t, prefix.unconditional() if dropped else prefix)
        other = model.network.velocity(x, t, prefix if dropped else prefix.unconditional())
        model.network.set_attn_implementation({"text_config": PACKED})
        tokens = drawing(model.processor, prompt, 16, dropped=dropped)
        neighbor = drawing(model.processor, "three stars", 16, dropped=False)
        both = [Sample(one, drawn=Drawn(torch.zeros(3, 64, 64), x[0], 0.3)) for one in (neighbor, tokens)]
        row = pack(both, torch.device("cpu"))
        velocity = packed_forward(model.network, row, latents=x.expand(2, -1, -1, -1)).velocity
        assert velocity is not None
        found = velocity[1:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, other, atol=1e-3)


def test_the_losses_of_a_mixed_pack_are_those_of_slow_recomputations(mutable_model: JanusFlow) -> None:
    """L_RF along the path of sampling, L_AR and L_REPA value by value, each sample alone."""
    model, network, samples = mutable_model, mutable_model.network, mixed_samples(mutable_model)
    objective = Objective(network, LossConfig(repa_block=1))
    row = pack(samples, torch.device("cpu"))
    latents = made_up(row.pixels)
    assert latents is not None and objective.head is not None
    network.set_attn_implementation({"text_config": "sdpa"})
    states: list[torch.Tensor] = []
    hook = network.language_model.layers[0].register_forward_hook(lambda *called: states.append(called[2]))
    slow = {"ar": 0.0, "flow": 0.0, "repa": 0.0}
    prompts = [("a red circle", False), ("two", True)]
    prompts += [("a much longer prompt about three yellow stars on a gray background", False)]
    with torch.no_grad():
        for x1, sample, (prompt, dropped) in zip(latents, [s for s in samples if s.drawn], prompts, strict=True):
            assert sample.drawn is not None
            noise, t = sample.drawn.noise, sample.drawn.t
            prefix = network.encode_prompts(*model.processor.encode_prompts([prompt]))
            x_t = t * x1 + (1 - t) * noise
            v = network.velocity(x_t[None], torch.tensor([t]), prefix.unconditional() if dropped else prefix)[0]
            slow["flow"] += float(((v - (x1 - noise)) ** 2).mean())
            projected = objective.head(states[-1][:1, 1:])[0]
            seen = network.understanding_encoder.features(sample.drawn.pixels[None])[0]
            cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in zip(projected, seen, strict=True)]
            slow["repa"] -= sum(cosines) / len(cosines)
        hook.remove()
        for sample in [sample for sample in samples if not sample.drawn]:
            ids, positions = torch.tensor([sample.tokens.ids]), torch.tensor([sample.tokens.positions])
            logits = network(input_ids=ids, pixel_values=sample.seen, position_ids=positions).logits[0]
            for place, label in enumerate(sample.tokens.labels):
                if label != IGNORE:
                    slow["ar"] -= float(logits[place - 1].log_softmax(dim=0)[label])
        network.set_attn_implementation({"text_config": PACKED})
        found = objective(row, latents)
    for name, value in slow.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


def test_the_loss_is_the_weighted_sum_of_means(mutable_model: JanusFlow) -> None:
    objective = Objective(mutable_model.network, LossConfig(ar=0.5, flow=2.0, repa=0.25, repa_block=1))
    sums = {name: torch.tensor(value) for name, value in (("ar", 30.0), ("flow", 12.0), ("repa", -4.0))}
    loss = objective.weighted(sums, {"ar": 10, "flow": 4, "repa": 4})
    assert float(loss) == pytest.approx(0.5 * 30 / 10 + 2.0 * 12 / 4 + 0.25 * -4 / 4)
    assert float(objective.weighted({"flow": torch.tensor(12.0)}, {"flow": 4, "ar": 0})) == pytest.approx(6.0)


@pytest.mark.parametrize("block", [1, 2])
def test_repa_looks_at_the_states_after_the_chosen_block(mutable_model: JanusFlow, block: int) -> None:
    network = mutable_model.network
    network.set_attn_implementation({"text_config": PACKED})
    objective = Objective(network, LossConfig(repa_block=block))
    tokens = drawing(mutable_model.processor, "three stars", 16, dropped=False)
    row = pack([Sample(tokens, drawn=Drawn(torch.zeros(3, 64, 64), torch.randn(4, 8, 8), 0.4))], torch.device("cpu"))
    seen: dict[str, torch.Tensor] = {}

    def after_block(_module: object, _inputs: object, output: torch.Tensor) -> None:
        seen["block"] = output

    def before_head(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen["head"] = inputs[0]

    network.language_model.layers[block - 1].register_forward_hook(after_block)
    assert objective.head is not None
    objective.head.register_forward_pre_hook(before_head)
    width = network.config.vision_config.hidden_size
    with torch.no_grad():
        objective(row, torch.randn(1, 4, 8, 8), torch.randn(1, 16, width))
    drawn = seen["block"][row.input_ids == GENERATION_TOKEN]
    torch.testing.assert_close(seen["head"][0], drawn)
