"""Generate in several rounds: a plan in words, the best of several pictures, and redraws of those that do not match.

    plan      the model describes the picture, and generates from prompt + plan (T2I-R1)
    best_of   the model generates k pictures for each one and keeps the best in its own judgement (`Pipeline.match`)
    redraw    the model judges each picture, and generates it again while it answers no (Janus-Pro-R1)

`staged` wraps a pipeline's `generate`, which generates the pictures of each round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from inspect import signature
from typing import Any, SupportsIndex

from PIL import Image

from janusflow.arguments import UnknownArgumentError, quoted, whole_number
from janusflow.engine.generation import check_request, choose_seeds
from janusflow.engine.size import Size
from janusflow.pipelines.provenance import provenance_of, sign
from janusflow.processing.chat_template import without_tags
from janusflow.processing.images import load_masks

INSTRUCTION = (
    'Describe the picture that this prompt asks for: "{}". Name each object with its number, color, shape and material'
    " as far as the prompt gives them, and how the objects are placed. Add nothing that is not in the prompt. Write"
    " only the description, in at most 50 words."
)
PLAN_TOKENS = 512
APART = 1_000_003  # distance between the seeds of one picture's rounds
BITS = 2**32  # number of seeds of torch's CPU generator, which ignores higher bits


@dataclass(frozen=True)
class Procedure:
    """What `generate` does beyond one round.

    Attributes:
        plan: whether the model first writes a plan for each picture; or your own instruction for it, with {} for the
            prompt.
        best_of: number of pictures of which one is kept.
        redraw: maximum number of times that a picture is generated again.

    Raises:
        ValueError: for a value that is not allowed.
    """

    plan: bool | str = False
    best_of: SupportsIndex = 1
    redraw: SupportsIndex = 0

    def __post_init__(self) -> None:
        if not isinstance(self.plan, (bool, str)) or (isinstance(self.plan, str) and "{}" not in self.plan):
            raise ValueError(f"plan is {quoted(self.plan)}; expected true, false, or an instruction with {{}} in it")
        object.__setattr__(self, "best_of", whole_number("best_of", self.best_of, most=256))
        object.__setattr__(self, "redraw", whole_number("redraw", self.redraw, least=0, most=64))
        if self.best_of != 1 and self.redraw != 0:
            raise ValueError("best_of and redraw were given; each of them chooses the picture, so give one")

    @classmethod
    def asked(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a procedure among those of `generate` that are not the defaults, checked."""
        names = {field.name: field.default for field in fields(cls)}
        chosen = cls(**{name: settings[name] for name in names if settings.get(name) is not None})
        return {name: getattr(chosen, name) for name in names if getattr(chosen, name) != names[name]}


def staged(generate: Callable[..., Any]) -> Callable[..., Any]:
    """Let a pipeline's `generate` take `plan`, `best_of` and `redraw`."""
    known = signature(generate)

    @wraps(generate)
    def in_rounds(self: Any, *args: Any, **settings: Any) -> Any:
        if "image_guidance_scale" in settings and "image_guidance_scale" not in known.parameters:
            raise UnknownArgumentError(
                f"image_guidance_scale: not for a {type(self).__name__} model, whose image= goes with strength="
            )
        asked = Procedure.asked(settings)
        odd = settings.keys() - known.parameters.keys()
        if not asked or (odd and "others" not in known.parameters):  # `generate` rejects these
            return generate(self, *args, **settings)
        given = dict(known.bind(self, *args, **settings).arguments)
        given = {name: value for name, value in given.items() if name not in ("self", *asked)}
        return _Rounds(self, generate, Procedure(**asked), given.pop("prompts"), given.pop("others", {}) | given).run()

    return in_rounds


class _Rounds:
    """One call of `generate` with a procedure.

    Args:
        model: the pipeline.
        generate: its function for one round.
        procedure: the procedure to run.
        prompts: one or several.
        settings: the other arguments of `generate`.
    """

    def __init__(self, model: Any, generate: Callable[..., Any], procedure: Procedure, prompts: Any, settings: Any):
        self.model, self.generate, self.procedure, self.settings = model, generate, procedure, settings
        if (kind := settings.pop("output_type", "pil")) != "pil":
            raise ValueError(f"output_type is {quoted(kind)}; with plan, best_of and redraw it is 'pil'")
        for name in ("generator", "latents"):
            if settings.pop(name, None) is not None:
                raise ValueError(f"{name} was given; plan, best_of and redraw need seeds, so give seed=")
        prompts = check_request(prompts, "pil")
        each = whole_number("num_images_per_prompt", settings.pop("num_images_per_prompt", 1))
        self.seeds = choose_seeds(settings.pop("seed", None), len(prompts), each)
        self.prompts = [prompt for prompt in prompts for _ in range(each)]
        size = Size(len(prompts), each, 0, 0)
        given = {name: settings.pop(name) for name in ("image", "mask") if settings.get(name) is not None}
        self.sources = {name: size.spread(name, _each(name, source)) for name, source in given.items()}
        self.words, self.records = list(self.prompts), [dict[str, Any]() for _ in self.prompts]
        self.changed = [False] * len(self.prompts)  # whether a callback changed a picture of any round
        self.stopped = False  # whether a callback has asked to stop, which ends all rounds
        if (callback := settings.get("callback_on_step_end")) is not None:
            settings["callback_on_step_end"] = self._watched(callback)

    def run(self) -> list[Image.Image]:
        """Return the pictures, each with its provenance."""
        if self.procedure.plan:
            self._plan()
        if self.procedure.best_of != 1:
            return self._signed(self._best())
        pictures = self._draw(range(len(self.words)), self.seeds)
        return self._signed(self._redrawn(pictures) if self.procedure.redraw and not self.stopped else pictures)

    def _watched(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*step: Any) -> Any:
            change = callback(*step)
            self.stopped |= isinstance(change, Mapping) and change.get("stop") is True
            return change

        return watched

    def _draw(self, which: Sequence[int], seeds: Sequence[int]) -> list[Image.Image]:
        """Run one round: generate pictures for some of the prompts."""
        sources = {name: [source[index] for index in which] for name, source in self.sources.items()}
        words = [self.words[index] for index in which]
        pictures: list[Image.Image] = self.generate(self.model, words, seed=list(seeds), **sources, **self.settings)
        for index, picture in zip(which, pictures, strict=True):
            self.changed[index] |= provenance_of(picture).changed_by_callback
        return pictures

    def _plan(self) -> None:
        """Append each picture's plan to its prompt, after a check of the request: plans take a while."""
        for index, prompt in enumerate(self.prompts):
            self.model.resolve(prompt, self.settings | {name: source[index] for name, source in self.sources.items()})
        instruction = INSTRUCTION if self.procedure.plan is True else str(self.procedure.plan)
        text = self.model.processor.text
        shown = [instruction.replace("{}", without_tags(text, prompt)) for prompt in self.prompts]
        asked = [[{"role": "user", "content": one}] for one in shown]
        size, plans = whole_number("batch_size", self.settings.get("batch_size", 16)), list[str]()
        for first in range(0, len(asked), size):
            part = slice(first, first + size)
            plans += self.model.chat_batch(
                asked[part], do_sample=True, seed=self.seeds[part], max_new_tokens=PLAN_TOKENS
            )
        for index, written in enumerate(plans):
            plan = without_tags(text, written).strip()
            self.records[index]["plan"] = plan
            self.words[index] = f"{self.prompts[index]}. {plan}" if plan else self.prompts[index]

    def _best(self) -> list[Image.Image]:
        """Generate k pictures for each one and return those with the highest scores; the first wins a tie."""
        k = int(self.procedure.best_of)
        which = [index for index in range(len(self.prompts)) for _ in range(k)]
        seeds = [later_seed(seed, number) for seed in self.seeds for number in range(k)]
        pictures = self._draw(which, seeds)
        scores = self.model.match([self.prompts[index] for index in which], pictures)
        best = []
        for index, record in enumerate(self.records):
            own = slice(k * index, k * index + k)
            record |= {"scores": scores[own], "seeds": seeds[own]}
            record["kept"] = record["scores"].index(max(record["scores"]))
            best.append(pictures[own][record["kept"]])
        return best

    def _redrawn(self, pictures: list[Image.Image]) -> list[Image.Image]:
        """Generate each picture again while the model answers no; keep the last one."""
        for record, seed in zip(self.records, self.seeds, strict=True):
            record |= {"scores": [], "seeds": [seed], "redraws": 0}
        waiting = list(range(len(pictures)))
        for number in range(int(self.procedure.redraw) + 1):
            scores = self.model.match([self.prompts[i] for i in waiting], [pictures[i] for i in waiting])
            for index, score in zip(waiting, scores, strict=True):
                self.records[index]["scores"].append(score)
            waiting = [index for index in waiting if self.records[index]["scores"][-1] < 0.5]
            if not waiting or number == self.procedure.redraw:
                break
            self._draw_again(pictures, waiting, number + 1)
            if self.stopped:
                break
        return pictures

    def _draw_again(self, pictures: list[Image.Image], waiting: Sequence[int], number: int) -> None:
        seeds = [later_seed(self.seeds[index], number) for index in waiting]
        again, reasons = self.model.draw_again(
            lambda: self._draw(waiting, seeds),
            [self.words[index] for index in waiting],
            [pictures[index] for index in waiting],
            seeds,
            self.settings | self.sources,
        )
        for place, index in enumerate(waiting):
            pictures[index] = again[place]
            self.records[index]["redraws"] = number
            self.records[index]["seeds"].append(seeds[place])
            if reasons:
                self.records[index].setdefault("reasons", []).append(reasons[place])

    def _signed(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Return the pictures with the request that recreates them and a record of what was done."""
        made = [provenance_of(picture) for picture in pictures]
        settings = {name: value for name, value in made[0].settings.items() if name not in ("prompts", "seed")}
        settings |= Procedure.asked(vars(self.procedure))
        inputs = {name: [one.inputs[name] for one in made] for name in made[0].inputs}
        identity, done = made[0].model, self.records
        return sign(pictures, self.prompts, self.seeds, settings, identity, inputs, changed=self.changed, done=done)


def later_seed(seed: int, number: int) -> int:
    """Return the seed of a picture's round; round 0 uses the picture's own.

    Example:
        >>> later_seed(7, 0), later_seed(7, 1)
        (7, 1000010)
    """
    return (seed + number * APART) % BITS if number else seed


def _each(name: str, source: Any) -> list[Any]:
    """Return one picture or mask, a list or a batch of them as a list."""
    if name == "mask":
        return list(load_masks(source))
    listed = list(source) if isinstance(source, (list, tuple)) else [source]
    return [one for part in listed for one in (part if getattr(part, "ndim", 0) == 4 else [part])]
