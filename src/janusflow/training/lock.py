"""One run in a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from janusflow.training.distributed import World

LOCK = "run.lock"


@contextmanager
def alone_in(folder: Path, world: World) -> Iterator[None]:
    """Create the folder of a run and hold its lock until the run ends in any way; remove the folder if it stays empty.

    Where the file system or the operating system has no locks, no lock is held.

    Raises:
        ValueError: in all processes, if another run holds the lock.
    """
    held, taken = None, False
    if world.first:
        folder.mkdir(parents=True, exist_ok=True)
        held, taken = _lock(folder / LOCK)
    try:
        if world.any(taken):
            raise ValueError(f"another process is training in {folder}; wait until it ends, or give another out=FOLDER")
        yield
    finally:
        if held is not None:
            if [file.name for file in folder.glob("*")] == [LOCK]:
                (folder / LOCK).unlink()
                folder.rmdir()
            held.close()


def _lock(file: Path) -> tuple[Any, bool]:
    """Return the locked file, which must stay open, or None; and whether another process has locked it.

    The lock belongs to the process: workers that outlive a killed run do not hold it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None, False
    opened = file.open("a")
    try:
        fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        opened.close()
        return None, True
    except OSError:  # the file system has no locks
        with suppress(OSError):
            file.unlink()
        opened.close()
        return None, False
    return opened, False
