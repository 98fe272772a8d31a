"""TorchUMM's files as its repository has them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import yaml

from janusflow.evaluation.request import EvalRequest
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
