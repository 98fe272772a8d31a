"""What a training run is told: dataclasses read from a YAML recipe with `key=value` overrides, checked before anything
is loaded.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from janusflow.arguments import number_from, quoted
from janusflow.data.mixture import TASKS, Mixture, Ratio
from janusflow.data.samples import SampleConfig
from janusflow.data.sources import SourceConfig, file_config, kind_of, size_of, tasks_of
from janusflow.data.sources.registry import AnySource, find_kind
from janusflow.extras import require
from janusflow.families import families
from janusflow.files import read_yaml
from janusflow.training.losses import LossConfig, terms
from janusflow.training.spelling import meant
from janusflow.training.stages import TAUGHT_BY

Config = TypeVar("Config")
MOST_REFERENCES = 20  # in a recipe: references to references grow with every level


@dataclass(frozen=True)
class ModelConfig:
    """What is trained.

    Attributes:
        checkpoint: "tiny", a folder or a hub id to start from. Without one the network starts from `preset`.
        preset: "janusflow_1b", "janusflow_1b_256" or "tiny": the dimensions of a new network.
        llm: a folder or hub id of a Llama causal LM that a new network's language model starts from.
        tower: the same of a SigLIP vision tower.
        processor: a checkpoint whose tokenizer and settings a new network takes.
        vae: a folder or hub id; by default that of the checkpoint.
    """

    checkpoint: str | None = None
    preset: Literal["janusflow_1b", "janusflow_1b_256", "tiny"] | None = None
    llm: str | None = None
    tower: str | None = None
    processor: str | None = None
    vae: str | None = None


@dataclass(frozen=True)
class DataConfig:
    """What it is trained on.

    Attributes:
        understanding, generation, text: sources of each task.
        own: a folder or file of one's own, or several, that join the sources of every task they have something for:
            pictures with texts are generated and, with conversations or texts, understood. Records that do not serve a
            task are left out. Several are taken as one data set: each by its number of records.
        own_share: share of one's own in those tasks; at 1 the other sources are left out.
        ratios: shares of the tasks, one after the other.
        workers: processes that make samples ahead.
        max_broken: the run stops when more than this share of the records was broken.
        cache: a folder where latents (and f_enc's features, while the tower is frozen) are kept.
        allow_changes: resume although files of the data were added, removed or replaced since the run was started.
    """

    understanding: list[AnySource] = field(default_factory=list)
    generation: list[AnySource] = field(default_factory=list)
    text: list[AnySource] = field(default_factory=list)
    own: str | list[str] | None = None
    own_share: float = 0.5
    ratios: list[Ratio] = field(default_factory=lambda: [Ratio(1, 1, 1)])
    workers: int = 2
    max_broken: float = 0.05
    cache: str | None = None
    allow_changes: bool = False

    def sources(self) -> dict[str, list[SourceConfig]]:
        """Sources by task, one's own among them.

        Raises:
            ValueError: if one's own data has no form that is known, or nothing to learn from.
        """
        given: dict[str, list[SourceConfig]] = {task: list(getattr(self, task)) for task in TASKS}
        for task, own in self.served().items():
            others = sum(source.weight for source in given[task])
            if self.own_share >= 1 or not others:
                given[task], whole = [], 1.0
            else:
                whole = others * self.own_share / (1 - self.own_share)
            sizes = [size_of(kind, path) if len(own) > 1 else 1 for kind, path in own]
            for (kind, path), size in zip(own, sizes, strict=True):
                given[task].append(file_config(kind, path, weight=whole * size / sum(sizes), fitting=True))
        return given

    def served(self) -> dict[str, list[tuple[str, str]]]:
        """Kind and path of one's own data by the task that it serves.

        Raises:
            ValueError: if any of it has no form that is known, or all of it nothing to learn from.
        """
        found: dict[str, list[tuple[str, str]]] = {}
        nothing: list[str] = []
        for path in [self.own] if isinstance(self.own, str) else self.own or []:
            kind = kind_of(path)
            tasks = tasks_of(kind, path)
            if not tasks:
                nothing.append(f"{path} contains no readable picture with a text or a conversation")
            for task in tasks:
                found.setdefault(task, []).append((kind, path))
        if nothing and not found:
            raise ValueError("; ".join(nothing))
        for fault in nothing:
            warnings.warn(f"{fault}; training continues without it", stacklevel=2)
        return found

    def learned(self) -> dict[str, list[SourceConfig]]:
        """The sources of those tasks that ever have a share."""
        return {task: given for task, given in self.sources().items() if any(getattr(r, task) for r in self.ratios)}

    def anchored(self) -> bool:
        """Whether any source is learned as the model said it before."""
        return any(source.anchor for given in self.learned().values() for source in given)

    def teaches(self) -> bool:
        """Whether any source can change the model."""
        return any(source.teaches for given in self.learned().values() for source in given)


@dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated, and the rate of it.

    Attributes:
        name: "adamw", the paper's; or "muon", for the matrices of the blocks of LLM, f_enc, g_enc and g_dec, with AdamW
            for the rest.
        learning_rate: after the warm-up.
        warmup: steps of linear growth.
        schedule: "constant"; "cosine" down to `floor` at the last step; or "decay", constant and then linearly down to
            `floor` over the last `decay` share of the steps.
        betas, weight_decay: of AdamW; the paper's are (0.9, 0.95) and 0. Muon's momentum is the second beta.
        clip: largest norm of the gradient.
        decay, floor: of the schedules, as shares of all steps and of the rate.
    """

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: Literal["constant", "cosine", "decay"] = "constant"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip: float = 1.0
    decay: float = 0.25
    floor: float = 0.01

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from 0, of a run of so many."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        done = min(step / steps, 1.0)
        share = {
            "constant": 1.0,
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "decay": min(1.0, (1 - done) / self.decay),
        }[self.schedule]
        if self.schedule != "constant":
            share = self.floor + (1 - self.floor) * share
        return self.learning_rate * warm * share


@dataclass(frozen=True)
class SaveConfig:
    """Checkpoints.

    Attributes:
        every: steps between two.
        keep: the last so many are kept, and the best one.
        background: write while training goes on; needs memory for a copy of all tensors.
    """

    every: int = 500
    keep: int = 2
    background: bool = False


@dataclass(frozen=True)
class WatchConfig:
    """What is looked at on the way.

    Attributes:
        every: steps between two sheets of painted prompts and answered questions from the EMA weights; 0 is never.
        prompts: to paint.
        questions: to ask about the last painted picture.
        guidance_scale, num_inference_steps: of the paintings.
        tensorboard, wandb: whether to log there; TensorBoard needs its package, W&B its own.
        curves: whether to draw losses, learning rate and gradient norm into `out/curves.png` at the end (matplotlib).
    """

    every: int = 0
    prompts: list[str] = field(default_factory=lambda: ["a red circle above a blue square", "three stars"])
    questions: list[str] = field(default_factory=lambda: ["describe the picture."])
    guidance_scale: float = 4.0
    num_inference_steps: int = 30
    tensorboard: bool = True
    wandb: bool = False
    curves: bool = True


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the LLM in place of its weights (PEFT).

    Attributes:
        rank: 0 trains the weights themselves.
        alpha: the adapters' product B A is multiplied by alpha / rank (`lora_alpha` of PEFT).
        dropout: share of the adapters' inputs that is left out.
        tower: put adapters on f_enc too.
    """

    rank: int = 0
    alpha: int = 32
    dropout: float = 0.0
    tower: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """One run.

    Attributes:
        out: folder of the run.
        parts: what learns; names from `Family.trainable`.
        steps: optimizer steps in all.
        batch_size: samples of a step, over all processes.
        pack_length: tokens of a row.
        precision: of the matrix products; weights, EMA and optimizer are float32. "auto" is bfloat16 where the device
            multiplies it fast, else float32.
        ema: decay of the average of the weights, which is what is exported.
        ema_warmup: start with a small decay, (1 + n) / (10 + n) after n steps, until it reaches `ema`. Without it the
            decay is constant, as in the paper, and a run of few steps exports mostly the weights that it started from.
        activation_checkpointing: recompute the blocks' activations in the backward pass.
        compile: compile the blocks with torch.compile.
        spike: stop if, after the first steps, the loss without L_REPA exceeds this many times its running mean; 0 is
            never.
        seed: of everything random.
        model, data, samples, loss, optimizer, save, watch, lora: see their classes.
    """

    out: str
    parts: list[str]
    steps: int
    batch_size: int
    model: ModelConfig
    data: DataConfig
    pack_length: int = 4096
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    ema: float = 0.99
    ema_warmup: bool = False
    activation_checkpointing: bool = False
    compile: bool = False
    spike: float = 10.0
    seed: int = 0
    samples: SampleConfig = field(default_factory=SampleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)

    def ema_decay(self, step: int) -> float:
        """Decay of the average at a step, counted from 0."""
        return min(self.ema, (1 + step) / (10 + step)) if self.ema_warmup else self.ema

    def start_share(self, steps: int) -> float:
        """Share of the starting weights in the average after this many steps: the product of the decays."""
        return math.prod(self.ema_decay(step) for step in range(steps))

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
            ValueError: in one sentence.
        """
        for name, value, least in (
            ("steps", self.steps, 1),
            ("batch_size", self.batch_size, 1),
            ("pack_length", self.pack_length, 16),
            ("save.every", self.save.every, 1),
            ("save.keep", self.save.keep, 1),
            ("optimizer.warmup", self.optimizer.warmup, 0),
            ("data.workers", self.data.workers, 0),
            ("lora.rank", self.lora.rank, 0),
            ("lora.alpha", self.lora.alpha, 1),
            ("samples.longest", self.samples.longest, 1),
            ("watch.every", self.watch.every, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}; expected {least} or more")
        for name, share, top in (
            ("ema", self.ema, 1.0),
            ("data.max_broken", self.data.max_broken, 1.0),
            ("data.own_share", self.data.own_share, 1.0),
            ("samples.prompt_dropout", self.samples.prompt_dropout, 1.0),
            ("lora.dropout", self.lora.dropout, 1.0),
            ("optimizer.floor", self.optimizer.floor, 1.0),
            ("optimizer.betas", min(self.optimizer.betas), 1.0),
            ("optimizer.betas", max(self.optimizer.betas), 1.0),
            ("optimizer.learning_rate", self.optimizer.learning_rate, None),
            ("optimizer.weight_decay", self.optimizer.weight_decay, None),
            ("loss.ar", self.loss.ar, None),
            ("loss.flow", self.loss.flow, None),
            ("loss.repa", self.loss.repa, None),
            ("loss.anchor", self.loss.anchor, None),
            ("spike", self.spike, None),
        ):
            number_from(name, share, 0, top)
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed is {self.seed}; expected a whole number of 64 bits")
        self._check_losses()
        if not (0 < self.samples.time_scale < math.inf and math.isfinite(self.samples.time_mean)):
            times = f"{self.samples.time_mean} and {self.samples.time_scale}"
            raise ValueError(f"samples.time_mean and time_scale are {times}; expected a number, and one above 0")
        if self.watch.every > 0 and not (self.watch.prompts and self.watch.num_inference_steps > 0):
            raise ValueError("watch.every asks for sheets, which need watch.prompts and watch.num_inference_steps")
        if self.watch.every > 0 and not 1 <= self.watch.guidance_scale < math.inf:
            given = self.watch.guidance_scale
            raise ValueError(f"watch.guidance_scale is {given}; expected a finite number from 1 (none) upwards")
        known = dict.fromkeys(part for family in families().values() for part in family.trainable)
        if not self.parts or not known.keys() >= set(self.parts):
            raise ValueError(f"parts are {self.parts}; expected some of {', '.join(known)}")
        if (self.model.checkpoint is None) == (self.model.preset is None):
            raise ValueError("give exactly one of model.checkpoint and model.preset")
        if self.model.preset is not None and self.model.processor is None:
            raise ValueError(f"model.preset {quoted(self.model.preset)} needs model.processor, for its tokenizer")
        crops = [source.crop or self.samples.crop for source in self.data.sources()["generation"]]
        if self.data.cache is not None and "random" in crops:
            raise ValueError("data.cache keeps the latents of whole pictures; it needs samples.crop=center or pad")
        if self.lora.rank and "llm" not in self.parts:
            raise ValueError(f"lora.rank is {self.lora.rank}, but parts {self.parts} leave the llm out")
        if self.lora.rank and "tower" in self.parts and not self.lora.tower:
            raise ValueError(
                "lora.rank is given, so the tower in parts learns by adapters alone: "
                "give lora.tower=true, or leave tower out of parts"
            )
        taught = {task for task in TASKS if any(getattr(ratio, task) > 0 for ratio in self.data.ratios)}
        if not any(part not in TAUGHT_BY or TAUGHT_BY[part] in taught for part in self.parts):
            only = " and ".join(sorted({TAUGHT_BY[part] for part in self.parts}))
            raise ValueError(f"parts are {self.parts}, which learn from {only} alone, and data.ratios give it no share")
        if not self.optimizer.clip > 0:
            raise ValueError(f"optimizer.clip is {self.optimizer.clip}; expected a norm above 0 (.inf does not clip)")
        if not 0 < self.optimizer.decay <= 1:
            raise ValueError(f"optimizer.decay is {self.optimizer.decay}; expected a share of the steps, in (0, 1]")
        if self.model.checkpoint is not None:
            for name in ("llm", "tower", "processor"):
                if getattr(self.model, name) is not None:
                    raise ValueError(f"model.{name} is for a new network (model.preset); model.checkpoint has its own")
        if self.watch.wandb and importlib.util.find_spec("wandb") is None:
            raise ValueError("watch.wandb is on, but the package wandb is not installed")
        for task, sources in self.data.sources().items():
            for source in sources:
                try:
                    source.check(task, checkpoint=self.model.checkpoint is not None)
                except ValueError as error:
                    raise ValueError(f"data.{task}: {error}") from error
        self._check_own()
        Mixture(self.data.ratios, self.weights(), batch_size=self.batch_size, seed=self.seed)

    def _check_losses(self) -> None:
        for name in self.loss.weights:
            if hasattr(self.loss, name):
                raise ValueError(f"loss.weights has {quoted(name)}, whose weight is loss.{name}")
            if name not in terms():
                raise ValueError(f"loss.weights has {quoted(name)}; known terms are {', '.join(terms())}")
        if not any(self.loss.weight(name) for name in terms()):
            raise ValueError(f"the weights of {', '.join(terms())} in loss are all 0, so there is nothing to learn")

    def _check_own(self) -> None:
        own = [self.data.own] if isinstance(self.data.own, str) else self.data.own
        if own is not None and (not own or len(set(own)) < len(own)):
            raise ValueError(f"data.own is {own}; expected one or more folders or files, each once")
        by_path: dict[str, list[str]] = {}
        for task, places in self.data.served().items():
            for _, path in places:
                by_path.setdefault(path, []).append(task)
        for path, tasks in by_path.items():
            if not any(getattr(ratio, task) > 0 for ratio in self.data.ratios for task in tasks):
                raise ValueError(
                    f"{path} serves only {' and '.join(tasks)}, which data.ratios give no share; "
                    "give another recipe or other ratios"
                )

    def weights(self) -> dict[str, list[float]]:
        """Turns of the sources by task."""
        return {task: [source.weight for source in sources] for task, sources in self.data.sources().items()}


STRICT = (
    ModelConfig,
    DataConfig,
    Ratio,
    SampleConfig,
    LossConfig,
    OptimizerConfig,
    SaveConfig,
    WatchConfig,
    LoraConfig,
)


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """A recipe with overrides, checked.

    Args:
        recipe: a YAML file.
        overrides: `key=value`, keys dotted (`optimizer.learning_rate=1e-4`, `data.generation.0.path=FOLDER`), values in
            YAML. `model=X` is short for `model.checkpoint=X`, `data=X` (or `data=[X,Y]`) for `data.own=X`,
            and `crop=X` for `samples.crop=X`.

    Raises:
        ValueError: for an unreadable file, an unknown key, a wrong type or an impossible combination: one sentence.
    """
    return read_config(recipe_values(recipe, overrides))


def recipe_values(recipe: str | Path, overrides: Sequence[str] = ()) -> Any:
    """The plain values of a recipe with overrides (see `load_config`).

    Raises:
        ValueError: for an unreadable file or an override that does not fit.
    """
    require("training", "omegaconf")
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    named = f"recipe {quoted(str(recipe))}"
    try:
        text = read_yaml(Path(recipe))
        raw = OmegaConf.create(text) if text.strip() else OmegaConf.create()
    except FileNotFoundError as error:
        raise ValueError(f"{named} does not exist") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{named} cannot be read: {str(error).splitlines()[0]}") from error
    return overridden(raw, overrides)


def overridden(values: Any, overrides: Sequence[str]) -> Any:
    """Plain values with overrides (see `load_config`).

    Raises:
        ValueError: for an override that is not `key=value` or does not fit.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    raw = OmegaConf.create(values)
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise ValueError(f"override {quoted(override)} is not of the form key=value")
        key = {"model": "model.checkpoint", "data": "data.own", "crop": "samples.crop"}.get(key, key)
        try:
            OmegaConf.update(raw, key, OmegaConf.create(f"x: {value}").x, merge=False, force_add=True)
        except (OmegaConfBaseException, YAMLError, ValueError, TypeError, IndexError, RecursionError) as error:
            said = "it has no such item" if isinstance(error, IndexError) else str(error).splitlines()[0]
            raise ValueError(f"override {quoted(override)} does not fit the recipe: {said}") from error
    references = str(OmegaConf.to_container(raw, resolve=False)).count("${")
    if references > MOST_REFERENCES:
        raise ValueError(
            f"the recipe has {references} references such as ${{name}}; at most {MOST_REFERENCES} are read"
        )
    try:
        return OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"the recipe has a reference that cannot be read: {str(error).splitlines()[0]}") from error


def read_config(values: Any, *, check: bool = True) -> TrainConfig:
    """A configuration from plain values, checked.

    Args:
        values: nested dictionaries.
        check: also check what only a whole configuration shows, such as data that is not there.

    Raises:
        ValueError: as `load_config`.
    """
    config: TrainConfig = typed_config(TrainConfig, values, STRICT)
    if check:
        config.check()
    return config


def typed_config(kind: type[Config], values: Any, nested: Sequence[type]) -> Config:
    """Plain values as a dataclass.

    Args:
        kind: the dataclass.
        values: nested dictionaries.
        nested: the dataclasses of its fields, in which unknown keys are errors too.

    Raises:
        ValueError: for an unknown key or a wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    for part in (kind, *nested):
        setattr(part, "__pydantic_config__", {"extra": "forbid"})  # noqa: B010 (no field of theirs)
    try:
        # As JSON, where "strict" means that true is no number and "5" neither, but a list can be a tuple.
        return TypeAdapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the recipe"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise ValueError(f"{place} is no setting of a recipe{_meant(kind, values, first['loc'])}{more}") from error
        if first["type"] in ("missing", "missing_argument"):
            raise ValueError(f"{place} is missing{more}") from error
        if first["type"] == "value_error":
            raise ValueError(f"{place}: {first['ctx']['error']}{more}") from error
        raise ValueError(f"{place} is {quoted(first['input'])}: {first['msg'].lower()}{more}") from error


def _meant(config: type, values: Any, place: Sequence[int | str]) -> str:
    """The end of a sentence about an unknown setting, which may be one of a source's kind."""
    block = values
    for part in place[:-1]:
        block = block[part]
    kind = block.get("kind")
    kinds = {".".join(map(str, place[:-1])): find_kind(kind)} if isinstance(kind, str) else {}
    return meant(config, ".".join(map(str, place)), kinds)
