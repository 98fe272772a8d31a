"""Read JSON and YAML with checks, write files atomically, and hold locks.

A file is written next to its target under a hidden name (`.NAME.HOST-PID-xxxx.tmp`) and renamed when complete. The
name contains the writing process, so that files of killed processes are recognized and removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
NAME_LENGTH = 100  # characters of a file's name in its temporary name: names have at most 255 bytes
_OPEN: set[str] = set()  # temporary names of this process that are in use

ESCAPED = "backslashreplace"  # how to write text that UTF-8 cannot encode, such as half of a pair of surrogates
LARGEST_YAML = 256 * 2**10  # bytes in a YAML file, which Python reads slowly
MOST_VALUES = 100_000  # in a YAML file
DEEPEST = 50  # levels of nesting in a YAML file
SHOWN = 200  # characters shown of another library's error
LARGEST = 256 * 2**20  # bytes in a JSON file; the largest tokenizers have a tenth of that


def read_json(file: Path, *, finite: bool = True) -> Any:
    """Read a JSON file.

    Args:
        finite: whether to refuse NaN and infinite numbers, which Python writes but JSON does not have.

    Raises:
        ValueError: if it is too large, is not UTF-8 or not JSON, is nested too deeply, or contains NaN or infinite
            numbers. The message names the file.
        OSError: if it cannot be read.
    """
    size = file.stat().st_size
    if size > LARGEST:
        raise ValueError(f"{file} has {size} bytes; a JSON file of at most {LARGEST} is read")
    try:
        return loads(file.read_bytes(), finite=finite)
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def read_yaml(file: Path) -> str:
    """Read the text of a YAML file, and check it with `check_yaml`.

    Raises:
        ValueError: if it is too large, is not UTF-8, or is refused by `check_yaml`.
        OSError: if it cannot be read.
    """
    size = file.stat().st_size
    if size > LARGEST_YAML:
        raise ValueError(f"it has {size} bytes; at most {LARGEST_YAML} are read")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    check_yaml(text)
    return text


def check_yaml(text: str) -> None:
    """Check the structure of YAML without building it.

    Aliases of aliases can expand a short text until it fills memory, so their sizes are added up first.

    Raises:
        ValueError: if it is not YAML, is nested too deeply, contains itself, or has more than `MOST_VALUES` values.
    """
    import yaml

    try:
        values = _values(yaml.compose(text, Loader=yaml.SafeLoader), {}, 0)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:SHOWN]) from error
    if values > MOST_VALUES:
        raise ValueError(f"its aliases make it {values} values; at most {MOST_VALUES} are read")


def _values(node: Any, known: dict[int, int], depth: int) -> int:
    """Count the values of a YAML node; the values of an alias count each time it is used."""
    if depth > DEEPEST or known.get(id(node)) == 0:
        raise ValueError("it is nested too deeply, or holds itself")
    if id(node) not in known:
        known[id(node)] = 0  # until its parts are counted
        inner = node.value if node is not None and not isinstance(node.value, str) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_values(part, known, depth + 1) for part in parts)
    return known[id(node)]


def loads(text: str | bytes, *, finite: bool = True) -> Any:
    """Parse JSON.

    Raises:
        ValueError: as in `read_json`, without the name of a file.
    """
    try:
        if not finite:
            return json.loads(text)
        return json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error


def checked(kind: type[T], value: Any, source: str | Path) -> T:
    """Convert values from JSON or YAML to a type, such as a dataclass, in pydantic's strict mode: "3" is not 3.

    Args:
        kind: any type that pydantic supports; constraints are written as `Annotated[int, Field(ge=1)]`.
        value: dictionaries, lists, strings, numbers, booleans and None.
        source: where the value comes from, for the error message.

    Raises:
        ValueError: for the first field that is missing, unknown or of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" (given: {first['input']!r:.80})"
        raise ValueError(f"{source} is damaged: {place + ': ' if place else ''}{first['msg']}{given}") from error
    except (TypeError, ValueError, RecursionError) as error:  # not a value of JSON
        raise ValueError(f"{source} is damaged: {error or 'it is nested too deeply'}") from error


def misfit(value: Any, kinds: Mapping[str, Any], *, optional: Collection[str] = ()) -> str:
    """Return what is wrong with a JSON mapping: the first field that is missing or has another type; "" if none.

    Pydantic cannot check these: it refuses texts with half of a pair of surrogates, which models' answers may contain.

    Args:
        kinds: type or types of each field; other fields may have any type.
        optional: fields that may be missing.
    """
    if not isinstance(value, dict):
        return "it is not a mapping"
    for name, kind in kinds.items():
        if name not in value:
            if name not in optional:
                return f"{name} is missing"
        elif not isinstance(value[name], kind) or (kind is int and isinstance(value[name], bool)):
            return f"{name} is {value[name]!r:.80}"
    return ""


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically; create its folder, and escape what UTF-8 cannot encode."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with temporary_path(file) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=ESCAPED, newline="\n")
        temporary.replace(file)


@contextmanager
def temporary_path(target: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Yield a new path next to a file or folder; the body writes it and renames it to the target.

    Anything left at the path is removed at the end, even after an error.

    Args:
        target: final path of the file or folder.
        tidy: whether to remove temporary files of killed processes from the folder.

    Example:
        >>> file = Path("notes.txt")
        >>> with temporary_path(file) as temporary:
        ...     _ = temporary.write_text("whole or not at all")
        ...     _ = temporary.replace(file)
    """
    if tidy:
        remove_leftovers(target.parent)
    name = f".{target.name[:NAME_LENGTH]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary = target.with_name(name)
    _OPEN.add(name)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _OPEN.discard(name)


def first_cause(error: BaseException) -> BaseException:
    """Return the error that began a chain of errors, each raised while the one before it was handled.

    torch's writer replaces what a file raises, such as "No space left on device", by an error about positions
    (findings/torch_save_hides_write_errors.sh).
    """
    while error.__context__ is not None:
        error = error.__context__
    return error


def replace_folder(new: Path, folder: Path) -> None:
    """Rename a new folder to its target. If the target exists, it is removed once the new one is in its place.

    Raises:
        OSError: if the new folder cannot be renamed; the target is then as it was.
    """
    if not folder.exists():
        new.rename(folder)
        return
    with temporary_path(folder, tidy=False) as old:
        try:
            folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders from a folder if their processes were on this machine and have ended."""
    with suppress(OSError):  # the folder does not exist or cannot be listed
        for path in list(folder.iterdir()):
            found = TEMPORARY.fullmatch(path.name)
            if found and found[1] == _host() and path.name not in _OPEN and _ended(int(found[2])):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _ended(process: int) -> bool:
    """Return whether a process has ended; an unknown file with this process's id comes from an earlier process."""
    if process == os.getpid():
        return True
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # the process belongs to another user
        return False
    return False


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _not_finite(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text:.20}, which is too large")
    return number


@contextmanager
def locked(file: Path, refusal: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock while the body runs. The operating system releases it when the process ends.

    The file is kept: if it were deleted, two processes could hold "the same" lock. On a file system without locks,
    no lock is held.

    Args:
        file: lock file; it is empty.
        refusal: error message if another process holds the lock.
        patience: seconds to wait for the lock.

    Raises:
        ValueError: with `refusal` as its message.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(refusal) from error
    except NotImplementedError:  # the file system has no locks
        pass
    try:
        yield
    finally:
        lock.release()
