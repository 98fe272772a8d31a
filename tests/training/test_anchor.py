"""Anchored samples teach what the network said before; the others are learned as ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from janusflow import JanusFlow
from janusflow.data.samples import Sample
from janusflow.model.attention import PACKED
from janusflow.training.anchor import Anchor
from janusflow.training.losses import LossConfig
from janusflow.training.losses.autoregressive import distillation_loss
from janusflow.training.objective import Objective
from janusflow.training.packing import pack
from tests.training.conftest import curve, quietly, settings, values, weights
from tests.training.test_packing import made_up, mixed_samples

CPU = torch.device("cpu")
KEPT = {"kind": "tinyworld", "anchor": True}


@pytest.fixture
def objective(mutable_model: JanusFlow) -> Objective:
    mutable_model.network.set_attn_implementation({"text_config": PACKED})
    return Objective(mutable_model.network.requires_grad_(True), LossConfig(repa=0))


def sums(objective: Objective, samples: list[Sample], anchor: Anchor | None = None) -> dict[str, torch.Tensor]:
    row = pack(samples, CPU)
    latents = made_up(row.pixels)
    if anchor is not None:
        row, latents = anchor(samples, row, latents)
    return objective(row, latents)


def disturbed(objective: Objective) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in objective.network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)


def test_distillation_loss_token_by_token() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(5, 9, generator=generator) for _ in range(2))
    slow = 0.0
    for one, other in zip(p.double(), q.double(), strict=True):
        wanted, said = torch.exp(other) / torch.exp(other).sum(), torch.exp(one) / torch.exp(one).sum()
        slow += float((wanted * torch.log(wanted / said)).sum())
    assert float(distillation_loss(p, q)) == pytest.approx(slow, rel=1e-5)
    assert float(distillation_loss(p[:0], q[:0])) == 0


def test_what_the_network_says_itself_asks_for_no_change(mutable_model: JanusFlow, objective: Objective) -> None:
    samples = [replace(sample, anchored=True) for sample in mixed_samples(mutable_model)]
    anchor = Anchor(objective.network)
    found = sums(objective, samples, anchor)
    assert abs(float(found["flow"].detach())) < 1e-9 and abs(float(found["ar"].detach())) < 1e-4
    torch.stack(list(found.values())).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in objective.network.parameters() if p.grad is not None)
    assert largest < 1e-4
    disturbed(objective)
    away = sums(objective, samples, anchor)
    assert float(away["flow"].detach()) > 1e-4 and float(away["ar"].detach()) > 0.01


def test_of_a_mixed_row_the_other_samples_losses_stay(mutable_model: JanusFlow, objective: Objective) -> None:
    """Of a row in which every second sample is anchored: the sums are those of both halves alone."""
    samples = [replace(s, anchored=n % 2 == 0) for n, s in enumerate(mixed_samples(mutable_model))]
    anchor = Anchor(objective.network)
    disturbed(objective)
    both = sums(objective, samples, anchor)
    kept = sums(objective, [s for s in samples if s.anchored], anchor)
    plain = sums(objective, [s for s in samples if not s.anchored])
    for name in ("ar", "flow"):
        assert float(both[name].detach()) == pytest.approx(float((kept[name] + plain[name]).detach()), rel=1e-4)
        assert float(kept[name].detach()) > 0 and float(plain[name].detach()) > 0
    untouched, _ = anchor([replace(s, anchored=False) for s in samples], pack(samples, CPU), None)
    assert untouched.soft_at is None


def test_anchored_samples_have_a_weight_of_their_own(mutable_model: JanusFlow, objective: Objective) -> None:
    samples = [replace(s, anchored=n % 2 == 0) for n, s in enumerate(mixed_samples(mutable_model))]
    anchor = Anchor(objective.network)
    disturbed(objective)
    once = sums(objective, samples, anchor)
    kept = sums(objective, [s for s in samples if s.anchored], anchor)
    objective.config = replace(objective.config, anchor=4.0)
    weighted = sums(objective, samples, anchor)
    for name in ("ar", "flow"):
        assert float(weighted[name].detach()) == pytest.approx(float((once[name] + 3 * kept[name]).detach()), rel=1e-4)


def test_the_velocity_to_be_kept_is_that_of_the_same_state(mutable_model: JanusFlow, objective: Objective) -> None:
    samples = [replace(s, anchored=True) for s in mixed_samples(mutable_model) if s.drawn is not None]
    row = pack(samples, CPU)
    latents = made_up(row.pixels)
    assert latents is not None and row.noise is not None and row.t is not None
    kept, moved = Anchor(objective.network)(samples, row, latents)
    assert moved is not None and kept.noise is not None
    t = row.t[:, None, None, None]
    torch.testing.assert_close(t * moved + (1 - t) * kept.noise, t * latents + (1 - t) * row.noise)
    prompts = ["a red circle", "two", "a much longer prompt about three yellow stars on a gray background"]
    ids, mask = mutable_model.processor.encode_prompts(prompts)
    prefix = objective.network.encode_prompts(ids, mask)
    x = t * latents + (1 - t) * row.noise
    objective.network.set_attn_implementation({"text_config": "sdpa"})
    with torch.no_grad():
        found = objective.network.velocity(x, row.t, prefix)
    torch.testing.assert_close((moved - kept.noise)[[0, 2]], found[[0, 2]], atol=1e-4, rtol=1e-4)


def test_repa_leaves_anchored_pictures_out(mutable_model: JanusFlow) -> None:
    mutable_model.network.set_attn_implementation({"text_config": PACKED})
    objective = Objective(mutable_model.network.requires_grad_(True), LossConfig(repa_block=1))
    samples = [replace(s, anchored=n % 2 == 0) for n, s in enumerate(mixed_samples(mutable_model))]
    free = [sample for sample in samples if not sample.anchored]
    assert 0 < sum(s.drawn is not None for s in free) < sum(s.drawn is not None for s in samples)
    both, alone = sums(objective, samples, Anchor(objective.network)), sums(objective, free)
    torch.testing.assert_close(both["repa"], alone["repa"], rtol=1e-4, atol=1e-5)
    kept = [replace(sample, anchored=True) for sample in samples]
    assert float(sums(objective, kept, Anchor(objective.network))["repa"].detach()) == 0


def lessons(start: Path, out: Path, *, anchor: bool, resume: bool = False, **changes: Any) -> Path:
    """A run on stars alone, with scenes of all kinds kept or learned anew."""
    star = {"kind": "tinyworld", "shares": {"counting": 1.0}}
    data = {
        "understanding": [{**KEPT, "anchor": anchor}],
        "generation": [{**KEPT, "anchor": anchor, "weight": 2}, star],
        "text": [star],
        "ratios": [{"understanding": 2, "generation": 3, "text": 1}],
        "workers": 0,
    }
    return quietly(settings(start, out, data=data, loss={"repa": 0}, **changes), resume=resume)


def test_a_run_with_anchors_begins_with_next_to_no_loss_of_them(start: Path, tmp_path: Path) -> None:
    other = {**KEPT, "anchor": False, "weight": 1e-9}  # not sampled, but a run of only anchors is refused
    ratios = [{"understanding": 1, "generation": 1, "text": 0}]
    only = {"understanding": [KEPT], "generation": [KEPT, other], "ratios": ratios, "workers": 0}
    quietly(settings(start, tmp_path / "kept", data=only, loss={"repa": 0}, steps=1))
    (first,) = curve(tmp_path / "kept")
    assert first["flow"] < 1e-8 and first["ar"] < 1e-4


@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4}, "parts": ["aligner", "generation", "llm"]}])
def test_a_run_that_goes_on_keeps_what_was_before_it(start: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """The copy is of the network before the run, not of the checkpoint that a run goes on from."""
    straight = lessons(start, tmp_path / "straight", anchor=True, **changes)
    lessons(start, tmp_path / "stopped", anchor=True, steps=2, **changes)
    resumed = lessons(start, tmp_path / "stopped", anchor=True, resume=True, **changes)
    assert values(tmp_path / "stopped") == values(tmp_path / "straight")
    assert all(torch.equal(tensor, weights(straight)[name]) for name, tensor in weights(resumed).items())
    plain = lessons(start, tmp_path / "plain", anchor=False, **changes)
    assert any(not torch.equal(tensor, weights(straight)[name]) for name, tensor in weights(plain).items())


def test_anchors_need_a_model_to_keep(start: Path) -> None:
    with pytest.raises(ValueError, match="anchors keep what model.checkpoint can do"):
        settings(
            start,
            Path("unused"),
            model={"preset": "tiny", "processor": str(start)},
            data={"text": [KEPT], "ratios": [{"understanding": 0, "generation": 0, "text": 1}], "workers": 0},
        )
