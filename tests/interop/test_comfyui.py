"""ComfyUI's nodes, called as ComfyUI calls them, with the shipped model."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from janusflow import JanusFlow
from tests.conftest import GOLDEN

FOLDER = Path(__file__).parents[2] / "deploy" / "comfyui"
LARGEST = 2**64 - 1


@pytest.fixture(scope="module")
def nodes() -> Iterator[types.ModuleType]:
    """The folder as ComfyUI imports it: as a package under a name made of its path."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[loaded]


def call(nodes: types.ModuleType, name: str, **inputs: Any) -> Any:
    """The only output of a node, whose inputs have their defaults where they are not given."""
    kind = nodes.NODE_CLASS_MAPPINGS[name]
    known = kind.INPUT_TYPES()
    for key, (type_, *more) in known["required"].items():
        default = type_[0] if isinstance(type_, list) else more[0]["default"] if more and "default" in more[0] else None
        inputs.setdefault(key, default)
    with torch.inference_mode():  # as ComfyUI runs nodes
        outputs = getattr(kind(), kind.FUNCTION)(**inputs)
    assert isinstance(outputs, tuple) and len(outputs) == len(kind.RETURN_TYPES) == 1
    return outputs[0]


@pytest.fixture(scope="module")
def model(nodes: types.ModuleType) -> JanusFlow:
    opened: JanusFlow = call(nodes, "JanusFlowLoadModel", model="tiny", device="cpu")
    return opened


@pytest.fixture(scope="module")
def image(nodes: types.ModuleType, model: JanusFlow) -> Tensor:
    """Two pictures."""
    made: Tensor = call(nodes, "JanusFlowGenerate", model=model, steps=4, seed=5, batch_size=2)
    return made


def test_the_nodes_keep_comfyuis_conventions(nodes: types.ModuleType) -> None:
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for kind in nodes.NODE_CLASS_MAPPINGS.values():
        inputs = kind.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional", "hidden"} and kind.CATEGORY == "JanusFlow"
        taken = dict(inspect.signature(getattr(kind, kind.FUNCTION)).parameters)
        del taken["self"]
        assert [*inputs["required"], *inputs.get("optional", {})] == list(taken)
        assert all(taken[name].default is not inspect.Parameter.empty for name in inputs.get("optional", {}))
        for type_, *more in (*inputs["required"].values(), *inputs.get("optional", {}).values()):
            assert isinstance(type_, (str, list))
            if type_ in ("INT", "FLOAT"):
                assert more[0]["min"] <= more[0]["default"] <= more[0]["max"]


def test_a_generated_batch_is_what_generate_makes(image: Tensor, model: JanusFlow) -> None:
    assert image.shape == (2, 64, 64, 3) and image.dtype == torch.float32
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    prompt = "a red circle above a blue square"
    wanted = model.generate(prompt, seed=[5, 6], num_images_per_prompt=2, num_inference_steps=4, output_type="np")
    assert np.array_equal(image.numpy(), wanted)


def test_the_largest_seed_of_comfyui_works(nodes: types.ModuleType, model: JanusFlow) -> None:
    made = call(nodes, "JanusFlowGenerate", model=model, steps=1, seed=LARGEST, batch_size=2)
    wanted = model.generate("a red circle above a blue square", seed=0, num_inference_steps=1, output_type="np")
    assert np.allclose(made[1:].numpy(), wanted, atol=1e-5)
    assert call(nodes, "JanusFlowAsk", model=model, temperature=1.0, seed=LARGEST, max_new_tokens=2)


def test_a_mask_changes_only_where_it_is_bright(nodes: types.ModuleType, model: JanusFlow, image: Tensor) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :24] = 1
    source = image + 0.001  # other nodes leave values a little above 1
    edited = call(nodes, "JanusFlowEdit", model=model, image=source, mask=mask, prompt="a star", steps=3, strength=1.0)
    kept, before = (edited[:, :, 24:] * 255).round(), (source.clamp(0, 1)[:, :, 24:] * 255).round()
    assert torch.equal(kept, before) and not torch.equal(edited[:, :, :24], image[:, :, :24])
    assert torch.equal(
        edited,
        call(nodes, "JanusFlowEdit", model=model, image=source, mask=mask[0], prompt="a star", steps=3, strength=1.0),
    )


def test_strength_says_how_far_an_edited_picture_goes(nodes: types.ModuleType, model: JanusFlow, image: Tensor) -> None:
    near, far = (
        call(nodes, "JanusFlowEdit", model=model, image=image[:1], prompt="a yellow star", steps=8, strength=strength)
        for strength in (0.1, 1.0)
    )
    assert (near - image[:1]).abs().mean() < (far - image[:1]).abs().mean()


def test_answers_are_those_of_ask(nodes: types.ModuleType, model: JanusFlow, image: Tensor) -> None:
    from PIL import Image

    pictures = [Image.fromarray((one.numpy() * 255).round().astype(np.uint8)) for one in image]
    said = call(nodes, "JanusFlowAsk", model=model, question="what color is the circle?", image=image[:1])
    assert said == model.ask("what color is the circle?", images=pictures[:1]) != ""
    both = call(nodes, "JanusFlowAsk", model=model, question="describe the picture.", image=image, max_new_tokens=8)
    assert both == model.ask("describe the picture.", images=pictures, max_new_tokens=8)


def test_the_workflow_runs_node_by_node(nodes: types.ModuleType) -> None:
    workflow = json.loads((FOLDER / "workflow_api.json").read_text())
    shown: dict[str, Any] = {}
    results: dict[str, Any] = {}
    for number, node in workflow.items():
        inputs = {
            name: results[value[0]] if isinstance(value, list) else value for name, value in node["inputs"].items()
        }
        if node["class_type"] not in nodes.NODE_CLASS_MAPPINGS:  # ComfyUI's own
            shown[node["_meta"]["title"]] = next(iter(inputs.values()))
            continue
        known = nodes.NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
        assert set(inputs) <= {*known["required"], *known.get("optional", {})} and set(known["required"]) <= set(inputs)
        results[number] = call(nodes, node["class_type"], **inputs)
    assert shown["Answer"] == "red" and shown["Generated"].shape == shown["Edited"].shape == (1, 64, 64, 3)


def test_janus_generates_code_by_code(nodes: types.ModuleType) -> None:
    janus = call(nodes, "JanusFlowLoadModel", model=str(GOLDEN / "janus-small-a"), device="cpu")
    sampled = call(nodes, "JanusFlowGenerateCodes", model=janus, prompt="a cat", seed=LARGEST, batch_size=2)
    assert sampled.shape == (2, 64, 64, 3)
    greedy = [call(nodes, "JanusFlowGenerateCodes", model=janus, seed=seed, temperature=0.0) for seed in (0, 1)]
    assert torch.equal(*greedy)
    with pytest.raises(ValueError, match="not for a Janus model"):
        call(nodes, "JanusFlowGenerate", model=janus)


def test_steps_are_shown_and_cancel_ends_the_work(
    nodes: types.ModuleType, model: JanusFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int]] = []

    class InterruptProcessingException(Exception):  # noqa: N818 (ComfyUI's name)
        pass

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int) -> None:
            shown.append((value, total))

    def stop_at_the_second() -> None:
        if len(shown) % 3 == 2:
            raise InterruptProcessingException

    comfy = types.ModuleType("comfy")
    monkeypatch.setitem(sys.modules, "comfy", comfy)
    for part, members in (
        ("utils", {"ProgressBar": ProgressBar}),
        ("model_management", {"throw_exception_if_processing_interrupted": stop_at_the_second}),
    ):
        module = types.ModuleType(f"comfy.{part}")
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    with pytest.raises(InterruptProcessingException):
        call(nodes, "JanusFlowGenerate", model=model, steps=5)
    assert shown == [(1, 5), (2, 5)]
    with pytest.raises(InterruptProcessingException):
        call(nodes, "JanusFlowAsk", model=model)
    shown.clear()
    assert call(nodes, "JanusFlowAsk", model=model, question="hello", max_new_tokens=2)


def test_an_offloaded_model_works(nodes: types.ModuleType) -> None:
    waiting = call(nodes, "JanusFlowLoadModel", model="tiny", device="cpu", offload=True)
    assert call(nodes, "JanusFlowGenerate", model=waiting, steps=1).shape == (1, 64, 64, 3)
