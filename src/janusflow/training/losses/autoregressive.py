"""L_AR: the next tokens of answers and texts, compared with their ids or, for anchored samples, with soft labels.

Shapes: K labelled tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from janusflow.data.samples import Sample
from janusflow.training.losses.term import Forward, Term
from janusflow.training.packing import labelled


def autoregressive_loss(logits: Tensor, labels: Tensor, *, reduction: str = "sum") -> Tensor:
    """L_AR = - sum log p(token | what stands before it), over the labelled tokens; divide by their number.

    Args:
        logits: (K, V) logits at the tokens before the labelled ones.
        labels: (K,) ids.
        reduction: "sum", or "none" for the terms, (K,).

    Returns:
        float32: a scalar, 0 if nothing is labelled; or the terms.
    """
    return F.cross_entropy(logits.float(), labels, reduction=reduction)


def distillation_loss(logits: Tensor, soft_labels: Tensor, *, reduction: str = "sum") -> Tensor:
    """sum over tokens of KL(q || p), q the probabilities of `soft_labels` and p those of `logits`, both (K, V).

    Args:
        logits, soft_labels: see above.
        reduction: "sum", or "none" for the terms, (K,).

    Returns:
        float32: a scalar, 0 if both agree, to be divided by the number of tokens; or the terms.
    """
    log_p, log_q = logits.float().log_softmax(dim=-1), soft_labels.float().log_softmax(dim=-1)
    each = F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=-1)
    return each.sum() if reduction == "sum" else each


class Autoregressive(Term):
    """The next-token loss. The log also contains its means over samples with and without pictures."""

    name, title, optional = "ar", "L_AR", False
    details = ("ar_understanding", "ar_text")

    def sums(self, seen: Forward) -> dict[str, Tensor]:
        """Return `ar` and, without gradient, `text`: the part of that sum from samples without pictures."""
        row = seen.row
        if not len(row.labels):
            return {}
        logits = seen.output.logits[0]
        if row.soft_at is None or row.soft_labels is None:
            each = autoregressive_loss(logits, row.labels, reduction="none")
            return {"ar": each.sum(), "text": (each.detach() * row.of_text).sum()}
        hard, soft = ~row.soft_at, row.soft_at
        each = autoregressive_loss(logits[hard], row.labels[hard], reduction="none")
        kept = seen.config.anchor * distillation_loss(logits[soft], row.soft_labels, reduction="none")
        text = (each.detach() * row.of_text[hard]).sum() + (kept.detach() * row.of_text[soft]).sum()
        return {"ar": each.sum() + kept.sum(), "text": text}

    def counts(self, samples: Sequence[Sample]) -> dict[str, float]:
        each = [(len(labelled(sample.tokens)), sample.of_text) for sample in samples]
        return {"ar": float(sum(count for count, _ in each)), "text": float(sum(count for count, text in each if text))}

    def detail(self, totals: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
        seen = (totals["ar"] - totals["text"], counts["ar"] - counts["text"])
        by_task = {"ar_understanding": seen, "ar_text": (totals["text"], counts["text"])}
        return {name: total / count for name, (total, count) in by_task.items() if count}


TERM = Autoregressive()
