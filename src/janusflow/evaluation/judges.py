"""Models that judge: rules of one's own, a local transformers model, or an OpenAI-compatible endpoint.

Benchmarks with their own rules need none of these; the others name one by a word, see `open_judge`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

from PIL import Image

from janusflow.endpoint import data_url
from janusflow.evaluation.protocol import NotJudgedError

OPENAI = "https://api.openai.com/v1"
RETRIED = (408, 409, 425, 429)  # and all from 500 upwards
FINAL = (401, 402, 403, 404)  # the next request would fare the same
NO_MONEY = "insufficient_quota"  # the code with which OpenAI's 429 means that waiting does not help
FORM = "openai:MODEL@https://HOST/v1"
OURS = ("janusflow", "multi_modality", "janus")  # model_type of checkpoints that `JanusFlow.from_pretrained` opens


class Judge(Protocol):
    """Whoever reads a prompt, perhaps with pictures, and replies in words."""

    name: str

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """The reply to one prompt.

        Args:
            prompt: the question.
            images: shown with it.
            system: system prompt; "" for none.
            temperature: of the sampling; 0 is greedy.
            attempt: another number asks anew where a cached reply was of no use.

        Raises:
            NotJudgedError: if no reply can be had.
        """
        ...


def open_judge(spec: str, *, cache: Path | None = None, **options: Any) -> Judge:
    """Opens a judge.

    Args:
        spec: one of

            - "openai:MODEL@https://HOST/v1", or "openai:MODEL" for OpenAI itself: an OpenAI-compatible endpoint;
            - "https://HOST/v1" with the option `model`: the same;
            - "tiny", or "janusflow:PLACE" or a folder with a checkpoint of this family: asked through `JanusFlow`;
            - any other folder or hub id: a transformers model, of pictures and text or of text alone.

            Options may follow as in an address: "openai:gpt-4o@https://HOST/v1?max_requests=500&key_variable=MY_KEY".
        cache: folder where replies are kept, so that a rerun asks nothing; also an option of `spec`.
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
        judge, shape = EndpointJudge(model, url, remote), {"max_tokens": remote.max_tokens}
    elif spec:
        local = _checked(LocalOptions, options, spec)
        place = spec.removeprefix("janusflow:")
        ours = place != spec or spec == "tiny" or _model_type(Path(spec).expanduser()) in OURS
        judge = FamilyJudge(place, local) if ours else LocalJudge(spec, local)
        shape = {"max_tokens": local.max_tokens, "dtype": local.dtype}
    else:
        raise ValueError(f"no judge is named; write {FORM}, or the folder or hub id of a local model")
    return judge if folder is None else Cached(judge, folder, shape)


# --- endpoints ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is asked.

    Attributes:
        key_variable: environment variable that holds the key; the key goes nowhere but to the endpoint.
        max_tokens: of a reply.
        timeout: seconds for one reply.
        tries: of one question.
        patience: seconds before the second try, doubled for every further one.
        longest_wait: seconds between two tries, whatever the endpoint asks for.
        max_requests: so many requests are sent by this process at most, tries included; None for no limit.
        max_total_tokens: no request is sent any more once replies and prompts had so many; None for no limit.
    """

    key_variable: str = "OPENAI_API_KEY"
    max_tokens: int = 1024
    timeout: float = 120.0
    tries: int = 6
    patience: float = 1.0
    longest_wait: float = 120.0
    max_requests: int | None = None
    max_total_tokens: int | None = None


class EndpointJudge:
    """A model behind an OpenAI-compatible address; may be asked by several threads at once.

    Args:
        model: its name there.
        url: base address, without `/chat/completions`.
        options: how to ask.

    Attributes:
        requests, tokens: what was sent and used so far.
    """

    def __init__(self, model: str, url: str, options: EndpointOptions) -> None:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise ValueError("a judge behind an address needs the package openai; install janusflow[eval]") from error
        self.name, self.model, self.url, self.options = f"{model} at {url}", model, url, options
        self.requests = self.tokens = 0
        self._key = os.environ.get(options.key_variable, "")
        self._closed = ""  # why nothing is asked any more
        self._lock = threading.Lock()
        self._client = OpenAI(api_key=self._key or "none", base_url=url, timeout=options.timeout, max_retries=0)

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """See `Judge`; failures that pass (429, 5xx, timeouts, broken or empty replies) are tried again."""
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in images]
        content.append({"type": "text", "text": prompt})
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": content if images else prompt})
        wait, problem = 0.0, ""
        for number in range(self.options.tries):
            if number:
                time.sleep(wait)
            self._count_request()
            backoff = self.options.patience * 2**number * random.uniform(0.75, 1.0)
            try:
                return self._ask(messages, temperature)
            except _PassingError as error:
                problem = str(error)
                wait = min(max(backoff, error.wait), self.options.longest_wait)
        raise NotJudgedError(f"judge {self.name} gave no reply in {self.options.tries} tries; the last: {problem}")

    def _ask(self, messages: list[Any], temperature: float) -> str:
        """One request.

        Raises:
            _PassingError: if it may go better next time.
            NotJudgedError: if not.
        """
        import openai

        try:
            found = self._client.chat.completions.create(
                model=self.model, messages=messages, temperature=temperature, max_tokens=self.options.max_tokens
            )
            text = found.choices[0].message.content
            used = found.usage.total_tokens if found.usage else 0
        except openai.APIStatusError as error:
            status = error.status_code
            if (status in RETRIED or status >= 500) and error.code != NO_MONEY:
                raise _PassingError(f"status {status}", _asked_wait(error.response.headers)) from None
            sentence = f"judge {self.name} refused the request with status {status}: {self._reason(status, error)}"
            if status in FINAL or error.code == NO_MONEY:
                self._closed = sentence
            raise NotJudgedError(sentence) from None
        except openai.APIConnectionError as error:  # timeouts among them
            raise _PassingError(
                "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
            ) from None
        except (openai.OpenAIError, ValueError, AttributeError, TypeError, IndexError) as error:
            raise _PassingError(f"what came is no chat completion ({type(error).__name__})") from None
        with self._lock:
            self.tokens += int(used or 0)
        if not isinstance(text, str) or not text.strip():
            raise _PassingError("an empty reply")
        return text

    def _count_request(self) -> None:
        """Takes one request from the budget, if nothing speaks against asking."""
        options = self.options
        with self._lock:
            if not self._closed and options.max_requests is not None and self.requests >= options.max_requests:
                self._closed = f"the budget of {options.max_requests} requests to judge {self.name} is used up"
            if not self._closed and options.max_total_tokens is not None and self.tokens >= options.max_total_tokens:
                self._closed = f"the budget of {options.max_total_tokens} tokens for judge {self.name} is used up"
            if self._closed:
                raise NotJudgedError(self._closed)
            self.requests += 1

    def _reason(self, status: int, error: Any) -> str:
        """Why a request was refused, in one line without the key."""
        if status in (401, 403):
            return f"the key in {self.options.key_variable} is {'not accepted' if self._key else 'missing'}"
        said = " ".join(str(getattr(error, "message", error)).split())[:200]
        return said.replace(self._key, "***") if self._key else said


class _PassingError(Exception):
    """A failure that may pass; `wait` is how many seconds the endpoint asks to wait."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


def _asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After, which is a number or a date; 0 without one."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return 0.0


# --- local models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalOptions:
    """How a local model judges.

    Attributes:
        max_tokens: of a reply.
        dtype: "auto" (what the checkpoint asks for) or a dtype's name.
        device: "auto" for the best one here.
    """

    max_tokens: int = 512
    dtype: str = "auto"
    device: str = "auto"


class FamilyJudge:
    """A model of this family, asked through `JanusFlow.ask`; one question at a time."""

    def __init__(self, place: str, options: LocalOptions) -> None:
        from janusflow.pipeline import JanusFlow

        self.name, self.options = place, options
        self._model = JanusFlow.from_pretrained(place, dtype=options.dtype, device=options.device, progress=False)
        self._lock = threading.Lock()

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """See `Judge`."""
        text = self._model.processor.question(prompt, len(images))
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text, "images": list(images)})
        sampling = {"do_sample": True, "temperature": temperature, "seed": attempt} if temperature else {}
        with self._lock:
            return self._model.chat(messages, max_new_tokens=self.options.max_tokens, **sampling)


class LocalJudge:
    """A transformers model with a chat template; one question at a time.

    Args:
        place: a folder or hub id. A model of pictures and text is asked with both, any other with text.
        options: how it judges.

    Raises:
        ValueError: if it cannot be opened.
    """

    def __init__(self, place: str, options: LocalOptions) -> None:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        from janusflow.device import resolve_device

        self.name, self.options = place, options
        where = str(Path(place).expanduser())
        try:
            config = AutoConfig.from_pretrained(where)
            self.sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            self._processor = _open_processor(where, config) if self.sees else AutoTokenizer.from_pretrained(where)
            kind = AutoModelForImageTextToText if self.sees else AutoModelForCausalLM
            self._model = kind.from_pretrained(where, dtype=options.dtype).to(resolve_device(options.device)).eval()
        except (OSError, ValueError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"judge {place!r} is no model that can be opened here: {reason}") from error
        self._lock = threading.Lock()

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """See `Judge`."""
        import torch

        if images and not self.sees:
            raise NotJudgedError(f"judge {self.name} reads text alone, but is shown {len(images)} pictures")
        messages: list[dict[str, Any]] = [self._message("system", system)] if system else []
        messages.append(self._message("user", prompt, images))
        with self._lock, torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(attempt)
            read = self._processor.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
            device, dtype = self._model.device, self._model.dtype
            inputs = {name: x.to(device, dtype if x.is_floating_point() else x.dtype) for name, x in read.items()}
            sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
            decoding: dict[str, Any] = sampling if temperature else {"do_sample": False}
            ids = self._model.generate(**inputs, max_new_tokens=self.options.max_tokens, **decoding)
        new = ids[0, inputs["input_ids"].shape[1] :]
        return str(self._processor.decode(new, skip_special_tokens=True))

    def _message(self, role: str, text: str, images: Sequence[Image.Image] = ()) -> dict[str, Any]:
        if not self.sees:
            return {"role": role, "content": text}
        pictures: list[dict[str, Any]] = [{"type": "image", "image": picture.convert("RGB")} for picture in images]
        return {"role": role, "content": [*pictures, {"type": "text", "text": text}]}


def _open_processor(where: str, config: Any) -> Any:
    """A processor whose pictures go through PIL; its video part, which needs torchvision, is left out if it must be."""
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        return AutoProcessor.from_pretrained(where, backend="pil")
    except ImportError:
        kind: Any = PROCESSOR_MAPPING[type(config)]

    class WithoutVideo(kind):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if "video" not in name]

    return WithoutVideo.from_pretrained(where, backend="pil")


# --- the cache ------------------------------------------------------------------------------------------------------


class Cached:
    """A judge whose replies are kept in files, one each; several processes and threads may share the folder.

    Args:
        judge: who is asked what is not there.
        folder: of the files, named by the sha256 of all that shapes a reply.
        shape: what shapes the judge's replies beside the question.
    """

    def __init__(self, judge: Judge, folder: Path, shape: Mapping[str, Any]) -> None:
        self.name, self.judge, self.folder, self.shape = judge.name, judge, folder.expanduser(), dict(shape)

    def reply(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        system: str = "",
        temperature: float = 0.0,
        attempt: int = 0,
    ) -> str:
        """See `Judge`."""
        asked = {
            "judge": self.name,
            **self.shape,
            "system": system,
            "prompt": prompt,
            "pictures": [_digest(picture) for picture in images],
            "temperature": float(temperature),
            "attempt": attempt,
        }
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        file = self.folder / name[:2] / f"{name}.json"
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))["reply"]
            if isinstance(kept, str):
                return kept
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged: asked anew
        said = self.judge.reply(prompt, images, system=system, temperature=temperature, attempt=attempt)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, suffix=".part", delete=False, encoding="utf-8") as part:
            json.dump({**asked, "reply": said}, part, indent=1)
        Path(part.name).chmod(0o644)
        Path(part.name).replace(file)
        return said


def _digest(picture: Image.Image) -> str:
    """sha256 of a picture's mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()


# --- words ----------------------------------------------------------------------------------------------------------


def _model_and_address(spec: str, model: str) -> tuple[str, str]:
    """The model's name and the base address of an endpoint.

    Raises:
        ValueError: if one of them is missing, or the address holds a name and password.
    """
    address = spec
    if spec.startswith("openai:"):
        model, _, address = spec.removeprefix("openai:").rpartition("@")
        model, address = (model, address) if model else (address, OPENAI)
    if not model or not address.startswith(("http://", "https://")) or "@" in address:
        raise ValueError(f"judge {spec!r} is no endpoint's; write {FORM}, with the key in an environment variable")
    return model, address.rstrip("/")


def _checked(kind: type[Any], options: Mapping[str, Any], spec: str) -> Any:
    """Options as their dataclass; words from an address become what the fields are.

    Raises:
        ValueError: naming the option.
    """
    from pydantic import TypeAdapter, ValidationError

    known = kind.__dataclass_fields__
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise ValueError(f"judge {spec!r} has no option {unknown!r}; it has {', '.join(known)}, cache")
    try:
        return TypeAdapter(kind).validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"judge {spec!r}: option {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError, AttributeError):
        return ""
