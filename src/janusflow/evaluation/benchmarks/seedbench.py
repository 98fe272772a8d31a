"""SEED-Bench (arXiv 2307.16125), version 1: questions with four choices; the paper's score is over its image types.

There are two ways to answer. With "letter", as in most evaluations and that of the authors, the model writes a letter.
With "likelihood", the answer is the choice whose text has the lowest mean loss after the question. So do the official
interfaces for LLaVA and Qwen-VL (SEED-Bench-2); that for InstructBLIP (version 1) sums the losses, with the end token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from janusflow.evaluation.benchmarks.mmbench import NONE, read_option
from janusflow.evaluation.data import Questions
from janusflow.evaluation.protocol import Item, Output, Row, conversation
from janusflow.evaluation.question_forms import choice_question
from janusflow.evaluation.score_sample import ScoreSample, by_part
from janusflow.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

TYPES = (
    "scene understanding",
    "instance identity",
    "instance attributes",
    "instance location",
    "instances counting",
    "spatial relation",
    "instance interaction",
    "visual reasoning",
    "text understanding",
)  # question_type_id 1 to 9, the types about pictures
CHOICES = {"A": "choice_a", "B": "choice_b", "C": "choice_c", "D": "choice_d"}


def choice_losses(model: Any, talks: Sequence[Sequence[Mapping[str, Any]]], choices: Sequence[Sequence[str]]) -> Tensor:
    """Return the mean next-token loss of each choice as the assistant's answer.

    The conversations are encoded once; their keys and values then serve all choices.

    Args:
        model: a `JanusFlow` or `Janus` pipeline.
        talks: B conversations that end with the user's question.
        choices: K texts for each conversation.

    Returns:
        (B, K) float32.
    """
    import torch

    from janusflow.model.prefix import CACHE

    network, processor = model.network, model.processor
    inputs, device = processor.encode_conversations(talks), network.device
    mask = inputs.attention_mask.to(device)  # (B, T), padded on the left
    pixels = None if inputs.pixel_values is None else inputs.pixel_values.to(device)
    rows = [
        processor.tokenizer.encode(f" {choice.strip()}", add_special_tokens=False) for own in choices for choice in own
    ]
    count, longest = len(choices[0]), max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)  # (B K, L), padded on the right
    real = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)], real[index, : len(row)] = torch.tensor(row), 1
    ids, real = ids.to(device), real.to(device)
    with torch.inference_mode():
        read = network(
            inputs_embeds=network.embed(inputs.input_ids.to(device), pixels),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        cache = getattr(read, CACHE)
        cache.batch_repeat_interleave(count)
        seen = mask.repeat_interleave(count, 0)
        after = network(
            inputs_embeds=network.get_input_embeddings()(ids),
            attention_mask=torch.cat([seen, real], dim=1),
            position_ids=seen.sum(1, keepdim=True) + torch.arange(longest, device=device),
            **{CACHE: cache},
            use_cache=True,
        )
        logits = torch.cat([read.logits[:, -1:].repeat_interleave(count, 0), after.logits[:, :-1]], dim=1)
        losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), ids, reduction="none")
        return ((losses * real).sum(1) / real.sum(1)).view(len(talks), count)


@dataclass(frozen=True)
class SeedBenchSettings:
    """Settings of SEED-Bench.

    Attributes:
        prompt: form of the question in letter mode, see `question_forms.py`; the likelihood mode asks only the
            question, and "wrapper" leaves the system prompt out.
        mode: "letter" or "likelihood".
    """

    prompt: Literal["wrapper", "plain"] = "wrapper"
    mode: Literal["letter", "likelihood"] = "letter"


class SeedBench(Questions):
    """SEED-Bench's image questions over a folder with `SEED-Bench.json` and the pictures in `SEED-Bench-image/`.

    Scores are in percent: over all questions ("overall"), and by type.
    """

    name = "seedbench"
    title = "SEED-Bench (image)"
    Settings = SeedBenchSettings
    published: ClassVar = {
        "JanusFlow 384 (paper)": {"overall": 70.5},
        "JanusFlow 256 (paper)": {"overall": 67.6},
        "Janus (paper)": {"overall": 63.7},
    }
    source = (
        "SEED-Bench.json and the pictures of SEED-Bench-image.zip in SEED-Bench-image/, both of "
        "version 1 (AILab-CVC/SEED-Bench on the Hugging Face hub)"
    )
    settings: SeedBenchSettings

    def items(self) -> list[Item]:
        folder = self.open_folder()
        found = folder.json("SEED-Bench.json")
        file = folder.read[-1]
        records = found.get("questions") if isinstance(found, dict) else None
        if not isinstance(records, list):
            raise folder.refusal(file, "is another version: it contains no list of questions")
        items = []
        for place, record in enumerate(records, start=1):
            try:
                kind, picture = int(record["question_type_id"]), str(record["data_id"])
                number, question, answer = (str(record[name]) for name in ("question_id", "question", "answer"))
                choices = {letter: str(record[name]) for letter, name in CHOICES.items()}
            except (KeyError, TypeError, ValueError) as error:
                wanted = ", ".join(("question_id, question_type_id, question, data_id, answer", *CHOICES.values()))
                raise folder.refusal(file, f"is another version: question {place} lacks one of {wanted}") from error
            if answer not in choices or not all(map(str.strip, choices.values())):
                raise folder.refusal(file, f"is damaged: question {number} has an empty choice, or no answer A to D")
            if not 1 <= kind <= len(TYPES):
                continue
            prompt, system = choice_question(question, choices, self.settings.prompt)
            items.append(
                Item(
                    key=number,
                    prompt=question if self.settings.mode == "likelihood" else prompt,
                    images=(folder.picture(f"SEED-Bench-image/{picture}"),),
                    group=picture,
                    system=system,
                    data={"type": TYPES[kind - 1], "choices": choices, "answer": answer},
                )
            )
        if not items:
            raise folder.refusal(file, "is another version: it contains no question of types 1 to 9")
        return items

    def produce(self, model: Any, items: Sequence[Item], options: Mapping[str, Any]) -> list[Output]:
        """Answer the items; in likelihood mode, with the letters of the likeliest choices (nothing is decoded)."""
        if self.settings.mode == "letter":
            return super().produce(model, items, options)
        talks = [conversation(model, item) for item in items]
        losses = choice_losses(model, talks, [list(item.data["choices"].values()) for item in items])
        return [list(CHOICES)[index] for index in losses.argmin(1).tolist()]

    def also_shown(self, item: Item) -> Any:
        return item.data["choices"] if self.settings.mode == "likelihood" else None

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        said = read_option(str(output), item.data["choices"])
        found = {"score": float(said == item.data["answer"]), "said": said or NONE}
        return found if said else {**found, "unreadable": True}

    def part(self, item: Item) -> str:
        return str(item.data["type"])

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        return by_part(rows, lambda row: ("overall", row.item.data["type"]), first=("overall", *TYPES))

    def write_judged(self, rows: Sequence[Row]) -> None:
        """Write `results.jsonl` with question_id, prediction and gt_answer, as results are submitted."""
        names = ("question_id", "prediction", "gt_answer")
        found = [(row.item.key, row.verdict["said"], row.item.data["answer"]) for row in rows]
        lines = [json.dumps(dict(zip(names, one, strict=True))) + "\n" for one in found]
        write_text(self.official / "results.jsonl", "".join(lines))
