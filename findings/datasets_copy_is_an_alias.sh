#!/usr/bin/env bash
# datasets: `copy.copy` of a streaming data set is not a copy: both objects have the same attributes from then on.
#
# Versions: datasets 5.2.0 (2026-11-29).
# Input: an IterableDataset of six rows from a generator; a copy of it; `load_state_dict` and `set_epoch` on the copy.
# Expected: the original does not change. `copy.copy` of a map-style Dataset behaves like that.
# Seen: the original resumes at the copy's position, in every epoch. Assigning any attribute of one sets it on the other.
# Why: `__getstate__` returns `self.__dict__` itself and `__setstate__` keeps the dictionary that it gets, and copy.copy
#   passes one to the other. Pickling and copy.deepcopy are not affected.
# What it means: keeping an untouched data set and iterating over copies, to read later epochs from the first row after
#   a resume, does not work: rows before the restored position are never seen again.
# What to do: take `dataset.shard(1, 0)` as a new data set, or copy.deepcopy.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/cache"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet datasets==5.2.0 2>/dev/null
cat > alias.py <<'PY'
from copy import copy, deepcopy

from datasets import Dataset, IterableDataset


def rows():
    yield from ({"row": number} for number in range(6))


def read(dataset):
    return [row["row"] for row in dataset]


def saved():
    dataset = IterableDataset.from_generator(rows)
    iterator = iter(dataset)
    for _ in range(4):
        next(iterator)
    return dataset.state_dict()


found = {}
for name, copied in (("copy.copy", copy), ("copy.deepcopy", deepcopy), ("shard(1, 0)", lambda one: one.shard(1, 0))):
    original = IterableDataset.from_generator(rows)
    other = copied(original)
    other.load_state_dict(saved())
    found[name] = read(original)
    print(f"{name}: the original has the rows {found[name]}, twice: {read(original) == found[name]}")
original = IterableDataset.from_generator(rows)
shared = copy(original).__dict__ is original.__dict__
table = Dataset.from_dict({"row": [0]})
print("one dictionary of attributes: IterableDataset", shared, "Dataset", copy(table).__dict__ is table.__dict__)
whole = list(range(6))
same = found == {"copy.copy": [4, 5], "copy.deepcopy": whole, "shard(1, 0)": whole}
raise SystemExit(not (same and shared and copy(table).__dict__ is not table.__dict__))
PY
env/bin/python alias.py
