"""A preparation that was stopped continues to the same shards, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from janusflow.cli import app, training
from janusflow.data import prepare as module
from janusflow.data.prepare import prepare
from janusflow.data.sources import file_config
from tests.data.conftest import settings


@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_that_was_stopped_anywhere_continues_to_the_same(
    folder: Path, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = file_config("folder", str(folder), streaming=streaming)
    prepare(source, tmp_path / "whole", settings())
    for function in ("write_shard", "save_state"):
        for stop in (1, 2, 3):
            out, calls, original = tmp_path / f"{function}-{stop}", 0, getattr(module, function)

            def stopped(*args: object, stop: int = stop, original: object = original) -> None:
                nonlocal calls
                calls += 1
                if calls == stop:
                    raise KeyboardInterrupt
                original(*args)  # type: ignore[operator]

            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(module, function, stopped)
                prepare(source, out, settings())
            prepare(source, out, settings())
            for file in (tmp_path / "whole").iterdir():
                if file.name != "state.json":
                    assert (out / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (b"[" * 100_000, "state.json is damaged: it is nested too deeply"),
        (b'{"next": ', "state.json is damaged: "),
        (b"\xff", "state.json is damaged: it is not UTF-8"),
        ({"shards": -3}, "state.json is damaged: shards: .* greater than or equal to 0"),
        ({"words": {}}, "state.json is damaged: words: "),
        ({"next": 2**31}, "state.json is damaged: next is 2147483648, but counts has"),
        ({"counts": {"kept": -1}}, "state.json: counts is damaged: kept: "),
        ({"hashes": [1]}, "state.json is damaged: hashes"),
        ({"hashes": ["0g:"]}, "state.json is damaged: hashes"),
        ({"config": None}, "state.json is damaged: config: "),
        ({"dropped": 10**9}, "dropped.jsonl is shorter than"),
        ({"stream": {"epoch": 0}}, "state.json: stream is damaged: part: Field required"),
    ],
)
def test_a_damaged_state_is_refused_in_one_sentence(
    folder: Path, tmp_path: Path, changes: bytes | dict[str, object], words: str
) -> None:
    source, file = file_config("folder", str(folder)), tmp_path / "state.json"
    prepare(source, tmp_path, settings())
    before = sorted(tmp_path.iterdir())
    content = json.dumps({**json.loads(file.read_text()), **changes}) if isinstance(changes, dict) else ""
    file.write_bytes(content.encode() if isinstance(changes, dict) else changes)
    with pytest.raises(ValueError, match=words) as error:
        prepare(source, tmp_path, settings())
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    assert sorted(tmp_path.iterdir()) == before


def test_a_run_is_not_continued_with_another_captioner_or_scorer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_captioner", lambda *_: lambda pictures: ["a caption"] * len(pictures))
    arguments = ["data", "prepare", str(folder), "--out", str(tmp_path / "out"), "--min-side", "32"]
    own = {"--endpoint": "http://x", "--endpoint-model": "m", "--question": "What?", "--scorer": "math:sqrt"}
    monkeypatch.setattr(training, "load_function", lambda *_: lambda image: 1.0)

    def run(options: dict[str, str]) -> object:
        return CliRunner().invoke(app, [*arguments, *(word for pair in options.items() for word in pair)])

    assert run(own).exit_code == 0  # type: ignore[attr-defined]
    assert run(own).exit_code == 0  # type: ignore[attr-defined]
    for name in [*own, "--caption"]:
        refused = run({**own, name: "http://other"})
        assert refused.exit_code == 2, name  # type: ignore[attr-defined]
        assert f"was made with {name}=" in " ".join(refused.output.split())  # type: ignore[attr-defined]
    prepare(file_config("folder", str(folder)), tmp_path / "plain", settings())
    with pytest.raises(ValueError, match="was made with captioner=False;"):
        prepare(
            file_config("folder", str(folder)),
            tmp_path / "plain",
            settings(),
            captioner=lambda pictures: ["a caption"] * len(pictures),
        )


def test_the_state_does_not_grow_with_the_records(folder: Path, tmp_path: Path) -> None:
    source = file_config("folder", str(folder))
    for size in (1, 20):
        prepare(source, tmp_path / str(size), settings(shard_size=size))
    sizes = [(tmp_path / str(size) / "state.json").stat().st_size for size in (1, 20)]
    assert abs(sizes[0] - sizes[1]) < 8
    assert len((tmp_path / "1" / "digests.log").read_text().splitlines()) == 20


def test_a_run_of_an_earlier_version_continues(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had the digests in its state."""
    source, out, calls = file_config("folder", str(folder)), tmp_path / "out", 0

    def stopped(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        module.write_shard_(*args)  # type: ignore[attr-defined]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "write_shard_", module.write_shard, raising=False)
        patch.setattr(module, "write_shard", stopped)
        prepare(source, out, settings())
    state, log = json.loads((out / "state.json").read_text()), out / "digests.log"
    state["hashes"] = sorted(log.read_text().splitlines()[:12])
    del state["digests"]
    (out / "state.json").write_text(json.dumps(state))
    log.unlink()
    prepare(source, out, settings())
    prepare(source, tmp_path / "whole", settings())
    assert (out / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()
    assert sorted(log.read_text().split()) == sorted((tmp_path / "whole" / "digests.log").read_text().split())


def test_damaged_digests_are_refused(folder: Path, tmp_path: Path) -> None:
    prepare(file_config("folder", str(folder)), tmp_path, settings())
    log = tmp_path / "digests.log"
    log.write_text(f"?{log.read_text()[1:]}")
    with pytest.raises(ValueError, match=r"digests.log is damaged: a line is not the digest of a record"):
        prepare(file_config("folder", str(folder)), tmp_path, settings())
    log.write_text("")
    with pytest.raises(ValueError, match=r"digests.log is shorter than the \d+ bytes"):
        prepare(file_config("folder", str(folder)), tmp_path, settings())


def test_a_run_is_not_continued_when_records_or_shards_are_lost(folder: Path, tmp_path: Path) -> None:
    scored: list[int] = []

    def score(image: Image.Image) -> float:
        scored.append(1)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return 1.0

    def run() -> None:
        prepare(file_config("folder", str(folder)), tmp_path / "out", settings(shard_size=2), scorer=score)

    with pytest.raises(KeyboardInterrupt):
        run()
    lost = sorted(folder.rglob("*.png"))[0]
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(ValueError, match=r"was begun with \d+ records, and .* has \d+ now; put them back"):
        run()
    lost.write_bytes(content)
    shard = next((tmp_path / "out").glob("shard-*"))
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(ValueError, match=r"1 shards, but 0 files are there"):
        run()
    shard.write_bytes(content)
    run()


def test_shards_of_something_else_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("shard-000000.tar", "shard-notes.txt"):
        (out / name).write_text("mine")
        with pytest.raises(ValueError, match=f"{name} exists, but no state.json of a run that wrote it; give another"):
            prepare(file_config("folder", str(folder)), out, settings())
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "draft.tmp").write_text("mine")
    prepare(file_config("folder", str(folder)), out, settings())
    (out / "shard-notes.txt").write_text("mine")
    prepare(file_config("folder", str(folder)), out, settings())
    assert (out / "draft.tmp").read_text() == (out / "shard-notes.txt").read_text() == "mine"


def test_a_source_is_not_prepared_into_its_own_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for out in (folder, tmp_path / "link"):
        with pytest.raises(ValueError, match=f"{out} lies inside {folder}, so its files"):
            prepare(file_config("folder", str(folder)), out, settings())
    assert not list(folder.glob("dropped.jsonl"))


def test_a_folder_takes_one_preparation_at_a_time(folder: Path, tmp_path: Path) -> None:
    source, out = file_config("folder", str(folder)), tmp_path / "out"

    def score(image: Image.Image) -> float:
        """Begin another preparation in the same folder, as a second process would."""
        with pytest.raises(ValueError, match=r"another process is writing into .*out; wait for it, or give another"):
            prepare(source, out, settings())
        return 1.0

    assert prepare(source, out, settings(), scorer=score).counts["kept"] == 20
