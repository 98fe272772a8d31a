"""PaddleNLP's layout opens like any other, and no file of its kind can run anything."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from janusflow import JanusFlow
from janusflow.checkpoint.layouts.paddle import FILE, NAMES, read_pdparams
from janusflow.checkpoint.load import open_checkpoint
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "janusflow-small-a-paddle"
OFFICIAL = GOLDEN / "janusflow-small-a"


def test_its_tensors_are_the_official_ones_to_the_bit() -> None:
    found, expected = read_pdparams(FOLDER / FILE), load_file(OFFICIAL / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == tuple(value.shape) and found[name].dtype == value.dtype
        assert torch.equal(found[name].read(), value), name


def test_it_paints_and_answers_what_the_official_layout_does() -> None:
    theirs, ours = (JanusFlow.from_pretrained(folder, device="cpu") for folder in (FOLDER, OFFICIAL))
    options: dict[str, Any] = {"num_inference_steps": 3, "seed": 0, "output_type": "latent", "progress": False}
    assert torch.equal(theirs.generate("a red circle", **options), ours.generate("a red circle", **options))
    assert theirs.processor.image == ours.processor.image
    question = ("what is it?", OFFICIAL / "image_0.png")
    assert theirs.ask(*question, max_new_tokens=8) == ours.ask(*question, max_new_tokens=8)


def sharded(folder: Path) -> Path:
    """The golden case as PaddleNLP writes a large model: two shards, and an index under Paddle's own names."""
    shutil.copytree(FOLDER, folder)
    with (folder / FILE).open("rb") as file:
        arrays = {name: value for name, value in pickle.load(file).items() if name != NAMES}
    (folder / FILE).unlink()
    shards = [f"model_state-0000{part}-of-00002.pdparams" for part in (1, 2)]
    home = {name: shards[index % 2] for index, name in enumerate(arrays)}
    for shard in shards:
        part = {name: value for name, value in arrays.items() if home[name] == shard}
        (folder / shard).write_bytes(pickle.dumps(part, protocol=4))
    (folder / f"{FILE}.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": home}))
    return folder


def test_shards_are_read_as_the_whole_file_is(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards")
    whole, parts = (open_checkpoint(place) for place in (FOLDER, folder))
    assert parts.layout.name == "paddle" and len(parts.tensors.files) == 2
    assert list(parts.tensors) != list(whole.tensors) and set(parts.tensors) == set(whole.tensors)
    for name, value in whole.tensors.read(list(whole.tensors)):
        assert torch.equal(value, next(parts.tensors.read([name]))[1]), name
    theirs, ours = (JanusFlow.from_pretrained(place, device="cpu") for place in (folder, FOLDER))
    question: tuple[str, Any] = ("what is it?", OFFICIAL / "image_0.png")
    assert theirs.ask(*question, max_new_tokens=8) == ours.ask(*question, max_new_tokens=8)


def test_an_index_that_does_not_fit_is_one_sentence_and_leads_nowhere_else(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "shards")
    index, second = folder / f"{FILE}.index.json", "model_state-00002-of-00002.pdparams"
    whole = json.loads(index.read_text())["weight_map"]
    listed = {name: shard for name, shard in whole.items() if shard != second}
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(ValueError, match=r"lacks \d+ tensors: "):
        JanusFlow.from_pretrained(folder, device="cpu")
    shutil.copy(folder / second, tmp_path / second)
    places = (f"../{second}", str(tmp_path / second), f"..\\{second}", "config.json", 5, "")
    for place in places:
        index.write_text(json.dumps({"weight_map": {**dict.fromkeys(whole, place)}}))
        with pytest.raises(ValueError, match="index.json is damaged: it lists .*; expected names of weight files in"):
            open_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(ValueError, match="its weight_map is empty"):
        open_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": whole}))
    (folder / second).unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of 2 weight files: {second}; download it again"):
        open_checkpoint(folder)


def test_its_template_is_the_old_one_unless_another_is_asked_for() -> None:
    message = [{"role": "user", "content": "hi"}]
    texts = [
        JanusFlow.from_pretrained(FOLDER, device="cpu", sft_format=name).processor.render(message)
        for name in (None, "deepseek")
    ]
    assert "User: hi" in texts[0]
    assert "<|User|>: hi" in texts[1]
    with pytest.raises(ValueError, match="sft_format is 'other'"):
        JanusFlow.from_pretrained(FOLDER, device="cpu", sft_format="other")


def test_bfloat16_as_uint16_is_bfloat16_again(tmp_path: Path) -> None:
    value = torch.randn(3, 5).to(torch.bfloat16)
    with (tmp_path / FILE).open("wb") as file:
        pickle.dump({"one.weight": value.view(torch.int16).numpy().view(np.uint16).T.copy()}, file, protocol=4)
    assert torch.equal(read_pdparams(tmp_path / FILE)["one.weight"].read(), value)


@pytest.mark.parametrize("protocol", [3, 4])
def test_large_arrays_are_stepped_over_until_they_are_asked_for(tmp_path: Path, protocol: int) -> None:
    arrays = {name: np.random.default_rng(0).random((200, 300)).astype(np.float32) for name in ("a", "b")}
    arrays["c"] = arrays["a"]
    arrays["turned"], arrays["small"] = np.asfortranarray(arrays["a"] + 1), np.arange(6, dtype=np.int64)
    file = tmp_path / FILE
    file.write_bytes(pickle.dumps(arrays, protocol=protocol))
    found = read_pdparams(file)
    assert all(np.array_equal(found[name].read().numpy(), value) for name, value in arrays.items())
    places = [found[name].array.place for name in ("a", "b", "turned")]
    assert all(places) and found["small"].array.place is None
    with file.open("r+b") as stream:  # what is read later is what the file holds then: nothing was kept
        stream.seek(places[0] or 0)
        stream.write(np.float32(7).tobytes())
    assert found["a"].read()[0, 0] == 7 and found["b"].read()[0, 0] == arrays["b"][0, 0]


def test_large_bytes_that_are_no_arrays_are_not_taken_for_some(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((200, 300)).astype(np.float32)
    (tmp_path / FILE).write_bytes(pickle.dumps({"a": array, NAMES: {"a": b"x" * 100_000}}, protocol=4))
    found = read_pdparams(tmp_path / FILE)
    assert found.keys() == {"a"} and found["a"].shape == (200, 300)
    assert np.array_equal(found["a"].read().numpy(), array)


class Runs:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Shaped:
    """Pickles to an array of two numbers with another shape, of as many."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape

    def __reduce__(self) -> Any:
        function, arguments, state = np.zeros(2, dtype=np.float32).__reduce__()  # type: ignore[misc]
        return function, arguments, (state[0], self.shape, *state[2:])


def attacks(place: Path) -> dict[str, bytes]:
    """Files that would write `place`, take all memory, or smuggle objects in, if they were let."""
    write = f"open({str(place)!r}, 'w').close()"
    array = np.zeros(2, dtype=np.float32)
    attack = {
        "system": {"a": Runs(os.system, f"touch {place}")},
        "exec": {"a": Runs(exec, write)},
        "eval": {"a": Runs(eval, write)},
        "as a key": {Runs(exec, write): array},
        "next to arrays": {"a": array, "b": [Runs(exec, write)]},
        "getattr": {"a": Runs(getattr, "text", "upper")},
        "objects in an array": {"a": np.array([Runs(exec, write)], dtype=object)},
        "a class of ours": {"a": Path("x")},
        "a numpy function": {"a": Runs(np.zeros, 10**12)},
        "torch": {"a": torch.zeros(1)},
    }
    attack |= {f"a shape {shape}": {"a": Shaped(shape)} for shape in ((-1, -2), (2.0,), [2], (True, 2))}
    files = {name: pickle.dumps(value, protocol=4) for name, value in attack.items()}
    files |= {f"{name}, protocol 2": pickle.dumps(value, protocol=2) for name, value in attack.items()}
    files["by hand"] = b"cos\nsystem\n(S'touch " + str(place).encode() + b"'\ntR."
    files["a submodule's name"] = b"cnumpy\nf2py.os.system\n(S'touch " + str(place).encode() + b"'\ntR."
    files["an array of 8 TB"] = b"cnumpy\nndarray\n((I1000000000000\ntR."
    files["a persistent id"] = b"Pid\n."
    files["an extension"] = b"\x82\x01."
    files["no dictionary"] = pickle.dumps([array])
    files["bytes of 35 TB"] = b"\x80\x04\x8e" + (2**45).to_bytes(8, "little")
    files["a frame of 1 TB"] = b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"}"
    files["an instance"] = b"(inumpy\nndarray\n."
    files["a memo index of 8 TB alone"] = b"\x80\x02Nr" + (2**31).to_bytes(4, "little") + b"."
    files["a text"] = b"hello"
    files["nothing"] = b""
    return files


def test_no_file_runs_anything_or_is_taken_for_weights(tmp_path: Path) -> None:
    for name, content in attacks(tmp_path / "ran").items():
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(ValueError, match="damaged or not a weights file") as caught:
            read_pdparams(tmp_path / FILE)
        assert "\n" not in str(caught.value), name
        assert not (tmp_path / "ran").exists(), name


def test_the_attacks_would_run_if_they_were_let(tmp_path: Path) -> None:
    pickle.loads(attacks(tmp_path / "ran")["exec"])
    assert (tmp_path / "ran").exists()


def test_a_file_cut_off_anywhere_is_said_to_be_damaged(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "cut"))
    whole = (folder / FILE).read_bytes()
    for place in [*range(0, 600, 7), *range(600, len(whole), 60_000), len(whole) - 1]:
        (folder / FILE).write_bytes(whole[:place])
        with pytest.raises(ValueError, match="damaged or not a weights file"):
            read_pdparams(folder / FILE)


def test_a_large_memo_index_takes_no_memory(tmp_path: Path) -> None:
    array = pickle.dumps({"a": np.ones(2, dtype=np.float32)}, protocol=4)
    (tmp_path / FILE).write_bytes(array[:-1] + b"r" + (2**29).to_bytes(4, "little") + b".")
    tracemalloc.start()
    try:
        found = read_pdparams(tmp_path / FILE)["a"].read()
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert torch.equal(found, torch.ones(2))


def test_a_shape_of_huge_numbers_is_refused_before_they_are_multiplied(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(pickle.dumps({"a": Shaped((1 << 400_000,) * 30)}, protocol=4))
    with pytest.raises(ValueError, match="an array's shape is invalid"):
        read_pdparams(tmp_path / FILE)
