"""One process or many: ranks, sharding (FSDP2), and sums over all processes.

Under `torchrun` every process trains on its own samples and holds a shard of every parameter, gradient, moment and
average. A single process uses none of this.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from janusflow.device import resolve_device
from janusflow.training.objective import Objective

PATIENCE = timedelta(hours=2)  # how long processes wait while one of them generates or exports


@dataclass(frozen=True)
class World:
    """The place of this process among all processes.

    Attributes:
        rank, ranks: number of this process, and number of processes.
        device: device that this process computes on.
        mesh: mesh of all processes; None for a single process.
    """

    rank: int
    ranks: int
    device: torch.device
    mesh: DeviceMesh | None

    @property
    def first(self) -> bool:
        """Whether this process does the work that is done only once: logs, exports, pictures."""
        return self.rank == 0

    def add_up(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sum each value over all processes."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def largest(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the maximum of each value over all processes."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def any(self, value: bool) -> bool:
        """Return whether the value is true in any process."""
        return bool(self.largest({"any": float(value)})["any"])

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.mesh is not None:
            dist.barrier()

    def _reduce(self, values: Mapping[str, float], operation: dist.ReduceOp.RedOpType) -> dict[str, float]:
        if self.mesh is None:
            return dict(values)
        packed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(packed, op=operation)
        return dict(zip(values, packed.tolist(), strict=True))


def join(device: str = "auto") -> World:
    """Join the processes that torchrun started; without torchrun there is only this one."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    place = resolve_device(device)
    if ranks == 1:
        return World(0, 1, place, None)
    if place.type != "cpu":
        place = torch.device(place.type, int(os.environ["LOCAL_RANK"]))
        torch.get_device_module(place).set_device(place)
    if not dist.is_initialized():
        dist.init_process_group(dist.get_default_backend_for_device(place), timeout=PATIENCE)
    return World(dist.get_rank(), ranks, place, init_device_mesh(place.type, (ranks,)))


def leave(world: World) -> None:
    """Leave the process group."""
    if world.mesh is not None and dist.is_initialized():
        dist.destroy_process_group()


def end(status: int) -> NoReturn:
    """End one of several processes immediately, after its registered exit functions.

    If DTensors were used, gloo's threads outlive `destroy_process_group` (PyTorch 2.13). The interpreter's own
    shutdown, when nothing is left to be written, was then seen to abort.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def shard(objective: Objective, world: World, *, precision: str) -> None:
    """Shard each LLM block separately, and everything else with the root; do nothing in a single process.

    Whatever their samples are, the processes never wait for each other forever: the blocks and the root run in every
    forward pass, the objective's zero gives everything else a gradient, and embeddings that require a gradient send
    every row backwards through the blocks, even frozen ones.
    """
    if world.mesh is None:
        return
    half = torch.bfloat16 if precision == "bfloat16" else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in objective.blocks.children():
        fully_shard(block, mesh=world.mesh, mp_policy=policy)
    fully_shard(objective, mesh=world.mesh, mp_policy=policy)
    objective.network.enable_input_require_grads()


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from all processes (all of them must call this), or the tensor itself."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
