"""TorchUMM's files: every shape that its configs have, and what becomes of each key."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.recipes import load_request
from janusflow.interop.torchumm_config import read_umm

FLOW: dict[str, Any] = {
    "backbone": "janus_flow",
    "backbone_cfg": {
        "model_path": "/models/JanusFlow-1.3B",
        "janus_root": "/code/Janus",
        "vae_path": "/models/sdxl-vae",
        "seed": 42,
        "torch_dtype": "bfloat16",
        "generation_cfg": {"cfg_weight": 2.5, "num_inference_steps": 20, "parallel_size": 5, "img_size": 384},
    },
}
ANSWERS = {"max_new_tokens": 2048, "do_sample": False, "use_cache": True}


def answering(backbone: str = "janus_flow") -> dict[str, Any]:
    """An `inference` block of an understanding benchmark."""
    settings = {key: value for key, value in FLOW["backbone_cfg"].items() if key != "generation_cfg"}
    return {"backbone": backbone, "backbone_cfg": {**settings, "understanding_cfg": ANSWERS}}


def read(folder: Path, told: dict[str, Any], *overrides: str) -> tuple[EvalRequest, dict[str, str]]:
    """The request of a file under ROOT/configs/eval, and the reason of every warning by the key."""
    file = folder / "configs" / "eval" / "some" / "config.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(told))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        request = read_umm(file, overrides)
    said = [str(one.message).removeprefix(f"{file}: ") for one in caught]
    assert len(said) == len({one.split(" ")[0] for one in said})  # each key once
    return request, {one.split(" ")[0]: one.rpartition(": ")[2] for one in said}


GENEVAL: dict[str, Any] = {
    "eval": {"benchmark": "geneval"},
    "inference": FLOW,
    "geneval": {
        "geneval_root": "/code/geneval",
        "metadata_path": "/code/geneval/prompts/evaluation_metadata.jsonl",
        "out_dir": "/outputs/geneval",
        "images_per_prompt": 5,
        "max_samples": 0,
        "resume": True,
        "score_output_path": "/outputs/geneval/summary.json",
        "mode": "full",
        "vlm_eval": {"enabled": False, "max_new_tokens": 512},
        "detection_eval": {"enabled": True, "model_path": "/models/evaluator"},
        "run_scoring": True,
        "score_model": "wise",
        "score_gpu": "A100-80GB",
    },
}


def test_geneval(tmp_path: Path) -> None:
    request, ignored = read(tmp_path, GENEVAL)
    assert request == EvalRequest(
        benchmark="geneval",
        model="/models/JanusFlow-1.3B",
        vae="/models/sdxl-vae",
        data=Path("/code/geneval/prompts"),
        out=Path("/outputs/geneval"),
        mode="full",
        batch_size=5,
        dtype="bfloat16",
        options={"guidance_scale": 2.5, "num_inference_steps": 20, "height": 384, "width": 384},
        settings={"images": 5, "seed": 42},
        score_output_path=Path("/outputs/geneval/summary.json"),
    )
    assert set(ignored) == {
        *(f"geneval.{key}" for key in ("geneval_root", "run_scoring", "score_model", "score_gpu")),
        *("geneval.vlm_eval.enabled", "geneval.vlm_eval.max_new_tokens"),
        *("geneval.detection_eval.enabled", "geneval.detection_eval.model_path", "inference.backbone_cfg.janus_root"),
    }
    assert ignored["geneval.score_gpu"] == "it chooses a machine of the cloud launcher"
    request.open()


def test_a_file_that_only_scores_needs_no_model(tmp_path: Path) -> None:
    told = {**GENEVAL, "inference": {"backbone": "janus_flow", "backbone_cfg": {}}}
    request, _ = read(tmp_path, told, "geneval.mode=score", "geneval.max_samples=3")
    assert (request.mode, request.limit, request.model) == ("score", 15, "deepseek-ai/JanusFlow-1.3B")
    bare, _ = read(tmp_path, {**GENEVAL, "inference": {"backbone": "Janus-Flow"}})
    assert (bare.model, bare.dtype, bare.vae, bare.options) == ("deepseek-ai/JanusFlow-1.3B", "auto", None, {})


def test_a_detector_that_transformers_opens_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mask2former").mkdir()
    (tmp_path / "mask2former" / "config.json").write_text("{}")
    request, ignored = read(tmp_path, GENEVAL, "geneval.detection_eval.model_path=mask2former")
    assert request.settings["detector"] == str(tmp_path / "mask2former")
    assert "geneval.detection_eval.model_path" not in ignored
    with pytest.raises(ValueError, match=r"metadata_path is .*my\.jsonl; expected a file evaluation_metadata\.jsonl"):
        read(tmp_path, GENEVAL, "geneval.metadata_path=my.jsonl")


DPG: dict[str, Any] = {
    "inference": FLOW,
    "dpg_bench": {
        "prompts_dir": "eval/generation/dpg_bench/prompts",
        "image_output_dir": "output/dpg_bench/janus_flow",
        "resolution": 384,
        "score_output_path": "output/dpg_bench/janus_flow/final_score.json",
        "images_per_prompt": 4,
        "gpus": 1,
        "overwrite": False,
        "skip_eval": False,
        "eval_port": 29601,
        "eval_python": "python",
    },
}


def test_dpg_is_known_by_its_block_and_paths_start_at_the_repository(tmp_path: Path) -> None:
    request, ignored = read(tmp_path, DPG)
    assert request.benchmark == "dpg" and request.mode == "full" and request.limit is None
    assert request.data == tmp_path / "eval" / "generation" / "dpg_bench"
    assert request.out == tmp_path / "output" / "dpg_bench" / "janus_flow"
    assert request.score_output_path == request.out / "final_score.json"
    assert request.settings == {"resolution": 384, "seed": 42}
    assert {key.partition("dpg_bench.")[2] for key in ignored} >= {"gpus", "eval_port", "eval_python"}
    assert "dpg_bench.overwrite" not in ignored
    request.open()


def test_an_override_without_a_block_is_the_benchmarks_and_strange_blocks_are_told(tmp_path: Path) -> None:
    request, ignored = read(tmp_path, DPG, "judge=tiny", "dpg_bnech.resolution=3")
    assert request.settings["judge"] == "tiny" and any("dpg_bnech" in key for key in ignored)


def test_dpg_has_four_pictures(tmp_path: Path) -> None:
    told = {**DPG, "dpg_bench": {**DPG["dpg_bench"], "images_per_prompt": 5}}
    with pytest.raises(ValueError, match=r"images_per_prompt is 5; .* give --set dpg_bench\.images_per_prompt=4"):
        read(tmp_path, told)
    request, _ = read(
        tmp_path, told, "dpg_bench.images_per_prompt=4", "dpg_bench.skip_eval=true", "dpg_bench.mode=fixed"
    )
    assert request.mode == "generate" and request.settings["mode"] == "fixed"
    assert read(tmp_path, DPG, "dpg_bench.overwrite=true")[1]["dpg_bench.overwrite"]
    assert read(tmp_path, DPG, "dpg_bench.mode=score")[0].mode == "score"


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


WISE: dict[str, Any] = {
    "eval": {"benchmark": "wise"},
    "inference": FLOW,
    "wise": {
        "data_root": "/code/WISE",
        "out_dir": "/outputs/wise",
        "max_samples": 7,
        "resume": True,
        "mode": "generate",
        "vlm_eval": {"enabled": True, "model_name": "/models/Qwen2.5-VL-72B-Instruct", "max_retries": 2},
        "run_calculate": True,
        "score_gpu": "A100-80GB:3",
    },
}


def test_wise(tmp_path: Path) -> None:
    request, ignored = read(tmp_path, WISE, "wise.threads=8")
    assert (request.mode, request.limit, request.data) == ("generate", 7, Path("/code/WISE"))
    judge = "/models/Qwen2.5-VL-72B-Instruct"
    assert request.settings == {"protocol": "legacy", "judge": judge, "seed": 42, "threads": 8}
    assert (
        "wise.vlm_eval.max_retries" in ignored and "wise.score_gpu" in ignored and "wise.run_calculate" not in ignored
    )
    request.open()
    unjudged, _ = read(tmp_path, WISE, "wise.mode=full", "wise.vlm_eval.enabled=false")
    assert unjudged.mode == "generate"
    with pytest.raises(ValueError, match=r"wise\.mode is 'draw'; expected full, generate, score"):
        read(tmp_path, WISE, "wise.mode=draw")


UNI: dict[str, Any] = {
    "eval": {"benchmark": "uni_mmmu"},
    "inference": {
        **FLOW,
        "backbone_cfg": {**FLOW["backbone_cfg"], "understanding_cfg": ANSWERS},
        "python_env": "/env",
        "request": {"params": {"max_new_tokens": 512, "cfg_weight": 3.0}},
    },
    "uni_mmmu": {
        "data_root": "/datasets/uni_mmmu/data",
        "tasks": ["code_rendering"],
        "out_dir": "/outputs/uni_mmmu",
        "max_samples": 0,
        "scoring": {"qwen3_model": "/models/Qwen3-32B", "qwen2_5_vl_model": "/models/Qwen2.5-VL-72B-Instruct"},
    },
}


def test_uni_mmmu_and_what_a_request_overrides(tmp_path: Path) -> None:
    request, ignored = read(tmp_path, UNI)
    assert request.mode == "generate" and request.options["guidance_scale"] == 3.0
    judge = "/models/Qwen2.5-VL-72B-Instruct"
    assert request.settings == {"task": "code", "judge": judge, "seed": 42, "max_new_tokens": 512}
    assert "uni_mmmu.scoring.qwen3_model" in ignored and "inference.python_env" in ignored
    assert "inference.backbone_cfg.generation_cfg.cfg_weight" not in ignored
    request.open()
    assert read(tmp_path, UNI, "uni_mmmu.scoring.vl_model=tiny")[0].settings["judge"] == "tiny"
    both, warned = read(tmp_path, UNI, "uni_mmmu.tasks=[code_rendering, maze]", "uni_mmmu.mode=full")
    assert both.settings["task"] == "code" and both.mode == "full" and "uni_mmmu.tasks:" in warned
    with pytest.raises(ValueError, match="task maze of Uni-MMMU"):
        read(tmp_path, UNI, "uni_mmmu.tasks=[maze]")[0].open()


def test_mme(tmp_path: Path) -> None:
    block = {"root": "/datasets/mme/Your_Results", "image_root": "/datasets/mme/MME_Benchmark_release_version"}
    told = {"eval": {"benchmark": "mme"}, "inference": answering(), "mme": {**block, "run_calculation": True}}
    request, ignored = read(tmp_path, told)
    assert (request.data, request.mode, request.out) == (Path("/datasets/mme"), "full", tmp_path / "output" / "mme")
    assert request.options == {"max_new_tokens": 2048, "do_sample": False} and request.settings == {}
    assert "mme.root" not in ignored and "inference.backbone_cfg.understanding_cfg.use_cache" in ignored
    request.open()
    assert read(tmp_path, told, "mme.run_calculation=false")[0].mode == "generate"
    assert "mme.root" in read(tmp_path, told, "mme.root=/elsewhere/Your_Results")[1]
    sampled, _ = read(tmp_path, told, "inference.request.params={do_sample: true, temperature: 0.7}")
    assert sampled.options == {"max_new_tokens": 2048, "do_sample": True, "temperature": 0.7, "seed": 42}


def test_mmbench(tmp_path: Path) -> None:
    block: dict[str, Any] = {
        "datasets": ["MMBench_TEST_EN_V11", "MMBench_TEST_CN_V11"],
        "dataset_paths": {"MMBench_TEST_EN_V11": "/data/en.tsv", "MMBench_TEST_CN_V11": "/data/cn.tsv"},
        "mode": "generate",
        "llm_extract": {"model_path": "/models/Qwen3-32B-AWQ", "max_new_tokens": 64},
    }
    told = {"eval": {"benchmark": "mmbench"}, "inference": answering("janus_pro"), "mmbench": block}
    request, ignored = read(tmp_path, told)
    assert (request.data, request.mode) == (Path("/data"), "generate")
    assert request.settings == {"file": "en.tsv", "judge": "/models/Qwen3-32B-AWQ"}
    assert "mmbench.datasets:" in ignored and "mmbench.llm_extract.max_new_tokens" in ignored
    request.open()
    del block["dataset_paths"]
    other, _ = read(tmp_path, told, "mmbench.datasets=mmbench_dev_20230712")
    assert (other.data, other.settings["file"]) == (Path("/datasets/mmbench"), "mmbench_dev_20230712.tsv")


def test_mmmu(tmp_path: Path) -> None:
    block = {"root": "MMMU/MMMU", "cache_dir": "data/MMMU", "datasets": ["MMMU_validation"], "max_images": 1}
    told = {"eval": {"benchmark": "mmmu"}, "inference": answering(), "mmmu": block}
    request, ignored = read(tmp_path, told)
    assert request.data == tmp_path / "data" / "MMMU" and "mmmu.max_images" in ignored
    request.open()
    (tmp_path / "MMMU" / "MMMU").mkdir(parents=True)
    assert read(tmp_path, told)[0].data == tmp_path / "MMMU" / "MMMU"
    with pytest.raises(ValueError, match=r"mmmu\.datasets is \['MMMU_test'\]; only MMMU_validation has answers"):
        read(tmp_path, told, "mmmu.datasets=[MMMU_test]")


def test_mmvet(tmp_path: Path) -> None:
    paths = {"image_root": "data/mm-vet/images", "question": "data/mm-vet/llava-mm-vet.jsonl"}
    told = {"benchmark": "mmvet", "inference": answering(), "mmvet": {"datasets": ["mmvet"], "dataset_paths": paths}}
    request, ignored = read(tmp_path, told, "mmvet.judge=openai:gpt-4-0613", "mmvet.mode=full")
    assert (request.data, request.mode) == (tmp_path / "data" / "mm-vet", "full")
    assert request.settings == {"judge": "openai:gpt-4-0613"} and "mmvet.dataset_paths.question" in ignored
    assert read(tmp_path, told)[0].mode == "generate"  # TorchUMM writes the answers and does not grade them


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
