"""Low-rank adapters that training wrote, put into a network."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from janusflow.model import JanusFlowForConditionalGeneration


def open_adapters(network: JanusFlowForConditionalGeneration, folder: str | Path) -> Any:
    """Puts saved adapters into a network, in place.

    Returns:
        PEFT's model around the network.

    Raises:
        ValueError: if the folder holds none, or they do not fit the network, which is then as before.
    """
    import peft

    place = Path(os.path.expanduser(folder))
    if not (place / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds no adapters: expected an adapter_config.json")
    adapted = None
    try:
        config = peft.PeftConfig.from_pretrained(str(place))
        config.inference_mode = True
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)  # PEFT still asks for it
            adapted = peft.PeftModel(network, config)
        adapted.load_adapter(str(place), "default")
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        if adapted is not None:
            remove_adapters(adapted)
        raise ValueError(f"the adapters in {folder} do not fit the model: {str(error).splitlines()[0]}") from error
    return adapted.eval()


def remove_adapters(adapted: Any) -> JanusFlowForConditionalGeneration:
    """The network as it was before, out of PEFT's model around it: parts that were trained whole go back too.

    Adapters that are merged are subtracted first: up to rounding.
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
