"""Several samples in one row: no padding, and each sample sees only itself.

Shapes: T tokens of the row, K of them labelled, N pictures seen, M to generate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.data.templates import IGNORE, Tokens
from janusflow.device import CPU
from janusflow.model.attention import PACKED, Documents
from janusflow.model.janusflow import GENERATION_TOKEN


@dataclass(frozen=True)
class Pack:
    """A row of samples.

    Attributes:
        input_ids, position_ids: (1, T).
        documents: where the samples begin and end.
        predicted_at: (K,) indices of the tokens whose successor is labelled.
        labels: (K,) ids of those successors.
        of_text: (K,) which of them belong to samples without a picture.
        seen: (N, 3, S, S) pictures seen, or None.
        pixels, noise, t: (M, 3, H, W), (M, C, h, w) and (M,) of the pictures to generate, or None; pictures that are
            generated as codes have only pixels.
        anchored: (M,) which pictures are anchored, or None if none is.
        soft_at, soft_labels: (K,) whether the label is replaced by logits, and those logits, one row each; or None.
        soft_codes: (A, L, codes) logits in place of the codes of the anchored pictures, or None.
    """

    input_ids: Tensor
    position_ids: Tensor
    documents: Documents
    predicted_at: Tensor
    labels: Tensor
    of_text: Tensor
    seen: Tensor | None
    pixels: Tensor | None
    noise: Tensor | None
    t: Tensor | None
    anchored: Tensor | None = None
    soft_at: Tensor | None = None
    soft_labels: Tensor | None = None
    soft_codes: Tensor | None = None


def pack(samples: Sequence[Sample], device: torch.device) -> Pack:
    """Concatenate samples into one row."""
    ids = torch.tensor([token for sample in samples for token in sample.tokens.ids], device=CPU)
    positions = torch.tensor([position for sample in samples for position in sample.tokens.positions], device=CPU)
    following = torch.tensor([label for s in samples for label in _following(s.tokens)], device=CPU)
    predicted_at = (following != IGNORE).nonzero()[:, 0]
    seen = [sample.seen for sample in samples if sample.seen is not None]
    drawn = [sample.drawn for sample in samples if sample.drawn is not None]
    noise = [one.noise for one in drawn if one.noise is not None]
    return Pack(
        input_ids=ids[None].to(device),
        position_ids=positions[None].to(device),
        documents=Documents.of([len(sample.tokens) for sample in samples], device),
        predicted_at=predicted_at.to(device),
        labels=following[predicted_at].to(device),
        of_text=torch.tensor([s.of_text for s in samples for _ in labelled(s.tokens)], dtype=torch.bool, device=device),
        seen=torch.cat(seen).to(device) if seen else None,
        pixels=torch.stack([one.pixels for one in drawn]).to(device) if drawn else None,
        noise=torch.stack(noise).to(device) if noise else None,
        t=torch.tensor([one.t for one in drawn], dtype=torch.float32, device=device) if noise else None,
    )


def packed_forward(network: Any, row: Pack, *, latents: Tensor | None = None, **options: Any) -> Any:
    """Run the network over a row. Samples see only themselves, and there are logits only where a label follows.

    Args:
        latents: x_t of the row's pictures to generate at the times `row.t`, (M, C, H, W), or their codes, (M, L).

    Returns:
        The network's output, with logits of shape (1, K, V).

    Raises:
        ValueError: if the network uses another attention, which would mix the samples.
    """
    if network.config.text_config._attn_implementation != PACKED:
        raise ValueError(f"packed rows need set_attn_implementation({{'text_config': {PACKED!r}}})")
    documents = row.documents
    if getattr(network.config, "image_attention", "causal") == "bidirectional":
        inside = row.input_ids[0] == GENERATION_TOKEN
        documents = documents.seeing_each_other(inside | inside.roll(-1))  # the time token precedes the picture's
    drawn = {} if latents is None else {"latents": latents}
    drawn |= {} if latents is None or row.t is None else {"t": row.t}
    return network(
        input_ids=row.input_ids,
        pixel_values=row.seen,
        position_ids=row.position_ids,
        **drawn,
        documents=documents,
        # A mask of four dimensions is used as it is: transformers must not build one of T x T for the row.
        attention_mask=row.position_ids.new_zeros(1, 1, 1, 1),
        use_cache=False,
        logits_to_keep=row.predicted_at,
        **options,
    )


def labelled(tokens: Tokens) -> list[int]:
    """Return the labels of a sample that are predicted."""
    return [label for label in _following(tokens) if label != IGNORE]


def _following(tokens: Tokens) -> list[int]:
    """Return what each token predicts. A sample's first token is never predicted, so its last token has no label."""
    return [*tokens.labels[1:], IGNORE]


def fill(samples: Sequence[Sample], length: int) -> list[list[Sample]]:
    """Distribute samples over rows of at most `length` tokens, longest first into the first row with room.

    A sample of more than `length` tokens gets a row of its own.
    """
    rows: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.tokens)):
        size = len(sample.tokens)
        place = next((index for index, free in enumerate(room) if free >= size), None)
        if place is None:
            rows.append([sample])
            room.append(length - size)
        else:
            rows[place].append(sample)
            room[place] -= size
    return rows
