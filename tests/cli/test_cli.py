"""The command line as a whole: help, versions, errors of one sentence, and that it is quick to answer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from janusflow import __version__
from janusflow.cli import app
from tests.cli.conftest import runner, sentence


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
        ("generate", ["a", "--batch-size", "0"], "--batch-size is 0"),
        (
            "eval",
            ["tinyworld", "--out", "run", "--ray", "2", "--workers", "2"],
            "--workers and --ray exclude each other",
        ),
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


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["ablate", "recipe.yaml", "--workers", "4"], "--workers, --ray-address, --worker-cpus and --worker-gpus need"),
        (["eval", "tinyworld", "--ray", "2", "--workers", "2"], "--workers and --ray exclude each other"),
        (
            ["data", "prepare", "pictures", "--endpoint-model", "far"],
            "--endpoint-model has no effect without --endpoint",
        ),
        (["data", "prepare", "pictures", "--question", "What?"], "--question has no effect without --caption or --end"),
        (["data", "prepare", "pictures", "--min-score", "0"], "--min-score has no effect without --scorer"),
        (["data", "reflow", "prompts.txt", "--min-score", "0.9"], "--min-score has no effect without --judge"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words: list[str], reason: str) -> None:
    assert reason in sentence(runner.invoke(app, [*words, "--out", "run"]))


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


def loaded_modules(code: str) -> set[str]:
    """What a fresh interpreter has imported after running the code."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_and_asking_for_help_load_nothing_heavy() -> None:
    loaded = loaded_modules("import janusflow.cli")  # and with it the package
    assert "janusflow" in loaded and not loaded & {"torch", "transformers", "diffusers", "numpy", "scipy", "PIL"}


def test_janusflow_is_imported_without_torchvision_and_the_autoencoders_of_diffusers() -> None:
    loaded = loaded_modules("import janusflow; janusflow.JanusFlow; import janusflow.vae")
    assert "torch" in loaded and "torchvision" not in loaded
    assert not [name for name in loaded if name.startswith("diffusers.models.autoencoders")]


def test_a_refused_demonstration_leaves_no_folder(run, tmp_path: Path) -> None:
    assert "seed" in sentence(run("demo", "--seed", -1, "--out", tmp_path / "new" / "demo", model=Path("tiny")))
    assert not (tmp_path / "new").exists()
