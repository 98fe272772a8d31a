"""With core dependencies only every public entry point works, or names the extra that it needs in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import GOLDEN

ROOT = Path(__file__).parents[1]
EXTRAS = (
    "datasets",
    "fastapi",
    "lmms_eval",
    "matplotlib",
    "omegaconf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openai",
    "peft",
    "pyarrow",
    "ray",
    "efficientnet_lite_pytorch",
    "resvg_py",
    "tensorboard",
    "torchao",
    "wandb",
)
BLOCKED = f"import sys\nfor name in {EXTRAS!r}:\n    sys.modules[name] = None\n"  # importing one then raises

PYTHON = """
import json
from pathlib import Path
from types import SimpleNamespace

import torch

import janusflow.checkpoint.hub
from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.interop.diffusers_pipeline import JanusFlowPipeline

torch.set_num_threads(1)
tiny, janus = JanusFlow.from_pretrained("tiny", device="cpu"), JanusFlow.from_pretrained(GOLDEN_JANUS, device="cpu")
commit = SimpleNamespace(commit_url="https://hub/me/mine")
api = SimpleNamespace(create_repo=lambda *_, **__: None, upload_folder=lambda **_: commit, file_exists=lambda *_: False)
janusflow.checkpoint.hub.HfApi = lambda token=None: api
talk = [{"role": "user", "content": "hello"}]
few = {"max_new_tokens": 2}


def auto_classes():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    import janusflow.model

    AutoModelForImageTextToText.from_pretrained("saved-tiny")
    AutoProcessor.from_pretrained("saved-tiny")


def works(name, call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return "works"


calls = {
    "picture": lambda: tiny.generate("a star", seed=0, num_inference_steps=1)[0].save("star.png"),
    "ask": lambda: tiny.ask("what is it?", "star.png", **few),
    "chat": lambda: tiny.chat(talk, **few),
    "stream": lambda: list(tiny.stream("hello", **few)),
    "save": lambda: tiny.save_pretrained("saved-tiny"),
    "opened again": lambda: JanusFlow.from_pretrained("saved-tiny", device="cpu"),
    "upload": lambda: tiny.push_to_hub("me/mine"),
    "janus": lambda: janus.generate("a star", seed=0),
    "janus saved": lambda: janus.save_pretrained("saved-janus"),
    "janus uploaded": lambda: janus.push_to_hub("me/mine"),
    "offload": lambda: JanusFlow.from_pretrained("tiny", device="cpu").offload("cpu").ask("hello", **few),
    "convert": lambda: convert("tiny", "converted", to="official", progress=False),
    "diffusers": lambda: JanusFlowPipeline.from_pretrained("tiny")(prompt="a star", num_inference_steps=1),
    "auto classes": auto_classes,
    "adapter": lambda: JanusFlow.from_pretrained("tiny", device="cpu", adapter="adapter"),
    "quantized": lambda: JanusFlow.from_pretrained("tiny", device="cpu", quantize="int8"),
}
Path("adapter").mkdir()
print(json.dumps({name: works(name, call) for name, call in calls.items()}))
"""

COMMANDS = """
import json
import os
from typer.testing import CliRunner
from janusflow.cli import app

commands = json.loads(os.environ["COMMANDS"])
results = {}
for name, words in commands.items():
    result = CliRunner().invoke(app, words)
    results[name] = "works" if result.exit_code == 0 else result.stderr or repr(result.exception)
print(json.dumps(results))
"""


def run(code: str, folder: Path, **environment: str) -> dict[str, str]:
    """What a fresh interpreter without the extras prints."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", BLOCKED + code], cwd=folder, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def names_an_extra(said: str, feature: str, extra: str) -> bool:
    """Whether a message is the one sentence on a missing extra."""
    said = said.removeprefix("error: ").strip()
    return said.startswith(f"{feature} needs ") and said.endswith(f'pip install "janusflow[{extra}]"')


def test_python_needs_no_extra_or_names_it(tmp_path: Path) -> None:
    found = run(PYTHON.replace("GOLDEN_JANUS", repr(str(GOLDEN / "janus-small-a"))), tmp_path)
    assert names_an_extra(found.pop("adapter"), "an adapter", "train")
    assert found == dict.fromkeys(found, "works")
    assert (tmp_path / "converted" / "vae").is_dir() and (tmp_path / "saved-tiny" / "vae").is_dir()


def test_commands_need_no_extra_or_name_it(tmp_path: Path, picture: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture.rename(folder / "picture.png")
    (tmp_path / "prompts.txt").write_text("a star\n")
    commands = {
        "generate": ["generate", "a star", "--steps", "1", "--out", "out"],
        "ask": ["ask", "hello", "--max-new-tokens", "2"],
        "info": ["info"],
        "convert": ["convert", "tiny", "converted"],
        "convert --to onnx": ["convert", "tiny", "graphs", "--to", "onnx"],
        "eval --list": ["eval", "--list"],
        "train": ["train", str(ROOT / "recipes" / "tiny" / "stage2.yaml"), "model=tiny", "--dry-run"],
        "eval": ["eval", "tinyworld", "--out", "evaluated"],
        "eval --config": ["eval", "--config", str(next((ROOT / "recipes" / "eval").glob("*.yaml")))],
        "data prepare": ["data", "prepare", "pictures", "--out", "shards"],
        "data prepare --endpoint": ["data", "prepare", "pictures", "--out", "far", "--endpoint", "http://localhost/v1"],
        "serve": ["serve"],
        "data reflow": ["data", "reflow", "prompts.txt", "--out", "pairs", "--steps", "1"],
    }
    found = run(COMMANDS, tmp_path, COMMANDS=json.dumps(commands))
    for name, feature, extra in (
        ("convert --to onnx", "convert --to onnx", "onnx"),
        ("train", "training", "train"),
        ("eval", "evaluation", "eval"),
        ("eval --config", "evaluation", "eval"),
        ("data prepare", "reading a data set", "train"),
        ("data prepare --endpoint", "a model behind an address", "eval"),
        ("data reflow", "reflow", "train"),
        ("serve", "serving", "serve"),
    ):
        assert names_an_extra(found.pop(name), feature, extra), (name, found)
    assert found == dict.fromkeys(found, "works")


@pytest.mark.parametrize(
    ("target", "script"), [("check-install", "check-install $(EXTRAS)"), ("test-versions", "check-versions")]
)
def test_the_longer_checks_have_targets_of_their_own(target: str, script: str) -> None:
    rule = f"\n{target}:\n\tPYTHON=$(PYTHON) .ci/{script}\n"
    script = script.split()[0]
    assert rule in (ROOT / "Makefile").read_text() and os.access(ROOT / ".ci" / script, os.X_OK)
    checked = subprocess.run(["bash", "-n", str(ROOT / ".ci" / script)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
