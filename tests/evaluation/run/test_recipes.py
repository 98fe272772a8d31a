"""Recipes: each of ours is complete and fits its benchmark; the format says what is wrong with a file."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from janusflow import JanusFlow
from janusflow.engine.understanding import Decoding
from janusflow.evaluation.registry import find_benchmark
from janusflow.evaluation.run.recipes import load_request
from janusflow.interop.torchumm_config import read_umm

RECIPES = Path(__file__).parents[3] / "recipes" / "eval"
FILES = sorted(RECIPES.glob("*.yaml"))
TABLE = {"geneval", "dpg", "mjhq", "pope", "mme", "mmbench", "seedbench", "vqav2", "gqa", "mmmu", "mmvet"}


def test_the_papers_table_and_the_founding_four_have_recipes() -> None:
    assert {load_request(file).benchmark for file in FILES} == TABLE | {"wise", "uni_mmmu"}
    for name in (*TABLE, "wise", "uni_mmmu"):
        assert load_request(RECIPES / f"{name}.yaml").benchmark == name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_recipe_fits_its_benchmark(file: Path) -> None:
    request = load_request(file)
    kind = find_benchmark(request.benchmark)
    assert request.open().settings == kind.Settings(**request.settings)
    assert request.model == "deepseek-ai/JanusFlow-1.3B" and request.dtype == "bfloat16" and request.mode == "full"
    assert request.out == Path("runs/eval") / file.stem and request.data is not None
    if kind.draws:
        assert set(request.options) <= set(inspect.signature(JanusFlow.generate).parameters)
        weight = 7.5 if file.stem == "mjhq_ablation" else 2.0
        assert (request.options["guidance_scale"], request.options["num_inference_steps"]) == (weight, 30)
    else:
        assert not Decoding(**request.options).do_sample


def test_settings_and_options_are_overridden(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("benchmark: geneval\noptions: {guidance_scale: 2.0, num_inference_steps: 30}\n")
    request = load_request(file, ["images=2", "options.guidance_scale=5", "options.num_inference_steps=null"])
    assert (request.settings, request.options) == ({"images": 2}, {"guidance_scale": 5})
    assert (request.model, request.data, request.out) == ("tiny", None, Path("runs/eval/mine"))
    assert load_request(file, ["settings.color_model=clip=1"]).settings == {"color_model": "clip=1"}


def test_variables_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAL_DATA", "/elsewhere")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    file = tmp_path / "mine.json"
    file.write_text('{"benchmark": "pope", "data": "${EVAL_DATA}/pope", "out": "runs/${benchmark}"}')
    request = load_request(file)
    assert (request.data, request.out) == (Path("/elsewhere/pope"), Path("runs/pope"))
    file.write_text('{"benchmark": "pope", "data": "${NO_SUCH_VARIABLE}/pope"}')
    with pytest.raises(ValueError, match="a reference that cannot be read: .*NO_SUCH_VARIABLE"):
        load_request(file)


def test_a_file_with_an_inference_block_is_torchumms(tmp_path: Path) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text("benchmark: wise\ninference: {backbone: janus_flow}\nwise: {data_root: wise}\n")
    with pytest.raises(ValueError, match="has no key benchmark, or is TorchUMM's"):
        load_request(file)
    request = load_request(file, ["wise.judge=tiny"], foreign=read_umm)
    assert request.settings == {"protocol": "legacy", "judge": "tiny"}
    assert request.model == "deepseek-ai/JanusFlow-1.3B"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("benchmark: geneval\nguidance: 2\n", "has a key 'guidance'; a recipe has benchmark, out, model"),
        ("benchmark: geneval\nlimit: many\n", "mine.yaml is damaged: limit: "),
        ("benchmark: geneval\nmode: draw\n", "mine.yaml is damaged: mode: "),
        ("benchmark: geneval\noptions: [1]\n", "mine.yaml is damaged: options"),
        ("benchmark: [\n", "cannot be read"),
        ("- benchmark\n", "does not contain a mapping"),
        ("", "has no key benchmark"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        load_request(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="missing.yaml' does not exist"):
        load_request(tmp_path / "missing.yaml")
    with pytest.raises(ValueError, match=r"is not a \.yaml, \.yml or \.json file"):
        load_request(tmp_path / "mine.txt")
