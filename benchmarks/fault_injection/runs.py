"""Training, preparation, reflow, judging and evaluation that were begun, and their continuation."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import chdir, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import load_file

from fault_injection.checkpoints import digest, golden, write_vae
from fault_injection.records import PREPARE, pictures_with_captions
from janusflow import JanusFlow
from janusflow.data import prepare as preparing
from janusflow.data import reflow as reflowing
from janusflow.data.sources import file_config
from janusflow.evaluation.judges.endpoint import EndpointJudge, EndpointOptions
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from janusflow.training.config import read_config
from janusflow.training.trainer import train

STEPS = 2  # of the run that is resumed
TINYWORLD = [{"kind": "tinyworld"}]


def train_settings(steps: int) -> dict[str, Any]:
    """A run of a few quick steps in the current folder, from its `model`."""
    return {
        "out": "small-run",
        "parts": ["aligner", "generation", "llm"],
        "steps": steps,
        "batch_size": 3,
        "pack_length": 512,
        "precision": "float32",
        "model": {"checkpoint": "small-model"},
        "data": {
            **dict.fromkeys(("understanding", "generation", "text"), TINYWORLD),
            "ratios": [{"understanding": 1, "generation": 1, "text": 1}],
            "workers": 0,
        },
        "loss": {"repa": 0.0},
        "save": {"every": 1},
        "watch": {"tensorboard": False},
        "optimizer": {"learning_rate": 1e-3},
    }


def begun_run(folder: Path) -> None:
    """A checkpoint with a VAE, and a run from it that is not finished."""
    golden("janusflow-small-a", folder)
    write_vae(folder / "small-model" / "vae")
    with chdir(folder):
        train(read_config(train_settings(STEPS)), device="cpu", progress_bar=False)
    shutil.rmtree(folder / "small-run" / "export")


def resumed_run(folder: Path, _out: Path) -> Any:
    """Loss of the step that the run is continued by, and the weights then."""
    with chdir(folder):
        train(read_config(train_settings(STEPS + 1)), resume=True, device="cpu", progress_bar=False)
    row = json.loads((folder / "small-run" / "log.jsonl").read_text().splitlines()[-1])
    weights = load_file(folder / "small-run" / "export" / "model.safetensors")
    return [row["step"], row["loss"], {name: digest(value) for name, value in weights.items()}]


def begun_preparation(folder: Path) -> None:
    """Pictures, and a preparation of them that was stopped in its last shard."""
    pictures_with_captions(folder / "raw")
    with suppress(KeyboardInterrupt):
        _prepare(folder, stop=7)


def continued_preparation(folder: Path, _out: Path) -> Any:
    """What a preparation that is continued has written."""
    _prepare(folder)
    place = folder / "small-out"
    return {file.name: digest(file.read_bytes()) for file in sorted(place.iterdir()) if file.name != "state.json"}


def _prepare(folder: Path, stop: int = 0) -> None:
    """Prepare, and stop as if interrupted when that many pictures were scored."""
    scored = []

    def score(picture: Image.Image) -> float:
        scored.append(picture.size)
        if len(scored) == stop:
            raise KeyboardInterrupt
        return 1.0

    with chdir(folder):
        preparing.prepare(file_config("folder", "raw"), Path("small-out"), PREPARE, scorer=score)


EVALUATION: dict[str, Any] = {"limit": 4, "batch_size": 4, "settings": {"prompts": 1, "images": 1}}


def finished_evaluation(folder: Path) -> None:
    """A finished evaluation."""
    continued_evaluation(folder, folder)


def continued_evaluation(folder: Path, _out: Path) -> Any:
    """What an evaluation reports."""
    with chdir(folder):
        report = evaluate(EvalRequest("tinyworld", Path("small-run"), options={"num_inference_steps": 2}, **EVALUATION))
    scores = {name: round(score, 2) for name, score in report["scores"].items()}  # other batches, other last bits
    return [report["items"], report["judged"], scores]


REFLOW = reflowing.ReflowConfig(steps=1, guidance=1.0, batch_size=2, shard_size=2)


def begun_reflow(folder: Path) -> None:
    """A checkpoint, prompts, and pairs of them that were stopped while the second file was written."""
    golden("janusflow-small-a", folder)
    write_vae(folder / "small-model" / "vae")
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"{n} stars"}) for n in (1, 2, 3, 4)))
    with suppress(KeyboardInterrupt):
        _reflow(folder, stop=3)


def continued_reflow(folder: Path, _out: Path) -> Any:
    """How many pairs a run that is continued keeps, and its files."""
    counts = _reflow(folder)
    return [counts, sorted(file.name for file in (folder / "small-out").iterdir())]


def _reflow(folder: Path, stop: int = 0) -> dict[str, int]:
    """Make pairs, and stop as if interrupted when that many pictures were judged."""
    judged = []

    def keep(number: int, picture: Image.Image) -> bool:
        judged.append(number)
        if len(judged) == stop:
            raise KeyboardInterrupt
        return True

    prompts = reflowing.read_prompts(folder / "prompts.jsonl")
    model = JanusFlow.from_pretrained(folder / "small-model", device="cpu", progress=False)
    return reflowing.reflow(model, prompts, folder / "small-out", REFLOW, accept=keep)


def judge_files(folder: Path) -> None:
    """What a judge's endpoint replies, and the account of what was spent there."""
    message = {"role": "assistant", "content": "yes"}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "usage": usage}
    reply["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    (folder / "reply.json").write_text(json.dumps(reply))
    (folder / "small-out").mkdir()
    (folder / "small-out" / "spent.json").write_text(json.dumps({"requests": 3, "tokens": 40}))


def use_judge(folder: Path, _out: Path) -> Any:
    """What a judge says, and what is spent then."""
    os.environ.update(NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    file, account = folder / "reply.json", folder / "small-out" / "spent.json"

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = file.read_bytes() if file.is_file() else b""
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = EndpointOptions(timeout=5, tries=1, max_requests=5, max_total_tokens=1000)
    judge = EndpointJudge("judge", f"http://127.0.0.1:{server.server_port}/v1", options, account=account)
    return [judge.reply("Is it a star?"), json.loads(account.read_text())]
