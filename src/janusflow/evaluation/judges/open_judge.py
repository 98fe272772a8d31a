"""Models that judge: your own rules, a local transformers model, or an OpenAI-compatible endpoint.

Benchmarks with their own rules need none of these; the others name one by a word, see `open_judge`.
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
    """Open a judge; a local model's weights are read when it is first asked.

    Args:
        spec: one of

            - "openai:MODEL@https://HOST/v1", or "openai:MODEL" for OpenAI itself: an OpenAI-compatible endpoint;
            - "https://HOST/v1" with the option `model`: the same;
            - "tiny", or "janusflow:PLACE" or a folder with a checkpoint of this family: asked through `JanusFlow`;
            - any other folder or hub id: a transformers model, of pictures and text or only of text.

            Options may follow as in an address: "openai:gpt-4o@https://HOST/v1?max_requests=500&key_variable=MY_KEY".
        cache: folder where replies are kept, so that a rerun asks nothing again; also an option of `spec`. A budget is
            for all that ask with this folder, now and later.
        **options: of `EndpointOptions` or `LocalOptions`.

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
    """Around the verdict on one item: if its replies were useless (`NotJudgedError`), they leave the cache, so that the
    next run asks again. Where a judge gave no reply at all, the earlier ones stay.
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
    """A judge whose replies are kept in files, one each; several processes and threads may share the folder.

    Args:
        judge: who is asked what is not there.
        folder: of the files, named by the sha256 of all that affects a reply.
        shape: what affects the judge's replies besides the question.
    """

    def __init__(self, judge: Judge, folder: Path, shape: Mapping[str, Any]) -> None:
        self.name, self.judge, self.folder, self.shape = judge.name, judge, folder.expanduser(), dict(shape)

    def answer(self, query: Query) -> str:
        """See `Judge`; what UTF-8 cannot contain is escaped."""
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


def _digest(picture: Image.Image) -> str:
    """sha256 of a picture's mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()


# --- words ----------------------------------------------------------------------------------------------------------


def _model_and_address(spec: str, model: str) -> tuple[str, str]:
    """The model's name and the base address of an endpoint."""
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
    """Options as their dataclass; words from an address become what the fields are."""
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
    """Whether `JanusFlow.from_pretrained` opens the folder."""
    try:
        return find_layout(json.loads((folder / "config.json").read_text(encoding="utf-8"))) is not None
    except (OSError, ValueError, AttributeError):
        return False
