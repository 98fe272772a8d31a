"""A thin adapter that lets lmms-eval ask a model of this family: `--model janusflow --model_args pretrained=tiny`.

lmms-eval finds it through the entry point `manifest`, in the group `lmms_eval.models`. It needs the extra `[lmms]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from PIL import Image

from janusflow.arguments import quoted
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.progress import progress_bar

NAME = "janusflow"
DECODING = ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
Conversation = list[dict[str, Any]]


def manifest() -> Any:
    """Return the model's name and class for lmms-eval."""
    from lmms_eval.models.registry_v2 import ModelManifest

    path = f"{__name__}.{LmmsJanusFlow.__name__}"
    return ModelManifest(model_id=NAME, simple_class_path=path, aliases=("janus_flow",))


class LmmsJanusFlow(lmms):
    """A model of this family behind lmms-eval's "simple" interface.

    Args:
        pretrained: "tiny", a folder or a hub id.
        batch_size: number of questions that are answered together.
        device, dtype: as in `JanusFlow.from_pretrained`.
        system_prompt: "" for none; "default" for the model's own.
        **others: not used; all but `max_batch_size` must be None.

    Raises:
        ValueError: for an unknown argument.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "tiny",
        *,
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        system_prompt: str = "",
        **others: Any,
    ) -> None:
        super().__init__()
        unknown = sorted(key for key, value in others.items() if value is not None and key != "max_batch_size")
        if unknown:
            known = "pretrained, batch_size, device, dtype, system_prompt"
            raise ValueError(f"{', '.join(unknown)}: unknown argument of --model_args; choose from {known}")
        if not str(batch_size).isdigit() or not int(batch_size):
            raise ValueError(f"batch_size is {quoted(batch_size)}; expected a whole number from 1 upwards")
        self.model = JanusFlow.from_pretrained(pretrained, device=device or "auto", dtype=dtype, progress=False)
        self.batch_size = int(batch_size)
        self.system = None if system_prompt == "default" else system_prompt

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return answers; the arguments of each request are (context, decoding, doc_to_visual, doc_id, task, split)."""
        answers: list[str] = [""] * len(requests)
        with progress_bar("answering", len(requests), shown=self.rank == 0) as advance:
            for batch in _batches([request.args[1] for request in requests], self.batch_size):
                talks = []
                for place in batch:
                    context, _, visual, number, task, split = requests[place].args
                    talks.append(self._talk(context, visual(self._doc(task, split, number))))
                decoding = requests[batch[0]].args[1]
                for place, said in zip(batch, self.model.chat_batch(talks, **_decoding(decoding)), strict=True):
                    answers[place] = _until(said, decoding)
                    advance()
        return answers

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Return the answers of all rounds.

        The fourth argument of a request is the task's doc_to_text, which gives the words of the next round. It is
        called with the answers so far and returns pictures, context, whether the conversation is over, the answers to
        keep, and information for its next call.
        """
        found = []
        with progress_bar("talking", len(requests), shown=self.rank == 0) as advance:
            for request in requests:
                context, decoding, visual, next_round, number, task, split = request.args
                doc = self._doc(task, split, number)
                pictures, said, told = visual(doc), list[str](), None
                while True:
                    answer = self.model.chat_batch([self._talk(context, pictures)], **_decoding(decoding))[0]
                    said.append(_until(answer, decoding))
                    pictures, context, over, kept, told = next_round(
                        doc, previous_output=said, round_idx=len(said), previous_round_info=told
                    )
                    if over:
                        found.append(list(kept))
                        break
                advance()
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Return the mean next-token loss of each continuation, and whether greedy decoding produces it.

        lmms-eval's multiple choice takes the loss, not its negative: it picks the smallest. The arguments are
        (context, continuation or doc_to_target, doc_to_visual, doc_id, task, split). lmms-eval 0.7.3 converts a bare
        pair to a string before a task sees it; a `GenerationResult` around it prevents this.
        """
        from janusflow.evaluation.benchmarks.seedbench import choice_losses

        found = []
        with progress_bar("reading", len(requests), shown=self.rank == 0) as advance:
            for request in requests:
                context, target, visual, number, task, split = request.args
                doc = self._doc(task, split, number)
                continuation = str(target(doc) if callable(target) else target)
                talk = self._talk(context, visual(doc))
                loss = float(choice_losses(self.model, [talk], [[continuation]])[0, 0])
                words = self.model.processor.tokenizer.encode(f" {continuation.strip()}", add_special_tokens=False)
                said = self.model.chat_batch([talk], max_new_tokens=len(words))[0]
                found.append(GenerationResult((loss, said.strip() == continuation.strip())))
                advance()
        return found

    def _doc(self, task: str, split: str, number: int) -> Any:
        return self.task_dict[task][split][number]

    def _talk(self, context: str | Sequence[str], visuals: Any) -> Conversation:
        """Return a question with its pictures as messages."""
        pictures = list(_flat(visuals))
        odd = next((one for one in pictures if not isinstance(one, Image.Image)), None)
        if odd is not None:
            raise ValueError(f"the task shows a {type(odd).__name__}; models of this family only see pictures")
        text = context if isinstance(context, str) else context[0]
        question = self.model.processor.question(text.replace("<image>", "").strip(), len(pictures))
        user = {"role": "user", "content": question, "images": [picture.convert("RGB") for picture in pictures]}
        return [user] if self.system is None else [{"role": "system", "content": self.system}, user]


def _flat(visuals: Any) -> Iterable[Any]:
    """Yield the pictures of a document, however they are nested; none for None."""
    if visuals is None:
        return
    if isinstance(visuals, (list, tuple)):
        for inner in visuals:
            yield from _flat(inner)
    else:
        yield visuals


def _batches(decodings: Sequence[Mapping[str, Any]], size: int) -> list[list[int]]:
    """Return the indices of requests with equal decoding, in batches."""
    groups: dict[str, list[int]] = {}
    for place, decoding in enumerate(decodings):
        groups.setdefault(repr(sorted(decoding.items(), key=lambda pair: pair[0])), []).append(place)
    return [places[start : start + size] for places in groups.values() for start in range(0, len(places), size)]


def _decoding(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decoding arguments that we also have; a temperature of 0 is greedy, without sampling arguments."""
    found = {key: given[key] for key in DECODING if given.get(key) is not None}
    if not found.get("do_sample") or not found.get("temperature", 1.0):
        found = {key: value for key, value in found.items() if key in ("max_new_tokens", "repetition_penalty")}
    if not found.get("top_p", 1.0):
        del found["top_p"]
    return found


def _until(text: str, decoding: Mapping[str, Any]) -> str:
    """Return the text before the first stop word."""
    stops = decoding.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text.strip()
