"""Recipes: evaluations as files. Ours stand in `recipes/eval`; TorchUMM's are read as they are.

    benchmark: geneval                          # a file with this at its top is ours
    model: deepseek-ai/JanusFlow-1.3B
    data: data/eval/geneval                     # from the current folder; ${VAR} is expanded
    out: runs/eval/geneval                      # the default: runs/eval/ and the file's name
    options: {guidance_scale: 2.0, num_inference_steps: 30}   # of drawing or answering
    settings: {images: 4, seed: 42}             # of the benchmark

The keys are the fields of `EvalRequest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.evaluation.run.request import EvalRequest
from janusflow.evaluation.run.tree import read_tree
from janusflow.files import checked
from janusflow.interop.torchumm_config import read_umm

BLOCKS = ("options", "settings")


def load_request(file: Path, overrides: Sequence[str] = ()) -> EvalRequest:
    """An evaluation from a recipe of ours or a file of TorchUMM's.

    Args:
        file: YAML or JSON.
        overrides: of ours "key=value" for a setting of the benchmark, or "options.key=value"; of TorchUMM's
            "block.key=value". Values are YAML; an option or setting that is null is left to its default.

    Raises:
        ValueError: in one sentence, for whatever is missing, damaged or unknown.
    """
    told = read_tree(file)
    if "benchmark" not in told or "eval" in told or "inference" in told:
        try:
            return read_umm(file, overrides)
        except ValueError as error:
            raise error if str(file) in str(error) else ValueError(f"{file}: {error}") from error
    inner = [key if key.split(".")[0] in BLOCKS and "." in key else f"settings.{key}" for key in overrides]
    return _request(file, read_tree(file, inner))


def _request(file: Path, told: dict[str, Any]) -> EvalRequest:
    known = EvalRequest.__dataclass_fields__
    unknown = next((key for key in told if key not in known), None)
    if unknown is not None:
        raise ValueError(f"{file} has a key {quoted(unknown)}; a recipe has {', '.join(known)}")
    for block in BLOCKS:
        if isinstance(told.get(block), dict):
            told[block] = {key: value for key, value in told[block].items() if value is not None}
    given = {key: value for key, value in told.items() if value is not None}
    return checked(EvalRequest, {"out": str(Path("runs/eval") / file.stem), **given}, file)
