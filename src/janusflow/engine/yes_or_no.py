"""The probability of "yes" as the answer to a question about a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from janusflow.engine.understanding import Speaker
from janusflow.processing.batching import UnderstandingInputs
from janusflow.processing.processor import JanusFlowProcessor

SPELLINGS = (("Yes", "yes", " Yes", " yes"), ("No", "no", " No", " no"))


def yes_probability(
    network: Speaker,
    processor: JanusFlowProcessor,
    inputs: UnderstandingInputs,
    spellings: Sequence[Sequence[str]] = SPELLINGS,
) -> list[float]:
    """Return p(yes) / (p(yes) + p(no)) of the next token after B texts with pictures.

    Args:
        network, processor: the model.
        inputs: texts padded on the left.
        spellings: spellings of yes and of no. Only single-token ones count; if there are none, the first token of each.

    Raises:
        ValueError: if the tokenizer gives yes and no the same first tokens.
    """
    device = network.device
    yes, no = (_first_tokens(processor, words) for words in spellings)
    yes, no = yes - no, no - yes
    if not yes or not no:
        raise ValueError("the tokenizer does not tell yes from no by their first token, so the model cannot judge")
    pixels, visible = inputs.pixel_values, inputs.attention_mask.to(device)
    with torch.inference_mode():
        states = network.get_decoder()(
            inputs_embeds=network.embed(inputs.input_ids.to(device), None if pixels is None else pixels.to(device)),
            attention_mask=visible,
            position_ids=(visible.cumsum(dim=1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state[:, -1]
        scores = network.get_output_embeddings()(states).float()
    found = [scores[:, sorted(tokens)].logsumexp(dim=1) for tokens in (yes, no)]
    return (found[0] - found[1]).sigmoid().tolist()


def _first_tokens(processor: JanusFlowProcessor, words: Sequence[str]) -> set[int]:
    tokens = [processor.tokenizer.encode(word, add_special_tokens=False) for word in words]
    whole = {ids[0] for ids in tokens if len(ids) == 1}
    return whole or {ids[0] for ids in tokens}
