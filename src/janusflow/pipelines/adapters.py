"""Load, merge and remove low-rank adapters in a pipeline's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from janusflow.checkpoint.adapters import open_adapters, remove_adapters
from janusflow.pipelines.base import Pipeline


class AdaptedPipeline(Pipeline):
    """A pipeline whose network supports adapters."""

    takes_adapters = True
    adapters: Any = None

    def load_adapters(self, folder: str | Path) -> Self:
        """Load adapters that `janusflow train` wrote with `lora.rank` (`export/adapter`) into the network.

        Raises:
            ValueError: if the folder has no adapters, or they do not fit.

        Example:
            >>> from janusflow import JanusFlow
            >>> model = JanusFlow.from_pretrained("tiny").load_adapters("runs/mine/export/adapter")  # doctest: +SKIP
        """
        if self.adapters is not None:
            raise ValueError("the network has adapters already; unload or merge them first")
        if self.quantized:
            raise ValueError("adapters do not go into quantized weights; merge them into a checkpoint first")
        self.adapters = open_adapters(self.network, folder)
        self.opened = {**self.opened, "adapter": str(folder)}
        return self

    def merge_adapters(self, *, keep: bool = False) -> Self:
        """Merge the adapters into the weights, so that the network is as fast as without them.

        Args:
            keep: whether to keep the adapters, so that `unmerge_adapters` can subtract them again (up to rounding).
                Otherwise they are removed from the network, whose weights can then be saved.

        Raises:
            ValueError: if the network has no adapters.
        """
        if self.adapters is None:
            raise ValueError("the network has no adapters")
        if keep:
            self.adapters.merge_adapter()
        else:
            self.network, self.adapters = self.adapters.merge_and_unload(), None
        return self

    def unmerge_adapters(self) -> Self:
        """Subtract adapters that were merged and kept from the weights; they stay active next to the weights.

        Raises:
            ValueError: if the network has no adapters.
        """
        if self.adapters is None:
            raise ValueError("the network has no adapters")
        self.adapters.unmerge_adapter()
        return self

    def unload_adapters(self) -> Self:
        """Remove the adapters and restore the network's weights (up to rounding if they were merged).

        Raises:
            ValueError: if the network has no adapters.
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
