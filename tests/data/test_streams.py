"""Streams whose files break off: what is lost is told, what follows is read, and continuing is exact."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from janusflow import JanusFlow
from janusflow.data.loader import Data
from janusflow.data.mixture import Mixture, Ratio
from janusflow.data.samples import SampleConfig, SampleMaker
from janusflow.data.sources import FileConfig, FileSource, file_config
from janusflow.data.streams import EmptyStreamError, LostRowsError, StreamSource
from tests.data.sources.kinds import COUNT, png, webdataset

SAMPLE = 3 * 1024  # bytes of a sample in a tar: three members, each with its head


def tars(folder: Path, cut: int) -> FileConfig:
    """Two good tars with `COUNT` records together, and between them one of nine that is cut after some bytes."""
    config = webdataset(folder)
    (folder / "shard-1.tar").rename(folder / "shard-2.tar")
    with tarfile.open(folder / "shard-1.tar", "w") as tar:
        for number in range(9):
            for suffix, data in {"png": png(number), "txt": f"within {number}".encode(), "json": b"{}"}.items():
                entry = tarfile.TarInfo(f"{number:04d}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    whole = (folder / "shard-1.tar").read_bytes()
    (folder / "shard-1.tar").write_bytes(whole[:cut])
    return file_config("webdataset", config.path, streaming=True)


def texts(source: StreamSource, count: int) -> list[str]:
    """Texts of the next records, or why there is none."""
    found = []
    for _ in range(count):
        try:
            found.append(source.next().text)
        except ValueError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize(("cut", "within"), [(700, 0), (7 * SAMPLE + 700, 7)], ids=["at once", "midway"])
def test_a_tar_that_is_cut_off_costs_its_rest_and_is_named(tmp_path: Path, cut: int, within: int) -> None:
    config = tars(tmp_path, cut)
    epoch = COUNT + within + 1
    found = texts(StreamSource(config, 0, 1), 2 * epoch)
    (fault,) = {said for said in found if "shard-1.tar cannot be read further" in said}
    good, inner = ([f"{word} {number}" for number in range(COUNT + within)] for word in ("caption", "within"))
    assert found == 2 * [*good[:3], *inner[:within], fault, *good[3:COUNT]]
    for stop in range(epoch + 2):
        first = StreamSource(config, 0, 1)
        before = texts(first, stop)
        state = json.loads(json.dumps(first.state()))
        again = StreamSource(config, 0, 1)
        again.restore(state)
        assert again.state() == state
        assert before + texts(again, len(found) - stop) == found, stop


def five_rows() -> Iterator[dict[str, str]]:
    yield from ({"text": f"row {number}"} for number in range(5))


@dataclass(frozen=True)
class OnTheHub:
    """A data set without a list of files, as a hub's data set is opened."""

    path: str = "someone/rows"

    def parts(self) -> list[Path]:
        return []

    def rows(self, files: Sequence[Path] | None = None) -> tuple[Any, Path]:
        from datasets import IterableDataset

        return IterableDataset.from_generator(five_rows), Path()


def test_a_data_set_of_one_shard_is_read_from_its_first_row_in_later_epochs_of_a_resumed_run() -> None:
    whole = texts(StreamSource(OnTheHub(), 0, 1), 15)
    assert whole == 3 * [f"row {number}" for number in range(5)]
    for stops in ((3, 3), (2, 5), (6, 1)):
        found, source = [], StreamSource(OnTheHub(), 0, 1)
        for stop in stops:  # resumed twice
            found += texts(source, stop)
            state = json.loads(json.dumps(source.state()))
            source = StreamSource(OnTheHub(), 0, 1)
            source.restore(state)
        assert found + texts(source, 15 - sum(stops)) == whole, stops


def test_processes_that_share_rows_continue_exactly(tmp_path: Path) -> None:
    config = file_config("webdataset", webdataset(tmp_path).path, streaming=True)
    seen = []
    for rank in range(3):
        whole = texts(StreamSource(config, rank, 3), 5)
        for stop in range(5):
            first = StreamSource(config, rank, 3)
            before = texts(first, stop)
            again = StreamSource(config, rank, 3)
            again.restore(json.loads(json.dumps(first.state())))
            assert before + texts(again, 5 - stop) == whole
        seen += whole[:2]
    assert sorted(seen) == [f"caption {number}" for number in range(COUNT)]


def test_a_corrupt_parquet_file_costs_itself(tmp_path: Path) -> None:
    import datasets

    for name in ("a", "b", "c"):
        datasets.Dataset.from_list([{"text": name}]).to_parquet(str(tmp_path / f"{name}.parquet"))
    good = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(good[: len(good) // 2])
    found = texts(StreamSource(file_config("parquet", str(tmp_path), streaming=True), 0, 1), 4)
    assert [found[0], found[2], found[3]] == ["a", "c", "a"]
    assert "b.parquet cannot be read further" in found[1]


def test_a_corrupt_row_group_costs_the_rest_of_its_file_and_always_the_same(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for name in ("a", "b", "c"):
        table = pyarrow.table({"text": [f"{name}{number} {'x' * 99}" for number in range(12)]})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=3, use_dictionary=False)
    bad = bytearray((tmp_path / "b.parquet").read_bytes())
    start = parquet.ParquetFile(tmp_path / "b.parquet").metadata.row_group(2).column(0).data_page_offset
    bad[start : start + 40] = b"\xff" * 40
    (tmp_path / "b.parquet").write_bytes(bytes(bad))
    config = file_config("parquet", str(tmp_path), streaming=True)
    found = [said.split(" ")[0] for said in texts(StreamSource(config, 0, 1), 40)]
    good = [[f"{name}{number}" for number in range(12)] for name in ("a", "b", "c")]
    assert found == [*good[0], *good[1][:6], str(tmp_path / "b.parquet"), *good[2], *good[0][:9]]
    for stop in (11, 12, 16, 18, 19, 20):
        first = StreamSource(config, 0, 1)
        before = texts(first, stop)
        again = StreamSource(config, 0, 1)
        again.restore(json.loads(json.dumps(first.state())))
        assert [said.split(" ")[0] for said in before + texts(again, 40 - stop)] == found, stop


def test_a_stream_of_nothing_says_so_at_once_and_every_time(tmp_path: Path, small_model: JanusFlow) -> None:
    tars(tmp_path, 700)
    for name in ("shard-0.tar", "shard-2.tar"):
        (tmp_path / name).unlink()
    config = file_config("webdataset", str(tmp_path), streaming=True)
    source = StreamSource(config, 0, 1)
    with pytest.raises(ValueError, match="shard-1.tar cannot be read further"):
        source.next()
    for _ in range(2):
        with pytest.raises(EmptyStreamError, match="contains no records for this process. .*shard-1.tar"):
            source.next()
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig())
    mixture = Mixture([Ratio(0, 1, 0)], {"generation": [1.0]}, batch_size=2, seed=0)
    found = Data({"generation": [config]}, mixture, maker, seed=0)[0]
    assert found.failed.startswith(f"{tmp_path} contains no records for this process")
    with pytest.raises(ValueError, match="cannot be read as webdataset"):
        FileSource(file_config("webdataset", str(tmp_path)))


def test_a_file_that_breaks_off_counts_for_what_was_lost_with_it(tmp_path: Path, small_model: JanusFlow) -> None:
    config = tars(tmp_path, 700)
    (tmp_path / "shard-1.tar").rename(tmp_path / "shard-9.tar")  # after the good ones, which have three records each
    source = StreamSource(config, 0, 1)
    for _ in range(COUNT):
        source.next()
    again = StreamSource(config, 0, 1)
    again.restore(json.loads(json.dumps(source.state())))
    assert again.read == source.read == (1, COUNT // 2)
    source = again
    with pytest.raises(LostRowsError, match="shard-9.tar") as lost:
        source.next()
    assert lost.value.rows == COUNT // 2
    maker = SampleMaker(small_model.processor, small_model.network.config, SampleConfig())
    mixture = Mixture([Ratio(0, 1, 0)], {"generation": [1.0]}, batch_size=COUNT + 1, seed=0)
    found = Data({"generation": [config]}, mixture, maker, seed=0)[0]
    assert (len(found.samples), len(found.broken), found.lost) == (COUNT + 1, 1, COUNT // 2 - 1)
