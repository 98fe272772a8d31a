"""Graphs for ONNX Runtime: they compute what the network computes, whatever the sizes, and the docs' program runs."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from janusflow import JanusFlow
from janusflow.cli import app
from janusflow.files import locked
from tests.conftest import GOLDEN

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason='pip install "janusflow[onnx]"')

from janusflow.interop import onnx_check, onnx_export  # noqa: E402
from janusflow.interop.onnx_export import export_onnx  # noqa: E402

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "runtimes.md"
GRAPHS = {"token_embeddings", "picture_encoder", "language_model", "velocity", "vae_decoder"}
LARGEST_GRAPH = 500_000  # bytes; the weights of the shipped model have 50 MB


@pytest.fixture(scope="module")
def tiny_graphs(tmp_path_factory: pytest.TempPathFactory) -> onnx_export.Exported:
    """Exported by the first of the test processes that needs them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny-graphs"
    with locked(folder.with_suffix(".lock"), "", patience=-1):
        if not folder.is_dir():
            return export_onnx("tiny", folder, progress=False)
    return onnx_export.Exported(folder, json.loads((folder / "onnx.json").read_text())["relative_errors"])


def test_the_graphs_of_the_shipped_model_agree_with_pytorch(tiny_graphs: onnx_export.Exported) -> None:
    assert set(tiny_graphs.errors) == GRAPHS
    assert max(tiny_graphs.errors.values()) <= 1e-4
    assert json.loads((tiny_graphs.folder / "onnx.json").read_text())["relative_errors"] == tiny_graphs.errors


def test_the_command_writes_the_graphs_of_the_golden_checkpoint_and_their_errors(tmp_path: Path) -> None:
    source, folder = GOLDEN / "janusflow-small-a", tmp_path / "graphs"
    done = CliRunner().invoke(app, ["convert", str(source), str(folder), "--to", "onnx"])
    assert done.exit_code == 0, done.output
    printed = dict(re.findall(r"^(\w+) +relative error (\S+)$", done.stdout, re.MULTILINE))
    assert set(printed) == GRAPHS - {"vae_decoder"} and all(float(value) <= 1e-4 for value in printed.values())
    assert "contains no VAE" in done.stderr
    assert set(json.loads((folder / "onnx.json").read_text())["relative_errors"]) == set(printed)


def test_nan_in_any_case_counts(monkeypatch: pytest.MonkeyPatch, small_model: JanusFlow, tmp_path: Path) -> None:
    errors = itertools.cycle([0.1, float("nan")])
    monkeypatch.setattr(onnx_check, "Session", lambda file: lambda **inputs: [torch.zeros(1)])
    monkeypatch.setattr(onnx_check, "relative_error", lambda *pair: next(errors))
    for name in ("_language_model", "_velocity"):
        monkeypatch.setattr(onnx_check, name, lambda *_: [(torch.zeros(1), torch.zeros(1))])
    found = onnx_check.relative_errors(small_model.network, None, dict.fromkeys(GRAPHS, tmp_path))
    assert len(found) == len(GRAPHS) - 1 and np.isnan(list(found.values())).all()


def test_weights_are_stored_once_and_the_folder_opens(tiny_graphs: onnx_export.Exported) -> None:
    sizes = {name: (tiny_graphs.folder / f"{name}.onnx").stat().st_size for name in GRAPHS}
    assert max(sizes.values()) < LARGEST_GRAPH, sizes
    assert repr(JanusFlow.from_pretrained(tiny_graphs.folder, device="cpu")).endswith("dtype=float32, device=cpu)")


def test_other_weights_are_errors_that_the_check_sees(tiny_graphs: onnx_export.Exported) -> None:
    model = JanusFlow.from_pretrained("tiny", device="cpu")
    network, files = model.network, {name: tiny_graphs.folder / f"{name}.onnx" for name in GRAPHS}
    for weights, broken in (
        (
            [network.language_model.layers[3].self_attn.k_proj.weight, model.codec.vae.decoder.conv_in.weight],
            {"language_model", "velocity", "vae_decoder"},
        ),
        (
            [network.generation_decoder.aligner.weight, network.understanding_encoder.begin_embedding],
            {"velocity", "picture_encoder"},
        ),
    ):
        for weight in weights:
            weight.mul_(2)
        errors = onnx_check.relative_errors(network, model.codec, files)
        for weight in weights:
            weight.div_(2)
        assert {name for name, error in errors.items() if error > 1e-4} == broken


def test_graphs_that_differ_are_refused_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "graphs_of", lambda network, codec: [])
    for error in (2e-4, float("nan")):
        monkeypatch.setattr(onnx_export, "relative_errors", lambda *_, error=error: {"velocity": error})
        with pytest.raises(ValueError, match=r"graphs differ from the network in ONNX Runtime: velocity by"):
            export_onnx(GOLDEN / "janusflow-small-a", tmp_path / "graphs", progress=False)
    assert not list(tmp_path.iterdir())


def test_the_program_of_the_guide_generates_and_answers(
    tiny_graphs: onnx_export.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "graphs").symlink_to(tiny_graphs.folder)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert "torch" not in code and "janusflow" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    prompt, model = "a red circle above a blue square", JanusFlow.from_pretrained("tiny", device="cpu")
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 16, 16), np.float32))
    wanted = model.generate(prompt, latents=noise, num_inference_steps=30, guidance_scale=2.0, progress=False)[0]
    found = names["picture"]
    assert np.abs(np.asarray(found, np.int64) - np.asarray(wanted)).max() <= 1
    for question in ("what color is the circle?", "describe the picture."):
        assert names["ask"](found, question) == model.ask(question, images=found) != ""


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        (str(GOLDEN / "janus-small-a"), [], "is a Janus; only JanusFlow models become ONNX graphs"),
        ("tiny", ["--dtype", "bfloat16"], "ONNX graphs are written in float32"),
    ],
)
def test_what_cannot_become_graphs_is_refused(source: str, options: list[str], sentence: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["convert", source, str(tmp_path / "graphs"), "--to", "onnx", *options])
    assert done.exit_code == 2 and sentence in done.stderr and not list(tmp_path.iterdir())
