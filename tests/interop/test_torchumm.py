"""TorchUMM's interface: its documents' own sample, batches with the results of single runs, and its errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import janusflow
from janusflow.interop import torchumm as umm
from janusflow.interop.torchumm import Backbone, InferencePipeline, InferenceRequest
from tests.conftest import GOLDEN

VAE = Path(janusflow.__file__).parent / "assets" / "tiny" / "vae"
FLOW = {"model_path": "tiny", "torch_dtype": "float32", "device": "cpu"}
FEW = {"num_inference_steps": 2, "parallel_size": 2, "img_size": 96}
JANUS = {"model_path": str(GOLDEN / "janus-small-a"), "torch_dtype": "float32", "device": "cpu"}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    file = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), (200, 40, 40)).save(file)
    return str(file)


def paint(prompt: str, **params: Any) -> InferenceRequest:
    return InferenceRequest(backbone="janus_flow", task="generation", prompt=prompt, params=params)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal to one grey level: batches round differently."""
    pairs = zip(one["images"], other["images"], strict=True)
    return all(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1 for a, b in pairs)


def test_the_documents_own_sample(picture: str) -> None:
    """Run in a process of its own, as a program that knows nothing of janusflow but the first lines."""
    program = f"""
import janusflow.interop.torchumm
assert janusflow.interop.torchumm.install()
from janusflow.interop.torchumm_backbone import BACKBONES
BACKBONES["janus_flow"][2]["num_inference_steps"] = 1  # in place of 30
from umm.inference.pipeline import InferencePipeline
from umm.inference.multimodal_inputs import InferenceRequest, validate_request

pipeline = InferencePipeline(backbone_name="janus_flow", backbone_cfg={{
    "model_path": "tiny",
    "vae_path": {str(VAE)!r},
    "janus_root": "/path/to/Janus",
    "seed": 42,
    "torch_dtype": "bfloat16",
    "device": "cpu",
}})
result = pipeline.run(InferenceRequest(
    backbone="janus_flow", task="generation",
    prompt="A cat sitting on a rainbow",
))
assert len(result["images"]) == 5 and result["image"].size == (384, 384) and result["saved_paths"] == []
result = pipeline.run(InferenceRequest(
    backbone="janus_flow", task="understanding",
    prompt="Describe this image",
    images=[{picture!r}],
))
assert isinstance(result["text"], str) and "User: <image_placeholder>\\nDescribe this image" in result["sft_format"]
"""
    given = {**os.environ, "OMP_NUM_THREADS": "1"}  # several threads would wait for each other
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr


def test_batches_give_the_results_of_single_runs() -> None:
    requests = [paint("a red star"), paint("two blue circles"), paint("a green square left of a black cross")]
    one, many = (InferencePipeline("janus_flow", {**FLOW, "generation_cfg": FEW}) for _ in range(2))
    alone = [one.run(request) for request in requests]
    together = many.run_many(requests, batch_size=3)
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert alone[0]["images"][0].size == (96, 96) and len(alone[0]["images"]) == 2
    assert not same(alone[0], one.run(requests[0])), "the next run draws new noise, as there"


def test_run_many_runs_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    generate = Backbone.generate_many

    def spy(self: Backbone, wanted: Any, config: Any) -> Any:
        sizes.append(len(wanted))
        return generate(self, wanted, config)

    monkeypatch.setattr(Backbone, "generate_many", spy)
    pipeline = InferencePipeline("janus_flow", {**FLOW, "generation_cfg": FEW})
    requests = [paint("a star"), paint("a cross"), paint("a circle"), paint("a star", num_inference_steps=1)]
    assert len(pipeline.run_many(requests, batch_size=2)) == 4
    assert sizes == [2, 1, 1]


def test_a_seed_of_its_own_fixes_a_request() -> None:
    pipeline = InferencePipeline("janus_flow", {**FLOW, "generation_cfg": FEW})
    first, other, again = pipeline.run_many([paint("a star", seed=s) for s in (1, 2, 1)], batch_size=3)
    assert same(first, again) and not same(first, other)


def test_a_seed_for_all_and_sampled_answers_are_those_of_single_runs(picture: str) -> None:
    seeded = {**FLOW, "generation_cfg": {**FEW, "seed": 3}}
    pipeline = InferencePipeline("janus_flow", seeded)
    requests = [paint("a star"), paint("a circle")]
    alone = [pipeline.run(request) for request in requests]
    assert all(same(a, b) for a, b in zip(alone, pipeline.run_many(requests, batch_size=2), strict=True))
    sampled = {"max_new_tokens": 12, "do_sample": True, "temperature": 3.0}
    asked = InferenceRequest("janus_flow", "understanding", "describe the picture.", [picture])
    one, many = (InferencePipeline("janus_flow", {**FLOW, "understanding_cfg": sampled}) for _ in range(2))
    said = [one.run(asked)["text"] for _ in range(3)]
    assert [result["text"] for result in many.run_many([asked] * 3, batch_size=3)] == said and len(set(said)) > 1
    fixed = {**FLOW, "understanding_cfg": {**sampled, "seed": 1}}
    assert len({InferencePipeline("janus_flow", fixed).run(asked)["text"] for _ in range(2)}) == 1


def test_the_request_as_a_batch() -> None:
    asked = InferenceRequest("janus_flow", "understanding", "what?", ["a.png"])
    assert asked.to_batch() == {"prompt": "what?", "images": ["a.png"], "videos": []}
    asked.metadata["id"] = 7
    assert asked.to_batch()["metadata"] == {"id": 7}


def test_pictures_are_saved(tmp_path: Path) -> None:
    pipeline = InferencePipeline("janus_flow", {**FLOW, "generation_cfg": FEW})
    request = {"backbone": "janus_flow", "task": "generation", "prompt": "a star"}
    several = pipeline.run({**request, "output_path": str(tmp_path / "new" / "star.jpg")})["saved_paths"]
    assert [Path(path).name for path in several] == ["star_0.jpg", "star_1.jpg"]
    assert Image.open(several[0]).format == "JPEG"
    one = pipeline.run({**request, "params": {"parallel_size": 1}, "output_path": str(tmp_path / "star")})
    assert one["saved_paths"] == [str(tmp_path / "star.png")]
    inside = pipeline.run({**request, "params": {"parallel_size": 1}, "output_path": f"{tmp_path}/new/"})
    assert inside["saved_paths"] == [str(tmp_path / "new" / "output.png")]


def test_understanding_in_a_batch(picture: str) -> None:
    pipeline = InferencePipeline("janus_flow", {**FLOW, "understanding_cfg": {"max_new_tokens": 12}})
    questions = ["what color is the background?", None, "how many shapes are there?"]
    requests = [
        InferenceRequest(backbone="janus_flow", task="understanding", prompt=question, images=[picture])
        for question in questions
    ]
    alone = [pipeline.run(request) for request in requests]
    assert pipeline.run_many(requests, batch_size=3) == alone
    assert "Describe the image." in alone[1]["sft_format"]


def test_what_greedy_decoding_has_no_use_for_is_let_be(picture: str) -> None:
    pipeline = InferencePipeline("janus_flow", {**FLOW, "understanding_cfg": {"max_new_tokens": 4}})
    asked = {"backbone": "janus_flow", "task": "understanding", "prompt": "what?", "images": [picture]}
    plain = pipeline.run(asked)
    assert pipeline.run({**asked, "images": picture}) == plain, "one path is a list of one"
    for told in ({"temperature": 0}, {"do_sample": True, "temperature": 0}, {"top_p": None, "seed": None}):
        assert pipeline.run({**asked, "params": told}) == plain
    other = InferencePipeline("janus_flow", {**FLOW, "sft_format": "deepseek"})
    assert "<|User|>" in other.run({**asked, "params": {"max_new_tokens": 1}})["sft_format"]


def test_janus_behind_the_same_interface(picture: str) -> None:
    few = {"parallel_size": 2, "img_size": 64}
    one, many = (InferencePipeline("janus_pro", {**JANUS, "generation_cfg": few}) for _ in range(2))
    requests = [InferenceRequest("janus_pro", "generation", prompt) for prompt in ("a star", "two small red circles")]
    alone = [one.run(request) for request in requests]
    assert all(same(a, b) for a, b in zip(alone, many.run_many(requests, batch_size=2), strict=True))
    question = InferenceRequest("janus_pro", "understanding", "what?", [picture], params={"max_new_tokens": 4})
    assert "<|User|>: <image_placeholder>\nwhat?" in one.run(question)["sft_format"]


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        ({"backbone": "janus", "task": "generation", "prompt": "a star"}, ValueError, "request asks for `janus`"),
        ({"backbone": "janus_flow", "task": "drawing"}, ValueError, "Unsupported task: drawing"),
        ({"backbone": "janus_flow", "task": "generation"}, ValueError, "`prompt` is required"),
        ({"task": "generation", "prompt": "a star"}, ValueError, "needs `backbone`"),
        ({"backbone": "janus_flow", "task": "understanding"}, ValueError, "prompt or images"),
        ({"backbone": "janus_flow", "task": "editing", "prompt": "x", "images": ["a"]}, NotImplementedError, "edit"),
        ({"backbone": "janus_flow", "task": "editing", "images": ["a"]}, ValueError, "Editing requires `prompt`"),
        ({"backbone": "janus_flow", "task": "editing", "prompt": "x"}, ValueError, "Editing requires `images`"),
        ({"backbone": "janus_flow", "task": "understanding", "videos": ["a"]}, NotImplementedError, "videos"),
        ({"backbone": "janus_flow", "task": "understanding", "images": ["/no.png"]}, FileNotFoundError, "/no.png"),
        (
            {"backbone": "janus_flow", "task": "generation", "prompt": "a", "params": {"img_size": 2048}},
            ValueError,
            "img_size is 2048",
        ),
        (
            {"backbone": "janus_flow", "task": "generation", "prompt": "a", "params": {"parallel_size": "x"}},
            ValueError,
            "parallel_size is 'x'",
        ),
    ],
)
def test_errors(request_: dict[str, Any], kind: type[Exception], said: str) -> None:
    pipeline = InferencePipeline("janus_flow", {**FLOW, "torch_dtype": torch.float32})
    with pytest.raises(kind, match=said):
        pipeline.run(request_)
    with pytest.raises(ValueError, match="a request is an InferenceRequest or a mapping"):
        pipeline.run("a star")  # type: ignore[arg-type]


def test_keys_without_effect_are_named() -> None:
    pipeline = InferencePipeline("janus_flow", {**FLOW, "torch_dtype": torch.float32})
    request = {"backbone": "janus_flow", "task": "generation", "prompt": "a star"}
    with pytest.warns(UserWarning, match="'num_inference_step' has no effect; did you mean num_inference_steps"):
        pipeline.run({**request, "params": {"num_inference_step": 3, "num_inference_steps": 1, "parallel_size": 1}})


def test_another_backbone_or_family() -> None:
    with pytest.raises(KeyError, match="Unknown backbone `bagel`"):
        InferencePipeline("bagel")
    with pytest.raises(ValueError, match="is a JanusFlow model"):
        InferencePipeline("janus_pro", FLOW)


def test_a_closed_pipeline_opens_the_same_model_again() -> None:
    with InferencePipeline("janus_flow", FLOW) as pipeline:
        assert pipeline.backbone.model is not None
    assert pipeline.backbone.model is None
    assert pipeline.run(paint("a star", num_inference_steps=1, parallel_size=1, img_size=64))["images"]


def test_an_installed_umm_is_never_shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "umm"
    (package / "core").mkdir(parents=True)
    (package / "__init__.py").write_text("real = True\n")
    (package / "core" / "__init__.py").write_text("")
    (package / "core" / "registry.py").write_text(
        "known = {}\ndef register(kind, name, factory):\n    known[kind, name] = factory\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert umm.install() is False
    import umm as installed  # type: ignore[import-not-found]

    assert installed.real and umm.install() is False
    assert umm.register() == ["janus_flow", "janus", "janus_pro"]
    registry = sys.modules["umm.core.registry"]
    backbone = registry.known["backbone", "janus"]()  # type: ignore[attr-defined]
    assert isinstance(backbone, Backbone) and backbone.name == "janus"
    for name in ("umm", "umm.core", "umm.core.registry"):
        del sys.modules[name]


def test_register_without_torchumm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umm", ModuleType("umm"))
    with pytest.raises(ValueError, match="not installed"):
        umm.register()
