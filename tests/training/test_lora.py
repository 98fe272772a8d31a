"""Adapters train, load, unload and merge."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from janusflow import JanusFlow
from janusflow.cli import app
from janusflow.training.trainer import train
from tests.training.conftest import settings

NORM = "base_model.model.language_model.layers.1.input_layernorm"  # PEFT replaces it after those of layer 0


@pytest.fixture(scope="module")
def trained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = settings(
        start,
        tmp_path_factory.mktemp("lora"),
        parts=["aligner", "generation", "llm"],
        steps=4,
        lora={"rank": 4, "tower": True},
    )
    return train(config, device="cpu", progress_bar=False)


def painted(model: JanusFlow) -> torch.Tensor:
    return model.generate("a star", seed=0, num_inference_steps=2, output_type="latent")


def test_adapters_load_unload_and_merge(trained: Path, start: Path) -> None:
    merged = painted(JanusFlow.from_pretrained(trained, device="cpu"))
    plain = painted(JanusFlow.from_pretrained(start, device="cpu"))
    assert not torch.allclose(merged, plain, atol=1e-3)
    named = json.loads((trained / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(start)
    model = JanusFlow.from_pretrained(start, adapter=trained / "adapter", device="cpu")
    torch.testing.assert_close(painted(model), merged, atol=1e-5, rtol=1e-5)
    model.unload_adapters()
    assert torch.equal(painted(model), plain)
    model.load_adapters(trained / "adapter").merge_adapters()
    torch.testing.assert_close(painted(model), merged, atol=1e-5, rtol=1e-5)
    for change in (model.merge_adapters, model.unmerge_adapters, model.unload_adapters):
        with pytest.raises(ValueError, match="has no adapters"):
            change()


def test_merged_adapters_that_are_kept_come_out_again(trained: Path, start: Path) -> None:
    model = JanusFlow.from_pretrained(start, adapter=trained / "adapter", device="cpu")
    layer = model.network.language_model.layers[0].self_attn.q_proj
    weight, picture = layer.base_layer.weight.detach().clone(), painted(model)
    model.merge_adapters(keep=True)
    assert not torch.allclose(layer.base_layer.weight, weight, atol=1e-6)
    torch.testing.assert_close(painted(model), picture, atol=1e-5, rtol=1e-5)
    model.unmerge_adapters()
    torch.testing.assert_close(layer.base_layer.weight.detach(), weight, atol=1e-6, rtol=0)
    torch.testing.assert_close(painted(model), picture, atol=1e-5, rtol=1e-5)


def test_adapters_that_were_merged_and_kept_leave_whole(trained: Path, start: Path) -> None:
    plain = painted(JanusFlow.from_pretrained(start, device="cpu"))
    model = JanusFlow.from_pretrained(start, adapter=trained / "adapter", device="cpu")
    model.merge_adapters(keep=True).unload_adapters()
    torch.testing.assert_close(painted(model), plain, atol=1e-5, rtol=1e-5)


def test_only_adapters_and_whole_parts_are_written(trained: Path) -> None:
    small = sum(file.stat().st_size for file in (trained / "adapter").iterdir())
    assert small < 0.8 * (trained / "model.safetensors").stat().st_size


def test_parts_beside_the_adapters_learn_and_the_tower_has_its_own(trained: Path, start: Path) -> None:
    before, tensors = (
        load_file(start / "model.safetensors"),
        load_file(trained / "adapter" / "adapter_model.safetensors"),
    )
    learned = {name.removeprefix("base_model.model."): value for name, value in tensors.items()}
    for part in ("understanding_encoder.aligner", "generation_encoder", "generation_decoder"):
        names = [name for name in before if name.startswith(part)]
        assert names and any(not torch.equal(learned[name], before[name]) for name in names), part
    for part in ("language_model.", "understanding_encoder.tower."):
        ups = [value for name, value in learned.items() if name.startswith(part) and "lora_B" in name]
        assert ups and all(value.any() for value in ups), part


def test_adapters_that_are_not_there_or_do_not_fit(trained: Path, start: Path, small_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match="holds no adapters"):
        JanusFlow.from_pretrained(start, adapter=start, device="cpu")
    golden = JanusFlow.from_pretrained(Path(__file__).parents[1] / "golden" / "janusflow-small-a", device="cpu")
    before = {name: value.clone() for name, value in golden.network.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit the model"):
        golden.load_adapters(trained / "adapter")
    after = golden.network.state_dict()  # a part of them fits, and must not stay
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {k: v for k, v in tensors.items() if "lora" not in k}, "holds no LoRA tensors"),
        (lambda tensors: {k: v for k, v in tensors.items() if not k.endswith("layers.0.mlp.up_proj.lora_B.weight")},
         "they lack 1 tensors: .*up_proj.lora_B.weight"),
        (lambda tensors: {k: v for k, v in tensors.items() if "generation_encoder.aligner" not in k},
         "they lack 2 tensors: .*generation_encoder.aligner"),
        (lambda tensors: tensors | {f"{NORM}.lora_{side}.weight": torch.ones(4, 4) for side in "AB"},
         "do not fit the model: .*LlamaRMSNorm"),
        (lambda tensors: tensors | {"base_model.model.extra.weight": torch.ones(2)}, "surplus 1 tensors: .*extra"),
        (lambda tensors: tensors | {next(iter(tensors)): next(iter(tensors.values())) * float("nan")}, "not finite"),
        (lambda tensors: {k: v.to(torch.int32) for k, v in tensors.items()}, "not finite floating-point"),
        (lambda tensors: {k: v[:2].clone() if "lora_A" in k else v for k, v in tensors.items()}, "rank 4"),
    ],
    ids=["none", "missing", "missing part", "no linear layer", "surplus", "nan", "integers", "rank"],
)  # fmt: skip
def test_adapters_that_are_not_whole_are_rejected(
    trained: Path, start: Path, tmp_path: Path, change: Callable, message: str
) -> None:
    adapter = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    save_file(change(load_file(adapter / "adapter_model.safetensors")), adapter / "adapter_model.safetensors")
    model = JanusFlow.from_pretrained(start, device="cpu")
    before = model.network.state_dict().keys()
    with pytest.raises(ValueError, match=message):
        model.load_adapters(adapter)
    assert model.adapters is None and model.network.state_dict().keys() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 5000}, "asks for rank 5000"),
        ({"r": "4"}, "r: Input should be a valid integer"),
        ({"use_rslora": "text"}, "use_rslora: Input should be a valid boolean"),
        ({"lora_alpha": -9}, "lora_alpha: Input should be greater than 0"),
        ({"modules_to_save": 7}, "modules_to_save: Input should be a valid array"),
        ({"rank_pattern": {"(a|aa)+": 4}}, "rank_pattern has names that are regular expressions"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "change the base weights"),
        ({"init_lora_weights": "pissa"}, "change the base weights"),
        ({"peft_type": "IA3"}, "expected LoRA"),
        ({"peft_type": "nothing"}, "is damaged"),
    ],
)
def test_an_adapter_configuration_that_does_not_fit_its_tensors_is_rejected(
    trained: Path, start: Path, tmp_path: Path, settings: dict, message: str
) -> None:
    adapter = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(ValueError, match=message):
        JanusFlow.from_pretrained(start, adapter=adapter, device="cpu")


def test_ranks_may_differ_by_module_and_null_is_the_default(trained: Path, start: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    expected = painted(JanusFlow.from_pretrained(start, adapter=adapter, device="cpu"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    ranks = {name.split(".")[-3]: config["r"] for name in tensors if name.endswith(".lora_A.weight")}
    file.write_text(json.dumps(config | {"r": None, "lora_dropout": None, "rank_pattern": ranks}))
    assert torch.equal(painted(JanusFlow.from_pretrained(start, adapter=adapter, device="cpu")), expected)


def test_the_stored_pattern_of_modules_is_not_evaluated(trained: Path, start: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(trained / "adapter", tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"target_modules": "nothing_of_that_name"}))
    model = JanusFlow.from_pretrained(start, adapter=adapter, device="cpu")
    expected = JanusFlow.from_pretrained(start, adapter=trained / "adapter", device="cpu")
    assert torch.equal(painted(model), painted(expected))


def test_the_command_line_takes_adapters(trained: Path, start: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(trained / "adapter", tmp_path / "strong")  # four steps of training change no answer
    tensors = load_file(adapter / "adapter_model.safetensors")
    strong = {name: value * (100 if "lora_B" in name else 1) for name, value in tensors.items()}
    save_file(strong, adapter / "adapter_model.safetensors")
    options = ["--model", str(start), "--adapter", str(adapter), "--device", "cpu"]
    plain = JanusFlow.from_pretrained(start, device="cpu")
    adapted = JanusFlow.from_pretrained(start, adapter=adapter, device="cpu")
    drawn = CliRunner().invoke(
        app, ["generate", "a star", *options, "--seed", "0", "--steps", "2", "--out", str(tmp_path)]
    )
    assert drawn.exit_code == 0, drawn.output
    (file,) = tmp_path.glob("*.png")
    expected, without = (
        np.asarray(model.generate("a star", seed=0, num_inference_steps=2)[0]) for model in (adapted, plain)
    )
    np.testing.assert_array_equal(np.asarray(Image.open(file)), expected)
    assert (expected != without).any()
    said = CliRunner().invoke(app, ["ask", str(file), "what is it?", *options, "--max-new-tokens", "12"])
    told, untold = (model.ask("what is it?", file, max_new_tokens=12).strip() for model in (adapted, plain))
    assert said.stdout.strip() == told != untold
