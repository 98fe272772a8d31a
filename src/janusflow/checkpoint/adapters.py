"""Load LoRA adapters that training wrote into a network, and remove them."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from janusflow.arguments import quoted, shortened
from janusflow.building import BUILDING, finite, named
from janusflow.extras import require
from janusflow.files import checked
from janusflow.folders import find_folder, read_json
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.offline import first_line

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LORA_A = re.compile(r"base_model\.model\.(.+)\.lora_A\.weight")
PLAIN = re.compile(r"[\w.]*")  # a name in `rank_pattern` and `alpha_pattern`, which PEFT reads as regular expressions


@dataclass(frozen=True)
class _Settings:
    """Fields of `adapter_config.json` that are checked before PEFT reads it; null stands for PEFT's default."""

    r: Annotated[int, Ge(1)] = 8
    lora_alpha: Annotated[float, Gt(0)] = 8
    lora_dropout: Annotated[float, Interval(ge=0, le=1)] = 0.0
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    lora_bias: bool = False
    inference_mode: bool = False
    rank_pattern: dict[str, Annotated[int, Ge(1)]] = field(default_factory=dict)
    alpha_pattern: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    init_lora_weights: bool | str = True
    base_model_name_or_path: str | None = None
    revision: str | None = None
    task_type: str | None = None


def open_adapters(network: JanusFlowForConditionalGeneration, folder: str | Path) -> Any:
    """Load saved adapters into a network, in place.

    The names of the stored tensors decide which modules get adapters; `target_modules` of the configuration, which may
    be a regular expression, is not used.

    Args:
        network: the network that they were trained in.
        folder: folder of the adapters, or a hub id.

    Returns:
        PEFT's model around the network.

    Raises:
        ValueError: if PEFT is not installed, or the adapters are missing, damaged or do not fit the network, which is
            then unchanged.
    """
    require("an adapter", "peft")
    name = str(folder)
    place = Path(os.path.expanduser(name))
    try:
        if not place.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
            place = find_folder(name, what="adapter")
        lacking = [file for file in (CONFIG, WEIGHTS) if not (place / file).is_file()]
    except OSError as error:  # a name that is longer than any path
        raise ValueError(f"adapter is {quoted(name)}; {error.strerror}") from error
    if lacking:
        raise ValueError(f"{folder} holds no adapters: expected {CONFIG} and {WEIGHTS}, found no {lacking[0]}")
    tensors = _read(place / WEIGHTS)
    with BUILDING:
        return _put_in(network, place, _config(place, tensors), tensors)


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        reason = shortened(first_line(error))
        raise ValueError(f"{file} is damaged or not a weights file ({reason}); copy it again") from error
    broken = [name for name, value in tensors.items() if not finite(value)]
    if broken:
        raise ValueError(
            f"{file} contains values that are not finite floating-point numbers in {named(broken, 'tensors')}"
        )
    return tensors


def _config(place: Path, tensors: dict[str, Tensor]) -> Any:
    """Read PEFT's configuration, and check what it says about modules and sizes against the tensors."""
    import peft

    file = place / CONFIG
    known = {entry.name for entry in fields(_Settings)}
    raw = {name: value for name, value in read_json(file).items() if value is not None and name in known}
    checked(_Settings, raw, file)
    try:
        config = peft.PeftConfig.from_pretrained(str(place))
    except Exception as error:  # PEFT passes the fields on unchecked
        raise ValueError(f"{file} is damaged: {shortened(first_line(error))}") from error
    if not isinstance(config, peft.LoraConfig):
        raise ValueError(f"{file} describes {config.peft_type} adapters; expected LoRA adapters")
    for pattern in ("rank_pattern", "alpha_pattern"):
        names = getattr(config, pattern) or {}
        if not isinstance(names, dict) or not all(isinstance(name, str) and PLAIN.fullmatch(name) for name in names):
            raise ValueError(f"{file}: {pattern} has names that are regular expressions; expected names of modules")
    if config.layer_replication is not None or config.init_lora_weights not in (True, False, "gaussian"):
        kind = f"layer_replication {config.layer_replication}, init_lora_weights {config.init_lora_weights!r}"
        raise ValueError(
            f"{file} describes adapters that also change the base weights ({kind:.100}), which is not supported"
        )
    defaults = _Settings()
    for name in known:
        if getattr(config, name) is None:
            setattr(config, name, getattr(defaults, name))
    stored = {found[1]: len(value) for name, value in tensors.items() if (found := LORA_A.fullmatch(name))}
    if not stored:
        raise ValueError(f"{place / WEIGHTS} holds no LoRA tensors (names that end in .lora_A.weight)")
    for module, rank in stored.items():
        if (wanted := _rank(config, module)) != rank:
            raise ValueError(f"{file} asks for rank {wanted} in {module}; the stored adapter has rank {rank}")
    config.target_modules, config.exclude_modules, config.inference_mode = sorted(stored), None, True
    return config


def _rank(config: Any, module: str) -> int:
    """Return the rank that a configuration sets for a module: that of the first pattern that ends its name, or r."""
    patterns = config.rank_pattern.items()
    return next((rank for name, rank in patterns if re.fullmatch(rf"(.*\.)?{name}", module)), config.r)


def _put_in(network: JanusFlowForConditionalGeneration, place: Path, config: Any, tensors: dict[str, Tensor]) -> Any:
    import peft
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

    adapted = None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)  # PEFT still asks for it
            adapted = peft.PeftModel(network, config)
        # Embeddings have no adapters; by default PEFT asks the hub whether they were changed.
        wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        for fault, names in (("lack", wanted - tensors.keys()), ("have surplus", tensors.keys() - wanted)):
            if names:
                raise ValueError(f"they {fault} {named(names, 'tensors')}")
        set_peft_model_state_dict(adapted, tensors)
    except Exception as error:  # PEFT raises many kinds of errors for what does not fit
        if adapted is None:
            _take_out(network)
        else:
            remove_adapters(adapted)
        reason = shortened(" ".join(first_line(error).split()))
        raise ValueError(f"the adapters in {place} do not fit the model: {reason}") from error
    return adapted.eval()


def _take_out(network: JanusFlowForConditionalGeneration) -> None:
    """Put back the layers that PEFT had replaced when it raised an error."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            network.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            network.set_submodule(name, module.original_module)


def remove_adapters(adapted: Any) -> JanusFlowForConditionalGeneration:
    """Return the original network from PEFT's model around it, including parts that were trained in full.

    Merged adapters are subtracted first, which is exact up to rounding.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if any(isinstance(module, BaseTunerLayer) and module.merged for module in adapted.modules()):
        adapted.unmerge_adapter()
    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for name in module.modules_to_save:
                module.modules_to_save[name] = module.original_module
    network: JanusFlowForConditionalGeneration = adapted.unload()
    return network
