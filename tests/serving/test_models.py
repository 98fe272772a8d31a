"""Adapters by name: the same weights, with and without them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from janusflow import JanusFlow
from janusflow.pipelines.janus import Janus
from janusflow.serving.jobs import PictureRequest
from janusflow.serving.models import read_adapters, with_adapters
from tests.serving.conftest import finish, picture_of

PROMPT = "a red circle"


def save_adapter(model: JanusFlow, folder: Path) -> Path:
    """Random adapters that change what the model generates."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.PeftModel(copy.deepcopy(model.network), config)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def generated(model: JanusFlow) -> np.ndarray:
    return np.asarray(model.generate(PROMPT, seed=1, num_inference_steps=3, progress=False)[0])


def test_models_with_adapters_share_the_weights_and_leave_the_base_as_it_is(
    small_model: JanusFlow, tmp_path: Path
) -> None:
    before = generated(small_model)
    models = with_adapters("small", small_model, {"mine": save_adapter(small_model, tmp_path)})
    assert list(models) == ["small", "small:mine"]
    adapted = models["small:mine"]
    own = {id(tensor) for tensor in small_model.network.parameters()}
    new = [name for name, tensor in adapted.network.named_parameters() if id(tensor) not in own]
    assert new and all("lora_" in name for name in new)
    assert (generated(adapted) != before).any()  # type: ignore[arg-type]
    assert (generated(small_model) == before).all()
    alone = JanusFlow(small_model.network, small_model.processor, small_model.codec)
    expected = generated(adapted)  # type: ignore[arg-type]
    loaded = alone.load_adapters(tmp_path)
    assert (generated(loaded) == expected).all()
    loaded.unload_adapters()


def test_jobs_of_different_adapters_run_side_by_side(small_model: JanusFlow, tmp_path: Path) -> None:
    models = with_adapters("small", small_model, {"mine": save_adapter(small_model, tmp_path)})
    settings = small_model.resolve(PROMPT, {"num_inference_steps": 3})
    requests = [PictureRequest(model, name, PROMPT, 1, settings) for name, model in models.items()]
    for events, model in zip(finish(requests), models.values(), strict=True):
        assert (picture_of(events) == generated(model)).all()  # type: ignore[arg-type]


def test_a_model_that_takes_no_adapters_refuses_them(janus: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(janus), "takes_adapters", False)
    with pytest.raises(ValueError, match="takes no adapters"):
        with_adapters("janus", janus, {"mine": "folder"})


def test_adapters_are_named_by_their_option() -> None:
    assert read_adapters(["a=one", "b=two/three"]) == {"a": Path("one"), "b": Path("two/three")}
    for options in (["a"], ["a="], ["=one"], ["a b=one"], ["a/b=one"], ["a=one", "a=two"]):
        with pytest.raises(ValueError, match="adapter"):
            read_adapters(options)
