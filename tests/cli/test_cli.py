"""The command line: what it writes, what it refuses, and that it is quick to answer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from janusflow import JanusFlow, __version__
from janusflow.cli import app
from tests.conftest import GOLDEN

runner = CliRunner()


@pytest.fixture
def run(small_folder: Path, vae_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command on the small checkpoint."""

    def call(command: str, *arguments: object, stdin: str | None = None, model: Path = small_folder) -> Result:
        extra = ["--model", str(model)] + (["--vae", str(vae_folder)] if command in ("generate", "chat") else [])
        words = [str(argument) for argument in arguments]
        return runner.invoke(app, [command, *words, *extra, "--device", "cpu"], input=stdin)

    return call


def sentence(result: Result) -> str:
    """The one sentence of a refused command."""
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    return lines[0]


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


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        (["generate", "a star"], "--num-inference-steps", "--steps"),
        (["generate", "a star"], "--cfg-scale", "--guidance"),
        (["ask", "hi"], "--max-tokens", "--max-new-tokens"),
        (["data", "reflow", "prompts.txt"], "--num-images-per-prompt", "--num-images"),
    ],
)
def test_unknown_options_name_what_was_meant(command: list[str], option: str, meant: str) -> None:
    result = runner.invoke(app, [*command, option, "3"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert re.search(rf"(possible options|did you mean).*{meant}\b", result.output, re.IGNORECASE), result.output


def test_ask_prints_the_answer_whole_or_streamed(run, small_model: JanusFlow, picture: Path) -> None:
    expected = small_model.ask("what is it?", picture, max_new_tokens=6).strip()
    whole = run("ask", picture, "what is it?", "--max-new-tokens", 6)
    streamed = run("ask", picture, "what is it?", "--max-new-tokens", 6, "--stream")
    assert whole.stdout.strip() == streamed.stdout.strip() == expected
    assert run("ask", "hello", "--max-new-tokens", 2).exit_code == 0
    greedy = run("ask", picture, "what is it?", "--max-new-tokens", 6, "--temperature", 0)
    assert greedy.stdout == whole.stdout
    assert (
        run("ask", picture, picture, "which?", "--temperature", 0.9, "--seed", 1, "--max-new-tokens", 2).exit_code == 0
    )


def test_chat_shows_draws_answers_forgets_and_survives_errors(run, picture: Path, tmp_path: Path) -> None:
    lines = [
        f"/image {picture}",
        "what is it?",
        "/image missing.png",
        "/sing",
        "/generate a star",
        "and this?",
        "/reset",
        "hello",
        "/quit",
    ]
    result = run("chat", "--max-new-tokens", 3, "--out", tmp_path / "drawn", stdin="\n".join(lines))
    assert result.exit_code == 0, result.output
    assert "picture 1 will be sent with your next message" in result.stdout
    with Image.open(tmp_path / "drawn" / "chat-001.png") as drawn:
        assert drawn.info["prompt"] == "a star" and int(drawn.info["seed"]) >= 0
    assert "(the conversation starts over)" in result.stdout
    assert "missing.png' does not exist" in result.stderr
    assert "/sing is unknown" in result.stderr


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


def test_version_and_help_show_examples() -> None:
    assert runner.invoke(app, ["--version"]).stdout.strip() == __version__
    for module in ("janusflow", "janusflow.cli"):
        said = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == __version__
    for command in ("generate", "ask", "chat", "info", "demo"):
        result = runner.invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert "janusflow " + command in result.stdout
        assert "Example" in result.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("generate", [""], "prompt is ''"),
        ("generate", ["star " * 3000], "a prompt has"),
        ("generate", ["a", "--steps", "0"], "num_inference_steps is 0"),
        ("generate", ["a", "--guidance", "0.2"], "guidance_scale is 0.2"),
        ("generate", ["a", "--guidance", "nan"], "guidance_scale is nan"),
        ("generate", ["a", "--height", "50"], "height is 50; expected a positive multiple of 16"),
        ("generate", ["a", "--num-images", "0"], "--num-images is 0"),
        ("generate", ["a", "--seed", "-4"], "seed is -4"),
        ("generate", ["a", "--strength", "0.5"], "need an image"),
        ("generate", ["a", "--solver", "magic"], "solver is 'magic'"),
        ("generate", ["a", "--image", "missing.png"], "does not exist"),
        ("generate", ["a", "--dtype", "int4"], "dtype is 'int4'"),
        ("ask", ["missing.png", "what?"], "does not exist"),
        ("ask", [""], "question is ''"),
        ("ask", ["a", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        ("ask", [__file__], "is a file; the question comes last"),
        ("ask", ["a", "--temperature", "-1"], "temperature is -1"),
        ("ask", ["a", "--sft-format", "old"], "known templates are deepseek_old, deepseek"),
        ("ask", ["a", "--seed", "99999999999999999999"], "seed is 99999999999999999999"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    run, command: str, arguments: list[str], words: str, tmp_path: Path
) -> None:
    out = ["--out", tmp_path / "out" / "deep"] if command == "generate" else []
    assert words in sentence(run(command, *arguments, *out))
    assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_and_an_unknown_model(run, small_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "cut"))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    assert "is damaged" in sentence(run("ask", "hi", model=folder))
    assert "expected 'tiny', a folder, or a hub id" in sentence(run("ask", "hi", model=Path("nowhere")))
    assert "is damaged" in sentence(runner.invoke(app, ["info", str(folder)]))


@pytest.mark.skipif(os.geteuid() != 0 and not os.access("/proc", os.R_OK), reason="needs /proc")
def test_an_output_folder_that_cannot_be_written(run, tmp_path: Path) -> None:
    for out in (Path("/proc/pictures"), tmp_path / "file" / "pictures"):
        (tmp_path / "file").touch()
        assert "cannot be written" in sentence(run("generate", "a", "--steps", 1, "--out", out))


def test_an_unknown_device_is_refused() -> None:
    result = runner.invoke(app, ["ask", "hi", "--device", "abacus"])
    assert "device is 'abacus'; expected auto, cpu" in sentence(result)


def test_debug_shows_the_traceback(run) -> None:
    result = run("ask", "", "--debug")
    assert isinstance(result.exception, ValueError)


def pages(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every help page below a command of click's: its words, and the command."""
    yield name, command
    for word, one in getattr(command, "commands", {}).items():
        yield from pages(one, f"{name} {word}")


@pytest.mark.parametrize(("name", "command"), list(pages(typer.main.get_command(app), "janusflow")))
def test_help_pages_show_their_examples_and_wrap_once(name: str, command: Any) -> None:
    words = [*name.split()[1:], "--help"]
    wide = runner.invoke(app, words, env={"COLUMNS": "400", "TERM": "dumb"})
    assert wide.exit_code == 0
    shown = [" ".join(line.split()) for line in wide.stdout.splitlines()]
    text = f"{command.help or ''}\n{command.epilog or ''}"
    for line in (" ".join(line.split()) for line in text.splitlines()):
        if line.startswith(("janusflow ", "torchrun ")):
            assert line.replace("\\[", "[") in shown, line
    assert not re.search(r"\S\n\S", command.help or "")  # narrower terminals would break these lines again


def test_a_seed_without_a_temperature_is_named(run, small_model: JanusFlow) -> None:
    result = run("ask", "hi", "--seed", 3, "--max-new-tokens", 2)
    assert result.exit_code == 0 and "--seed 3 is ignored without --temperature" in result.stderr


def test_errors_that_need_no_model_import_no_torch(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(picture)
    commands = [
        ["generate"],
        ["generate", "--prompts", "none.txt"],
        ["generate", "--from", "x.jpg"],
        ["generate", "--from", str(picture)],
        ["generate", "a star", "--image", "none.png"],
        ["ask", "none.png", "what?"],
        ["info", str(picture)],
        ["info", "none.png"],
    ]
    code = f"""
from typer.testing import CliRunner
from janusflow.cli import app
for words in {commands!r}:
    assert CliRunner().invoke(app, words).exit_code == 2, words
"""
    assert not loaded_modules(code) & {"torch", "transformers", "diffusers"}


def test_janusflow_is_imported_without_the_autoencoders_of_diffusers() -> None:
    loaded = loaded_modules("import janusflow; janusflow.JanusFlow; import janusflow.vae")
    assert not [name for name in loaded if name.startswith("diffusers.models.autoencoders")]


def loaded_modules(code: str) -> set[str]:
    """What a fresh interpreter has imported after running the code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_and_asking_for_help_load_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "diffusers", "numpy", "scipy", "PIL"}
    assert not loaded_modules("import janusflow") & heavy
    assert not loaded_modules("import janusflow.cli") & heavy
    assert "torchvision" not in loaded_modules("import janusflow; janusflow.JanusFlow")


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


def test_options_of_the_other_family_are_refused(run, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path / "new"), "--device", "cpu"]
    janus = ["--model", str(GOLDEN / "janus-small-a")]
    refused = runner.invoke(app, ["generate", "a star", "--solver", "heun", "--steps", "3", *janus, *options])
    assert "--steps, --solver: not for a Janus model" in sentence(refused)
    assert "--top-k: not for a JanusFlow model" in sentence(run("generate", "a star", "--top-k", 3, *options[:2]))
    assert not (tmp_path / "new").exists()


def test_the_official_export_says_that_it_needs_a_vae(small_folder: Path, vae_folder: Path, tmp_path: Path) -> None:
    convert = ["convert", str(small_folder), "--to", "official"]
    bare = runner.invoke(app, [*convert, str(tmp_path / "bare")])
    assert bare.exit_code == 0 and "note: The official layout contains no VAE" in bare.stderr, bare.output
    whole = runner.invoke(app, [*convert, str(tmp_path / "whole"), "--vae", str(vae_folder)])
    assert whole.exit_code == 0 and "in the folder `vae`" in whole.stderr, whole.output
    ours = runner.invoke(app, ["convert", str(small_folder), str(tmp_path / "ours")])
    assert ours.exit_code == 0 and ours.stderr == ""


def test_a_question_may_be_longer_than_any_files_name(run, picture: Path) -> None:
    assert run("ask", picture, "is it red? " * 40, "--max-new-tokens", 1).exit_code == 0


def test_a_missing_picture_alone_is_no_question(run, tmp_path: Path) -> None:
    assert "is not a file, and no question follows it" in sentence(run("ask", tmp_path / "missing.png"))
    assert "has no effect without --temperature" in sentence(run("ask", "what is it?", "--top-p", 0.5))


def test_a_refused_demonstration_leaves_no_folder(run, tmp_path: Path) -> None:
    assert "seed" in sentence(run("demo", "--seed", -1, "--out", tmp_path / "new" / "demo", model=Path("tiny")))
    assert not (tmp_path / "new").exists()
