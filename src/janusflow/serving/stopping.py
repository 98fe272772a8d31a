"""Strings that end an answer: text that arrives in pieces is released as far as it is certain."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Look for strings in text that arrives in pieces; none of them is ever released, not even in part.

    Args:
        stop: strings that end the text.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.held = tuple(stop), ""

    def add(self, piece: str) -> tuple[str, bool]:
        """Add a piece of text.

        Returns:
            The text that is certain now, and whether a stop string was reached, which ends the text.
        """
        text = self.held + piece
        found = [place for one in self.stop if (place := text.find(one)) >= 0]
        if found:
            return text[: min(found)], True
        begun = max((_begun(text, one) for one in self.stop), default=0)
        given, self.held = text[: len(text) - begun], text[len(text) - begun :]
        return given, False

    def rest(self) -> str:
        """Return what is still held back at the end."""
        return self.held


def _begun(text: str, stop: str) -> int:
    """Return the length of the longest prefix of `stop`, other than all of it, with which the text ends."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
