"""Prompt lookup: propose the tokens that followed the last words earlier in the conversation.

This is speculative decoding (arXiv 2211.17192) with a search in the conversation as the draft model: the LLM reads all
proposed tokens in one pass, and those that it would have chosen itself are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2  # tokens that must match; a single word repeats too often to predict what follows


def copied(known: Sequence[int], most: int) -> list[int]:
    """Return up to `most` tokens that followed the last occurrence of the last tokens; longer matches come first.

    Args:
        known: ids of a conversation so far; those of pictures are negative, and are neither matched nor copied.
        most: maximum number of tokens.

    Example:
        >>> copied([7, 8, 9, 4, 7, 8], 2)
        [9, 4]
    """
    for size in range(LONGEST, SHORTEST - 1, -1):
        wanted = list(known[-size:])
        if min(wanted) < 0:
            continue
        for start in range(len(known) - size - 1, -1, -1):
            if known[start + size - 1] == wanted[-1] and list(known[start : start + size]) == wanted:
                follows = list(known[start + size : start + size + most])
                picture = next((place for place, token in enumerate(follows) if token < 0), len(follows))
                return follows[:picture]
    return []
