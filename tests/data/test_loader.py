"""The samples of a step: shared among processes, broken records replaced, streams continued."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janusflow import JanusFlow
from janusflow.data.loader import NO_PICTURE, Data, StepSamples, size_in_words, steps
from janusflow.data.mixture import Mixture, Ratio
from janusflow.data.records import UNANSWERED, Record
from janusflow.data.samples import SampleConfig, SampleMaker
from janusflow.data.sources import file_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve captioned pictures, of which two are broken."""
    for number in range(12):
        pixels = np.full((20, 20, 3), number * 20, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02d}.png")
        (tmp_path / f"{number:02d}.txt").write_text(f"caption {number}")
    for number in (3, 7):
        file = tmp_path / f"{number:02d}.png"
        file.write_bytes(file.read_bytes()[:40])
    return tmp_path


def data(model: JanusFlow, folder: Path, *, rank: int = 0, ranks: int = 1, streaming: bool = False) -> Data:
    sources = {"generation": [file_config("folder", str(folder), streaming=streaming)]}
    mixture = Mixture([Ratio(0, 1, 0)], {"generation": [1.0]}, batch_size=6, seed=0)
    maker = SampleMaker(model.processor, model.network.config, SampleConfig(prompt_dropout=0.0))
    return Data(sources, mixture, maker, seed=0, rank=rank, ranks=ranks)


def ids(found: StepSamples) -> list[list[int]]:
    return [sample.tokens.ids for sample in found.samples]


def test_broken_records_are_replaced_counted_and_named(small_model: JanusFlow, folder: Path) -> None:
    found = [data(small_model, folder)[step] for step in range(2)]
    assert [len(one.samples) for one in found] == [6, 6]
    broken = [problem for one in found for problem in one.broken]
    assert len(broken) >= 2
    assert {name for name in ("03.png", "07.png") if any(name in problem for problem in broken)} == {"03.png", "07.png"}


def test_processes_share_a_step_and_their_number_changes_nothing(small_model: JanusFlow, folder: Path) -> None:
    whole = ids(data(small_model, folder)[4])
    parts = [ids(data(small_model, folder, rank=rank, ranks=2)[4]) for rank in (0, 1)]
    assert parts[0] == whole[0::2]
    assert parts[1] == whole[1::2]


def test_what_is_unusual_about_records_is_noted(small_model: JanusFlow, folder: Path) -> None:
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a star"}]
    rows = [{"image": "00.png", "conversations": [*talk, talk[0]]}, {"image": "", "conversations": talk}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = {"understanding": [file_config("jsonl", str(folder / "rows.jsonl"))]}
    mixture = Mixture([Ratio(1, 0, 0)], {"understanding": [1.0]}, batch_size=2, seed=0)
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig())
    found = Data(sources, mixture, maker, seed=0)[0]
    assert not found.broken and len(found.samples) == 2
    file = folder / "rows.jsonl"
    assert sorted(found.notes) == [(f"{file}:1", UNANSWERED), (f"{file}:2", NO_PICTURE)]


def test_each_source_has_its_own_crop(small_model: JanusFlow, folder: Path) -> None:
    (folder / "wide").mkdir()
    Image.new("RGB", (80, 40), "red").save(folder / "wide" / "0.png")
    (folder / "wide" / "0.txt").write_text("a chart")
    sources = [file_config("folder", str(folder / "wide"), crop=crop) for crop in ("pad", None)]
    mixture = Mixture([Ratio(0, 1, 0)], {"generation": [1.0, 1.0]}, batch_size=2, seed=0)
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig())
    found = Data({"generation": sources}, mixture, maker, seed=0)[0]
    assert sorted(sample.drawn.cropped for sample in found.samples if sample.drawn) == [0.0, 0.5]


class SlowData(Data):
    """Whose second step takes a minute."""

    def __getitem__(self, step: int) -> StepSamples:
        time.sleep(60 * (step > 0))
        return super().__getitem__(step)


def test_workers_end_when_the_steps_are_closed_whatever_they_do(small_model: JanusFlow, folder: Path) -> None:
    slow = data(small_model, folder)
    slow.__class__ = SlowData
    before = set(multiprocessing.active_children())
    feed = steps(slow, 0, 6, workers=1)
    assert len(next(feed).samples) == 6
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 1
    feed.close()
    for worker in workers:
        worker.join(5)
        assert not worker.is_alive()


def test_workers_give_the_steps_in_order(small_model: JanusFlow, folder: Path) -> None:
    plain = [ids(found) for found in steps(data(small_model, folder), 2, 6, workers=0)]
    ahead = [ids(found) for found in steps(data(small_model, folder), 2, 6, workers=2)]
    assert plain == ahead


def test_a_stream_continues_where_a_step_left_it(small_model: JanusFlow, folder: Path) -> None:
    whole = [ids(found) for found in steps(data(small_model, folder, streaming=True), 0, 6, workers=1)]
    first = list(steps(data(small_model, folder, streaming=True), 0, 3, workers=1))
    again = data(small_model, folder, streaming=True)
    again.restore(json.loads(json.dumps(first[-1].streams)))
    assert [ids(found) for found in first] + [ids(found) for found in steps(again, 3, 6, workers=1)] == whole


def test_nothing_but_broken_records_ends_the_run(small_model: JanusFlow, folder: Path) -> None:
    for file in folder.glob("*.png"):
        file.write_bytes(b"broken")
    found = data(small_model, folder)[0]
    assert found.failed.startswith("all 12 records of a source are broken (generation); the last")
    assert not found.samples


def test_a_replacement_is_never_the_broken_record_itself(small_model: JanusFlow, folder: Path) -> None:
    for number in range(2, 12):
        (folder / f"{number:02d}.txt").unlink()
        (folder / f"{number:02d}.png").unlink()
    (folder / "01.png").write_bytes(b"broken")
    found = data(small_model, folder)
    for step in range(20):
        assert not found[step].failed and len(found[step].broken) <= 6


def test_a_broken_record_of_an_endless_source_is_replaced_by_another(small_model: JanusFlow, folder: Path) -> None:
    class Endless:
        length = None

        def record(self, index: int) -> Record:
            return Record(f"record {index}", (Image.new("RGB", (8, 8)),), text="x" if index >= 1000 else "")

    found = data(small_model, folder)
    found.sources["generation"] = [Endless()]
    assert not found[0].failed and len(found[0].samples) == len(found[0].broken) == 6
    assert ids(found[0]) == ids(found[0])


def test_what_of_a_source_is_not_read_is_reported(small_model: JanusFlow, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / split / "a.png")
        Image.new("RGB", (20, 20)).save(tmp_path / split / "b.png")
        (tmp_path / split / "metadata.csv").write_text("file_name,text\na.png,a star\nb.png,\n")
    config = file_config("folder", str(tmp_path), fitting=True)
    told = size_in_words(config.open("generation", 0, 0, 1), "generation")
    assert told.startswith("1 record, 1 without a caption skipped; read split 'train'; 'test' (2 records) is left out")
