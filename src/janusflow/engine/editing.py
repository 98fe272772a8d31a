"""Picture editing: Janus-4o reads a picture once as features and once as codes, before the words of the prompt.

    user:       <begin> features <end> <begin> codes <end> what to change
    assistant:  <begin> the codes that are generated

The three guidance rows are this prompt, the same with pad tokens for the codes, and one without words and pictures.
Source: `text_and_image_to_image_generate` in the README of FreedomIntelligence/ShareGPT-4o-Image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from janusflow.arguments import quoted, whole_text
from janusflow.engine.token_generation import ReadPrompts, read_rows
from janusflow.model.janus import JanusForConditionalGeneration, unconditional_ids
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.processing.batching import Batching
from janusflow.processing.pixels import to_pixels
from janusflow.processing.processor import JanusFlowProcessor


def read_edits(
    network: JanusForConditionalGeneration,
    processor: JanusFlowProcessor,
    prompts: Sequence[str],
    pictures: Sequence[Image.Image],
    *,
    guided: bool,
) -> ReadPrompts:
    """Read P prompts, each with its picture, in the rows of `TokenSampling.rows`.

    Args:
        network, processor: the model.
        prompts: what to change.
        pictures: one per prompt, in RGB.
        guided: whether to add a row without words.
    """
    device, pad = network.device, processor.tokenizer.pad_token_id
    features = torch.stack([processor.preprocess(picture) for picture in pictures]).to(device)
    codes = encode(network, processor, pictures)
    ids, visible = (part.to(device) for part in edit_ids(processor, prompts, codes.shape[1]))
    rows = [ids, ids.masked_fill(ids == GENERATION_TOKEN, pad)]
    rows += [unconditional_ids(ids, visible, pad)] if guided else []
    return read_rows(network, rows, visible, seen=network.see(features).repeat(2, 1, 1), codes=codes)


def edit_ids(processor: JanusFlowProcessor, prompts: Sequence[str], codes: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask (P, T) of prompts with one picture each, padded on the left.

    Args:
        processor: the model's processor.
        prompts: what to change.
        codes: number of codes of one picture, each marked by `GENERATION_TOKEN`.

    Raises:
        ValueError: for an empty prompt, or one with its own `<image_placeholder>`.
    """
    tags, rows = processor.text, []
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompt is {quoted(prompt)}; expected a text that is not empty")
        prompt = whole_text("prompt", prompt)
        text = processor.render_prompt(tags.image_tag + tags.image_start_tag + tags.image_end_tag + prompt)
        ids = processor.lay_pictures(processor.tokenizer.encode(text), 1)
        after = ids.index(processor.image_end_id) + 2  # the codes come after <end> <begin>
        rows.append(ids[:after] + [GENERATION_TOKEN] * codes + ids[after:])
    return left_padded(processor, rows)


def left_padded(processor: JanusFlowProcessor, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask (P, T) of rows of any lengths."""
    return Batching().collate(rows, pad=processor.tokenizer.pad_token_id, image=processor.image_id)


def encode(
    network: JanusForConditionalGeneration, processor: JanusFlowProcessor, pictures: Sequence[Image.Image]
) -> Tensor:
    """Return the codes (P, L) of pictures, which are resized and padded to a square as for f_enc."""
    half = (0.5, 0.5, 0.5)  # to [-1, 1], as the codec was trained
    settings = replace(
        processor.image, image_size=network.drawn_size, image_mean=half, image_std=half, do_normalize=True
    )
    pixels = torch.stack([to_pixels(picture, settings) for picture in pictures])
    return network.encode(pixels.to(network.device))
