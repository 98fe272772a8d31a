"""The request for an evaluation, from the command line, a recipe or a TorchUMM file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from janusflow.arguments import check_fields, number_from, quoted, suggestion, true_or_false, whole_number
from janusflow.data.constraints import PositiveInt
from janusflow.evaluation.protocol import Benchmark
from janusflow.evaluation.registry import find_benchmark
from janusflow.extras import require
from janusflow.presets import preset_of

RESERVED = (  # set by the run, or impossible on a command line
    *("self", "prompts", "batch_size", "progress", "others", "callback_on_step_end", "output_type"),
    *("num_images_per_prompt", "generator", "latents", "image", "mask"),
)
COUNTS = {"num_inference_steps": 10_000, "max_new_tokens": 2**31, "height": 2**16, "width": 2**16} | {
    "decode_batch_size": 2**16
}
SWITCHES = ("do_sample", "paste_original")
NUMBERS = ("temperature", "top_p", "repetition_penalty", "guidance_scale", "shift", "strength")
WORDS = ("solver", "preset", "decoder")
OPTIONS = frozenset((*COUNTS, *SWITCHES, *NUMBERS, *WORDS))  # arguments for generating and answering
SHORT = {"guidance": "guidance_scale", "steps": "num_inference_steps"}  # names of options on the command line
Mode: TypeAlias = Literal["full", "generate", "score"]
MODES = get_args(Mode)


@dataclass(frozen=True)
class EvalRequest:
    """A request for one evaluation.

    Attributes:
        benchmark: name, as `registry.find_benchmark` takes it.
        model, vae: model and VAE, as `JanusFlow.from_pretrained` takes them.
        data: folder of the benchmark's official files, or file of `qa`; None if the benchmark creates its own data.
        out: folder of the run; the same folder continues it.
        mode: "generate" generates or answers, "score" judges and reports, "full" does both.
        limit: number of items, taken evenly from all parts of the benchmark; None for all. See `limit.limited`.
        batch_size: number of items that are generated or answered together.
        device, dtype: device and dtype of the model.
        options: arguments of `model.generate`, or decoding arguments of `model.ask`.
        settings: settings of the benchmark; see its `Settings`.
        score_output_path: file that also gets `{"result_file", "final_score"}`, as TorchUMM writes it, with "n" added.
    """

    benchmark: str
    out: Path
    model: str = "tiny"
    vae: str | None = None
    data: Path | None = None
    mode: Mode = "full"
    limit: PositiveInt | None = None
    batch_size: PositiveInt = 16
    device: str = "auto"
    dtype: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    score_output_path: Path | None = None

    def open(self) -> Benchmark:
        """Open the benchmark with its settings.

        Raises:
            ValueError: for an unknown benchmark or setting, a value out of range, or if the extra [eval] is not
                installed.
        """
        require("evaluation", "matplotlib", extra="eval")
        check_fields(self, "mode", "limit", "batch_size")
        kind = find_benchmark(self.benchmark)
        check_options(kind, self.options)
        check_values(self.options)
        if kind.draws and "seed" in self.options:
            raise ValueError(f"{kind.title} sets the seed of each item; leave the option seed out")
        known = [field.name for field in fields(kind.Settings)]
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            said = f"{self.benchmark} has no setting {quoted(unknown[0])}{suggestion(unknown[0], known)}"
            raise ValueError(f"{said}; it has {', '.join(known) or 'none'}")
        benchmark = kind(self.data, self._settings(kind))
        benchmark.out = self.out
        benchmark.limited = self.limit is not None
        return benchmark

    def _settings(self, kind: type[Benchmark]) -> Any:
        """Return the settings as the benchmark's dataclass, without type conversion: "3" and True are not numbers."""
        from pydantic import TypeAdapter, ValidationError

        for name, value in self.settings.items():
            try:
                json.dumps(value, default=str, allow_nan=False)
            except ValueError as error:
                said = f"setting {name} of {self.benchmark} is {quoted(value)}; expected finite numbers"
                raise ValueError(said) from error
        try:
            return TypeAdapter(kind.Settings).validate_json(json.dumps(dict(self.settings), default=str), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            given = f" (given: {quoted(first['input'])})"
            raise ValueError(f"setting {place} of {self.benchmark}: {said}{given}" if place else said) from error


def check_options(kind: type[Benchmark], options: Mapping[str, Any]) -> None:
    """Reject options that neither generating nor answering takes, before anything is opened.

    Raises:
        ValueError: for an unknown option; the message names the first one and those that exist.
    """
    from janusflow.engine.understanding import Decoding
    from janusflow.families import families
    from janusflow.pipelines.base import pipeline_of

    drawing = {name: None for one in families().values() for name in signature(pipeline_of(one).generate).parameters}
    known = [name for name in drawing if name not in RESERVED] if kind.draws else []
    known += Decoding.__dataclass_fields__ if kind.asks or not kind.draws else []
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        near = suggestion(unknown, known)
        raise ValueError(f"there is no option {quoted(unknown)}{near}; choose from {', '.join(dict.fromkeys(known))}")


def check_values(options: Mapping[str, Any]) -> None:
    """Reject values that no model generates or answers with, before anything is opened.

    Raises:
        ValueError: for such a value; the message names the option and its range.
    """
    from janusflow.engine.generation import Sampling
    from janusflow.engine.token_generation import TokenSampling
    from janusflow.engine.understanding import Decoding

    for name, value in options.items():
        if name in COUNTS:
            whole_number(name, value, most=COUNTS[name])
        elif name in SWITCHES:
            true_or_false(name, value)
        elif name in NUMBERS:
            number_from(name, value)
        elif name == "preset":
            preset_of(value)
        elif name == "decoder":
            preset_of(None, decoder=value)
        for form in (Sampling, TokenSampling, Decoding):
            if name in form.__dataclass_fields__:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # an option that has no effect without another
                    try:
                        form(**{name: value})
                    except TypeError as error:
                        raise ValueError(f"{name} is {quoted(value)}; expected a value of another type") from error
