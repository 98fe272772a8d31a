"""Check quickly whether the hub can be reached before downloading from it.

Without a network, the libraries retry for half a minute and print each attempt. Here one request decides: if it fails,
cached files are opened at once, and anything else fails at once. Over a slow connection the libraries still retry.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5.0  # to wait for a connection
CONNECTED = ("ReadTimeout", "ReadError", "WriteTimeout", "WriteError", "RemoteProtocolError", "PoolTimeout")

UNREACHABLE = "the hub cannot be reached"
_SWITCHED_OFF: list[bool] = []  # one entry for each thread that has set HF_HUB_OFFLINE below


def hub_is_reachable() -> bool:
    """Return whether the hub (`HF_ENDPOINT`) answers; False with HF_HUB_OFFLINE=1, without a request."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception as error:  # by name: versions of huggingface_hub differ in the HTTP library they use
        return type(error).__name__ in CONNECTED
    return True


@contextmanager
def cached_if_unreachable(path_or_id: str | Path) -> Iterator[str]:
    """Let the body, which opens a folder or hub id, read only the cache if the hub cannot be reached.

    This also applies to other threads, which could not download either.

    Args:
        path_or_id: folder or hub id to open; for an existing folder no request is made.

    Yields:
        The reason why nothing can be downloaded, as the end of a sentence; "" if downloads are possible.
    """
    if constants.HF_HUB_OFFLINE:
        yield UNREACHABLE if _SWITCHED_OFF else "HF_HUB_OFFLINE is set"
    elif Path(os.path.expanduser(path_or_id)).exists() or hub_is_reachable():
        yield ""
    else:
        constants.HF_HUB_OFFLINE = True  # read by huggingface_hub before every request; all others go through it
        _SWITCHED_OFF.append(True)
        try:
            yield UNREACHABLE
        finally:
            _SWITCHED_OFF.pop()
            constants.HF_HUB_OFFLINE = False


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
