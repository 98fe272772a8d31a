"""Reflow: pictures that a model generates from known noise become its training targets for that noise.

This is the second procedure of rectified flow (Liu et al., arXiv 2209.03003, section 2.2). In the first training, any
noise x_0 may lead to any picture x_1 of a prompt, and where paths cross, the velocity is their mean. Here, the pairs
(x_0, x_1) are connected by the model's own ODE with guidance: paths no longer cross, the model learns guidance along
with them, and few steps are enough. Pairs that a judge rejects are left out; training on the rest then also raises the
share of correct pictures.

A model that has gone astray is at a state x_t that is on none of the straight lines of such pairs. With `states`, the
model's own states, starting with the noise, are stored along with each pair. Each is trained towards the wanted
picture, v = (x_1 - x_t) / (1 - t), as in DAgger (Ross et al., arXiv 1011.0686). A state is written as the noise from
which a straight line leads through x_t to x_1, (x_t - t x_1) / (1 - t), so that training treats it like any other
sample.

With a teacher, the picture is the one that the teacher generates from the same noise, and the states are the model's
own. So a fine-tuned model learns to generate again what it generated before (on-policy distillation, Agarwal et al.,
arXiv 2306.13649).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from janusflow.arguments import check_fields, number_from, whole_text
from janusflow.data.constraints import NonNegativeInt, PositiveInt
from janusflow.data.jsonlines import FAULT, NAME, parse
from janusflow.data.records import NOISE_COLUMN, STATE_COLUMN, TIME_COLUMN
from janusflow.data.samples import square
from janusflow.engine.generation import LARGEST_SEED
from janusflow.extras import require
from janusflow.files import checked, locked, read_json, remove_leftovers, temporary_path, write_text
from janusflow.progress import progress_bar

if TYPE_CHECKING:
    from janusflow.pipelines.janusflow import JanusFlow

Accept = Callable[[int, Image.Image], bool]
"""Number of a prompt and a picture generated for it -> whether to train on the picture."""

Judge = Callable[[str, Image.Image], float]
"""Prompt and picture -> score."""

STATE, LOCK = "reflow.json", ".lock"
PAIRS = re.compile(r"pairs-(\d{6,})\.(?:parquet|tmp)")  # older versions wrote .tmp until a file was complete


@dataclass
class _State:
    """The content of `reflow.json`: the settings of a run, and the number of pairs in each finished file."""

    settings: dict[str, Any]
    kept: list[NonNegativeInt]


@dataclass(frozen=True)
class ReflowConfig:
    """How to generate pairs.

    Attributes:
        images: pictures per prompt.
        steps: Euler steps from noise to picture.
        guidance: weight of classifier-free guidance; training on the pairs makes it part of the velocity.
        seed: seed of the first picture's noise; those of the others count up from it.
        batch_size: pictures generated at once.
        shard_size: pictures generated per file.
        states: number of states of every path, starting with the noise at t = 0, that are stored along with the pair.
    """

    images: PositiveInt = 1
    steps: PositiveInt = 30
    guidance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    batch_size: PositiveInt = 16
    shard_size: PositiveInt = 1000
    states: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.states <= self.steps:
            raise ValueError(f"states is {self.states}; expected 0 to {self.steps}, the number of steps")


def reflow(
    model: JanusFlow,
    prompts: Sequence[str],
    out: Path,
    config: ReflowConfig,
    *,
    teacher: JanusFlow | None = None,
    accept: Accept | None = None,
    names: dict[str, Any] | None = None,
) -> dict[str, int]:
    """Generate pictures and write Parquet files: image, text, noise_seed and, for states, reflow_noise and reflow_time.

    A run that was stopped continues with the next file; its result does not depend on that.

    Args:
        teacher: model that generates the kept pictures, from the same noise in the same way; states stay the model's.
        accept: function that decides which pictures are kept; by default all are.
        names: what else affects the pairs (model, judge, ...); a run with other values is not continued.

    Returns:
        "drawn" and "kept": the number of pictures generated, and of pairs kept.

    Raises:
        ValueError: if there are no prompts, a model generates codes, the teacher's pictures have another size, `out`
            contains a run with other settings or other pairs, or another process is writing into it.
    """
    if not prompts:
        raise ValueError("no prompts were given")
    require("reflow", "datasets")
    for one in (model, teacher):
        if one is not None and not one.family.separate_vae:
            raise ValueError(f"a {one.family.name} model generates codes; pairs need a model that starts from noise")
    size, teachers = (one and one.network.config.image_size for one in (model, teacher))
    if teachers not in (None, size):
        raise ValueError(
            f"the teacher generates pictures of {teachers} pixels and the model of {size}; their noise differs"
        )
    asked = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]
    settings = {**asdict(config), "prompts": asked, **(names or {})}
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, f"another process is writing into {out}; wait for it, or give another folder"):
        kept = _continue(out, settings)
        total = len(prompts) * config.images
        with progress_bar("generating pairs", total, done=min(len(kept) * config.shard_size, total)) as advance:
            while len(kept) * config.shard_size < total:
                first = len(kept) * config.shard_size
                rows: list[dict[str, Any]] = []
                for start in range(first, min(first + config.shard_size, total), config.batch_size):
                    stop = min(start + config.batch_size, first + config.shard_size, total)
                    rows += _pairs(model, teacher, prompts, range(start, stop), config, accept)
                    for _ in range(start, stop):
                        advance()
                if rows:
                    if not (out / STATE).is_file():  # a file without a state would not be known as this run's own
                        _save(out, settings, kept)
                    _write(out / f"pairs-{len(kept):06d}.parquet", rows)
                kept.append(sum(TIME_COLUMN not in row for row in rows))  # pairs; their states are further rows
                _save(out, settings, kept)
    return {"drawn": total, "kept": sum(kept)}


def read_prompts(file: Path) -> list[str]:
    """Read the prompts of a file: one per line, or the field `prompt` or `text` of JSON lines.

    Raises:
        ValueError: if the file cannot be read, or contains none.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{file} cannot be read as prompts: {reason}") from error
    if file.suffix == ".jsonl":
        prompts = [_prompt_of(parse(line.encode(), file, number), file) for number, line in enumerate(lines, 1) if line]
    else:
        prompts = [line for line in lines if line]
    if not prompts:
        raise ValueError(f"{file} contains no prompts")
    return prompts


def _prompt_of(row: dict[str, Any], file: Path) -> str:
    prompt = row.get("prompt", row.get("text"))
    if FAULT in row or not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(row.get(FAULT) or f"{file} has a line without prompt or text: {row!r:.80}")
    return whole_text(f"the prompt of {row[NAME]}", prompt.strip())


def judged(judge: Judge, prompts: Sequence[str], least: float) -> Accept:
    """Return a function that accepts the pictures whose score is at least `least`.

    Raises:
        ValueError: if the least score is not a number. The returned function raises it for a score that is not a
            number, or if the judge fails.
    """
    number_from("min_score", least)

    def accept(number: int, picture: Image.Image) -> bool:
        prompt = prompts[number]
        try:
            score = judge(prompt, picture)
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"the judge failed on {prompt!r}: {type(error).__name__}: {error}") from error
        try:
            return float(score) >= least
        except (TypeError, ValueError) as error:
            raise ValueError(f"the judge gave {score!r} for {prompt!r}; expected a number") from error

    return accept


def _pairs(
    model: JanusFlow,
    teacher: JanusFlow | None,
    prompts: Sequence[str],
    numbers: range,
    config: ReflowConfig,
    accept: Accept | None,
) -> list[dict[str, Any]]:
    asked, seeds = [number // config.images for number in numbers], [config.seed + number for number in numbers]
    path: list[tuple[float, Tensor]] = []  # t and x after each step, (N, C, H, W)

    def keep(_model: Any, step: int, t: float, given: dict[str, Tensor]) -> None:
        if step + 1 < config.states:
            path.append((t, given["latents"].float().cpu().clone()))

    settings: dict[str, Any] = {
        "seed": seeds,
        "num_inference_steps": config.steps,
        "guidance_scale": config.guidance,
        "shift": time_shift(config, numbers.start),
        "batch_size": len(asked),
        "progress": False,
    }
    texts = [prompts[number] for number in asked]
    drawn = [] if teacher and not config.states else model.generate(texts, **settings, callback_on_step_end=keep)
    if teacher:
        drawn = teacher.generate(texts, **settings)
    taken = [(n, picture) for n, picture in enumerate(drawn) if accept is None or accept(asked[n], picture)]
    ends = _latents(model, [picture for _, picture in taken]) if config.states and taken else None  # x_1
    rows = []
    for row, (place, picture) in enumerate(taken):
        pair = {
            "image": {"bytes": _png(picture), "path": None},
            "text": texts[place],
            NOISE_COLUMN: seeds[place],
        }
        rows.append(pair)
        if ends is None:
            continue
        rows.append({**pair, TIME_COLUMN: 0.0})
        for t, states in path:
            noise = (states[place] - t * ends[row]) / (1 - t)
            state = {"image": pair["image"], "text": pair["text"]}
            rows.append({**state, STATE_COLUMN: noise.half().numpy().tobytes(), TIME_COLUMN: t})
    return rows


def time_shift(config: ReflowConfig, first: int) -> float:
    """Return the time shift of the batch that begins with number `first`: 1, or with states a random value around it.

    The states of a single grid would lie at few times, which a network learns to distinguish from those in between
    (docs/log.md).
    """
    return 2 ** Random(f"{config.seed}/{first}").uniform(-0.7, 0.7) if config.states else 1.0


def _latents(model: JanusFlow, pictures: Sequence[Image.Image]) -> Tensor:
    """Return x_1 as training encodes it, (N, C, H, W) float32."""
    pixels = [square(picture, model.network.config.image_size, None) for picture in pictures]
    return model.codec.encode(torch.stack(pixels)).float().cpu()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            NOISE_COLUMN: datasets.Value("int64"),
            STATE_COLUMN: datasets.Value("binary"),
            TIME_COLUMN: datasets.Value("float64"),
        }
    )
    shown = not datasets.are_progress_bars_disabled()
    table = datasets.Dataset.from_list([{name: row.get(name) for name in features} for row in rows], features=features)
    datasets.disable_progress_bars()  # this run has its own bar
    try:
        with temporary_path(file) as temporary:
            table.to_parquet(str(temporary))
            temporary.replace(file)
    finally:
        if shown:
            datasets.enable_progress_bars()


def _continue(out: Path, settings: dict[str, Any]) -> list[int]:
    """Return the number of pairs in each finished file."""
    remove_leftovers(out)
    if not (out / STATE).is_file():
        if foreign := sorted(out.glob("pairs-*")):
            raise ValueError(f"{foreign[0]} exists, but no {STATE} of a run that wrote it; give another folder")
        return []
    state = checked(_State, read_json(out / STATE), out / STATE)
    given = state.settings
    other = [name for name in {**settings, **given} if given.get(name) != settings.get(name)]
    if other:
        names = ", ".join(other)
        raise ValueError(f"{out} contains pairs of other settings ({names}); use those, or give another folder")
    for number, count in enumerate(state.kept):
        if count and not (out / f"pairs-{number:06d}.parquet").is_file():
            raise ValueError(f"{out / STATE} names pairs-{number:06d}.parquet, which is not there")
    for file in [*out.iterdir()]:  # a file written after the state is made again
        if (found := PAIRS.fullmatch(file.name)) and int(found[1]) >= len(state.kept):
            file.unlink()
    return state.kept


def _save(out: Path, settings: dict[str, Any], kept: list[int]) -> None:
    write_text(out / STATE, json.dumps({"settings": settings, "kept": kept}) + "\n")
