"""AdamW and Muon: which parameters each updates, and what Muon's update is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from janusflow.training.config import OptimizerConfig
from janusflow.training.muon import Muon, orthogonal
from janusflow.training.optimizers import make_optimizers, set_rate, update

MUON = OptimizerConfig(name="muon", learning_rate=0.01)


def model() -> nn.ModuleDict:
    torch.manual_seed(0)
    block = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(24, 16)]), "head": nn.Linear(16, 4)})
    block["blocks"] = nn.ModuleList([nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(6, 6, 7, groups=6, bias=False)])
    block["frozen"] = nn.Linear(2, 2).requires_grad_(False)
    return block


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_learning_parameter_is_updated_once(name: str) -> None:
    net = model()
    optimizers = make_optimizers(net, OptimizerConfig(name=name))  # type: ignore[arg-type]
    covered = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len(covered) == len({id(p) for p in covered})
    assert {id(p) for p in covered} == {id(p) for p in net.parameters() if p.requires_grad}
    set_rate(optimizers, 0.5)
    assert [group["lr"] for optimizer in optimizers for group in optimizer.param_groups] == [0.5] * len(optimizers)


def test_muon_takes_the_matrices_of_blocks_and_nothing_else() -> None:
    adamw, muon = make_optimizers(model(), MUON)
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(16, 24), (8, 4, 3, 3)]
    assert sorted(p.numel() for p in adamw.param_groups[0]["params"]) == [4, 16, 64, 6 * 49]  # depthwise kernels too


def test_muons_update_is_a_nearly_orthogonal_matrix_as_large_as_adamws() -> None:
    """All singular values alike, whatever those of the gradient are; root mean square 0.2 of the rate."""
    net = model()
    weight = net["layers"][0].weight
    before = weight.detach().clone()
    u, _, v = torch.linalg.svd(torch.randn(16, 24), full_matrices=False)
    steep = u @ torch.diag(torch.logspace(0, -1.5, 16)) @ v
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    weight.grad = steep
    update(make_optimizers(net, MUON))
    moved = (before - weight.detach()) / 0.01
    values = torch.linalg.svdvals(moved) / (0.2 * 24**0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.linalg.svdvals(steep)[-1] < 0.04
    torch.testing.assert_close(u.T @ moved @ v.T / (0.2 * 24**0.5), torch.diag(values.flip(0)), atol=0.6, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (8, 4, 3, 3)])
def test_muon_is_what_its_equation_says(precision: str, shape: tuple[int, ...]) -> None:
    """Against PyTorch's own for matrices, and the same on a kernel's rows; torch's is always in bfloat16."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    one = nn.Parameter(start.clone())
    two = nn.Parameter(start.flatten(1).clone())
    ours = Muon([one], lr=0.01, momentum=0.9, weight_decay=0.1, precision=precision)
    theirs = torch.optim.Muon([two], lr=0.01, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        one.grad, two.grad = gradient.clone(), gradient.flatten(1).clone()
        ours.step()
        theirs.step()
    step = (two - start.flatten(1)).norm()
    assert (one.flatten(1) - two).norm() < 0.05 * step
    if precision == "float32":
        direction = (gradients[0] * 0.19).flatten(1).double()  # of the first step: (1 - m) (1 + m) G
        single, fine = nn.Parameter(torch.zeros(shape)), orthogonal(direction)
        single.grad = gradients[0]
        Muon([single], lr=1.0, momentum=0.9, precision=precision).step()
        expected = -0.2 * max(direction.shape) ** 0.5 * fine
        torch.testing.assert_close(single.detach().flatten(1).double(), expected, rtol=0, atol=1e-4)


def test_matrices_updated_together_are_updated_as_alone() -> None:
    """Some of one shape, one of another, one without a gradient, and gradients of very different sizes."""
    torch.manual_seed(0)
    shapes = [(12, 20), (20, 12), (12, 20), (12, 20), (6, 4, 3, 3), (6, 4, 3, 3)]
    starts = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) * 10.0 ** (2 - i) for i, shape in enumerate(shapes)] for _ in range(3)]
    together = [nn.Parameter(start.clone()) for start in starts]
    alone = [nn.Parameter(start.clone()) for start in starts]
    missing = 2
    one, many = Muon(together, lr=0.01), [Muon([p], lr=0.01) for p in alone]
    for step in gradients:
        for index, (a, b) in enumerate(zip(together, alone, strict=True)):
            a.grad, b.grad = (None, None) if index == missing else (step[index].clone(), step[index].clone())
        update([one])
        update(many)
    for index, (a, b) in enumerate(zip(together, alone, strict=True)):
        torch.testing.assert_close(a, b)
        assert torch.equal(a.detach(), starts[index]) == (index == missing)


def test_rates() -> None:
    constant = OptimizerConfig(learning_rate=1.0, warmup=10)
    assert constant.rate(0, 100) == pytest.approx(0.1)
    assert constant.rate(99, 100) == 1.0
    assert OptimizerConfig(learning_rate=1.0, schedule="cosine", floor=0).rate(50, 100) == pytest.approx(0.5)
    decay = OptimizerConfig(learning_rate=1.0, schedule="decay", floor=0)
    assert decay.rate(75, 100) == 1.0
    assert decay.rate(95, 100) == pytest.approx(0.2)
