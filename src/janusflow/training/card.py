"""The text about a run in the model card of its export: start, settings, data, losses, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from janusflow import __version__
from janusflow.data.mixture import TASKS
from janusflow.data.sources import SourceConfig
from janusflow.training.config import TrainConfig
from janusflow.training.log import read_log
from janusflow.training.losses import terms
from janusflow.training.resume import Progress

ENDS = 20  # steps at each end of a run over which losses are averaged, at most a tenth of the run
MODEL = """## Use

```python
from janusflow import JanusFlow

model = JanusFlow.from_pretrained("{folder}")  # where this folder is, or its name on the hub
model.generate("a prompt")[0].save("picture.png")
print(model.ask("What is in the picture?", "picture.png"))
```
"""
ADAPTER = """## Use

```python
from janusflow import JanusFlow

model = JanusFlow.from_pretrained("{start}", adapter="{folder}")  # where this folder is
model.generate("a prompt")[0].save("picture.png")
```
"""


def card_text(config: TrainConfig, progress: Progress, log: Path, *, adapter: bool = False) -> str:
    """Return the text of the card in Markdown, without front matter and title.

    Args:
        progress: the progress of the exported checkpoint.
        log: the run's `log.jsonl`.
        adapter: whether the card describes the adapters instead of the whole model.
    """
    start = config.model.checkpoint or f"a new network ({config.model.preset})"
    what = "Low-rank adapters trained" if adapter else "Trained"
    use = ADAPTER if adapter else MODEL
    parts = [f"{what} with `janusflow train` from `{start}`.", _settings(config, progress)]
    parts += [_data(config, progress), _losses(config, progress, log)]
    folder = Path(config.out) / "export"
    place = (folder / "adapter" if adapter else folder).as_posix()
    parts.append(use.format(folder=place, start=config.model.checkpoint).rstrip())
    return "\n\n".join(part for part in parts if part)


def _settings(config: TrainConfig, progress: Progress) -> str:
    optimizer, lora = config.optimizer, config.lora
    early = "" if progress.step >= config.steps else f" of {config.steps:,}: stopped early"
    rows = {
        "trained parts": ", ".join(config.parts),
        "steps": f"{progress.step:,}{early}",
        "batch size": f"{config.batch_size:,}",
        "optimizer": optimizer.name,
        "learning rate": f"{optimizer.learning_rate:g}, {optimizer.schedule}, {optimizer.warmup:,} warm-up steps",
        "precision of matrix products": config.precision,
    }
    if lora.rank:
        rows["adapters"] = f"rank {lora.rank}, alpha {lora.alpha}{', on f_enc too' if lora.tower else ''}"
    rows["weights"] = f"average over the run, decay {config.ema:g}{' with warm-up' if config.ema_warmup else ''}"
    rows["share of the starting weights in the average"] = percent(progress.start_share)
    rows["seed"] = str(config.seed)
    rows["version"] = f"janusflow {__version__}"
    return _table("## Training", ("setting", "value"), rows.items())


def _data(config: TrainConfig, progress: Progress) -> str:
    ratio = config.data.ratios[-1]
    shares = {task: float(getattr(ratio, task)) for task in TASKS}
    rows = [
        (task, f"{share / sum(shares.values()):.0%}", "; ".join(map(_source, getattr(config.data, task))) or "-")
        for task, share in shares.items()
        if share
    ]
    text = _table("## Data", ("task", "share of samples", "sources"), rows)
    if config.data.own is not None:
        given = config.data.own if isinstance(config.data.own, list) else [config.data.own]
        own = "`, `".join(Path(one).name for one in given)
        mixed = config.data.own_share < 1 and any(getattr(config.data, task) for task in TASKS)
        share = percent(config.data.own_share) if mixed else "all"
        text += f"\n\nYour own data, `{own}`, makes up {share} of the samples of each task it has records for"
        text += ", and all of those of tasks without other sources." if mixed else "."
    taken, broken = progress.seen
    return text + (f"\n\n{taken:,} records were taken, {broken:,} of them broken." if taken else "")


def _source(source: SourceConfig) -> str:
    name = f" `{source.path if source.kind == 'hub' else Path(source.path).name}`" if source.path else ""
    return f"{source.kind}{name}, weight {source.weight:g}{', anchored' if source.anchor else ''}"


def _losses(config: TrainConfig, progress: Progress, log: Path) -> str:
    rows = read_log(log)
    rows = [row for row in rows if row["step"] <= progress.step and row.get("loss") is not None]
    if not rows:
        return ""
    count = max(1, min(ENDS, len(rows) // 10))
    first, last = rows[:count], rows[-count:]
    given = [
        (term.title, _mean(first, name), _mean(last, name))
        for name, term in terms().items()
        if config.loss.weight(name) and any(name in row for row in rows)
    ]
    steps = "first step", "last step"
    if count > 1:
        steps = f"mean of the first {count} steps", f"of the last {count}"
    return _table("## Losses", ("loss", *steps), given)


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    return f"{sum(values) / len(values):.4f}" if values else "-"


def _table(title: str, names: Sequence[str], rows: Any) -> str:
    lines = [title, "", f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def percent(share: float | None) -> str:
    """Format a share in per cent, with enough digits to distinguish a small share from none."""
    if share is None:
        return "unknown"
    return f"{100 * share:.3g} %" if share >= 1e-5 else "less than 0.001 %"
