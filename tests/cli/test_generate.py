"""`janusflow generate`: the pictures it writes, with a picture to start from, and the options of each family."""

from __future__ import annotations

import os
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from janusflow import JanusFlow, __version__
from janusflow.cli import app
from tests.cli.conftest import Run, runner, sentence
from tests.conftest import GOLDEN


def test_pictures_carry_how_they_were_made(run, tmp_path: Path) -> None:
    result = run("generate", "a red circle", "three stars", "-n", 2, "--steps", 2, "--seed", 7, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    files = sorted(tmp_path.glob("*.png"))
    names = [
        "001-a-red-circle-7.png",
        "001-sheet.png",
        "002-a-red-circle-8.png",
        "003-three-stars-7.png",
        "004-three-stars-8.png",
    ]
    assert [file.name for file in files] == names
    assert result.stdout.split() == [str(tmp_path / name) for name in (names[0], *names[2:], names[1])]
    with Image.open(tmp_path / "004-three-stars-8.png") as picture:
        assert picture.size == (64, 64)
        assert picture.text["prompt"] == "three stars"
        assert picture.text["seed"] == "8"
        assert picture.text["num_inference_steps"] == "2"
        assert picture.text["guidance_scale"] == "2.0"
        assert picture.text["Software"] == f"janusflow {__version__}"
    assert not list(tmp_path.glob("*.tmp"))


def test_nothing_is_overwritten_and_one_picture_needs_no_sheet(run, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("generate", "a star", "--steps", 1, "--seed", 0, "--out", tmp_path).exit_code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["001-a-star-0.png", "002-a-star-0.png"]
    first, second = (Image.open(file) for file in sorted(tmp_path.iterdir()))
    assert np.array_equal(np.asarray(first), np.asarray(second))


def test_a_picture_is_the_one_that_python_paints(run, small_model: JanusFlow, tmp_path: Path) -> None:
    run("generate", "a star", "--steps", 2, "--seed", 3, "--guidance", 3, "--solver", "ab2", "--out", tmp_path)
    (expected,) = small_model.generate("a star", num_inference_steps=2, seed=3, guidance_scale=3.0, solver="ab2")
    assert np.array_equal(np.asarray(Image.open(next(tmp_path.glob("*.png")))), np.asarray(expected))


def test_painting_over_a_picture_with_a_mask(run, picture: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (64, 64), 255).save(mask)
    out = tmp_path / "out"
    assert run("generate", "a", "--image", picture, "--strength", 0.5, "--steps", 2, "--out", out).exit_code == 0
    assert run("generate", "a", "--image", picture, "--mask", mask, "--steps", 2, "--out", out).exit_code == 0
    assert len(list(out.iterdir())) == 2


def test_kept_pixels_are_pasted_back_unless_that_is_not_wanted(run, tmp_path: Path) -> None:
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    half = np.zeros((64, 64), dtype=np.uint8)
    half[:, 32:] = 1
    scene.save(tmp_path / "scene.png")
    Image.fromarray(half).save(tmp_path / "mask.png")
    same = []
    for number, more in enumerate(([], ["--no-paste-original"])):
        out = tmp_path / str(number)
        given = ["--image", tmp_path / "scene.png", "--mask", tmp_path / "mask.png", "--steps", 1, "--seed", 0]
        assert run("generate", "a star", "--out", out, *given, *more).exit_code == 0
        (file,) = out.glob("*.png")
        same.append(np.array_equal(np.asarray(Image.open(file))[:, :32], np.asarray(scene)[:, :32]))
    assert same == [True, False]


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/proc", os.R_OK), reason="needs /proc")
def test_an_output_folder_that_cannot_be_written(run, tmp_path: Path) -> None:
    for out in (Path("/proc/pictures"), tmp_path / "file" / "pictures"):
        (tmp_path / "file").touch()
        assert "cannot be written" in sentence(run("generate", "a", "--steps", 1, "--out", out))


def test_janus_draws_answers_and_is_described(run, tmp_path: Path) -> None:
    folder = GOLDEN / "janus-small-a"
    options = ["--model", str(folder), "--device", "cpu"]
    words = ["generate", "a red circle", "--seed", "3", "--temperature", "0.9", "--out", str(tmp_path), *options]
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "001-a-red-circle-3.png") as picture:
        assert picture.text["temperature"] == "0.9" and picture.text["guidance_scale"] == "5.0"
    result = runner.invoke(
        app, ["ask", str(tmp_path / "001-a-red-circle-3.png"), "what?", *options, "--max-new-tokens", "3"]
    )
    assert result.exit_code == 0, result.output
    result = runner.invoke(app, ["info", str(folder)])
    assert result.exit_code == 0 and "Janus, chat template deepseek" in result.stdout and "VQ codec" in result.stdout


def test_several_rounds_are_options_and_are_reported(run, tmp_path: Path) -> None:
    words = ["generate", "a star", "--steps", 1, "--seed", 3, "--out", tmp_path]
    assert run(*words, "--best-of", 2).exit_code == 0
    with Image.open(tmp_path / "001-a-star-3.png") as picture:
        assert picture.text["best_of"] == "2" and picture.text["seeds"] == "[3, 1000006]"
    result = runner.invoke(app, ["info", str(tmp_path / "001-a-star-3.png")])
    assert "best_of              2" in result.stdout and "\nscores " in result.stdout and "\nkept " in result.stdout
    again = run("generate", "--from", tmp_path / "001-a-star-3.png", "--out", tmp_path)
    assert again.exit_code == 0, again.output
    first, second = (np.asarray(Image.open(tmp_path / f"00{number}-a-star-3.png")) for number in (1, 2))
    assert np.array_equal(first, second)
    assert run(*words, "--redraw", 1, "--plan").exit_code == 0
    with Image.open(tmp_path / "003-a-star-3.png") as picture:
        assert picture.text["redraw"] == "1" and picture.text["redraws"] in "01" and "plan" in picture.text
    other = ("--best-of", 2, "--no-plan", "--out", tmp_path / "other")
    assert run("generate", "--from", tmp_path / "003-a-star-3.png", *other).exit_code == 0
    with Image.open(tmp_path / "other" / "001-a-star-3.png") as picture:
        assert picture.text["best_of"] == "2" and not picture.text.keys() & {"redraw", "plan"}
    assert "best_of and redraw were given" in sentence(run(*words, "--redraw", 1, "--best-of", 2))


def test_janus_edits_a_picture_and_a_descendant_is_named(picture: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "janus-small-a", tmp_path / "Janus-4o-7B"))
    options = ["--model", str(folder), "--device", "cpu", "--out", str(tmp_path / "out"), "--seed", "3"]
    words = ["generate", "make it red", "--image", str(picture), *options]
    assert runner.invoke(app, [*words, "--image-guidance", "2"]).exit_code == 0
    with Image.open(tmp_path / "out" / "001-make-it-red-3.png") as edited:
        assert edited.text["image_guidance_scale"] == "2.0"
    assert "--strength: not for a Janus model" in sentence(runner.invoke(app, [*words, "--strength", "0.5"]))
    result = runner.invoke(app, ["info", str(folder)])
    assert "Janus-4o, which edits pictures" in result.stdout


def test_options_of_the_other_family_are_refused(run, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "new"), "--device", "cpu"]
    janus = ["--model", str(GOLDEN / "janus-small-a")]
    refused = runner.invoke(app, ["generate", "a star", "--solver", "heun", "--steps", "3", *janus, *options])
    assert "--steps, --solver: not for a Janus model" in sentence(refused)
    refused = run("generate", "a star", "--image-guidance", 3, *options[:2])
    assert "--image-guidance: not for a JanusFlow model" in sentence(refused)
    assert "--top-k: not for a JanusFlow model" in sentence(run("generate", "a star", "--top-k", 3, *options[:2]))
    assert not (tmp_path / "new").exists()


def test_a_name_that_another_process_took_meanwhile_is_not_overwritten(
    generated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = JanusFlow.generate

    def slow(self: JanusFlow, *args: Any, **settings: Any) -> Any:
        pictures = generate(self, *args, **settings)
        for name in ("001-a-star-3.png", "001-sheet.png"):
            (tmp_path / name).write_bytes(b"of another process")
        return pictures

    slow.__signature__ = signature(generate)  # type: ignore[attr-defined]
    monkeypatch.setattr(JanusFlow, "generate", slow)
    result = generated("a star", "-n", 2, "--seed", 3, "--steps", 1, "--out", tmp_path)
    names = [Path(line).name for line in result.stdout.splitlines()]
    assert names == ["001-a-star-3-2.png", "002-a-star-4.png", "001-sheet-2.png"], result.output
    assert (tmp_path / "001-a-star-3.png").read_bytes() == b"of another process"


def test_pictures_are_saved_though_nobody_reads_their_names(
    generated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    generated("a", "b", "c", "--steps", 1, "--batch-size", 1, "--out", tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 4  # and the sheet
