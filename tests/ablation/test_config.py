"""The recipes of ablations: the ones that come with the package are whole, and wrong ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from janusflow.ablation.config import load_ablation
from janusflow.ablation.runs import runs_of
from janusflow.training.parts.config import load_parts
from tests.ablation.conftest import ABLATION, write

RECIPES = Path(__file__).parents[2] / "recipes" / "ablation"
ABLATIONS = (
    "table6",
    "table6_tinyworld",
    "repa",
    "guidance",
    "guidance_tinyworld",
    "tuning",
    "codes",
    "sizes",
    "claims",
    "no_stage1",
    "repa_sweep",
    "full",
)


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_run_of_the_recipes_has_settings_that_go_together(name: str, tmp_path: Path) -> None:
    runs = runs_of(load_ablation(RECIPES / f"{name}.yaml"), RECIPES, tmp_path, seeds=1)
    assert len({run.settings for run in runs}) == len(runs)  # no two variants are the same


def test_variants_of_table_6_see_equal_shares_of_their_tasks(tmp_path: Path) -> None:
    for name in ("table6", "table6_tinyworld", "full"):
        runs = {
            run.variant: run for run in runs_of(load_ablation(RECIPES / f"{name}.yaml"), RECIPES, tmp_path, seeds=1)
        }
        steps = {variant: sum(config.steps for _, config in run.stages) for variant, run in runs.items()}
        assert len({steps[name] for name in "ABCF"}) == 1
        assert steps["D"] == pytest.approx(0.26 * steps["F"], abs=1)
        if "E" in steps:  # not where only answers are compared
            assert steps["E"] == pytest.approx(0.74 * steps["F"], abs=1)
        assert {len({config.seed for _, config in run.stages}) for run in runs.values()} == {2}


def test_the_parts_of_the_ablations_have_equal_grids() -> None:
    sizes = load_parts(RECIPES / "parts.yaml").sizes(2048)
    assert sizes.image_size == sizes.vision_config.image_size == 32
    assert sizes.num_understanding_tokens == sizes.num_generation_tokens == 16


def test_claims_are_those_of_the_paper_s_text_and_not_the_signs_of_its_figures() -> None:
    found = load_ablation(RECIPES / "table6.yaml")
    assert found.expected("A", "KID") == "worse" and found.expected("B", "style") == "worse"
    assert found.expected("E", "KID") == "equal"  # although its FID is lower
    assert found.expected("B", "KID") is None  # although its FID is higher
    assert load_ablation(RECIPES / "full.yaml").expected("E", "FID") == "equal"
    assert found.expected("D", "KID") is None
    claims = load_ablation(RECIPES / "claims.yaml")
    assert claims.expected("bidirectional", "KID") == "equal"
    assert claims.expected("dropout-0.2", "KID") is None


def test_a_recipe_of_training_is_told_from_an_ablation() -> None:
    with pytest.raises(ValueError, match=r"stage1.yaml is a recipe of `janusflow train`; an ablation has variants"):
        load_ablation(RECIPES / "stage1.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "X"}, "baseline is 'X'; expected one of F, A, D"),
        ({"parts": "parts.yaml"}, "give model or parts, not both"),
        ({"at": [4, 2]}, "at is .*rising numbers"),
        ({"seeds": 0}, "seeds is 0"),
        ({"variants": {**ABLATION["variants"], "B C": {"about": ""}}}, "'B C' becomes a folder"),
        (
            {"variants": {"F": {"about": "", "without": ["third"]}}, "metrics": {}},
            "without has 'third'; .*first, sec",
        ),
        ({"variants": {"F": {"about": "", "expects": {"x": "better"}}}, "metrics": {}}, "expects has 'x'; .*none"),
        ({"metrics": {"a": {"evaluation": "b", "score": "c"}}}, "evaluation has 'b'; expected one of world"),
        ({"stages": [{"name": "a", "recipe": "x"}] * 2}, "a stage is named 'a'; expected names of their own"),
        ({"stages": [{"name": "export", "recipe": "x"}]}, "a stage is named 'export'"),
        (
            {"model": None, "variants": {"F": {"about": "", "without": ["first", "second"]}}, "metrics": {}},
            "variants.F leaves out all stages",
        ),
        (
            {"stages": [{"name": "first", "recipe": "a"}, {"name": "second", "recipe": "a", "set": ["model=tiny"]}]},
            "set of stage second has 'model=tiny', but the ablation itself gives each stage its model",
        ),
        ({"seed": 3}, "seed is not a setting of a recipe; did you mean seeds"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_ablation(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ({"set": ["out=runs/same"]}, "the ablation itself gives each stage its out"),
        ({"set": ["seed=5"]}, "gives each stage its seed"),
        ({"set": ["model.checkpoint=tiny"]}, "gives each stage its model.checkpoint"),
        ({"stages": {"second": ["seed=5"]}}, "gives each stage its seed"),
        ({"stages": {"second": ["model=tiny"]}}, "gives each stage its model"),
        ({"without": ["first", "second"], "set": ["loss.repa=0"]}, "trains no stage, so it cannot have set"),
        ({"without": ["first", "second"], "share": 0.5}, "trains no stage"),
    ],
)
def test_what_would_be_overruled_or_mixed_up_is_refused(variant: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Two variants that share an output folder, for example, would silently report the scores of the first."""
    file = write(tmp_path, variants={"F": {"about": ""}, "A": {"about": "", **variant}})
    with pytest.raises(ValueError, match=said):
        load_ablation(file)


def test_a_share_shortens_the_ratios_of_the_tasks_too(tmp_path: Path) -> None:
    ratios = (
        "data.ratios=[{understanding: 1, generation: 1, text: 0, until: 4}, {understanding: 0, generation: 1, text: 0}]"
    )
    file = write(tmp_path, stages=[ABLATION["stages"][0], {**ABLATION["stages"][1], "set": ["steps=8", ratios]}])
    for variant, steps, until in (("F", 8, 4), ("D", 2, 1)):
        (run,) = runs_of(load_ablation(file), tmp_path, tmp_path, only=[variant], seeds=1)
        config = run.stages[-1][1]
        assert (config.steps, [ratio.until for ratio in config.data.ratios]) == (steps, [until, None])


def test_a_single_stage_may_start_from_another_model(tmp_path: Path) -> None:
    variants = {"F": {"about": ""}, "A": {"about": "", "without": ["first"], "set": ["model.checkpoint=other"]}}
    (run,) = runs_of(load_ablation(write(tmp_path, variants=variants)), tmp_path, tmp_path, only=["A"], seeds=1)
    assert run.stages[0][1].model.checkpoint == "other"
