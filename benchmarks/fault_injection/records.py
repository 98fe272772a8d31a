"""Records in every form, recipes and pictures, and how they are read."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fault_injection.checkpoints import ROOT, digest, drawing
from janusflow.data import prepare as preparing
from janusflow.data.sources import file_config, kind_of
from janusflow.evaluation.run.recipes import load_request
from janusflow.interop.torchumm_config import read_umm
from janusflow.processing.images import load_image
from janusflow.training.config import load_config

PREPARE = preparing.PrepareConfig(min_side=8, max_aspect=4, shard_size=3)


def pictures_with_captions(folder: Path, count: int = 8) -> None:
    """A folder of pictures, each with a text next to it."""
    folder.mkdir(parents=True)
    for number in range(count):
        drawing(number).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"Picture {number}. It has one colour.")


def read_records(folder: Path, out: Path) -> Any:
    """The records of a data set as a preparation keeps them, indexed and streamed."""
    (place,) = (file for file in folder.iterdir())
    path = str(place)
    counts = []
    for streaming in (False, True):
        source = file_config(kind_of(path), path, streaming=streaming)
        state = preparing.prepare(source, out / f"prepared-{streaming}", PREPARE)
        counts.append(dict(state.counts))
    return counts


def write_recipe(folder: Path) -> None:
    """A training recipe of each kind, one of an evaluation, and a file of TorchUMM's."""
    shutil.copy(ROOT / "recipes" / "paper" / "stage2.yaml", folder / "paper.yaml")
    shutil.copy(ROOT / "recipes" / "tiny" / "finetune_both.yaml", folder / "finetune.yaml")
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
    requests = [load_request(folder / f"{name}.yaml", foreign=read_umm) for name in ("eval", "umm")]
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
    state = preparing.prepare(file_config(kind_of(path), path), out / "prepared", PREPARE)
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


def use_picture(name: str, folder: Path, _out: Path) -> Any:
    """The pixels of a picture."""
    picture = load_image(folder / name)
    return [list(picture.size), digest(np.asarray(picture))]
