"""Check quickly whether the hub can be reached before downloading from it.

Without a network the libraries retry for half a minute and print each attempt. Here one request decides: cached files
are then opened at once, and anything else fails at once. A slow connection keeps the libraries' retries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5.0  # for a connection
CONNECTED = ("ReadTimeout", "ReadError", "WriteTimeout", "WriteError", "RemoteProtocolError", "PoolTimeout")


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

    This holds for other threads too, which could not download either.

    Args:
        path_or_id: what is opened; for an existing folder no request is made.

    Yields:
        Why nothing can be downloaded, as the end of a sentence; "" if it can.
    """
    if constants.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
    elif Path(os.path.expanduser(path_or_id)).exists() or hub_is_reachable():
        yield ""
    else:
        constants.HF_HUB_OFFLINE = True  # huggingface_hub reads it before every request, and all others go through it
        try:
            yield "the hub cannot be reached"
        finally:
            constants.HF_HUB_OFFLINE = False


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
