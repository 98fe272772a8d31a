"""Reads TorchUMM's evaluation files, YAML or JSON, as they are into an `EvalRequest`.

docs/evaluation.md lists what each key becomes. `${VAR}` is expanded from the environment (an unset one stays as it is);
overrides `a.b=v` then set keys, with v in YAML. Relative paths start at the repository's root: the folder above the
`configs` folder that contains the file, or the current folder. Each unused key gives a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted, whole_number
from janusflow.evaluation.registry import find_benchmark
from janusflow.evaluation.request import MODES, EvalRequest
from janusflow.interop.torchumm_file import Keys, read_tree

NAMES = {"dpg_bench": "dpg"} | {
    name: name for name in ("geneval", "wise", "uni_mmmu", "mme", "mmbench", "mmmu", "mmvet")
}
FOREIGN = ("mathvista", "mmstar", "ueval", "gedit", "imgedit", "unified_bench", "unipath_online_route")
BACKBONES = {"janus_flow": "deepseek-ai/JanusFlow-1.3B", "janus_pro": "deepseek-ai/Janus-Pro-7B"}
ALIASES = {"janus": "janus_pro"}
DATASETS = Path("/datasets")  # where TorchUMM looks for MMBench's files if a config does not say
DEFAULT_MODES = {"uni_mmmu": "generate", "mmbench": "generate", "mmvet": "generate"}  # full for the others
DECODING = ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
REASONS = {  # why keys are ignored, by their last parts
    "it chooses an image of the cloud launcher": ("score_model",),
    "it chooses a machine of the cloud launcher": ("score_gpu",),
    "the official code is not needed": ("janus_root", "geneval_root"),
    "`mode` decides": ("run_scoring",),
    "keys and values are always cached": ("use_cache",),
    "the weights decide": ("image_token_num_per_image", "patch_size"),
    "everything runs in one environment": ("eval_python", "eval_env_bin", "python_env", "python_executable"),
    "no launcher is used": ("eval_port",),
    "give --workers, or run under torchrun": ("gpus",),
    "every picture of a question is shown": ("max_images",),
    "the questions are those of mm-vet.json": ("question",),
    "no task that can be run needs a judge that only reads text": ("qwen3_model", "text_lm_model"),
    "no task that can be done needs DreamSim": ("dreamsim_cache",),
}


def read_umm(file: Path, overrides: Sequence[str] = ()) -> EvalRequest:
    """Read the request in one of TorchUMM's files.

    Args:
        overrides: "a.b=v" sets a key of the file; "b=v" sets one of the benchmark's block.

    Raises:
        ValueError: in one sentence, for a damaged file, a benchmark or model that is not ours, or a wrong value.
    """
    name = _benchmark(file, read_tree(file, [one for one in overrides if "." in one.partition("=")[0]]))
    overrides = [one if "." in one.partition("=")[0] else f"{name}.{one}" for one in overrides]
    found = read_tree(file, overrides)
    block = Keys.of(found.get(name), name)
    root = _root(file)
    inference = _inference(found, block, root, overrides)
    ours, settings = NAMES[name], dict[str, Any]()
    kind: Any = find_benchmark(ours)
    mode = _mode(file, name, block)
    request: dict[str, Any] = {
        "benchmark": ours,
        "mode": mode,
        "out": _path(root, block.take("out_dir", "image_output_dir")) or root / "output" / name,
    }
    if (score := block.take("score_output_path")) is not None:
        request["score_output_path"] = _path(root, score)
    backbone = _backbone(file, inference)
    if (vae := inference.take("backbone_cfg.vae_path")) is not None:
        request["vae"] = _text(file, "inference.backbone_cfg.vae_path", vae)
    model = inference.take("backbone_cfg.model_path", default=BACKBONES[backbone])
    request["model"] = _text(file, "inference.backbone_cfg.model_path", model)
    dtype = inference.take("backbone_cfg.torch_dtype", default="auto")
    request["dtype"] = _text(file, "inference.backbone_cfg.torch_dtype", dtype)
    options, batch_size = _options(file, inference, backbone, draws=kind.draws)
    seed = inference.take("backbone_cfg.seed")
    if seed is not None and kind.draws:
        settings["seed"] = _count(file, "inference.backbone_cfg.seed", seed, least=0)
    elif seed is not None and options.get("do_sample"):
        options["seed"] = _count(file, "inference.backbone_cfg.seed", seed, least=0)
    if batch_size is not None:
        request["batch_size"] = batch_size
    data, more = READERS[name](block, root)
    settings |= more
    if name == "uni_mmmu":
        said = inference.take_from("understanding_cfg", "max_new_tokens")
        settings |= {} if said is None else {"max_new_tokens": said}
    samples = _count(file, f"{name}.max_samples", block.take("max_samples", default=0), least=0)
    if samples > 0:
        images = settings.get("images", kind.Settings().images if name == "geneval" else 1)
        request["limit"] = samples * _count(file, f"{name}.images_per_prompt", images)
    for key in [key for key in block.left if key in kind.Settings.__dataclass_fields__]:
        settings[key] = block.take(key)
    _drop_defaults(block)
    strange = {key: found[key] for key in found if key not in (*NAMES, *FOREIGN, "eval", "inference", "benchmark")}
    for place, value in {**block.unused(), **inference.unused(), **strange}.items():
        last = place.rpartition(".")[2]
        reason = next((reason for reason, keys in REASONS.items() if last in keys), "nothing here uses it")
        warnings.warn(f"{file}: {place} ({quoted(value)}) is ignored: {reason}", stacklevel=2)
    return EvalRequest(**request, data=data, options=options, settings=settings)


def _root(file: Path) -> Path:
    """Return the root of the repository that a config file belongs to, or else the current folder."""
    above = [folder.parent for folder in file.absolute().parents if folder.name == "configs"]
    return above[0] if above else Path.cwd()


def _path(root: Path, value: Any) -> Path | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{quoted(value)} is given where a path is expected")
    return root / Path(value).expanduser()


def _count(file: Path, name: str, value: Any, *, least: int = 1) -> int:
    return whole_number(f"{file}: {name}", value, least=least, most=2**63 - 1)


def _switch(file: Path, block: Keys, key: str, usual: bool) -> bool:
    value = block.take(key, default=usual)
    if not isinstance(value, bool):
        raise ValueError(f"{file}: {block.name}.{key} is {quoted(value)}; expected true or false")
    return value


def _text(file: Path, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{file}: {name} is {quoted(value)}; expected a text")
    return value


# --- what every file has ---------------------------------------------------------------------------------------------


def _benchmark(file: Path, found: Mapping[str, Any]) -> str:
    named = Keys.of(found.get("eval"), "eval").take("benchmark") or found.get("benchmark")
    name = str(named or next((name for name in (*NAMES, *FOREIGN) if name in found), "")).strip().lower()
    if name not in NAMES:
        asked = f"asks for {name}" if name else "names no benchmark in eval.benchmark"
        raise ValueError(f"{file} {asked}; of TorchUMM's benchmarks these can be run: {', '.join(NAMES)}")
    return name


def _inference(found: Mapping[str, Any], block: Keys, root: Path, overrides: Sequence[str]) -> Keys:
    """Return the block `inference`, merged over that of the file that it may refer to."""
    own = Keys.of(found.get("inference"), "inference")
    other = _path(root, own.take("infer_config") or block.take("infer_config"))
    if other is not None:
        there = read_tree(other, [override for override in overrides if override.startswith("inference.")])
        own.left = Keys.of(there.get("inference", there), "inference").left | own.left
        for key in ("output_json", "request.task", "request.prompt", "request.output_path", "request.images"):
            own.take(key)  # keys of the single inference that such a file is written for
    return own


def _backbone(file: Path, inference: Keys) -> str:
    said = str(inference.take("backbone", default="")).strip().lower().replace("-", "_")
    backbone = ALIASES.get(said, said)
    if backbone not in BACKBONES:
        known = ", ".join((*BACKBONES, *ALIASES))
        raise ValueError(f"{file}: inference.backbone is {said!r}; models that can be run are {known}")
    return backbone


def _mode(file: Path, name: str, block: Keys) -> str:
    mode = DEFAULT_MODES.get(name, "full")
    if str(block.left.get("mode")).lower() in MODES or name != "dpg_bench":  # where ours has a setting of this name
        mode = str(block.take("mode", default=mode)).strip().lower()
    if mode not in MODES:
        raise ValueError(f"{file}: {name}.mode is {mode!r}; expected {', '.join(MODES)}")
    judged = (
        not _switch(file, block, "skip_eval", False),
        _switch(file, block, "run_calculation", True),
        name != "wise" or _switch(file, block, "vlm_eval.enabled", True),
    )
    return "generate" if mode == "full" and not all(judged) else mode


def _options(file: Path, inference: Keys, backbone: str, *, draws: bool) -> tuple[dict[str, Any], int | None]:
    """Return the arguments for generating or answering under our names, and the batch size."""
    options: dict[str, Any] = {}
    size = inference.take_from("generation_cfg", "parallel_size")
    if draws:
        keys: dict[str, tuple[str, ...]] = {"cfg_weight": ("guidance_scale",)}
        if backbone == "janus_flow":
            keys |= {"num_inference_steps": ("num_inference_steps",), "img_size": ("height", "width")}
        else:
            keys |= {"temperature": ("temperature",)}
        for theirs, names in keys.items():
            value = inference.take_from("generation_cfg", theirs)
            options |= {} if value is None else dict.fromkeys(names, value)
        return options, None if size is None else _count(file, "parallel_size", size)
    from janusflow.interop.torchumm_backbone import decoding

    return decoding({name: inference.take_from("understanding_cfg", name) for name in DECODING}), None


def _drop_defaults(block: Keys) -> None:
    """Remove switches whose value is what happens anyway."""
    for key, usual in {"resume": True, "overwrite": False, "run_calculate": True}.items():
        if block.left.get(key) is usual:
            block.take(key)


# --- what each benchmark's block says: the data, and settings in our names ------------------------------------------

Found = tuple[Path | None, dict[str, Any]]


def _dpg(block: Keys, root: Path) -> Found:
    images = block.take("images_per_prompt", default=4)
    if images != 4:
        raise ValueError(
            f"dpg_bench.images_per_prompt is {images!r}; DPG-Bench has 4 pictures of each prompt, in a grid of 2 x 2; "
            "give --set dpg_bench.images_per_prompt=4"
        )
    prompts = _path(root, block.take("prompts_dir", default="eval/generation/dpg_bench/prompts"))
    resolution = block.take("resolution")
    return prompts and prompts.parent, {} if resolution is None else {"resolution": resolution}


def _geneval(block: Keys, root: Path) -> Found:
    settings: dict[str, Any] = {}
    metadata = _path(root, block.take("metadata_path"))
    if metadata is not None and metadata.name != "evaluation_metadata.jsonl":
        raise ValueError(f"geneval.metadata_path is {metadata}; expected a file evaluation_metadata.jsonl")
    if (images := block.take("images_per_prompt")) is not None:
        settings["images"] = images
    detector = _path(root, block.left.get("detection_eval.model_path"))
    if detector is not None and (detector / "config.json").is_file():
        settings["detector"] = str(detector)
        block.take("detection_eval.model_path")
    return metadata and metadata.parent, settings


def _wise(block: Keys, root: Path) -> Found:
    judge = block.take("vlm_eval.model_name")
    data = _path(root, block.take("data_root", default="eval/generation/wise/data"))
    return data, {"protocol": "legacy"} | ({} if judge is None else {"judge": judge})


def _uni_mmmu(block: Keys, root: Path) -> Found:
    asked = block.take("tasks", default="all")
    tasks = [str(task) for task in (asked if isinstance(asked, list) else str(asked).split(","))]
    tasks = ["code" if task.strip() in ("code", "code_rendering", "all") else task.strip() for task in tasks]
    if "code" in tasks and len(tasks) > 1:
        others = ", ".join(task for task in tasks if task != "code")
        warnings.warn(f"uni_mmmu.tasks: only code_rendering is run, {others} need a model that edits", stacklevel=4)
    judge = block.take("scoring.vl_model", "scoring.qwen2_5_vl_model")
    settings = {"task": "code" if "code" in tasks else tasks[0]}
    return _path(root, block.take("data_root")), settings | ({} if judge is None else {"judge": judge})


def _mme(block: Keys, root: Path) -> Found:
    pictures = _path(root, block.take("image_root", default="data/mme/MME_Benchmark_release_version"))
    assert pictures is not None
    if _path(root, block.left.get("root")) == pictures.parent / "Your_Results":
        block.take("root")
    return pictures.parent, {}


def _mmbench(block: Keys, root: Path) -> Found:
    asked = block.take("datasets", default="mmbench_dev_20230712")
    names = [str(name).strip() for name in (asked if isinstance(asked, list) else str(asked).split(","))]
    files = {
        name: _path(root, block.take(f"dataset_paths.{name}")) or DATASETS / "mmbench" / f"{name}.tsv" for name in names
    }
    if len(names) > 1:
        found = f"mmbench.datasets: only {names[0]} is run; name another with --set mmbench.datasets=NAME"
        warnings.warn(found, stacklevel=4)
    settings = {"file": files[names[0]].name}
    judge = block.take("llm_extract.model_path")
    return files[names[0]].parent, settings | ({} if judge is None else {"judge": judge})


def _mmmu(block: Keys, root: Path) -> Found:
    asked = block.take("datasets", default=["MMMU_validation"])
    if asked not in (["MMMU_validation"], "MMMU_validation"):
        raise ValueError(f"mmmu.datasets is {asked!r}; only MMMU_validation has answers")
    local, cache = _path(root, block.take("root")), _path(root, block.take("cache_dir", default="data/MMMU"))
    return (local if local is not None and local.is_dir() else cache), {}


def _mmvet(block: Keys, root: Path) -> Found:
    block.take("datasets")
    pictures = _path(root, block.take("dataset_paths.image_root"))
    return pictures and pictures.parent, {}


READERS: dict[str, Callable[[Keys, Path], Found]] = {
    "dpg_bench": _dpg,
    "geneval": _geneval,
    "wise": _wise,
    "uni_mmmu": _uni_mmmu,
    "mme": _mme,
    "mmbench": _mmbench,
    "mmmu": _mmmu,
    "mmvet": _mmvet,
}
