"""`janusflow ask` and `janusflow chat`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from janusflow import JanusFlow
from tests.cli.conftest import sentence


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


def test_a_seed_without_a_temperature_is_named(run, small_model: JanusFlow) -> None:
    result = run("ask", "hi", "--seed", 3, "--max-new-tokens", 2)
    assert result.exit_code == 0 and "--seed 3 is ignored without --temperature" in result.stderr


def test_a_question_may_be_longer_than_any_files_name(run, picture: Path) -> None:
    assert run("ask", picture, "is it red? " * 40, "--max-new-tokens", 1).exit_code == 0


def test_a_missing_picture_alone_is_no_question(run, tmp_path: Path) -> None:
    assert "is not a file, and no question follows it" in sentence(run("ask", tmp_path / "missing.png"))
    assert "has no effect without --temperature" in sentence(run("ask", "what is it?", "--top-p", 0.5))
