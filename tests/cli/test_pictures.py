"""`janusflow generate --from`: a picture again, from the settings that it contains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from janusflow import JanusFlow, settings_of
from janusflow.checkpoint import find_folder
from janusflow.cli import app
from janusflow.presets import PRESETS
from tests.cli.conftest import Run, error_line, pixels
from tests.conftest import GOLDEN


def test_a_picture_is_generated_again_to_the_bit(generated: Run, tmp_path: Path) -> None:
    several = ["a star", "two cats", "-n", 2, "--batch-size", 1]
    result = generated(*several, "--steps", 3, "--guidance", 3, "--solver", "ab2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    file = Path(result.stdout.split()[2])
    again = generated("--from", file, "--out", tmp_path / "again")
    assert again.exit_code == 0 and "warning" not in again.stderr, again.output
    made = Path(again.stdout.strip())
    assert settings_of(made) == settings_of(file) and np.array_equal(pixels(made), pixels(file))
    other = generated("--from", file, "--steps", 1, "--out", tmp_path / "other")
    assert settings_of(Path(other.stdout.strip())) == {**settings_of(file), "num_inference_steps": 1}
    prompted = generated("a dog", "--from", file, "--out", tmp_path / "other")
    assert settings_of(Path(prompted.stdout.strip())) == {**settings_of(file), "prompts": "a dog"}


def test_a_picture_of_a_janus_is_generated_again(generated: Run, tmp_path: Path) -> None:
    folder = GOLDEN / "janus-small-a"
    result = generated("a star", "--temperature", 0.7, "--model", folder, "--out", tmp_path)
    file = Path(result.stdout.strip())
    again = generated("--from", file, "--out", tmp_path / "again")
    assert again.exit_code == 0 and np.array_equal(pixels(Path(again.stdout.strip())), pixels(file)), again.output


def test_what_it_began_with_must_be_given_again(generated: Run, picture: Path, tmp_path: Path) -> None:
    result = generated("a star", "--image", picture, "--steps", 2, "--out", tmp_path / "out")
    file = Path(result.stdout.strip())
    said = error_line(generated("--from", file, "--out", tmp_path / "again"))
    assert "was generated from an image that it does not contain" in said and "--image" in said
    again = generated("--from", file, "--image", picture, "--out", tmp_path / "again")
    assert np.array_equal(pixels(Path(again.stdout.strip())), pixels(file)) and "warning" not in again.stderr
    other = generated("--from", file, "--image", file, "--out", tmp_path / "again")
    assert other.exit_code == 0 and "is not the one that" in other.stderr


def test_other_weights_and_another_dtype_are_warned_of(generated: Run, tmp_path: Path) -> None:
    file = Path(generated("a star", "--steps", 1, "--out", tmp_path / "a").stdout.strip())
    other = generated("--from", file, "--model", "tiny", "--vae", find_folder("tiny"), "--out", tmp_path / "b")
    assert other.exit_code == 0 and "the weights are not those" in other.stderr, other.output
    half = generated("--from", file, "--dtype", "bfloat16", "--out", tmp_path / "b")
    assert half.exit_code == 0 and "dtype float32 (now bfloat16)" in half.stderr, half.output


def test_a_preset_of_the_command_line(generated: Run, tmp_path: Path) -> None:
    made = generated("a star", "--seed", 4, "--preset", "fast", "--steps", 2, "--out", tmp_path / "a")
    assert made.exit_code == 0, made.output
    fast = settings_of(Path(made.stdout.strip()))
    assert fast["solver"] == PRESETS["fast"].solver and fast["num_inference_steps"] == 2
    again = generated("--from", made.stdout.strip(), "--out", tmp_path / "b")
    assert again.exit_code == 0, again.output
    assert np.array_equal(pixels(Path(made.stdout.strip())), pixels(Path(again.stdout.strip())))
    other = generated("--from", made.stdout.strip(), "--preset", "balanced", "--out", tmp_path / "b")
    assert other.exit_code == 0, other.output
    assert settings_of(Path(other.stdout.strip()))["num_inference_steps"] == PRESETS["balanced"].num_inference_steps
    half = generated(
        "a star", "--guidance-interval", 0, 0.5, "--steps", 2, "--solver", "unipc", "--out", tmp_path / "c"
    )
    assert half.exit_code == 0, half.output
    assert settings_of(Path(half.stdout.strip()))["guidance_interval"] == (0.0, 0.5)
    assert "preset is 'quick'; choose from" in error_line(
        generated("a star", "--preset", "quick", "--out", tmp_path / "d")
    )
    assert "has no preview_decoder" in error_line(generated("a star", "--decoder", "small", "--out", tmp_path / "d"))


def test_info_shows_how_a_picture_was_made(generated: Run, picture: Path, tmp_path: Path) -> None:
    file = Path(generated("a star", "--steps", 1, "--seed", 4, "--out", tmp_path / "out").stdout.strip())
    shown = CliRunner().invoke(app, ["info", str(file)])
    assert shown.exit_code == 0, shown.output
    told = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert told["prompt"] == "a star" and told["seed"] == "4" and told["num_inference_steps"] == "1"
    assert "does not say how it was made" in error_line(CliRunner().invoke(app, ["info", str(picture)]))


def test_a_foreign_picture_and_too_much_at_once_are_refused(generated: Run, picture: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "new"]
    assert "does not say how it was made" in error_line(generated("--from", picture, *out))
    (tmp_path / "p.txt").write_text("a star\n")
    for words in ([], ["a star", "--prompts", tmp_path / "p.txt"]):
        assert "give prompts, or --prompts FILE, or --from PICTURE" in error_line(generated(*words, *out))
    assert not (tmp_path / "new").exists()


def test_a_picture_that_a_callback_changed_is_not_generated_again(
    generated: Run, small_model: JanusFlow, tmp_path: Path
) -> None:
    (picture,) = small_model.generate(
        "a star", num_inference_steps=2, callback_on_step_end=lambda *_: {"guidance_scale": 1.0}
    )
    picture.save(tmp_path / "cb.png")
    said = error_line(generated("--from", tmp_path / "cb.png", "--out", tmp_path / "new"))
    assert "cb.png' was changed by a callback during generation, so its settings do not recreate it" in said
