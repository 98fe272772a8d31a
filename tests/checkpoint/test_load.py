"""Opening checkpoints: every layout through one door, and one sentence for whatever is wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor

from janusflow import JanusFlow, JanusFlowForConditionalGeneration
from janusflow.checkpoint import load_network, open_checkpoint, read_sizes
from janusflow.checkpoint import tensors as tensors_module
from janusflow.checkpoint.describe import describe
from janusflow.checkpoint.tensors import TensorFiles
from janusflow.config import JanusFlowConfig, janusflow_1b
from tests.conftest import GOLDEN


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """A copy of the small checkpoint, to damage."""
    return Path(shutil.copytree(small_folder, tmp_path / "checkpoint"))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def network(folder: Path) -> JanusFlowForConditionalGeneration:
    return load_network(open_checkpoint(folder), dtype=torch.float32, device=torch.device("cpu"))


def test_the_released_size_has_the_released_number_of_parameters() -> None:
    for size, tokens in ((384, 576), (256, 256)):
        config = janusflow_1b(size)
        with torch.device("meta"):
            count = sum(p.numel() for p in JanusFlowForConditionalGeneration(config).parameters())
        positions = (576 - tokens) * config.vision_config.hidden_size
        assert count == 2_046_367_504 - positions
        assert config.num_understanding_tokens == config.num_generation_tokens == tokens
    with pytest.raises(ValueError, match="512"):
        janusflow_1b(512)


def test_every_official_tensor_is_used_and_kept(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    assert sum(p.numel() for p in network(folder).parameters()) == sum(t.numel() for t in stored.values())


def test_our_layout_opens_again_and_is_the_same_to_the_bit(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "ours")
    again = JanusFlow.from_pretrained(tmp_path / "ours", device="cpu")
    through_transformers = JanusFlowForConditionalGeneration.from_pretrained(tmp_path / "ours")
    for name, value in small_model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
        assert torch.equal(through_transformers.state_dict()[name], value)
    arguments = {"seed": 1, "num_inference_steps": 2, "output_type": "np"}
    assert (again.generate("a star", **arguments) == small_model.generate("a star", **arguments)).all()


def test_a_sharded_checkpoint_opens(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.network.save_pretrained(tmp_path, max_shard_size="300KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    sharded = network(tmp_path)
    assert all(torch.equal(sharded.state_dict()[k], v) for k, v in small_model.network.state_dict().items())
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of \d+ weight files: model-00002"):
        open_checkpoint(tmp_path)


def test_a_bin_file_opens_and_runs_no_code(folder: Path) -> None:
    expected = network(folder).state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert all(torch.equal(network(folder).state_dict()[k], v) for k, v in expected.items())
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert all(torch.equal(network(folder).state_dict()[k], v) for k, v in expected.items())
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_cast_while_they_load(folder: Path, dtype: str) -> None:
    model = JanusFlow.from_pretrained(folder, dtype=dtype, device="cpu")
    assert {p.dtype for p in model.network.parameters()} == {getattr(torch, dtype)}


def test_a_hub_id_is_fetched_once_named(small_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str, **settings: object) -> str:
        asked.append(name)
        return str(small_folder)

    monkeypatch.setattr("janusflow.folders.snapshot_download", fetch)
    model = JanusFlow.from_pretrained("deepseek-ai/JanusFlow-1.3B", device="cpu")
    assert asked == ["deepseek-ai/JanusFlow-1.3B"]
    assert model.generate("a star", num_inference_steps=1, output_type="latent").shape == (1, 4, 8, 8)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **settings: object) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("janusflow.folders.snapshot_download", fail)
    with pytest.raises(ValueError, match="nor in the hub's cache, and HF_HUB_OFFLINE is set"):
        JanusFlow.from_pretrained("deepseek-ai/JanusFlow-1.3B")


# --- damaged checkpoints --------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("block", ["vision_und_enc_config", "vision_gen_enc_config", "vision_gen_dec_config"])
def test_unknown_classes_in_the_config_are_named(folder: Path, block: str) -> None:
    change_config(folder, lambda config: config[block].update(cls="Evil"))
    with pytest.raises(ValueError, match=rf"{block}.cls is 'Evil'; JanusFlow has"):
        open_checkpoint(folder)


def test_an_unknown_tower_is_named(folder: Path) -> None:
    def change(config: dict) -> None:
        del config["small_vision_tower"]
        config["vision_und_enc_config"]["params"]["model_name"] = "dinov9"

    change_config(folder, change)
    with pytest.raises(ValueError, match="tower 'dinov9'; choose from siglip_large"):
        open_checkpoint(folder)


def test_parts_that_do_not_fit_together_are_named(folder: Path) -> None:
    change_config(folder, lambda config: config["vision_gen_dec_config"]["params"].update(hidden_size=63))
    with pytest.raises(ValueError, match="vision_gen_dec_config.hidden_size is 63"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "64"},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"hidden_act": "evil"},
        {"rope_parameters": {"rope_type": "evil", "rope_theta": 1.0}},
    ],
)
def test_a_language_model_that_cannot_be_built_is_refused(folder: Path, change: dict) -> None:
    change_config(folder, lambda config: config["language_config"].update(change))
    for use in (network, describe):
        with pytest.raises(ValueError, match=r"config\.json") as caught:
            use(folder)
        assert "\n" not in str(caught.value)


def test_a_change_to_our_own_layout_is_refused_too(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path)
    change_config(tmp_path, lambda config: config["text_config"].update(hidden_act="evil"))
    with pytest.raises(ValueError, match=r"config\.json describes no network that can be built.*evil"):
        network(tmp_path)


def test_all_misshapen_tensors_are_counted_before_anything_is_loaded(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith("layernorm.weight")]:
            tensors[name] = tensors[name][:-1].contiguous()

    change_tensors(folder, change)
    told = r"contains \d+ misshapen tensors: .*layernorm.weight has shape .*; and \d+ more"
    for opens in (network, describe):
        with pytest.raises(ValueError, match=told):
            opens(folder)


def test_a_size_that_cannot_be_is_no_traceback(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["language_config"]["intermediate_size"] = -5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"config\.json is damaged: text_config.intermediate_size: Input should be greater than"
    ):
        network(folder)


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


def test_a_model_is_saved_whole_or_not_at_all(small_model: JanusFlow, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; a model is saved as a folder"):
        small_model.save_pretrained(tmp_path / "file")
    folder = tmp_path / "model"
    small_model.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    small_model.save_pretrained(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


def test_another_model_is_named(folder: Path) -> None:
    change_config(folder, lambda config: config.update(model_type="gpt2"))
    with pytest.raises(ValueError, match="'gpt2' model, not a JanusFlow"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_config_that_is_no_json_object_is_said_to_be_damaged(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        open_checkpoint(folder)


@pytest.mark.parametrize("key", ["language_config", "vision_gen_enc_config", "vision_und_enc_config"])
def test_a_config_with_a_block_missing_is_refused(folder: Path, key: str) -> None:
    change_config(folder, lambda config: config.pop(key) and None)
    with pytest.raises(ValueError, match=r"config\.json"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"])
def test_a_missing_processor_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        JanusFlow.from_pretrained(folder, device="cpu")


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="contains no weights"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "./nowhere", "a/b/c"])
def test_an_unknown_model_is_refused_without_asking_the_hub(name: str) -> None:
    with pytest.raises(ValueError, match="a file; expected the folder|expected 'tiny', a folder, or a hub id"):
        open_checkpoint(name)


def test_an_empty_folder_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint folder: it has no config.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no config.json; the model that training wrote is .*export$"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="a variable of the environment that is not set"):
        open_checkpoint("${NO_SUCH_VARIABLE}/model")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a file; expected the folder|expected 'tiny', a folder, or a hub id"):
        open_checkpoint(tmp_path / "file")


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


def test_the_dimensions_of_a_hub_id_need_no_weights(
    folder: Path, small_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        place = tmp_path / name
        shutil.copytree(small_folder if "ours" in name else folder, place)
        for file in [file for file in place.rglob("*") if file.is_file()]:
            if not any(fnmatch(str(file.relative_to(place)), pattern) for pattern in allow_patterns):
                file.unlink()
        return str(place)

    monkeypatch.setattr("janusflow.folders.snapshot_download", fetch)
    for name, whole in (("official/x", folder), ("ours/x", small_folder)):
        sizes = read_sizes(name)
        assert not list((tmp_path / name).glob("*.safetensors"))
        assert isinstance(sizes, JanusFlowConfig)
        assert sizes.text_config.hidden_size == open_checkpoint(whole).config.text_config.hidden_size


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("language_config", "num_hidden_layers"), 10**6, "text_config.num_hidden_layers is 1000000, but the weight"),
        (("language_config", "hidden_size"), 10**9, "hidden_size"),
        (("language_config", "vocab_size"), 10**7, "its sizes are larger than those of the weights"),
        (("language_config", "max_position_embeddings"), 8, "a picture has 16 image tokens; expected 1 to 7"),
        (("small_vision_tower", "layers"), 10**5, "vision_config.num_hidden_layers is 100000"),
        (("small_vision_tower", "heads"), True, "num_attention_heads"),
        (("small_vision_tower",), {"width": 48}, "it lacks 'layers'"),
        (("vision_und_enc_config", "params", "image_size"), 10**9, "vision_config.image_size: Input should be less"),
        (("vision_gen_dec_config", "params", "upsamples"), 10**9, "upsamples is 1000000000"),
        (("vision_gen_enc_config", "params", "layers_in_middle"), 10**6, "generation_encoder_depth is 1000000"),
        (("small_latent_downscale",), "text", "incomplete or damaged"),
        (("torch_dtype",), "complex64", "dtype: Input should be 'float64'"),
        (("language_config",), [], "incomplete or damaged"),
    ],
)
def test_sizes_are_checked_before_anything_is_built(
    folder: Path, place: tuple[str, ...], value: object, message: str
) -> None:
    def change(config: dict) -> None:
        for key in place[:-1]:
            config = config[key]
        config[place[-1]] = value

    change_config(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        network(folder)
    assert str(folder / "config.json") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", True, "image_size is True"),
        ("image_size", 0, "image_size: Input should be greater than or equal to 1"),
        ("image_size", 8192, "image tokens; expected 1 to"),
        ("image_token_id", 10**5, "image_token_id is 100000; the vocabulary has"),
        ("begin_image_token_id", [], "begin_image_token_id"),
        ("begin_image_token_id", 3, "begin_image_token_id is 3, and 406 in tokenizer.json"),
        ("generation_norm_eps", -1.0, "generation_norm_eps"),
        ("text_config", 7, "incomplete or damaged"),
    ],
)
def test_fields_of_our_own_layout_are_checked(
    small_model: JanusFlow, tmp_path: Path, field: str, value: object, message: str
) -> None:
    small_model.save_pretrained(tmp_path)
    change_config(tmp_path, lambda config: config.update({field: value}))
    with pytest.raises(ValueError, match=message) as caught:
        JanusFlow.from_pretrained(tmp_path, device="cpu")
    assert str(tmp_path / "config.json") in str(caught.value)


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
    for place in range(start, start + 300, 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x93]) + whole[place + 1 :])
        try:
            TensorFiles(folder)
        except ValueError as error:
            assert str(file) in str(error) and "\n" not in str(error)


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
