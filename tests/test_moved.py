"""Old names of documented modules."""

from __future__ import annotations

import importlib
import sys

import pytest

from janusflow.moved import PLACES

NEEDS = ("janusflow.evaluation.lmms",)  # packages that are not installed


@pytest.mark.filterwarnings("default:.*has moved")  # a parent may have moved too
@pytest.mark.parametrize("old", [old for old in PLACES if old not in NEEDS])
def test_an_old_name_gives_the_module_at_its_new_place_with_a_warning(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(FutureWarning, match=f"{old} has moved to {PLACES[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(PLACES[old])
    assert module.__spec__ is not None and module.__spec__.name == PLACES[old] == module.__name__
