"""One process per case: it gets a copy of the input with one file mutated, limited memory and time, and is judged.

The parent has imported everything, so that a case costs a fork and what its input costs.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from fault_injection.documents import Mutation
from fault_injection.subjects import SUBJECTS
from fault_injection.weights import MARKER

SECONDS = 30.0  # of processor time: wall time depends on what else runs
PATIENCE = 3.0  # times as much wall time before a case is killed
BYTES = 2 * 10**9  # of memory above what the process began with
ROOM = 4 * 10**9  # of address space above that: what asks for more is refused and counts as too large
LONGEST = 500  # characters of a message
REFUSED_MEMORY = ("allocate memory", "not enough memory")
INTERNAL = ("recursion depth", "Traceback")
GOOD = ("same", "refused", "changed")

Kind = tuple[str, str]  # a subject and one of its files


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: its number.
        kind: subject and file.
        mutation: in words.
        verdict: "same", "refused" or "changed" (to what a valid file may say too), else what went wrong: "traceback",
            "unclear" (an error that is not one sentence naming the file), "silent difference", "accepted", "too slow",
            "too large", "left behind", "ran code", "crashed".
        message: of the error.
        place: line of ours that raised it last.
        seconds: of processor time.
        megabytes: of memory above the start.
    """

    case: int
    kind: str
    mutation: str
    verdict: str
    message: str = ""
    place: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def kinds() -> list[Kind]:
    """All of them, in order."""
    return [(name, file) for name, subject in SUBJECTS.items() for file in subject.files]


def kind_of_case(case: int) -> Kind:
    """The kind of a case by its number: they take turns."""
    known = kinds()
    return known[case % len(known)]


def make_base(name: str, work: Path) -> None:
    """Make the valid input of a subject, and write down what it says and which files its use leaves."""
    folder = work / "bases" / name
    folder.mkdir(parents=True)
    made = in_child(lambda: SUBJECTS[name].make(folder), work / "making")
    if "error" not in made:
        made = _use(name, work / "making", {})
    shutil.rmtree(work / "making", ignore_errors=True)
    if "error" in made:
        raise RuntimeError(f"the valid input {name} cannot be used: {made['error']}\n{made.get('trace', '')}")
    (work / f"{name}.json").write_text(json.dumps(made))
    for module in made["modules"]:  # so that cases find them imported
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                __import__(module)
            except Exception:  # a module that only its package can import
                continue


def run_case(case: int, seed: int, work: Path) -> Outcome:
    """Run one case and judge it."""
    name, pattern = kind_of_case(case)
    rng = Random(f"{seed}/{case}")
    base = work / "bases" / name
    file = str(next(base.glob(pattern)).relative_to(base))
    mutation = SUBJECTS[name].files[pattern]((base / file).read_bytes(), rng)
    folder = work / "cases" / f"{case:05d}"
    try:
        found = _use(name, folder, {file: mutation.data})
        expected = json.loads((work / f"{name}.json").read_text())
        verdict, message = _judge(name, file, folder, mutation, found, expected)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        case,
        f"{name}: {pattern}",
        mutation.words,
        verdict,
        message,
        found.get("place", ""),
        round(found["seconds"], 2),
        round(found["bytes"] / 1e6),
    )


def _use(name: str, folder: Path, changes: dict[str, bytes | None]) -> dict[str, Any]:
    """Copy a base, change files, and use it in a process of its own."""
    given = folder / "input"
    shutil.copytree(folder.parents[0 if folder.name == "making" else 1] / "bases" / name, given)
    (folder / "out").mkdir()
    before = _listing(folder)
    for file, data in changes.items():
        (given / file).unlink()
        if data is not None:
            (given / file).write_bytes(data)
    found = in_child(lambda: SUBJECTS[name].use(given, folder / "out"), folder)
    found["new"] = sorted(_listing(folder) - before)
    found["temporary"] = sorted(path.name for path in (folder / "tmp").iterdir())
    return found


def _listing(folder: Path) -> set[str]:
    paths = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {path for path in paths if not path.startswith(("tmp", "cache", "result.json", "said", "began"))}


def _judge(
    name: str, file: str, folder: Path, mutation: Mutation, found: dict[str, Any], expected: dict[str, Any]
) -> tuple[str, str]:
    """The verdict on a case, and the message that goes with it."""
    error = found.get("error")
    said = f"{found.get('type', '')}: {error}" if error is not None else ""
    if (folder / MARKER).exists():
        return "ran code", said
    if found["killed"] or found["seconds"] > SECONDS:
        return "too slow", said
    if found["bytes"] > BYTES or any(word in said for word in REFUSED_MEMORY):
        return "too large", said
    if found["orphans"]:
        return "left behind", "a process"
    if left := (set(found["new"]) - set(expected["new"])) or set(found["temporary"]):
        return "left behind", ", ".join(sorted(left)[:3])
    if "signal" in found:
        return "crashed", f"signal {found['signal']}"
    if error is not None:
        if not found["user"]:
            return "traceback", said
        plain = len(error) <= LONGEST and "\n" not in error.strip() and not any(word in said for word in INTERNAL)
        places = (Path(file).name, str(folder), Path(file).parts[0])
        named = not SUBJECTS[name].named or any(place in error for place in places)
        return ("refused", said) if plain and named and error.strip() else ("unclear", said)
    if mutation.expect == "refused" and not SUBJECTS[name].lossy:
        return "accepted", ""
    if found["result"] == expected["result"]:
        return "same", ""
    return (
        "changed" if mutation.expect == "any" or SUBJECTS[name].lossy else "silent difference"
    ), f"{found['result']!r:.200}"


# --- the process ------------------------------------------------------------------------------------------------------


def in_child(action: Callable[[], Any], folder: Path) -> dict[str, Any]:
    """Run something in a forked process with limits; returns what it returned or raised, and what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    gc.freeze()
    base = _status("VmRSS")
    pid = os.fork()
    if pid == 0:
        _child(action, folder)
    killed = not wait_until(pid, SECONDS * PATIENCE)
    if killed:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    orphans = end_group(pid)
    found: dict[str, Any] = {"killed": killed, "orphans": orphans}
    found["seconds"] = usage.ru_utime + usage.ru_stime
    began = int((folder / "began").read_text() or base) if (folder / "began").is_file() else base
    found["bytes"] = max(usage.ru_maxrss * 1024 - began, 0)
    if os.WIFSIGNALED(status):
        found.update(error="", type="", user=False, signal=os.WTERMSIG(status))
    result = folder / "result.json"
    if result.is_file():
        found.update(json.loads(result.read_text()))
    elif not killed and "signal" not in found:
        found.update(error=f"exit {os.WEXITSTATUS(status)}", type="SystemExit", user=False)
    return found


def wait_until(pid: int, seconds: float) -> bool:
    """Whether a process ends within some seconds."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def end_group(group: int, patience: float = 30.0) -> bool:
    """Whether processes of a group outlive its first one for some seconds; they are ended."""
    until = time.monotonic() + patience
    while living := _members(group):
        if time.monotonic() > until:
            for member in living:
                os.kill(member, signal.SIGKILL)
            return True
        time.sleep(0.05)
    return False


def _members(group: int) -> list[int]:
    """Processes of a group that run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # ended meanwhile
            continue
        if int(number) == group and state not in "ZX":
            found.append(int(entry.parent.name))
    return found


def _child(action: Callable[[], Any], folder: Path) -> None:
    """Never returns."""
    code = 0
    try:
        os.setsid()
        os.chdir(folder)
        said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
        if "datasets" in sys.modules:
            import datasets

            datasets.config.HF_DATASETS_CACHE = folder / "cache"
        (folder / "began").write_text(str(_status("VmRSS")))  # less than the parent's: it maps files anew
        limit = _status("VmSize") + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before = set(sys.modules)
        warnings.simplefilter("ignore")
        try:
            found: dict[str, Any] = {"result": action()}
        except BaseException as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/src/janusflow/" in f.filename]
            cause = error.__cause__ or error.__context__
            found = {
                "error": str(error),
                "type": type(error).__name__,
                "user": isinstance(error, (ValueError, OSError)),  # which the command line shows as a sentence
                "place": f"{frames[-1].filename.split('/src/')[1]}:{frames[-1].lineno}" if frames else "",
                "cause": type(cause).__name__ if cause else "",
                "trace": "".join(traceback.format_exception(error))[-4000:],
            }
        found["modules"] = sorted(set(sys.modules) - before)
        (folder / "result.json").write_text(json.dumps(found, default=str))
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def as_json(outcome: Outcome) -> str:
    """One line."""
    return json.dumps(asdict(outcome))
