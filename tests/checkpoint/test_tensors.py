"""Weight files: damaged, incomplete and misshapen ones are one sentence, and no code of theirs runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint import tensors as tensors_module
from janusflow.checkpoint.describe import describe
from janusflow.checkpoint.tensors import TensorFiles
from tests.checkpoint.conftest import change_tensors, network
from tests.conftest import GOLDEN


def test_a_bin_file_opens_and_runs_no_code(folder: Path) -> None:
    expected = network(folder).state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for zipped in (True, False):
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
        found = network(folder).state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    torch.save({"weight": Trap(folder / "trap")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"contains objects that are not tensors, which are not loaded$"):
        open_checkpoint(folder)
    assert not (folder / "trap").exists()
    (folder / "pytorch_model.bin").write_bytes(b"<html>no such file</html>")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is damaged or not a weights file"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "norm.weight contains NaN or infinite values"),
        (float("-inf"), "norm.weight contains NaN or infinite values"),
        (torch.int32, "norm.weight contains int32 values"),
        (torch.bool, "norm.weight contains bool values"),
    ],
)
def test_weights_that_are_not_finite_numbers_are_rejected(
    folder: Path, value: float | torch.dtype, message: str
) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensor = tensors["language_model.model.norm.weight"]
        if isinstance(value, torch.dtype):
            tensors["language_model.model.norm.weight"] = tensor.to(value)
        else:
            tensor[3] = value

    change_tensors(folder, spoil)
    with pytest.raises(ValueError, match=message):
        network(folder)


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.file,))


def test_missing_tensors_are_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.__delitem__("beg_of_und_embed"))
    with pytest.raises(ValueError, match="lacks 1 tensors: beg_of_und_embed"):
        network(folder)


def test_many_missing_tensors_are_counted(folder: Path) -> None:
    def drop(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if "layers.0" in name]:
            del tensors[name]

    change_tensors(folder, drop)
    with pytest.raises(ValueError, match=r"lacks 9 tensors: .*, .*, .* and 6 more"):
        network(folder)


def test_surplus_tensors_are_named(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(ValueError, match="contains surplus 1 tensors: extra"):
        network(folder)


def test_misshapen_tensors_are_named_with_both_shapes(folder: Path) -> None:
    change_tensors(folder, lambda tensors: tensors.update({"vision_und_enc_aligner.bias": torch.zeros(7)}))
    with pytest.raises(ValueError, match=r"vision_und_enc_aligner.bias has shape \(7,\).*\(64,\)"):
        network(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, 5_000, 100_000, 1_800_000])
def test_a_truncated_weights_file_is_said_to_be_damaged(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        network(folder)


def test_a_corrupt_header_is_said_to_be_damaged(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        network(folder)


def test_all_misshapen_tensors_are_counted_before_anything_is_loaded(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("layernorm.weight")]:
            tensors[name] = tensors[name][:-1].contiguous()

    change_tensors(folder, change)
    told = r"contains \d+ misshapen tensors: .*layernorm.weight has shape .*; and \d+ more"
    for opens in (network, describe):
        with pytest.raises(ValueError, match=told):
            opens(folder)


def test_safetensors_in_shards_go_before_a_pickle(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    torch.save({name: torch.zeros_like(value) for name, value in tensors.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert any(parameter.any() for parameter in network(folder).parameters())


def test_a_pool_head_of_another_width_is_said_to_be_misshapen(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("attn_pool.q.weight"))
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"attn_pool.q.weight .*has shape"):
        network(folder)


def test_sharded_pickles_are_mapped_anew_and_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    shutil.copytree(GOLDEN / "janusflow-small-a", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(GOLDEN / "janusflow-small-a" / "model.safetensors")
    names = sorted(weights)
    home = {name: f"pytorch_model-{index % 3}.bin" for index, name in enumerate(names)}
    for file in set(home.values()):
        torch.save({name: weights[name] for name in names if home[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": home}))
    mapped: list[Path] = []
    opened = tensors_module._map_pickle
    monkeypatch.setattr(tensors_module, "_map_pickle", lambda file: (mapped.append(file), opened(file))[1])
    monkeypatch.setattr(tensors_module, "REMAP_BYTES", 50_000)
    files = TensorFiles(folder)
    assert len(mapped) == 3
    for file in sorted(set(home.values())):
        for name, tensor in files.read([name for name in names if home[name] == file]):
            assert torch.equal(tensor, weights[name])
    total = sum(weight.nbytes for weight in weights.values())
    assert 6 < len(mapped) <= 6 + total // 50_000 + 3, "each file anew after every 50 kB, and not at every tensor"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ('{"weight_map": []}', "it has no weight_map"),
        ("[]", "it is not a JSON object"),
        ('{"weight_map": {"a": null}}', "it lists None"),
        ('{"weight_map": {"a": "sub/../../outside.safetensors"}}', "it lists 'sub"),
        ('{"weight_map": {"a": ["b"]}}', "it lists"),
    ],
)
def test_a_damaged_index_is_one_sentence(folder: Path, content: str, message: str) -> None:
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        open_checkpoint(folder)
    assert str(index) in str(caught.value)


def test_a_bin_file_that_is_damaged_anywhere_is_one_sentence(folder: Path) -> None:
    weights = folder / "model.safetensors"
    torch.save({"a": torch.ones(3), "b": torch.zeros(2, 2)}, folder / "pytorch_model.bin")
    weights.unlink()
    file = folder / "pytorch_model.bin"
    whole, start = file.read_bytes(), file.read_bytes().index(b"data.pkl")
    refused = 0
    for place in range(start, start + 300, 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x93]) + whole[place + 1 :])
        try:
            TensorFiles(folder)
        except ValueError as error:
            refused += 1
            assert str(file) in str(error) and "\n" not in str(error)
    assert refused > 50, "some bytes do not matter"


def test_tensors_of_more_bytes_than_their_file_has_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for value in ({"a": torch.zeros(1).expand(10**6)}, dict.fromkeys(map(str, range(50)), torch.zeros(10**4))):
        torch.save(value, folder / "pytorch_model.bin")
        with pytest.raises(ValueError, match="pytorch_model.bin is damaged: its tensors have .* bytes"):
            open_checkpoint(folder)
    torch.save({"a": [1]}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="'a' is not a plain tensor"):
        open_checkpoint(folder)


def test_whole_numbers_in_one_half_of_a_joined_tensor_are_rejected(folder: Path) -> None:
    name = "vision_und_enc_model.vision_tower.attn_pool.kv.bias"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].long()}))
    with pytest.raises(ValueError, match=r"attn_pool.kv.bias contains int64 values"):
        network(folder)
