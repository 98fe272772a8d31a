"""Presets: named settings that can be replaced one by one."""

from __future__ import annotations

import pytest

from janusflow.engine.generation import Sampling
from janusflow.presets import KNOBS, PRESETS, Preset, preset_of


def test_given_settings_take_the_place_of_the_presets_and_none_does_not() -> None:
    fast = preset_of("fast", solver="heun", num_inference_steps=None)
    assert fast.solver == "heun"
    assert fast.num_inference_steps == PRESETS["fast"].num_inference_steps != PRESETS["exact"].num_inference_steps


def test_exact_is_the_default_of_the_sampler() -> None:
    assert preset_of(None) == preset_of("exact") == Preset()
    assert Sampling(**preset_of(None).sampling()) == Sampling()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_allowed(name: str) -> None:
    Sampling(**preset_of(name).sampling())
    assert set(KNOBS) == {*preset_of(name).sampling(), "decoder"}


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("quick", {}, "preset is 'quick'; choose from exact, balanced, fast"),
        ("fats", {}, "preset is 'fats'; did you mean fast?"),
        (["fast"], {}, r"preset is \['fast'\]; choose from"),
        ("fast", {"decoder": "large"}, "decoder is 'large'; choose from vae, small"),
    ],
)
def test_unknown_names_are_refused_in_one_sentence(name: str, given: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        preset_of(name, **given)
    assert "\n" not in str(caught.value)
