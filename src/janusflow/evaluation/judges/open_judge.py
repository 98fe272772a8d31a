"""Open models that judge: a model of this family, any local transformers model, or an OpenAI-compatible endpoint.

Benchmarks with their own rules need no judge; the others name one in a string, see `open_judge`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from PIL import Image

from janusflow.arguments import quoted
from janusflow.evaluation.judges.endpoint import EndpointJudge, EndpointOptions
from janusflow.evaluation.judges.judge import Judge, NotJudgedError, Query
from janusflow.evaluation.judges.local import FamilyJudge, LocalJudge, LocalOptions
from janusflow.families import find_layout
from janusflow.files import ESCAPED, write_text

OPENAI = "https://api.openai.com/v1"
FORM = "openai:MODEL@https://HOST/v1"


def open_judge(spec: str, *, cache: Path | None = None, **options: Any) -> Judge:
    """Open a judge; the weights of a local model are read on first use.

    Args:
        spec: one of

            - "openai:MODEL@https://HOST/v1", or "openai:MODEL" for OpenAI itself: an OpenAI-compatible endpoint;
            - "https://HOST/v1" with the option `model`: the same;
            - "tiny", or "janusflow:PLACE" or a folder with a checkpoint of this family: asked through `JanusFlow`;
            - any other folder or hub id: a transformers model, for pictures and text or only for text.

            Options may follow as in a URL: "openai:gpt-4o@https://HOST/v1?max_requests=500&key_variable=MY_KEY".
        cache: folder that keeps replies, so that a rerun asks nothing again; also an option of `spec`. A budget covers
            all runs that use this folder, now and later.
        **options: fields of `EndpointOptions` or `LocalOptions`.

    Raises:
        ValueError: for an empty or unknown `spec` or option.
    """
    spec, _, query = spec.strip().partition("?")
    options = {**dict(parse_qsl(query, keep_blank_values=True)), **options}
    folder = Path(options.pop("cache")) if "cache" in options else cache
    judge: Judge
    if spec.startswith(("openai:", "http://", "https://")):
        model, url = _model_and_address(spec, options.pop("model", ""))
        remote = _checked(EndpointOptions, options, spec)
        account = folder and folder.expanduser() / "spent" / f"{hashlib.sha256(spec.encode()).hexdigest()[:8]}.json"
        judge = EndpointJudge(model, url, remote, account=account)
        shape = {"max_tokens": remote.max_tokens}
    elif spec:
        local = _checked(LocalOptions, options, spec)
        place = spec.removeprefix("janusflow:")
        ours = place != spec or spec == "tiny" or _is_ours(Path(spec).expanduser())
        judge = FamilyJudge(place, local) if ours else LocalJudge(spec, local)
        shape = {"max_tokens": local.max_tokens, "dtype": local.dtype}
    else:
        raise ValueError(f"no judge is named; write {FORM}, or the folder or hub id of a local model")
    return judge if folder is None else Cached(judge, folder, shape)


_used: ContextVar[list[Path] | None] = ContextVar("_used", default=None)  # files of this item's replies


@contextmanager
def forgotten_if_useless() -> Iterator[None]:
    """Remove the replies for one item from the cache if they are useless (`NotJudgedError`): the next run asks again.

    Use it around the verdict on one item. If a judge gave no reply at all, the earlier replies stay.
    """
    used: list[Path] = []
    before = _used.set(used)
    try:
        yield
    except NotJudgedError:
        for file in used:
            file.unlink(missing_ok=True)
        raise
    finally:
        _used.reset(before)


class Cached(Judge):
    """A judge that keeps each reply in a file; several processes and threads may share the folder.

    Args:
        judge: the judge to ask if a reply is not there.
        folder: folder of the files, which are named by the sha256 of everything that affects a reply.
        shape: what affects the judge's replies besides the question.
    """

    def __init__(self, judge: Judge, folder: Path, shape: Mapping[str, Any]) -> None:
        self.name, self.judge, self.folder, self.shape = judge.name, judge, folder.expanduser(), dict(shape)

    def answer(self, query: Query) -> str:
        """See `Judge`; characters that UTF-8 cannot encode are escaped."""
        query = replace(query, prompt=query.prompt.encode(errors=ESCAPED).decode())
        asked = {
            "judge": self.name,
            **self.shape,
            "system": query.system,
            "prompt": query.prompt,
            "pictures": [_digest(picture) for picture in query.images],
            "temperature": float(query.temperature),
            "attempt": query.attempt,
        }
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        file = self.folder / name[:2] / f"{name}.json"
        used = _used.get()
        if used is not None:
            used.append(file)
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))["reply"]
            if isinstance(kept, str):
                return kept
        except (OSError, ValueError, KeyError, TypeError):
            pass  # missing or damaged: asked again
        try:
            said = query.put_to(self.judge)
        except NotJudgedError:
            if used is not None:
                used.clear()
            raise
        write_text(file, json.dumps({**asked, "reply": said}, indent=1))
        return said

    def stop(self) -> None:
        """See `Judge`."""
        self.judge.stop()


def _digest(picture: Image.Image) -> str:
    """Return the sha256 of a picture's mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()


# --- words ----------------------------------------------------------------------------------------------------------


def _model_and_address(spec: str, model: str) -> tuple[str, str]:
    """Return the model's name and the base URL of an endpoint."""
    address = spec
    if spec.startswith("openai:"):
        model, _, address = spec.removeprefix("openai:").rpartition("@")
        model, address = (model, address) if model else (address, OPENAI)
    if not model or not address.startswith(("http://", "https://")) or "@" in address:
        raise ValueError(
            f"judge {quoted(spec)} does not name an endpoint; write {FORM}, with the key in an environment variable"
        )
    return model, address.rstrip("/")


def _checked(kind: type[Any], options: Mapping[str, Any], spec: str) -> Any:
    """Return options as their dataclass; text from a URL is converted to the types of the fields."""
    from pydantic import TypeAdapter, ValidationError

    known = kind.__dataclass_fields__
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise ValueError(f"judge {quoted(spec)} has no option {quoted(unknown)}; it has {', '.join(known)}, cache")
    try:
        return TypeAdapter(kind).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"judge {quoted(spec)}: option {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _is_ours(folder: Path) -> bool:
    """Return whether `JanusFlow.from_pretrained` opens the folder."""
    try:
        return find_layout(json.loads((folder / "config.json").read_text(encoding="utf-8"))) is not None
    except (OSError, ValueError, AttributeError):
        return False
