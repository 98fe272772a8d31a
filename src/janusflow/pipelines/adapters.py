"""Low-rank adapters in a pipeline's network: loaded, merged, taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from janusflow.checkpoint.adapters import open_adapters, remove_adapters
from janusflow.pipelines.base import Pipeline


class AdaptedPipeline(Pipeline):
    """A pipeline whose network takes adapters."""

    takes_adapters = True
    adapters: Any = None

    def load_adapters(self, folder: str | Path) -> Self:
        """Puts adapters that `janusflow train` with `lora.rank` wrote (`export/adapter`) into the network.

        Raises:
            ValueError: if there are none or they do not fit.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny").load_adapters("runs/mine/export/adapter")  # doctest: +SKIP
        """
        if self.adapters is not None:
            raise ValueError("the network has adapters already; unload or merge them first")
        self.adapters = open_adapters(self.network, folder)
        self.opened = {**self.opened, "adapter": str(folder)}
        return self

    def merge_adapters(self, *, keep: bool = False) -> Self:
        """Adds the adapters to the weights: nothing is slower than without them.

        Args:
            keep: the adapters stay known, and `unmerge_adapters` subtracts them again (up to rounding). Otherwise
                they leave the network, whose weights may then be saved.

        Raises:
            ValueError: if there are none.
        """
        if self.adapters is None:
            raise ValueError("the network has no adapters")
        if keep:
            self.adapters.merge_adapter()
        else:
            self.network, self.adapters = self.adapters.merge_and_unload(), None
        return self

    def unmerge_adapters(self) -> Self:
        """Takes merged adapters that were kept out of the weights again; they keep working next to them.

        Raises:
            ValueError: if there are none.
        """
        if self.adapters is None:
            raise ValueError("the network has no adapters")
        self.adapters.unmerge_adapter()
        return self

    def unload_adapters(self) -> Self:
        """Takes the adapters out of the network, whose weights are then as before (merged ones: up to rounding).

        Raises:
            ValueError: if there are none.
        """
        if self.adapters is None:
            raise ValueError("the network has no adapters")
        self.network, self.adapters = remove_adapters(self.adapters), None
        self.opened = {**self.opened, "adapter": None}
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """See `Pipeline.save_pretrained`.

        Raises:
            ValueError: also if the network has adapters (merge or unload them first).
        """
        if self.adapters is not None:
            raise ValueError("the network has adapters; merge or unload them before it is saved")
        super().save_pretrained(folder)
