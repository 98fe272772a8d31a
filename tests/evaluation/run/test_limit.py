"""Which items a limit takes."""

from __future__ import annotations

from typing import Any

import pytest

from janusflow.evaluation.protocol import Item
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import checked_run
from janusflow.evaluation.run.limit import limited
from tests.evaluation.benchmarks.test_mmbench import mmbench_folder, rows_of
from tests.evaluation.benchmarks.test_uni_mmmu import uni_mmmu_folder
from tests.evaluation.counting import Counting, CountingSettings

SIZES = {"a": 40, "b": 40, "c": 4}
ITEMS = [Item(f"{part}/{n:03d}", "?", group=f"{part}{n // 2}") for part, size in SIZES.items() for n in range(size)]


def keys(limit: int | None, **changes: Any) -> list[str]:
    kind = type("Mine", (Counting,), changes)
    return [item.key for item in limited(kind(None, CountingSettings()), ITEMS, limit)]


@pytest.mark.parametrize("limit", [3, 9, 20])
def test_parts_take_turns(limit: int) -> None:
    counts = [sum(key.startswith(part) for key in keys(limit)) for part in "abc"]
    assert sum(counts) == limit and max(counts[:2]) - min(counts[:2]) <= 1 and counts[2] == min(limit // 3, 4)


def test_a_larger_number_gives_the_same_items_and_more() -> None:
    for limit in range(1, len(ITEMS)):
        few, more = keys(limit), keys(limit + 1)
        assert set(few) < set(more) and few == sorted(few) == keys(limit)
    assert keys(None) == keys(10**6) == [item.key for item in ITEMS]


def test_they_are_not_the_first_ones() -> None:
    assert max(int(key.split("/")[1]) for key in keys(9)) > 10


def test_groups_stay_together_where_scores_need_them() -> None:
    chosen = keys(12, whole_groups=True)
    assert len(chosen) == 12 and all(f"{key[:-1]}{int(key[-1]) ^ 1}" in chosen for key in chosen), (
        "both questions of a group"
    )


def test_damaged_pictures_of_other_items_do_not_matter(tmp_path: Any) -> None:
    """MMBench holds its pictures in the file itself."""
    rows = rows_of(tmp_path)
    request = EvalRequest("mmbench", tmp_path / "run", data=mmbench_folder(tmp_path, rows), limit=1)
    (chosen,) = checked_run(request).items
    held_by = {row["image"] for row in rows if row["index"] == chosen.key}  # another row's index, or the picture
    for row in rows:
        row["image"] = row["image"] if row["index"] in (chosen.key, *held_by) else "no picture" * 9
    mmbench_folder(tmp_path, rows)
    assert [item.key for item in checked_run(request).items] == [chosen.key]
    for row in rows:
        row["image"] = "bm8gcGljdHVyZQ==" * 9
    mmbench_folder(tmp_path, rows)
    with pytest.raises(ValueError, match=f"item {chosen.key}: .*; expected MMBench_DEV_EN.tsv"):
        checked_run(request)


def test_reference_files_of_other_items_do_not_matter(tmp_path: Any) -> None:
    data = uni_mmmu_folder(tmp_path / "data")
    request = EvalRequest("uni_mmmu", tmp_path / "run", data=data, limit=1, mode="generate")
    (chosen,) = checked_run(request).items
    for file in data.rglob("*.png"):
        if file.name != chosen.data["png"]:
            file.unlink()
    assert checked_run(request).items == [chosen]
    (data / "svg" / chosen.data["png"]).unlink()
    with pytest.raises(ValueError, match="png does not exist"):
        checked_run(request)
