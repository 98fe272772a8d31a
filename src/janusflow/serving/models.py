"""Models by the names that clients use: a pipeline, and its weights with low-rank adapters as `tiny:my-adapter`."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from janusflow.arguments import quoted
from janusflow.pipelines.base import Pipeline

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read_adapters(options: Sequence[str]) -> dict[str, Path]:
    """Parse adapters by name from texts such as `my-adapter=runs/mine/export/adapter`.

    Raises:
        ValueError: if a text has another form, or a name is given twice.
    """
    found: dict[str, Path] = {}
    for option in options:
        name, separator, folder = option.partition("=")
        if not separator or not folder or not NAME.fullmatch(name):
            raise ValueError(f"adapter is {quoted(option)}; expected NAME=FOLDER with a name of letters, digits, . _ -")
        if name in found:
            raise ValueError(f"the adapter {name!r} is given twice; give each a name of its own")
        found[name] = Path(folder)
    return found


def with_adapters(name: str, model: Pipeline, adapters: Mapping[str, str | Path]) -> dict[str, Pipeline]:
    """Return the models of a server by name.

    Args:
        name: name of the model without adapters.
        model: the opened pipeline.
        adapters: adapter folders by name.

    Raises:
        ValueError: if the model takes no adapters, or some do not fit it.
    """
    models = {name: model}
    for own, folder in adapters.items():
        if not model.takes_adapters:
            raise ValueError(f"a {type(model).__name__} model takes no adapters; leave out {own}={folder}")
        models[f"{name}:{own}"] = sharing_weights(model).load_adapters(folder)
    return models


def sharing_weights(model: Any) -> Any:
    """Return a second pipeline on the same tensors. Its adapters do not change the first and cost only their size."""
    _ = model.codec  # opened once, for all
    network = model.network
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.copy(model)
    twin.network = copy.deepcopy(network, shared)
    return twin
