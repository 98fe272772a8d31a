"""The build: a data set that training reads, the same each time, continued after a stop."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from janusflow.data.sources import FileSource, kind_of, tasks_of
from janusflow.data.sources.parquet import ParquetConfig
from janusflow.pictograms import build as building
from janusflow.pictograms.build import DEFAULT_STYLES, BuildConfig, build
from janusflow.pictograms.cli import app
from janusflow.pictograms.download import Downloads
from janusflow.pictograms.held_out import HeldOut, Pair, read_held_out
from janusflow.pictograms.render import BACKGROUNDS
from janusflow.pictograms.shards import HELD_OUT, read_table

CONFIG = BuildConfig(shard_size=60, workers=1)


@pytest.fixture(scope="module")
def made(downloads: Downloads, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A data set of all small packages, and its report."""
    out = tmp_path_factory.mktemp("pictograms") / "data"
    return out, build(out, CONFIG, downloads)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(out.glob("shard-*.parquet")) for row in read_table(file).to_pylist()]


def test_training_reads_it_for_generation_and_understanding(made: tuple[Path, dict[str, Any]]) -> None:
    out, report = made
    assert kind_of(str(out)) == "parquet" and tasks_of("parquet", str(out)) == ("understanding", "generation")
    source = FileSource(ParquetConfig(path=str(out)))
    assert source.length == report["rows"]["train"] == len(rows_of(out))
    record = source.record(0)
    assert len(record.images) == 1 and record.text and record.turns[0][0].startswith("<image_placeholder>\n")


def test_pictures_of_which_there_are_many_have_one_row(made: tuple[Path, dict[str, Any]]) -> None:
    rows = rows_of(made[0])
    counts = Counter(row["id"] for row in rows)
    for many in (True, False):
        found = {counts[row["id"]] for row in rows if bool(row["tones"] or row["style"] == "phosphor") is many}
        assert found == ({1} if many else {CONFIG.variants})


def test_nothing_that_is_held_out_is_trained_on(made: tuple[Path, dict[str, Any]]) -> None:
    out, report = made
    train, other = {row["id"] for row in rows_of(out)}, read_table(out / HELD_OUT).to_pylist()
    assert other and not train & {row["id"] for row in other}
    assert all(row["held_out"] and row["background"] == "white" for row in other)
    held = {(pair.subject, pair.value) for pair in read_held_out().pairs["style"]}
    assert not {(row["subject"], row["family"]) for row in rows_of(out)} & held
    assert report["pictures"] == {"train": len(train), "held_out": len(other)}
    assert set(report["held out"]) >= {"style", "tint"}
    assert json.loads((out / "held_out.json").read_text())["seed"] == 0


def test_a_drawing_that_is_held_out_under_another_name_is_not_trained_on(
    downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = "1f98a"  # the fox; the drawing of the apple becomes the same
    real = building.collect

    def collected(*given: Any) -> Any:
        collection = real(*given)
        art = {one.subject.id: one.art for one in collection.drawings["noto"]}
        collection.drawings["noto"] = [
            replace(one, art=art[held]) if one.subject.id == "1f34e" else one for one in collection.drawings["noto"]
        ]
        return collection

    monkeypatch.setattr(building, "collect", collected)
    nothing = {kind: [] for kind in ("tone", "color", "gender", "tint")}
    fox = HeldOut(0, {**nothing, "style": [Pair(held, "noto", "fox")]})
    monkeypatch.setattr(building, "read_held_out", lambda: fox)
    report = build(tmp_path, BuildConfig(styles=("noto",), workers=1), downloads)
    assert report["held out under another name"] == ["noto/1f34e"] and report["not rendered"] == {}
    assert "noto/1f34e" not in {row["id"] for row in rows_of(tmp_path)}
    assert "noto/1f34e" in (tmp_path / "report.md").read_text()


def test_a_picture_has_rows_with_different_texts_the_first_on_white(made: tuple[Path, dict[str, Any]]) -> None:
    rows = [row for row in rows_of(made[0]) if row["id"] == "noto/1f34e"]
    assert [row["variant"] for row in sorted(rows, key=lambda row: row["variant"])] == [0, 1, 2]
    first = next(row for row in rows if not row["variant"])
    assert first["background"] == "white" and first["text"] in first["captions"]
    assert (first["color"], first["style"], first["label"]) == ("red", "noto", "red apple")
    for row in rows_of(made[0]):
        with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
            assert picture.size == (64, 64)
        assert (row["background"] == "white") == ("background" not in row["text"])
        assert row["background"] in BACKGROUNDS


def test_lists_of_prompts_are_apart(made: tuple[Path, dict[str, Any]]) -> None:
    lists = [
        [json.loads(line) for line in (made[0] / f"prompts_{name}.jsonl").read_text().splitlines()]
        for name in ("seen", "tuning", "unseen")
    ]
    ids = [{row["id"] for row in rows} for rows in lists]
    assert all(ids) and not ids[0] & ids[1] and not (ids[0] | ids[1]) & ids[2]
    assert ids[2] == {row["id"] for row in read_table(made[0] / HELD_OUT).to_pylist()}
    assert all({"prompt", "label", "synonyms", "keywords", "style", "tones"} <= set(row) for row in lists[0])


def test_the_report_names_licences_and_what_is_left_out(made: tuple[Path, dict[str, Any]]) -> None:
    out, report = made
    text = (out / "report.md").read_text()
    for name in ("Apache-2.0", "Microsoft Corporation", "a brand's logo", "a country's flag"):
        assert name in text
    assert report["not rendered"] == {} and report["shards"] == len(list(out.glob("*.parquet"))) > 1
    assert (out / "licences" / "NOTICE.md").is_file() and (out / "licences" / "fluent.txt").is_file()
    with Image.open(out / "sheet.png") as sheet:
        assert min(sheet.size) > 200


def test_another_build_is_the_same_to_the_byte_with_any_number_of_processes(
    made: tuple[Path, dict[str, Any]], downloads: Downloads, tmp_path: Path
) -> None:
    other = BuildConfig(shard_size=60, workers=2)
    build(tmp_path / "again", other, downloads)
    for file in [*made[0].glob("*.parquet"), made[0] / HELD_OUT, *made[0].glob("*.jsonl")]:
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_build_that_was_stopped_continues(
    made: tuple[Path, dict[str, Any]], downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], building.write_shard

    def stop(file: Path, shard: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(file.name)
        real(file, shard)

    monkeypatch.setattr(building, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "data", CONFIG, downloads)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "data").glob("*.parquet")}
    assert sorted(before) == sorted(written)
    monkeypatch.setattr(building, "write_shard", real)
    report = build(tmp_path / "data", CONFIG, downloads)
    assert {name: (tmp_path / "data" / name).stat().st_mtime_ns for name in before} == before
    for file in made[0].glob("*.parquet"):
        assert (tmp_path / "data" / file.name).read_bytes() == file.read_bytes()
    assert report == made[1]


def test_other_settings_are_refused(made: tuple[Path, dict[str, Any]], downloads: Downloads, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"was made with seed=0; use the same settings or another --out"):
        build(made[0], BuildConfig(shard_size=60, workers=1, seed=1), downloads)
    (tmp_path / "mine.parquet").touch()
    with pytest.raises(ValueError, match=r"has Parquet files but no build\.json"):
        build(tmp_path, CONFIG, downloads)


def test_a_drawing_that_cannot_be_rendered_is_reported(
    downloads: Downloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from janusflow.pictograms import shards

    real = shards.render

    def broken(art: str | bytes, size: int, *, tint: str = "") -> Any:
        if tint:
            raise ValueError("it cannot be rendered (too odd)")
        return real(art, size, tint=tint)

    monkeypatch.setattr(shards, "render", broken)
    config = BuildConfig(styles=("phosphor", "high-contrast"), tints=1, workers=1)
    report = build(tmp_path, config, downloads)
    assert (
        report["not rendered"]["phosphor/ph-acorn/" + next(iter(_acorn(report)))] == "it cannot be rendered (too odd)"
    )
    assert "phosphor" not in report["pictures by style"]["train"]


def _acorn(report: dict[str, Any]) -> list[str]:
    return [name.removeprefix("phosphor/ph-acorn/") for name in report["not rendered"] if "ph-acorn/" in name]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": 32}, "size is 32; expected 64 and 128"),
        ({"styles": ("flatt",)}, "style is 'flatt'; did you mean flat"),
        ({"styles": ()}, "no style is given"),
        ({"limit": 0}, "limit"),
        ({"variants": 0}, "variants"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        BuildConfig(**settings)


def test_clip_art_is_only_read_if_it_is_asked_for() -> None:
    assert "openclipart" not in DEFAULT_STYLES


def test_the_command_builds_a_part(registry: Path, tmp_path: Path) -> None:
    words = ["build", "--out", str(tmp_path / "data"), "--cache", str(tmp_path / "cache"), "--style", "flat"]
    result = CliRunner().invoke(app, [*words, "--limit", "12", "--size", "128", "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "pictures in" in result.stdout and "report.md" in result.stdout
    rows = rows_of(tmp_path / "data")
    assert {row["style"] for row in rows} == {"flat"} and len({row["id"] for row in rows}) <= 12
    with Image.open(io.BytesIO(rows[0]["image"]["bytes"])) as picture:
        assert picture.size == (128, 128)


def test_the_command_reports_a_missing_registry_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", (tmp_path / "nowhere").as_uri())
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(Downloads.__init__, "__defaults__", (1, lambda seconds: None))
    result = CliRunner().invoke(app, ["build", "--out", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and len(result.stderr.splitlines()) < 4
    assert "cannot be downloaded" in result.stderr
