"""`janusflow info` and `janusflow convert`, and checkpoints that cannot be opened."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from janusflow.cli import app
from tests.cli.conftest import runner, sentence


def test_info_tells_what_a_checkpoint_is(small_folder: Path) -> None:
    result = runner.invoke(app, ["info", str(small_folder)])
    assert result.exit_code == 0, result.output
    for words in (
        "official",
        "64 px, latent 4x8x8",
        "16 of a picture to read, 16 to generate",
        "not in the folder; by default stabilityai/sdxl-vae",
    ):
        assert words in result.stdout
    stored = sum(
        int(n.replace(",", "")) for n in re.findall(r"(?:encoder|model|head|decoder) +([\d,]+)", result.stdout)
    )
    total = int(re.search(r"parameters +([\d,]+)", result.stdout)[1].replace(",", ""))
    assert stored == total > 400_000
    assert f"as float32 on cpu: {4 * total / 1e6:,.1f} MB of weights" in runner.invoke(
        app, ["info", "--model", str(small_folder), "--dtype", "float32", "--device", "cpu"]
    ).stdout.replace("\n", "")
    assert "device is 'tpu'" in sentence(runner.invoke(app, ["info", "--device", "tpu"]))


def test_a_damaged_checkpoint_and_an_unknown_model(run, small_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "cut"))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    assert "is damaged" in sentence(run("ask", "hi", model=folder))
    assert "expected 'tiny', a folder, or a hub id" in sentence(run("ask", "hi", model=Path("nowhere")))
    assert "is damaged" in sentence(runner.invoke(app, ["info", str(folder)]))


def test_the_official_export_says_that_it_needs_a_vae(small_folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    convert = ["convert", str(small_folder), "--to", "official"]
    bare = runner.invoke(app, [*convert, str(tmp_path / "bare")])
    assert bare.exit_code == 0 and "note: The official layout contains no VAE" in bare.stderr, bare.output
    whole = runner.invoke(app, [*convert, str(tmp_path / "whole"), "--vae", str(vae_folder)])
    assert whole.exit_code == 0 and "in the folder `vae`" in whole.stderr, whole.output
    ours = runner.invoke(app, ["convert", str(small_folder), str(tmp_path / "ours")])
    assert ours.exit_code == 0 and ours.stderr == ""
