"""Processes of a test's own, forked: importing again what this one has imported would take seconds each."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore

from janusflow.cli import main
from janusflow.evaluation.run.parent import end_with_parent


def fork(
    action: Callable[..., Any], *args: Any, said: Path, environment: Mapping[str, str] | None = None, **options: Any
) -> BaseProcess:
    """Start `action(*args, **options)` in a session of its own; what it prints is added to the file `said`."""

    def run() -> None:
        os.setsid()
        end_with_parent()
        os.environ.update(environment or {})
        sys.stdout = sys.stderr = said.open("a", buffering=1)
        os.dup2(sys.stdout.fileno(), 1)
        os.dup2(sys.stdout.fileno(), 2)
        try:
            action(*args, **options)
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def command(words: Sequence[str]) -> None:
    """The real command, with these words, in a process that is the command's own."""
    sys.argv = ["janusflow", *words]
    main()


def run_module(name: str, words: Sequence[str]) -> None:
    """`python -m NAME WORDS...`, in a process that is its own."""
    sys.argv = [name, *words]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_script(file: Path, words: Sequence[str]) -> None:
    """`python FILE WORDS...`, in a process that is its own."""
    sys.argv = [str(file), *words]
    sys.path.insert(0, str(file.parent))
    runpy.run_path(str(file), run_name="__main__")


def forks(count: int, action: Callable[..., Any], *args: Any, said: Path, **options: Any) -> list[BaseProcess]:
    """Start that many processes with the variables that torchrun sets; each is the first of its node."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    given = {"WORLD_SIZE": str(count), "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)}
    given["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the store of this process, which has found a free port
    started = [
        fork(action, *args, said=said, environment={**given, "RANK": str(rank)}, **options) for rank in range(count)
    ]
    for process in started:
        process.store = store  # type: ignore[attr-defined]  # as long as the processes
    return started
