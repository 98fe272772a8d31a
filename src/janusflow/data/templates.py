"""Turn conversations into training sequences: token ids, and labels where the assistant speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from janusflow.families.family import only_first
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.processing.chat_template import ROLE_WORDS
from janusflow.processing.processor import JanusFlowProcessor

IGNORE = -100


@dataclass(frozen=True)
class Tokens:
    """One sample as a token sequence of length T.

    Attributes:
        ids: token ids; `image_token_id` where a picture is seen and `GENERATION_TOKEN` where one is generated.
        labels: the ids where the next-token loss is taken, `IGNORE` elsewhere.
        positions: position ids.
    """

    ids: list[int]
    labels: list[int]
    positions: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def conversation(
    processor: JanusFlowProcessor, turns: Sequence[tuple[str, str]], *, system: str | None = None
) -> Tokens:
    """Tokenize a finished conversation in the chat template; every answer and its end token are labelled.

    The pieces are encoded one by one so that their boundaries are known; the ids are those of the whole text.

    Args:
        processor: processor of the model in training.
        turns: (user, assistant) messages; the user's contain a placeholder for each of their pictures.
        system: system prompt of the conversation, if it has one; the processor's by default.
    """
    user, assistant = ROLE_WORDS[processor.text.sft_format]
    encode, tag = processor.tokenizer, processor.text.image_tag
    system = processor.text.system_prompt if system is None else system.strip()
    ids, labels = [encode.bos_token_id], [IGNORE]
    for index, (question, answer) in enumerate(turns):
        before = f"{system}\n\n" if system and index == 0 else ""
        asked = f"{before}{user}: {question.strip()}\n\n{assistant}:"
        reply = f" {answer.strip()}{encode.eos_token}"
        new = processor.lay_pictures(encode.encode(asked, add_special_tokens=False), question.count(tag))
        ids += new
        labels += [IGNORE] * len(new)
        new = encode.encode(reply, add_special_tokens=False)
        ids += new
        labels += new
    return Tokens(ids, labels, list(range(len(ids))))


def plain_text(processor: JanusFlowProcessor, text: str) -> Tokens:
    """Tokenize a text without roles; every token after BOS is labelled, including the end token."""
    tokenizer = processor.tokenizer
    ids = tokenizer.encode(text + tokenizer.eos_token)
    return Tokens(ids, [IGNORE, *ids[1:]], list(range(len(ids))))


def captioning(processor: JanusFlowProcessor, instruction: str, caption: str, *, pictures: int) -> Tokens:
    """Tokenize the template of stages 1 and 2: pictures, an instruction on the next line, the caption on the one after.

    The caption and its end token are labelled.
    """
    tokenizer = processor.tokenizer
    asked = f"{processor.text.image_tag * pictures}\n{instruction}\n"
    before = processor.lay_pictures(tokenizer.encode(asked), pictures)
    reply = tokenizer.encode(caption.strip() + tokenizer.eos_token, add_special_tokens=False)
    ids = before + reply
    return Tokens(ids, [IGNORE] * len(before) + reply, list(range(len(ids))))


def drawing(
    processor: JanusFlowProcessor,
    prompt: str,
    image_tokens: int,
    *,
    dropped: bool,
    chat: bool = True,
    without_words: Callable[[list[int], int], tuple[list[int], list[int]]] = only_first,
) -> Tokens:
    """Tokenize a prompt, `<begin_of_image>`, and the tokens of the picture.

    Args:
        processor: processor of the model in training.
        image_tokens: number of the picture's tokens.
        dropped: use what the unconditional rows of guidance see in place of the prompt.
        chat: use the chat template, as generation does; otherwise (stages 1 and 2) the prompt as it is.
        without_words: makes those rows, see `Family.without_words`.
    """
    before = processor.encode_prompts([prompt])[0][0].tolist() if chat else processor.tokenizer.encode(prompt.strip())
    before.append(processor.image_start_id)
    length, positions = len(before), list(range(len(before)))
    if dropped:
        before, positions = without_words(before, processor.tokenizer.pad_token_id)
    ids = before + [GENERATION_TOKEN] * image_tokens
    return Tokens(ids, [IGNORE] * len(ids), positions + list(range(length, length + image_tokens)))
