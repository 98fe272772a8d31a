"""Low-rank adapters that training wrote, put into a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from janusflow.model import JanusFlowForConditionalGeneration


def open_adapters(network: JanusFlowForConditionalGeneration, folder: str | Path) -> Any:
    """Puts saved adapters into a network, in place.

    Returns:
        PEFT's model around the network.

    Raises:
        ValueError: if the folder holds none, or they do not fit the network.
    """
    import peft

    place = Path(os.path.expanduser(folder))
    if not (place / "adapter_config.json").is_file():
        raise ValueError(f"{folder} holds no adapters: expected an adapter_config.json")
    try:
        return peft.PeftModel.from_pretrained(network, str(place)).eval()
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"the adapters in {folder} do not fit the model: {str(error).splitlines()[0]}") from error


def remove_adapters(adapted: Any) -> JanusFlowForConditionalGeneration:
    """The network as it was before, out of PEFT's model around it: parts that were trained whole go back too."""
    from peft.utils import ModulesToSaveWrapper

    for module in adapted.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for name in module.modules_to_save:
                module.modules_to_save[name] = module.original_module
    network: JanusFlowForConditionalGeneration = adapted.unload()
    return network
