"""The block of each benchmark in TorchUMM's files, and what becomes of each of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.request import EvalRequest
from tests.interop.torchumm_files import ANSWERS, DPG, FLOW, GENEVAL, WISE, answering, read


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


def test_the_number_of_samples_counts_prompts_of_four_pictures_by_default(tmp_path: Path) -> None:
    told = {**GENEVAL, "geneval": {k: v for k, v in GENEVAL["geneval"].items() if k != "images_per_prompt"}}
    assert read(tmp_path, told, "geneval.max_samples=3")[0].limit == 12


def test_a_detector_that_transformers_opens_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mask2former").mkdir()
    (tmp_path / "mask2former" / "config.json").write_text("{}")
    request, ignored = read(tmp_path, GENEVAL, "geneval.detection_eval.model_path=mask2former")
    assert request.settings["detector"] == str(tmp_path / "mask2former")
    assert "geneval.detection_eval.model_path" not in ignored
    with pytest.raises(ValueError, match=r"metadata_path is .*my\.jsonl; expected a file evaluation_metadata\.jsonl"):
        read(tmp_path, GENEVAL, "geneval.metadata_path=my.jsonl")


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
