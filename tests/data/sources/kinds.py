"""Six records as a source of every kind."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from PIL import Image

from janusflow.data.sources import FileConfig, file_config

COUNT = 6


def png(number: int) -> bytes:
    """A picture whose single color encodes its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 16), (10 * number, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def webdataset(folder: Path) -> FileConfig:
    for shard in range(2):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for number in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                parts = {"png": png(number), "txt": f"caption {number}".encode(), "json": b'{"origin": "made"}'}
                for suffix, data in parts.items():
                    entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return file_config("webdataset", str(folder))


def parquet(folder: Path) -> FileConfig:
    import datasets

    rows = [{"image": {"bytes": png(n), "path": None}, "text": f"caption {n}"} for n in range(COUNT)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(folder / "rows.parquet"))
    return file_config("parquet", str(folder / "rows.parquet"))


def jsonl(folder: Path) -> FileConfig:
    lines = []
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"image": f"{number}.png", "text": f"caption {number}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return file_config("jsonl", str(folder / "rows.jsonl"))


def sidecars(folder: Path) -> FileConfig:
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        (folder / f"{number}.txt").write_text(f"caption {number}\n")
    return file_config("folder", str(folder))


def metadata(folder: Path) -> FileConfig:
    lines = []
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"caption {number}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return file_config("folder", str(folder))


def hub(folder: Path) -> FileConfig:
    """Two files in a folder, which `datasets` opens as it opens a repository of the hub."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for part in (0, 1):
        numbers = range(part * COUNT // 2, (part + 1) * COUNT // 2)
        rows = [{"image": {"bytes": png(n), "path": None}, "text": f"caption {n}"} for n in numbers]
        table = datasets.Dataset.from_list(rows, features=features)
        table.to_parquet(str(folder / f"train-{part:05d}-of-00002.parquet"))
    return file_config("hub", str(folder))


KINDS = [webdataset, parquet, jsonl, sidecars, metadata, hub]
