"""How Janus-Pro-R1 reads its own picture again, says whether it matches the prompt and why, and generates another.

    <|User|>: prompt <|Assistant|>:<begin> features <end> THINK "Yes" or "No", why <eos>
    <|User|>: prompt <|Assistant|>:<begin> codes <end> THINK "No", why <eos> AGAIN <begin> the codes that are generated

In the row without words of the second text, only the words of the prompt are pad tokens. THINK and AGAIN are the texts
that the checkpoint was trained with. Source: `inference/inference.py` in wendell0218/Janus-Pro-R1, which samples yes or
no at temperature 1, redraws once, and shifts positions by the hidden end of the reason. Here the more probable answer
counts, and positions have no gap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from janusflow.engine.decoding import Decoding
from janusflow.engine.editing import encode, left_padded
from janusflow.engine.token_generation import ReadPrompts, read_rows
from janusflow.engine.understanding import continue_texts
from janusflow.model.janus import JanusForConditionalGeneration
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.processing.batching import UnderstandingInputs
from janusflow.processing.chat_template import without_tags
from janusflow.processing.processor import JanusFlowProcessor

THINK = "\nLet me think Does this image match the prompt..."
AGAIN = "\nNext, I will draw a new image"
SPELLINGS = (("Yes",), ("No",))
REASON = 80  # maximum number of tokens, including yes or no


def check_inputs(
    processor: JanusFlowProcessor, prompts: Sequence[str], pictures: Sequence[Image.Image], answer: str = ""
) -> UnderstandingInputs:
    """Return texts that ask the model whether P pictures match their prompts.

    Args:
        processor: the model's processor.
        prompts, pictures: the prompts and the picture of each.
        answer: the beginning of the answer, "Yes" or "No".
    """
    features = [processor.image_id] * processor.text.num_image_tokens
    end = _tokens(processor, processor.text.image_end_tag + THINK) + _tokens(processor, answer)
    ids, visible = left_padded(processor, [_prompt(processor, prompt) + features + end for prompt in prompts])
    pixels = torch.stack([processor.preprocess(picture) for picture in pictures])
    return UnderstandingInputs(ids, visible, pixels, list(prompts), [bool(answer)] * len(prompts))


def reasons(
    network: JanusForConditionalGeneration,
    processor: JanusFlowProcessor,
    prompts: Sequence[str],
    pictures: Sequence[Image.Image],
    seeds: Sequence[int],
) -> list[str]:
    """Return why P pictures do not match their prompts, in the model's words; each reason begins with "No"."""
    no = SPELLINGS[1][0]
    decoding = Decoding(max_new_tokens=REASON - 1, do_sample=True, seed=list(seeds))
    inputs = check_inputs(processor, prompts, pictures, no)
    return [no + without_tags(processor.text, why) for why in continue_texts(network, processor, inputs, decoding)]


def read_again(
    network: JanusForConditionalGeneration,
    processor: JanusFlowProcessor,
    prompts: Sequence[str],
    pictures: Sequence[Image.Image],
    why: Sequence[str],
    *,
    guided: bool,
) -> ReadPrompts:
    """Read P prompts with their pictures and reasons, to generate other pictures.

    Args:
        network, processor: the model.
        prompts, pictures: the prompts and the picture of each, which this model generated.
        why: see `reasons`.
        guided: whether to add a row without words.
    """
    codes, tags, pad = encode(network, processor, pictures), processor.text, processor.tokenizer.pad_token_id
    with_words, without = [], []
    for prompt, reason in zip(prompts, why, strict=True):
        start = _prompt(processor, prompt)
        rest = [GENERATION_TOKEN] * codes.shape[1]
        rest += _tokens(processor, tags.image_end_tag + THINK) + _tokens(processor, reason)
        rest += _tokens(processor, processor.tokenizer.eos_token + AGAIN + tags.image_start_tag)
        with_words.append(start + rest)
        without.append([start[0], *[pad] * (len(start) - 2), start[-1], *rest])
    ids, visible = left_padded(processor, with_words)
    rows = [part.to(network.device) for part in (ids, left_padded(processor, without)[0])[: 1 + guided]]
    return read_rows(network, rows, visible.to(network.device), codes=codes.repeat(len(rows), 1))


def _prompt(processor: JanusFlowProcessor, prompt: str) -> list[int]:
    """Return the ids of a generation prompt without tags of pictures, with `<begin_of_image>` at its end."""
    ids: list[int] = processor.tokenizer.encode(processor.render_prompt(without_tags(processor.text, prompt)))
    return ids


def _tokens(processor: JanusFlowProcessor, text: str) -> list[int]:
    ids: list[int] = processor.tokenizer.encode(text, add_special_tokens=False)
    return ids
