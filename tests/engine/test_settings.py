"""What callers give: numbers of any library, unknown names, callbacks, and torch's global defaults."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import janusflow
from janusflow import JanusFlow
from janusflow.arguments import UnknownArgumentError, quoted, suggestion, whole_number
from janusflow.engine.generation import LARGEST_SEED, choose_seeds
from janusflow.engine.settings import FlowSettings, TokenSettings
from janusflow.pipelines.janus import Janus
from tests.conftest import GOLDEN, TOLERANCE, error

PROMPT = "a red circle"
FAST: dict[str, Any] = {"num_inference_steps": 3, "seed": 0, "output_type": "latent", "progress": False}


@pytest.fixture(scope="module")
def janus() -> Any:
    return JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")


# --- whole numbers and seeds ----------------------------------------------------------------------------------------


def test_integers_of_numpy_and_torch_are_whole_numbers(small_model: JanusFlow, janus: Janus) -> None:
    expected = small_model.generate(PROMPT, num_images_per_prompt=2, height=64, batch_size=2, **FAST)
    for kind in (np.int64, np.uint8, np.int32, torch.tensor):
        numbers = {name: kind(value) for name, value in (("num_images_per_prompt", 2), ("height", 64), ("seed", 0))}
        numbers |= {"num_inference_steps": kind(3), "batch_size": kind(2), "decode_batch_size": kind(1)}
        assert torch.equal(small_model.generate(PROMPT, **{**FAST, **numbers}), expected)
    codes = janus.generate(PROMPT, seed=1, top_k=5, output_type="latent")
    assert torch.equal(janus.generate(PROMPT, seed=np.uint64(1), top_k=np.int16(5), output_type="latent"), codes)
    answer = small_model.ask("hi", max_new_tokens=3)
    assert small_model.ask("hi", max_new_tokens=np.int64(3)) == answer
    sampled: dict[str, Any] = {"do_sample": True, "max_new_tokens": 3}
    assert small_model.ask("hi", seed=np.int64(7), top_k=np.int64(9), **sampled) == small_model.ask(
        "hi", seed=7, top_k=9, **sampled
    )


@pytest.mark.parametrize("value", [True, np.bool_(True), 1.0, np.float64(1), "1", None, np.array([1, 2]), [1]])
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="steps is .*; expected a whole number from 1 upwards"):
        whole_number("steps", value)


def test_seeds_up_to_the_largest_of_torch(small_model: JanusFlow) -> None:
    assert LARGEST_SEED == 2**64 - 1
    latents = [small_model.generate(PROMPT, **{**FAST, "seed": seed}) for seed in (2**63, 2**64 - 1, 0)]
    assert not torch.equal(latents[0], latents[1]) and not torch.equal(latents[1], latents[2])
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2**64 - 1))
    given = small_model.generate(PROMPT, **{**FAST, "seed": None, "latents": noise[None]})
    assert torch.equal(given, latents[1])
    assert choose_seeds(np.uint64(2**64 - 2), 1, 2) == [2**64 - 2, 2**64 - 1]
    assert choose_seeds(np.array([3, 4]), 1, 2) == choose_seeds(range(3, 5), 1, 2) == [3, 4]
    with pytest.raises(ValueError, match=f"for 2 pictures of each the largest is {2**64 - 2}"):
        choose_seeds(2**64 - 1, 1, 2)
    with pytest.raises(ValueError, match=f"from 0 to {2**64 - 1}"):
        choose_seeds(2**64, 1, 1)


# --- unknown names and long values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 3}, "generate has no argument 'steps'; did you mean num_inference_steps?"),
        ({"guidance": 3}, "did you mean guidance_scale"),
        ({"num_images": 2}, "did you mean num_images_per_prompt"),
        ({"guidence_scale": 2}, "did you mean guidance_scale"),
        ({"size": 64}, "did you mean height and width"),
        ({"colour": "red"}, "has no argument 'colour'; choose from prompts, "),
        ({"x" * 9000: 1}, r"\(9002 characters\)"),
    ],
)
def test_unknown_arguments_name_what_was_meant(small_model: JanusFlow, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        small_model.generate(PROMPT, **arguments)
    assert isinstance(caught.value, UnknownArgumentError) and isinstance(caught.value, TypeError)
    assert len(str(caught.value)) < 800


def test_unknown_arguments_elsewhere(small_model: JanusFlow, small_folder: Path, janus: Janus) -> None:
    with pytest.raises(TypeError, match="from_pretrained has no argument 'torch_dtype'; did you mean dtype"):
        JanusFlow.from_pretrained(small_folder, torch_dtype="float32")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="ask has no argument 'max_tokens'; did you mean max_new_tokens"):
        small_model.ask("hi", max_tokens=3)
    with pytest.raises(ValueError, match=r"ask has no argument 'image'; did you mean images\?"):
        small_model.ask("hi", image="scene.png")
    said = "chat_batch has no argument 'steps'; choose from conversations, max_new_tokens"
    with pytest.raises(ValueError, match=said):
        small_model.chat_batch([], steps=3)
    with pytest.raises(ValueError, match="did you mean num_images_per_prompt"):
        janus.generate(PROMPT, num_images=3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="num_inference_steps: not for a Janus model, which generates code by code"):
        janus.generate(PROMPT, num_inference_steps=3)  # type: ignore[call-overload]
    assert suggestion("--num-inference-steps", ["--steps", "--num-images"]) == "; did you mean --steps?"
    assert suggestion("zzz", ["steps"]) == ""


def test_the_types_of_generate_are_those_of_its_signature() -> None:
    for kind, settings in ((JanusFlow, FlowSettings), (Janus, TokenSettings)):
        names = set(inspect.signature(kind.generate).parameters) - {"self", "prompts", "output_type", "others"}
        assert names == set(settings.__annotations__), kind


@pytest.mark.parametrize("value", ["A" * 8551, b"\x89PNG" * 3000, ["A" * 9000], {"a": "A" * 9000}])
def test_errors_never_print_long_inputs(small_model: JanusFlow, value: Any) -> None:
    calls: list[Any] = [
        lambda: small_model.ask("hi", images=value),
        lambda: small_model.generate(PROMPT, image=value),
        lambda: small_model.generate(PROMPT, output_type=value),
        lambda: small_model.generate(PROMPT, solver=value if isinstance(value, str) else str(value)),
        lambda: small_model.generate(PROMPT, seed=value),
        lambda: small_model.generate(PROMPT, height=value),
        lambda: small_model.generate([value, " "]),
        lambda: small_model.ask(value, images=[value]),
        lambda: small_model.chat([{"role": value, "content": "hi"}]),
        lambda: small_model.chat([{"role": "user", "content": [{"type": value}]}]),
        lambda: small_model.chat([{"role": "user", "content": [{"type": "image", "image": value}]}]),
        lambda: JanusFlow.from_pretrained(value if isinstance(value, str) else str(value)),
        lambda: JanusFlow.from_pretrained("tiny", dtype=value),
        lambda: JanusFlow.from_pretrained("tiny", device=value if isinstance(value, str) else str(value)),
        lambda: JanusFlow.from_pretrained("tiny", quantize=value),
        lambda: JanusFlow.from_pretrained("tiny", sft_format=str(value)),
    ]
    for number, call in enumerate(calls):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        assert len(str(caught.value)) < 600, (number, str(caught.value)[:200])


def test_a_short_value_is_quoted_whole() -> None:
    assert quoted("a b") == "'a b'"
    assert quoted("a" * 900 + "/name.png").endswith("/name.png' (911 characters)")
    assert len(quoted("a" * 900)) < 230


# --- callbacks ------------------------------------------------------------------------------------------------------


def test_a_callback_cancels_and_the_model_can_be_used_again(small_model: JanusFlow, janus: Janus) -> None:
    """The example of `StepEnd`."""
    assert janusflow.StepEnd is not None and "InterruptedError" in inspect.getsource(janusflow.engine.settings)
    cancelled, steps = threading.Event(), []

    def check(model: Any, step: int, t: float, tensors: dict[str, Tensor]) -> None:
        steps.append(step)
        if step == 1:
            cancelled.set()
        if cancelled.is_set():
            raise InterruptedError("cancelled")

    before = small_model.generate(PROMPT, **FAST)
    for model in (small_model, janus):
        cancelled.clear()
        steps.clear()
        with pytest.raises(InterruptedError, match="cancelled"):
            model.generate(PROMPT, callback_on_step_end=check)
        assert steps == [0, 1]
    assert torch.equal(small_model.generate(PROMPT, **FAST), before)


def test_a_callback_stops_and_gets_the_pictures_as_they_are(small_model: JanusFlow) -> None:
    seen: list[Tensor] = []

    def stop(model: JanusFlow, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Any]:
        seen.append(tensors["latents"])
        return {"stop": step == 1}

    found = small_model.generate([PROMPT] * 3, callback_on_step_end=stop, batch_size=2, **{**FAST, "seed": [0, 1, 2]})
    assert len(seen) == 2 and torch.equal(found[:2], seen[1])
    assert torch.equal(found[2], torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2)))


def test_a_callback_changes_guidance_for_the_steps_that_follow(small_model: JanusFlow) -> None:
    def off(model: JanusFlow, step: int, t: float, tensors: dict[str, Tensor]) -> dict[str, Any]:
        return {"guidance_scale": Fraction(1)} if step == 0 else {}

    interval = small_model.generate(PROMPT, guidance_scale=4.0, guidance_interval=(0.0, 0.1), **FAST)
    found = small_model.generate(PROMPT, guidance_scale=4.0, callback_on_step_end=off, **FAST)
    assert error(found, interval) <= TOLERANCE
    with pytest.raises(ValueError, match="has no argument 'latent'; did you mean latents"):
        small_model.generate(PROMPT, callback_on_step_end=lambda *_: {"latent": 1}, **FAST)


def test_a_callback_that_returns_anything_but_a_mapping_is_refused(small_model: JanusFlow) -> None:
    words = "callback_on_step_end returned 3; expected None or a mapping with stop, guidance_scale, latents"
    with pytest.raises(ValueError, match=words):
        small_model.generate(PROMPT, callback_on_step_end=lambda *_: 3, **FAST)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latents": torch.zeros(1, 4, 8, 9)}, r"latents of callback_on_step_end have shape \(1, 4, 8, 9\)"),
        ({"latents": torch.full((1, 4, 8, 8), torch.nan)}, "latents of callback_on_step_end hold values that are not"),
        ({"latents": "x"}, "latents of callback_on_step_end are str; expected a tensor"),
        ({"guidance_scale": 1e300}, "guidance_scale of callback_on_step_end is 1e\\+300"),
        ({"stop": "no"}, "stop of callback_on_step_end is 'no'; expected true or false"),
    ],
)
def test_what_a_callback_may_not_ask_for_is_said(small_model: JanusFlow, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        small_model.generate(PROMPT, callback_on_step_end=lambda *_: change, **FAST)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_latents_of_a_callback_may_have_another_dtype(small_model: JanusFlow, dtype: torch.dtype) -> None:
    """Those that a callback returns unchanged, up to their dtype, change nothing."""
    asked: dict[str, Any] = {"seed": 0, "output_type": "latent", **FAST}
    plain = small_model.generate(PROMPT, **asked)

    def same(model: Any, step: int, t: float, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"latents": tensors["latents"].to(dtype)}

    found = small_model.generate(PROMPT, callback_on_step_end=same, **asked)
    torch.testing.assert_close(found, plain, atol=1e-2 if dtype == torch.float16 else 0, rtol=0)


# --- torch's global defaults ----------------------------------------------------------------------------------------


@pytest.fixture
def restored_defaults() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.usefixtures("restored_defaults")
@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16, "meta"])
def test_global_defaults_change_nothing(small_folder: Path, vae_folder: Path, picture: Path, default: Any) -> None:
    def everything() -> list[Any]:
        model = JanusFlow.from_pretrained(small_folder, vae=vae_folder, device="cpu")
        janus = JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")
        settings: dict[str, Any] = {"seed": 3, "num_inference_steps": 2, "progress": False}
        return [
            model.generate([PROMPT, "two stars"], output_type="latent", **settings),
            model.generate(PROMPT, output_type="np", image=picture, mask=np.ones((24, 40)), **settings),
            model.processor.preprocess(picture),
            model.ask("what is it?", picture, max_new_tokens=3),
            janus.generate(PROMPT, seed=3, output_type="latent", progress=False),
        ]

    expected = everything()
    if default == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(default)
    found = everything()
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)
    for one, two in zip(found, expected, strict=True):
        if isinstance(one, Tensor):
            assert one.dtype == two.dtype and torch.equal(one, two)
        else:
            assert np.array_equal(one, two)


def test_the_vae_does_not_follow_autocast(small_model: JanusFlow) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = small_model.codec.decode(latents)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(small_model.codec.decode(latents), expected)
        assert torch.equal(small_model.codec.encode(expected).float(), small_model.codec.encode(expected))
