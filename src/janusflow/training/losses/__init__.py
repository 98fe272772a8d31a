"""The losses: one file for each term, found in this folder and through entry points.

Other packages register a term in their `pyproject.toml`:

    [project.entry-points."janusflow.losses"]
    contrast = "my_package.contrast:TERM"
"""

from __future__ import annotations

import pkgutil
from functools import lru_cache
from importlib import import_module
from typing import Any

from janusflow.families import Family, families, family_of
from janusflow.functions import load_plugin, plugins
from janusflow.training.losses.term import Forward, LossConfig, Term

__all__ = ["Forward", "LossConfig", "Term", "active", "described", "terms", "terms_of", "watched_losses"]

GROUP = "janusflow.losses"  # entry points of other packages


@lru_cache(maxsize=1)
def terms() -> dict[str, Term]:
    """Return all terms by name: the `TERM` of every file in this folder, in order of file name, then entry points.

    Raises:
        ValueError: for an entry point that cannot be loaded.

    Example:
        >>> list(terms())
        ['ar', 'codes', 'flow', 'repa']
    """
    modules = [import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    built_in = [module.TERM for module in modules if hasattr(module, "TERM")]
    others = [load_plugin(plugin, "loss") for plugin in plugins(GROUP).values()]
    return {term.name: term for term in (*built_in, *others)}


def terms_of(family: Family) -> dict[str, Term]:
    """Return the terms that a family learns from: its own, and those that no family claims (`Family.losses`)."""
    others = {name for one in families().values() for name in one.losses} - set(family.losses)
    return {name: term for name, term in terms().items() if name not in others}


def active(config: LossConfig, family: Family) -> dict[str, Term]:
    """Return the terms to compute: all terms of the family except optional ones with a weight of 0."""
    return {name: term for name, term in terms_of(family).items() if config.weight(name) or not term.optional}


def described(sizes: Any, config: LossConfig) -> str:
    """Return a model's family, and the losses that train it with their weights, as readable text."""
    family = family_of(sizes)
    weights = ", ".join(f"{name} {weight:g}" for name in terms_of(family) if (weight := config.weight(name)))
    return f"{family.name}, losses {weights}"


def watched_losses(config: LossConfig, losses: dict[str, float]) -> dict[str, float]:
    """Return the weighted losses of a step whose sum the check for spikes compares, by term.

    Signed terms are left out, because they would cancel others.
    """
    weighed = {name: term for name, term in terms().items() if name in losses}
    return {name: config.weight(name) * losses[name] for name, term in weighed.items() if not term.signed}
