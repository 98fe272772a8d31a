"""The adapter for lmms-eval, over stand-ins of the modules that it imports, with the same names and shapes."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

RED, BLUE = (Image.new("RGB", (64, 64), color) for color in ("red", "blue"))
DOCS = [
    {"question": "<image>\nwhat color is it?", "pictures": [RED]},
    {"question": "is it red?", "pictures": BLUE},
    {"question": "what is it?", "pictures": None},
    {"question": "which is red?", "pictures": [[RED], [BLUE]]},
]
GREEDY = {"max_new_tokens": 8, "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False, "until": ["\n\n"]}


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationResult:
    text: Any
    token_counts: Any = None


class Request:
    """What lmms-eval calls an Instance, as far as the adapter looks at it."""

    def __init__(self, *args: Any) -> None:
        self.args = args


def pictures(doc: dict[str, Any]) -> Any:
    return doc["pictures"]


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported over the stand-ins."""

    class lmms:  # noqa: N801  (its name there)
        is_simple = True

        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}

        @property
        def rank(self) -> int:
            return self._rank

    for name, content in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.instance": {"GenerationResult": GenerationResult},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "janusflow.interop.lmms", raising=False)
    yield importlib.import_module("janusflow.interop.lmms")
    sys.modules.pop("janusflow.interop.lmms", None)


@pytest.fixture
def model(adapter: Any) -> Any:
    opened = adapter.LmmsJanusFlow("tiny", batch_size="2", device="cpu", max_batch_size=None)
    opened.task_dict = {"colors": {"test": DOCS}}
    return opened


def ask(model: Any, doc: int, **decoding: Any) -> str:
    """What the pipeline itself answers."""
    shown = DOCS[doc]["pictures"]
    flat = [] if shown is None else [RED, BLUE] if doc == 3 else shown
    text = str(DOCS[doc]["question"]).removeprefix("<image>\n")
    flat = flat if isinstance(flat, list) else [flat]
    question = model.model.processor.question(text, len(flat))
    system = {"role": "system", "content": ""}
    return model.model.chat([system, {"role": "user", "content": question, "images": flat}], **decoding).strip()


def test_lmms_eval_is_told_of_a_simple_model(adapter: Any) -> None:
    manifest = adapter.manifest()
    module, _, name = manifest.simple_class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert (manifest.model_id, manifest.chat_class_path) == ("janusflow", None)
    assert issubclass(found, sys.modules["lmms_eval.api.model"].lmms) and found.is_simple


def test_answers_come_in_the_order_of_the_requests(model: Any) -> None:
    requests = [
        Request(DOCS[n]["question"], {**GREEDY, "max_new_tokens": length}, pictures, n, "colors", "test")
        for n, length in ((0, 8), (1, 3), (2, 8), (3, 8), (0, 8))
    ]
    expected = [ask(model, n, max_new_tokens=length) for n, length in ((0, 8), (1, 3), (2, 8), (3, 8), (0, 8))]
    assert model.generate_until(requests) == expected and len(set(expected)) > 2
    assert model.generate_until([]) == []


def test_what_decoding_means(adapter: Any) -> None:
    assert adapter._decoding(GREEDY) == {"max_new_tokens": 8}
    assert adapter._decoding({"temperature": 0.7, "top_p": 0.9}) == {}
    sampled = {"do_sample": True, "temperature": 0.7, "top_p": 0, "top_k": None, "num_beams": 1}
    assert adapter._decoding(sampled) == {"do_sample": True, "temperature": 0.7}
    assert adapter._decoding({"do_sample": True, "temperature": 0}) == {}
    assert adapter._until(" a\n\nb STOP c", {"until": ["STOP", "\n\n"]}) == "a"
    assert adapter._until("a STOP c", {"until": "STOP"}) == "a" and adapter._until(" a ", {"until": [""]}) == "a"


def test_batches_hold_equal_decoding(adapter: Any) -> None:
    ways = [{"a": 1, "b": 2}, {"a": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}]
    assert adapter._batches(ways, 2) == [[0, 2], [3], [1]]


def test_rounds_go_on_until_the_task_ends_them(model: Any) -> None:
    seen: list[Any] = []

    def next_round(doc: Any, *, previous_output: list[str], round_idx: int, previous_round_info: Any) -> Any:
        seen.append((list(previous_output), round_idx, previous_round_info))
        return BLUE, "is it red?", round_idx == 2, [text.upper() for text in previous_output], round_idx * 10

    request = Request(DOCS[0]["question"], GREEDY, pictures, next_round, 0, "colors", "test")
    first, second = ask(model, 0, max_new_tokens=8), ask(model, 1, max_new_tokens=8)
    assert model.generate_until_multi_round([request]) == [[first.upper(), second.upper()]]
    assert seen == [([first], 1, None), ([first, second], 2, 10)]


def test_the_likeliest_choice_has_the_smallest_number(model: Any) -> None:
    said = ask(model, 0, max_new_tokens=16)
    choices = [said, "entirely unlike that 17"]
    requests = [Request(DOCS[0]["question"], choice, pictures, 0, "colors", "test") for choice in choices]
    (near, right), (far, wrong) = (found.text for found in model.loglikelihood(requests))
    assert 0 <= near < far and right and not wrong
    by_doc = Request(DOCS[0]["question"], lambda doc: said, pictures, 0, "colors", "test")
    assert model.loglikelihood([by_doc])[0].text == (near, right)


def test_what_is_no_picture_and_unknown_arguments_are_refused(adapter: Any, model: Any) -> None:
    request = Request("what?", GREEDY, lambda doc: ["film.mp4"], 0, "colors", "test")
    with pytest.raises(ValueError, match="the task shows a str; models of this family only see pictures"):
        model.generate_until([request])
    with pytest.raises(ValueError, match="colour: unknown argument of --model_args; choose from pretrained, "):
        adapter.LmmsJanusFlow("tiny", colour=1)
