"""What an evaluation is told, whoever says it: the command line, a recipe, or a TorchUMM file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from janusflow.arguments import quoted, suggestion, whole_number
from janusflow.evaluation.protocol import Benchmark
from janusflow.evaluation.registry import find_benchmark
from janusflow.extras import require

RESERVED = (  # what a run says itself, or what no command line can say
    *("self", "prompts", "batch_size", "progress", "others", "callback_on_step_end", "output_type"),
    *("num_images_per_prompt", "generator", "latents", "image", "mask"),
)
MODES = ("full", "generate", "score")


@dataclass(frozen=True)
class EvalRequest:
    """One evaluation.

    Attributes:
        benchmark: as `registry.find_benchmark` takes it.
        model, vae: as `JanusFlow.from_pretrained` takes them.
        data: folder of the benchmark's official files, or file of `qa`; None where a benchmark makes its data.
        out: folder of the run; the same one continues it.
        mode: "generate" draws or answers, "score" judges and reports, "full" does both.
        limit: how many items, taken from all parts of the benchmark alike; None for all. See `limit.limited`.
        batch_size: items that are drawn or answered together.
        device, dtype: of the model.
        options: arguments of `model.generate`, or decoding arguments of `model.ask`.
        settings: of the benchmark, see its `Settings`.
        score_output_path: gets `{"result_file", "final_score"}` too, as TorchUMM writes it.
    """

    benchmark: str
    out: Path
    model: str = "tiny"
    vae: str | None = None
    data: Path | None = None
    mode: Literal["full", "generate", "score"] = "full"
    limit: int | None = None
    batch_size: int = 16
    device: str = "auto"
    dtype: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    score_output_path: Path | None = None

    def open(self) -> Benchmark:
        """The benchmark with its settings.

        Raises:
            ValueError: for an unknown benchmark or setting, a value that cannot be, or if the extra [eval] is not
                installed.
        """
        require("evaluation", "matplotlib", extra="eval")
        from pydantic import TypeAdapter, ValidationError

        if self.mode not in MODES:
            raise ValueError(f"mode is {quoted(self.mode)}; allowed are {', '.join(MODES)}")
        for name, count in (("limit", self.limit), ("batch_size", self.batch_size)):
            if count is not None:
                whole_number(name, count)
        kind = find_benchmark(self.benchmark)
        check_options(kind, self.options)
        if kind.draws and "seed" in self.options:
            raise ValueError(f"the seeds are those of the items of {kind.title}; leave the option seed out")
        known = [field.name for field in fields(kind.Settings)]
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            said = f"{self.benchmark} has no setting {quoted(unknown[0])}{suggestion(unknown[0], known)}"
            raise ValueError(f"{said}; it has {', '.join(known) or 'none'}")
        try:
            settings: Any = TypeAdapter(kind.Settings).validate_python(dict(self.settings))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            said = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"setting {place} of {self.benchmark}: {said}" if place else said) from error
        benchmark = kind(self.data, settings)
        benchmark.out = self.out
        benchmark.limited = self.limit is not None
        return benchmark


def check_options(kind: type[Benchmark], options: Mapping[str, Any]) -> None:
    """Refuses names that what a benchmark does, drawing or answering, does not know, before anything is opened.

    Raises:
        ValueError: naming the first of them, and what there is.
    """
    from janusflow.janus import Janus
    from janusflow.pipeline import JanusFlow
    from janusflow.understanding import Decoding

    drawing = {**signature(JanusFlow.generate).parameters, **signature(Janus.generate).parameters}
    known = [name for name in drawing if name not in RESERVED] if kind.draws else []
    known += Decoding.__dataclass_fields__ if kind.asks or not kind.draws else []
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        near = suggestion(unknown, known)
        raise ValueError(f"there is no option {quoted(unknown)}{near}; known are {', '.join(dict.fromkeys(known))}")
