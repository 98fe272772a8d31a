"""TorchUMM's files: how they are read, what they may refer to, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from janusflow.evaluation.run.recipes import load_request
from janusflow.interop.torchumm_config import read_umm
from tests.interop.torchumm_files import DPG, FLOW, GENEVAL, WISE, read


def test_an_override_without_a_block_is_the_benchmarks_and_strange_blocks_are_told(tmp_path: Path) -> None:
    request, ignored = read(tmp_path, DPG, "judge=tiny", "dpg_bnech.resolution=3")
    assert request.settings["judge"] == "tiny" and any("dpg_bnech" in key for key in ignored)


def test_another_file_may_hold_the_inference(tmp_path: Path) -> None:
    own = {"infer_config": "configs/inference/flow.yaml", "backbone_cfg": {"generation_cfg": {"cfg_weight": 4}}}
    (tmp_path / "configs" / "inference").mkdir(parents=True)
    single = {
        **FLOW,
        "output_json": "x.json",
        "request": {"task": "generation", "prompt": "a cat", "images": ["a.png"]},
    }
    for there in ({"inference": single}, single):
        (tmp_path / "configs" / "inference" / "flow.yaml").write_text(yaml.safe_dump(there))
        request, ignored = read(tmp_path, {**DPG, "inference": own})
        assert request.model == "/models/JanusFlow-1.3B"
        assert (request.options["guidance_scale"], request.options["num_inference_steps"]) == (4, 20)
        assert "inference.request.prompt" not in ignored and "inference.output_json" not in ignored
    block = {**DPG["dpg_bench"], "infer_config": "configs/inference/flow.yaml"}
    assert read(tmp_path, {"dpg_bench": block})[0].options["guidance_scale"] == 2.5
    (tmp_path / "configs" / "inference" / "flow.yaml").unlink()
    with pytest.raises(ValueError, match=r"flow\.yaml' does not exist"):
        read(tmp_path, {"dpg_bench": block})


def test_janus_models_take_their_own_arguments(tmp_path: Path) -> None:
    drawing = {"cfg_weight": 5.0, "temperature": 1.0, "parallel_size": 4, "img_size": 384, "patch_size": 16}
    for name in ("janus", "janus_pro", "Janus-Pro"):
        told = {**GENEVAL, "inference": {"backbone": name, "backbone_cfg": {"generation_cfg": drawing}}}
        request, ignored = read(tmp_path, told)
        assert request.options == {"guidance_scale": 5.0, "temperature": 1.0} and request.batch_size == 4
        assert request.model == "deepseek-ai/Janus-Pro-7B"
        assert "inference.backbone_cfg.generation_cfg.patch_size" in ignored


def test_variables_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMM_MODEL_CACHE", "/cache")
    monkeypatch.delenv("UMM_CODEBASE", raising=False)
    told = {
        "inference": {"backbone": "janus_flow", "backbone_cfg": {"model_path": "${UMM_MODEL_CACHE}/flow"}},
        "wise": {
            "data_root": "${UMM_CODEBASE}/wise",
            "vlm_eval": {"model_name": "${UMM_MODEL_CACHE}/${UMM_MODEL_CACHE}"},
        },
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    request = read_umm(file)
    assert (request.model, request.settings["judge"]) == ("/cache/flow", "/cache//cache")
    assert request.data == tmp_path / "${UMM_CODEBASE}" / "wise"  # no folder `configs` above: from the current one


def test_overrides_are_yaml_and_must_have_their_form(tmp_path: Path) -> None:
    request, _ = read(tmp_path, WISE, "inference.backbone_cfg.generation_cfg.cfg_weight=7.5", "wise.out_dir=a=b")
    assert request.options["guidance_scale"] == 7.5 and request.out == tmp_path / "a=b"
    for wrong, said in (
        ("wise", "is not of the form key=value"),
        ("=1", "is not of the form key=value"),
        ("wise..mode=full", "is not of the form key=value"),
        ("wise.mode.x=1", "wise.mode is a block of keys and values; expected one value"),
        ("wise.mode=[", "does not fit the recipe"),
    ):
        with pytest.raises(ValueError, match=said):
            read(tmp_path, WISE, wrong)


@pytest.mark.parametrize("name", ["mathvista", "mmstar", "ueval", "gedit", "imgedit", "unified_bench"])
def test_benchmarks_that_are_not_here_are_named(tmp_path: Path, name: str) -> None:
    for told in ({"eval": {"benchmark": name}, "inference": FLOW, name: {}}, {"inference": FLOW, name: {}}):
        with pytest.raises(
            ValueError, match=f"asks for {name}; of TorchUMM's benchmarks these can be run: dpg_bench, "
        ):
            read(tmp_path, told)


def test_models_that_are_not_here_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"inference\.backbone is 'bagel'; models that can be run are janus_flow, "):
        read(tmp_path, {**WISE, "inference": {"backbone": "bagel"}})
    with pytest.raises(ValueError, match=r"inference\.backbone is ''"):
        read(tmp_path, {"wise": {}})
    with pytest.raises(ValueError, match=r"names no benchmark in eval\.benchmark"):
        read(tmp_path, {"inference": FLOW})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"geneval": "text"}, "geneval is 'text'; expected a block"),
        ({"eval": 7}, "eval is 7; expected a block"),
        ({"inference": {"backbone": "janus_flow", "backbone_cfg": "text"}}, "backbone_cfg is 'text'; expected a block"),
        ({"inference": {"backbone": "janus_flow", "backbone_cfg": {"seed": "x"}}}, "seed is 'x'; expected a whole"),
        ({"inference": {"backbone": "janus_flow", "backbone_cfg": {"model_path": [1]}}}, "expected a text"),
        ({"geneval": {"max_samples": -1}}, "max_samples is -1; expected a whole number"),
        ({"geneval": {"skip_eval": "no"}}, "skip_eval is 'no'; expected true or false"),
        ({"geneval": {"out_dir": {"a": 1}}}, "out_dir is a block of keys and values; expected one value"),
        ({"geneval": {"out_dir": {}}}, "out_dir is a block of keys and values; expected one value"),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    told = {"eval": {"benchmark": "geneval"}, "inference": {"backbone": "janus_flow"}, "geneval": {}, **changes}
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=said) as caught:
        load_request(file, foreign=read_umm)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


LAUGHS = f"l0: &l0 [{'1, ' * 10}]\n" + "".join(f"l{n}: &l{n} [{f'*l{n - 1}, ' * 10}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("odd: &odd [*odd]\n", "holds itself"),
        ("a: " + "[" * 300 + "]" * 300, "nested too deeply"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        (LAUGHS, "aliases"),
    ],
)
def test_yaml_that_unfolds_without_end_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text(f"benchmark: geneval\n{text}")
    with pytest.raises(ValueError, match=f"theirs.yaml.* cannot be read: .*{said}"):
        load_request(file, foreign=read_umm)
