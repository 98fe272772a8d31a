"""L_AR of codes: the next codes of pictures to generate, compared with the codec's or, if anchored, soft labels.

Shapes: M pictures of L codes, A of them anchored, K codes of the codebook.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from janusflow.data.samples import Sample
from janusflow.model.janusflow import GENERATION_TOKEN
from janusflow.training.losses.autoregressive import autoregressive_loss, distillation_loss
from janusflow.training.losses.term import Forward, Term


class Codes(Term):
    """- sum log p(code | prompt, the codes before it), over all codes of pictures to generate (Janus, equation 1)."""

    name, title, optional = "codes", "L_AR of codes", False

    def sum(self, seen: Forward) -> Tensor | None:
        if seen.latents is None:
            return None
        logits, row = seen.output.code_logits, seen.row
        if row.anchored is None or row.soft_codes is None:
            return autoregressive_loss(logits.flatten(0, 1), seen.latents.flatten())
        free = autoregressive_loss(logits[~row.anchored].flatten(0, 1), seen.latents[~row.anchored].flatten())
        kept = distillation_loss(logits[row.anchored].flatten(0, 1), row.soft_codes.flatten(0, 1))
        return free + seen.config.anchor * kept

    def count(self, samples: Sequence[Sample]) -> float:
        return float(sum(sample.tokens.ids.count(GENERATION_TOKEN) for sample in samples))


TERM = Codes()
