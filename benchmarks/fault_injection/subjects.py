"""Valid inputs, and what is done with each: opened, answered and generated with, resumed, prepared, read.

A subject makes its folder once; each case gets a copy in which one file is mutated, and `use` returns what a user would
see of it: two uses of the same input return the same.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Callable, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

from fault_injection.mutations import (
    Mutator,
    any_bytes,
    index_file,
    json_file,
    json_line,
    metadata_file,
    paddle_file,
    picture_file,
    protected,
    safetensors_file,
    tar_file,
    text_file,
    torch_file,
    yaml_file,
)
from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from janusflow.data import prepare as preparing
from janusflow.data import reflow as reflowing
from janusflow.data.rows import SourceConfig
from janusflow.data.sources import kind_of
from janusflow.evaluation.endpoint_judge import EndpointJudge, EndpointOptions
from janusflow.evaluation.recipes import load_request
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run import evaluate
from janusflow.images import load_image
from janusflow.training.config import LoraConfig, load_config, read_config
from janusflow.training.lora import add_adapters
from janusflow.training.trainer import train

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
EXPECTED = ("expected.json", "expected.safetensors", "image_*.png")  # the golden cases, which no checkpoint has
STEPS = 2  # of the run that is resumed
TINYWORLD = [{"kind": "tinyworld"}]


@dataclass(frozen=True)
class Subject:
    """A kind of input.

    Attributes:
        make: writes it into a new folder.
        use: takes a folder and a place for what it writes; returns what the input says, as JSON.
        files: by path in the folder, what is done to each.
        named: whether an error must name the file or its folder; not where the user has just given the only file.
        lossy: whether damage may cost a record, which is counted and does not end the run.
    """

    make: Callable[[Path], None]
    use: Callable[[Path, Path], Any]
    files: Mapping[str, Mutator]
    named: bool = True
    lossy: bool = False


def digest(value: Any) -> str:
    """A short digest of bytes, an array or a tensor."""
    content = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def drawing(number: int, size: tuple[int, int] = (40, 24)) -> Image.Image:
    """A picture of its own for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def write_vae(folder: Path) -> None:
    """A random VAE of factor 8 with four latent channels."""
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
    ).save_pretrained(folder)


def golden(name: str, folder: Path) -> None:
    """A golden checkpoint as `model`."""
    shutil.copytree(GOLDEN / name, folder / "small-model", ignore=shutil.ignore_patterns(*EXPECTED))


def pickled(folder: Path) -> None:
    """The official layout with weights of `torch.save`."""
    golden("janusflow-small-a", folder)
    weights = folder / "small-model" / "model.safetensors"
    torch.save(load_file(weights), folder / "small-model" / "pytorch_model.bin")
    weights.unlink()


def ours(folder: Path) -> None:
    """Our layout with a VAE, its weights in two files and an index."""
    golden("janusflow-small-a", folder / "source")
    write_vae(folder / "source" / "small-model" / "vae")
    model = convert(folder / "source" / "small-model", folder / "small-model", progress=False)
    shutil.rmtree(folder / "source")
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, model / file, {"format": "pt"})
        index.update(dict.fromkeys(part, file))
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    shutil.copy(model / "model-00001-of-00002.safetensors", folder / "outside.safetensors")


def transformers_janus(folder: Path) -> None:
    """A Janus in the layout of transformers."""
    convert(GOLDEN / "janus-small-a", folder / "small-model", to="transformers", progress=False)


def adapted(folder: Path) -> None:
    """A checkpoint, and low-rank adapters for it."""
    golden("janusflow-small-a", folder)
    model = JanusFlow.from_pretrained(folder / "small-model", device="cpu", progress=False)
    adapters = add_adapters(model.network, LoraConfig(rank=4), ["llm", "aligner"])
    torch.manual_seed(0)
    for name, parameter in adapters.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapters.peft_config["default"].base_model_name_or_path = "small-model"
    adapters.save_pretrained(folder / "small-adapter", save_embedding_layers=False)


def use_model(folder: Path, _out: Path) -> Any:
    """What a checkpoint is described as, an answer, and a picture after one step."""
    described = describe(folder / "small-model").family
    adapter = folder / "small-adapter"
    model: Any = JanusFlow.from_pretrained(
        folder / "small-model", device="cpu", progress=False, adapter=adapter if adapter.is_dir() else None
    )
    answer = model.ask("what is this?", drawing(0), max_new_tokens=6)
    options: dict[str, Any] = {} if described == "Janus" else {"num_inference_steps": 1}
    kind = "np" if (folder / "small-model" / "vae").is_dir() else "latent"
    made = model.generate("a star", seed=0, output_type=kind, progress=False, **options)
    return [described, answer, digest(np.asarray(made))]


def use_converted(folder: Path, out: Path) -> Any:
    """The files that a checkpoint is converted to."""
    made = convert(folder / "small-model", out / "converted", progress=False)
    return {
        str(file.relative_to(made)): digest(file.read_bytes()) for file in sorted(made.rglob("*")) if file.is_file()
    }


# --- training, preparation, evaluation --------------------------------------------------------------------------------


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


def pictures_with_captions(folder: Path, count: int = 8) -> None:
    """A folder of pictures, each with a text next to it."""
    folder.mkdir(parents=True)
    for number in range(count):
        drawing(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"Picture {number}. It has one colour.")


PREPARE = preparing.PrepareConfig(min_side=8, max_aspect=4, shard_size=3)


def begun_preparation(folder: Path) -> None:
    """Pictures, and a preparation of them that was stopped while it wrote its last shard."""
    pictures_with_captions(folder / "raw")
    calls, write = [], preparing._write_shard

    def stopped(*values: Any) -> None:
        calls.append(values)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*values)

    with chdir(folder), mock.patch.object(preparing, "_write_shard", stopped), suppress(KeyboardInterrupt):
        preparing.prepare(SourceConfig("folder", "raw"), Path("small-out"), PREPARE)


def continued_preparation(folder: Path, _out: Path) -> Any:
    """What a preparation that is continued has written."""
    with chdir(folder):
        preparing.prepare(SourceConfig("folder", "raw"), Path("small-out"), PREPARE)
    return {f.name: digest(f.read_bytes()) for f in sorted((folder / "small-out").iterdir()) if f.name != "state.json"}


def read_records(folder: Path, out: Path) -> Any:
    """The records of a data set as a preparation keeps them, indexed and streamed."""
    (place,) = (file for file in folder.iterdir())
    path = str(place)
    counts = []
    for streaming in (False, True):
        source = SourceConfig(kind_of(path), path, streaming=streaming)
        state = preparing.prepare(source, out / f"prepared-{streaming}", PREPARE)
        counts.append(dict(state.counts))
    return counts


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
    calls, write = [], reflowing._write

    def stopped(*values: Any) -> None:
        calls.append(values)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*values)

    with mock.patch.object(reflowing, "_write", stopped), suppress(KeyboardInterrupt):
        continued_reflow(folder, folder)


def continued_reflow(folder: Path, _out: Path) -> Any:
    """How many pairs a run that is continued keeps, and its files."""
    prompts = reflowing.read_prompts(folder / "prompts.jsonl")
    model = JanusFlow.from_pretrained(folder / "small-model", device="cpu", progress=False)
    counts = reflowing.reflow(model, prompts, folder / "small-out", REFLOW)
    return [counts, sorted(file.name for file in (folder / "small-out").iterdir())]


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


# --- recipes, records, pictures ---------------------------------------------------------------------------------------


def write_recipe(folder: Path) -> None:
    """A training recipe of each kind, one of an evaluation, and a file of TorchUMM's."""
    shutil.copy(ROOT / "recipes" / "paper" / "stage2.yaml", folder / "paper.yaml")
    shutil.copy(ROOT / "recipes" / "finetune" / "both.yaml", folder / "finetune.yaml")
    shutil.copy(ROOT / "recipes" / "eval" / "geneval.yaml", folder / "eval.yaml")
    flow = {"backbone": "janus_flow", "backbone_cfg": {"model_path": "/models/JanusFlow", "seed": 42}}
    geneval = {
        "metadata_path": "/code/evaluation_metadata.jsonl",
        "out_dir": "/outputs",
        "images_per_prompt": 5,
        "mode": "full",
    }
    umm = {"eval": {"benchmark": "geneval"}, "inference": flow, "geneval": geneval}
    (folder / "umm.yaml").write_text(yaml.safe_dump(umm))


def use_recipes(folder: Path, _out: Path) -> Any:
    """The settings of all recipes."""
    trained = [repr(load_config(folder / f"{name}.yaml")) for name in ("paper", "finetune")]
    requests = [load_request(folder / f"{name}.yaml") for name in ("eval", "umm")]
    for request in requests:
        request.open()
    return [*trained, *map(repr, requests)]


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    drawing(number).save(buffer, format="PNG")
    return buffer.getvalue()


def conversations(folder: Path, *, lines: bool) -> None:
    """LLaVA's rows: a JSON array, or JSON lines."""
    place = folder / "data"
    pictures_with_captions(place)
    rows = []
    for number in range(8):
        (place / f"{number}.txt").unlink()
        talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": f"number {number}"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": talk, "text": f"number {number}"})
    if lines:
        (place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        (place / "rows.json").write_text(json.dumps(rows))


def use_array(folder: Path, out: Path) -> Any:
    """The records of a JSON array, which is given as a file."""
    path = str(folder / "data" / "rows.json")
    state = preparing.prepare(SourceConfig(kind_of(path), path), out / "prepared", PREPARE)
    return dict(state.counts)


def shards(folder: Path) -> None:
    """WebDataset tars."""
    (folder / "data").mkdir()
    for shard in range(2):
        with tarfile.open(folder / "data" / f"shard-{shard}.tar", "w") as tar:
            for number in range(4 * shard, 4 * shard + 4):
                for suffix, data in (("png", _png(number)), ("txt", f"caption {number}".encode())):
                    entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))


def table(folder: Path) -> None:
    """A Parquet file."""
    import datasets

    (folder / "data").mkdir()
    rows = [{"image": {"bytes": _png(n), "path": None}, "text": f"caption {n}"} for n in range(8)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(folder / "data" / "rows.parquet"))


def captions(folder: Path) -> None:
    """A folder with a text next to each picture."""
    pictures_with_captions(folder / "data")


def metadata(folder: Path, *, kind: str) -> None:
    """A folder of pictures with one file of metadata."""
    place = folder / "data"
    pictures_with_captions(place)
    rows = [{"file_name": f"{number}.png", "text": f"caption {number}"} for number in range(8)]
    for number in range(8):
        (place / f"{number}.txt").unlink()
    if kind == "jsonl":
        (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        with (place / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)


FORMATS: dict[str, dict[str, Any]] = {
    "rgb.png": {},
    "grey16.png": {"mode": "I;16"},
    "palette.png": {"mode": "P"},
    "alpha.png": {"mode": "RGBA"},
    "rgb.jpg": {},
    "cmyk.jpg": {"mode": "CMYK"},
    "rgb.webp": {},
    "palette.gif": {"mode": "P"},
    "rgb.bmp": {},
    "rgb.tif": {"compression": "tiff_lzw"},
    "float.tif": {"mode": "F"},
    "rgb.ppm": {},
    "rgb.ico": {},
}


def write_picture(name: str, folder: Path) -> None:
    """One picture of a format and mode."""
    options = dict(FORMATS[name])
    picture = drawing(0, (64, 48))
    mode = options.pop("mode", "RGB")
    picture = picture.convert("L").convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    picture.save(folder / name, **options)


def use_picture(folder: Path, _out: Path) -> Any:
    """The pixels of a picture."""
    (file,) = folder.iterdir()
    picture = load_image(file)
    return [list(picture.size), digest(np.asarray(picture))]


# --- all of them ------------------------------------------------------------------------------------------------------

MODEL_FILES: dict[str, Mutator] = {
    "small-model/config.json": json_file,
    "small-model/processor_config.json": json_file,
    "small-model/preprocessor_config.json": json_file,
    "small-model/tokenizer_config.json": json_file,
    "small-model/tokenizer.json": json_file,
    "small-model/special_tokens_map.json": json_file,
    "small-model/model.safetensors": safetensors_file,
}
SOME_FILES = ("small-model/config.json", "small-model/model.safetensors")
STEP = f"small-run/checkpoints/step-{STEPS:07d}"
SUBJECTS: dict[str, Subject] = {
    "official": Subject(partial(golden, "janusflow-small-a"), use_model, MODEL_FILES),
    "convert": Subject(
        partial(golden, "janusflow-small-a"), use_converted, {name: MODEL_FILES[name] for name in SOME_FILES}
    ),
    "ours": Subject(
        ours,
        use_model,
        {
            "small-model/config.json": json_file,
            "small-model/generation_config.json": json_file,
            "small-model/processor_config.json": json_file,
            "small-model/model.safetensors.index.json": index_file,
            "small-model/model-00002-of-00002.safetensors": safetensors_file,
            "small-model/vae/config.json": json_file,
            "small-model/vae/diffusion_pytorch_model.safetensors": safetensors_file,
        },
    ),
    "janus": Subject(partial(golden, "janus-small-a"), use_model, {name: MODEL_FILES[name] for name in SOME_FILES}),
    "transformers": Subject(
        transformers_janus,
        use_model,
        {"small-model/config.json": json_file, "small-model/processor_config.json": json_file},
    ),
    "paddle": Subject(
        partial(golden, "janusflow-small-a-paddle"),
        use_model,
        {"small-model/model_state.pdparams": paddle_file, "small-model/image_preprocessor_config.json": json_file},
    ),
    "bin": Subject(pickled, use_model, {"small-model/pytorch_model.bin": torch_file}),
    "adapter": Subject(
        adapted,
        use_model,
        {"small-adapter/adapter_config.json": json_file, "small-adapter/adapter_model.safetensors": safetensors_file},
    ),
    "training": Subject(
        begun_run,
        resumed_run,
        {
            "small-run/settings.json": json_file,
            "small-run/log.jsonl": json_line,
            f"{STEP}/progress.json": json_file,
            f"{STEP}/streams-0.json": json_file,
            f"{STEP}/checksums.json": json_file,
            f"{STEP}/.metadata": metadata_file,
            f"{STEP}/__0_0.distcp": protected,
        },
    ),
    "preparation": Subject(
        begun_preparation, continued_preparation, {"small-out/state.json": json_file, "raw/3.png": picture_file}
    ),
    "reflow": Subject(begun_reflow, continued_reflow, {"prompts.jsonl": json_line, "small-out/reflow.json": json_file}),
    "judge": Subject(judge_files, use_judge, {"reply.json": json_file, "small-out/spent.json": json_file}, named=False),
    "evaluation": Subject(
        finished_evaluation,
        continued_evaluation,
        {
            "small-run/run.json": json_file,
            "small-run/outputs-00000.jsonl": json_line,
            "small-run/verdicts-*.jsonl": json_line,
            "small-run/report.json": json_file,
        },
    ),
    "recipes": Subject(
        write_recipe,
        use_recipes,
        {f"{name}.yaml": yaml_file for name in ("paper", "finetune", "eval", "umm")},
        named=False,
    ),
    "array": Subject(partial(conversations, lines=False), use_array, {"data/rows.json": json_file}, lossy=True),
    "lines": Subject(partial(conversations, lines=True), read_records, {"data/rows.jsonl": json_line}, lossy=True),
    "webdataset": Subject(shards, read_records, {"data/shard-1.tar": tar_file}, lossy=True),
    "parquet": Subject(table, read_records, {"data/rows.parquet": any_bytes}, lossy=True),
    "captions": Subject(captions, read_records, {"data/3.txt": text_file, "data/3.png": picture_file}, lossy=True),
    "metadata": Subject(partial(metadata, kind="jsonl"), read_records, {"data/metadata.jsonl": json_line}, lossy=True),
    "csv": Subject(partial(metadata, kind="csv"), read_records, {"data/metadata.csv": text_file}, lossy=True),
    **{f"picture-{name}": Subject(partial(write_picture, name), use_picture, {name: picture_file}) for name in FORMATS},
}
