"""One place resolves devices and dtypes."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from janusflow.device import (
    ACCELERATORS,
    accelerators,
    cast,
    device_of,
    resolve_device,
    resolve_dtype,
    resolve_precision,
    use_device,
    warn_if_slow,
)


def test_auto_takes_the_first_accelerator_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cuda", "mps"):
        monkeypatch.setattr("janusflow.device._available", lambda name, kind=kind: name == kind)
        assert resolve_device("auto").type == kind
    monkeypatch.setattr("janusflow.device._available", lambda name: False)
    assert resolve_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="finds no cuda device"):
        resolve_device("cuda:0")
    with pytest.raises(ValueError, match="device is 'toaster'"):
        resolve_device("toaster")
    with pytest.raises(ValueError, match="device is 'meta'; expected auto, cpu"):
        resolve_device("meta")


def test_processes_share_the_accelerators_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_of("auto", rank, 2) for rank in (0, 1)] == ["auto", "auto"] or accelerators()
    monkeypatch.setattr("janusflow.device._available", lambda name: name == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert accelerators() == 2
    assert [device_of("auto", rank, 3) for rank in (0, 1, 2)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert device_of("auto", 0, 1) == "auto" and device_of("cpu", 1, 3) == "cpu"
    monkeypatch.setattr("janusflow.device._available", lambda name: name == "mps")
    assert accelerators() == 0 and device_of("auto", 1, 2) == "auto"


def test_dtypes() -> None:
    assert resolve_dtype("auto", torch.bfloat16) == torch.bfloat16
    assert resolve_dtype("float32", torch.bfloat16) == torch.float32
    assert resolve_dtype(torch.float16, torch.bfloat16) == torch.float16
    for wrong in ("int8", "double", torch.int64, None):
        with pytest.raises(ValueError, match="dtype is"):
            resolve_dtype(wrong, torch.float32)  # type: ignore[arg-type]


def test_no_other_file_names_a_device() -> None:
    source = Path(__file__).parents[1] / "src" / "janusflow"
    named = re.compile(rf"[\"'](?:{'|'.join(ACCELERATORS)})[\"':]|\.cuda\(")
    assert [f.name for f in source.rglob("*.py") if f.name != "device.py" and named.search(f.read_text())] == []


def test_casting_leaves_what_is_no_weight_in_float32() -> None:
    network = torch.nn.BatchNorm1d(2)
    cast(network, torch.bfloat16)
    assert network.weight.dtype == network.bias.dtype == torch.bfloat16
    assert network.running_mean is not None and network.running_mean.dtype == torch.float32


def test_products_are_in_bfloat16_where_the_device_has_units_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for found, precision in (
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
        ({}, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert resolve_precision("auto", cpu) == precision
        assert resolve_precision("bfloat16", cpu) == "bfloat16" and resolve_precision("float32", cpu) == "float32"
    for supported, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, yes=supported: yes)
        assert resolve_precision("auto", cuda) == precision
    assert resolve_precision("auto", torch.device("mps")) == "bfloat16"


def test_bfloat16_on_a_cpu_without_units_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.warns(UserWarning, match="this cpu device has no units for bfloat16.*dtype='float32'"):
        warn_if_slow(torch.bfloat16, torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_slow(torch.float32, torch.device("cpu"))
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        warn_if_slow(torch.bfloat16, torch.device("cpu"))


def test_a_device_with_a_number_becomes_that_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(set_device=chosen.append))
    use_device("cuda:3")
    assert chosen == [torch.device("cuda", 3)]
