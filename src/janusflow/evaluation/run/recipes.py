"""Recipes: evaluations as files, such as those in `recipes/eval`.

    benchmark: geneval
    model: deepseek-ai/JanusFlow-1.3B
    data: data/eval/geneval                     # relative to the current folder; ${VAR} is expanded
    out: runs/eval/geneval                      # the default: runs/eval/ and the file's name
    options: {guidance_scale: 2.0, num_inference_steps: 30}   # for generating or answering
    settings: {images: 4, seed: 42}             # of the benchmark

The keys are the fields of `EvalRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from janusflow.arguments import quoted
from janusflow.evaluation.request import EvalRequest
from janusflow.files import checked
from janusflow.recipes import overridden, read_recipe, with_environment

BLOCKS = ("options", "settings")
Reader: TypeAlias = Callable[[Path, Sequence[str]], EvalRequest]


def load_request(file: Path, overrides: Sequence[str] = (), *, foreign: Reader | None = None) -> EvalRequest:
    """Load an evaluation from a recipe.

    Args:
        overrides: "key=value" for a setting of the benchmark, or "options.key=value". Values are YAML; null gives
            an option or setting its default.
        foreign: reader of files in another format, such as `interop.torchumm_config.read_umm`.

    Raises:
        ValueError: in one sentence, for anything that is missing, damaged or unknown.
    """
    if file.suffix.lower() not in (".yaml", ".yml", ".json"):
        raise ValueError(f"{file} is not a .yaml, .yml or .json file")
    found = read_recipe(file, feature="evaluation", extra="eval")
    known = EvalRequest.__dataclass_fields__
    if not isinstance(found, dict):
        raise ValueError(f"{file} does not contain a mapping of keys and values")
    if "benchmark" not in found or "eval" in found or "inference" in found:
        if foreign is None:
            raise ValueError(f"{file} has no key benchmark, or is TorchUMM's; a recipe has {', '.join(known)}")
        try:
            return foreign(file, overrides)
        except ValueError as error:
            raise error if str(file) in str(error) else ValueError(f"{file}: {error}") from error
    inner = [key if key.split(".")[0] in BLOCKS and "." in key else f"settings.{key}" for key in overrides]
    values = overridden(with_environment(found), inner)
    unknown = next((key for key in values if key not in known), None)
    if unknown is not None:
        raise ValueError(f"{file} has a key {quoted(unknown)}; a recipe has {', '.join(known)}")
    for block in BLOCKS:
        if isinstance(values.get(block), dict):
            values[block] = {key: value for key, value in values[block].items() if value is not None}
    given = {key: value for key, value in values.items() if value is not None}
    return checked(EvalRequest, {"out": str(Path("runs/eval") / file.stem), **given}, file)
