"""Janus: batches, threads, arguments, offload, and a model that is saved and opened again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import JanusForConditionalGeneration as TransformersJanus

from janusflow import JanusFlow
from janusflow.model.llama import run_layers
from janusflow.pipelines.janus import Janus
from tests.conftest import Golden

PROMPTS = ["a red circle", "two blue squares left of a small green star on a white background"]


def test_a_picture_is_the_same_alone_and_in_a_batch(janus: Janus) -> None:
    together = janus.generate(PROMPTS, num_images_per_prompt=2, seed=3, output_type="latent", progress=False)
    for index, prompt in enumerate(PROMPTS):
        for picture in range(2):
            alone = janus.generate(prompt, seed=3 + picture, output_type="latent", progress=False)
            assert torch.equal(together[2 * index + picture], alone[0])
    assert len({tuple(row.tolist()) for row in together}) == 4
    in_ones = janus.generate(PROMPTS, seed=3, batch_size=1, output_type="latent", progress=False)
    assert torch.equal(in_ones, together[::2])


def test_threads_get_what_each_call_gives_alone(janus: Janus) -> None:
    def draw(seed: int) -> tuple[int, ...]:
        return tuple(janus.generate(PROMPTS[0], seed=seed, output_type="latent", progress=False)[0].tolist())

    def ask(seed: int) -> str:
        return janus.ask("hi", seed=seed, do_sample=True, temperature=2.0, max_new_tokens=8)

    calls = [(call, seed) for seed in range(3) for call in (draw, ask)]
    before = torch.get_rng_state()
    expected = [call(seed) for call, seed in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        assert list(pool.map(lambda pair: pair[0](pair[1]), calls)) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_done_twice(janus: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    forward = janus.network.model.language_model.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        found = ids if ids is not None else embeds
        rows.append(found.shape[0] * found.shape[1])
        return forward(*args, **kwargs)

    def spy_on_step(llm: Any, embeds: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rows.append(len(embeds))
        return run_layers(llm, embeds, *args, **kwargs)

    monkeypatch.setattr(janus.network.model.language_model, "forward", spy)
    monkeypatch.setattr("janusflow.engine.text.run_layers", spy_on_step)
    ids, _ = janus.processor.encode_prompts(PROMPTS, side="left", keep_last=True)
    janus.generate(PROMPTS, num_images_per_prompt=3, progress=False)
    assert rows == [4 * ids.shape[1]] + [12] * (janus.network.image_tokens - 1)
    rows.clear()
    janus.generate(PROMPTS, num_images_per_prompt=3, guidance_scale=1.0, progress=False)
    assert rows == [2 * ids.shape[1]] + [6] * (janus.network.image_tokens - 1)


def test_only_the_prompts_of_a_batch_are_read_at_once(janus: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of hundreds of prompts would not fit into memory, whatever `batch_size` is."""
    prompts, read = ["a", "a red star", "two", "three stars"], []
    original = janus.read

    def spy(prompts: Any, *args: Any, **options: Any) -> Any:
        read.append(list(prompts))
        return original(prompts, *args, **options)

    whole = janus.generate(prompts, num_images_per_prompt=3, seed=0, progress=False, output_type="latent")
    monkeypatch.setattr(janus, "read", spy)
    for size, parts in (
        (1, [[one] for one in prompts]),
        (2, [["a"], prompts[:2], prompts[1:2], ["two"], prompts[2:], prompts[3:]]),
    ):
        read.clear()
        found = janus.generate(
            prompts, num_images_per_prompt=3, seed=0, progress=False, batch_size=size, output_type="latent"
        )
        assert torch.equal(found, whole) and read == parts


def test_outputs_and_callback(janus: Janus) -> None:
    steps: list[tuple[int, float, int]] = []
    pictures = janus.generate(
        PROMPTS,
        seed=1,
        progress=False,
        callback_on_step_end=lambda model, step, share, found: steps.append((step, share, found["codes"].shape[1])),
    )
    size = janus.network.drawn_size
    assert [picture.size for picture in pictures] == [(size, size)] * 2 and isinstance(pictures[0], Image.Image)
    assert steps[-1] == (janus.network.image_tokens - 1, 1.0, janus.network.image_tokens)
    array = janus.generate(PROMPTS, seed=1, output_type="np", progress=False)
    assert array.shape == (2, size, size, 3) and array.min() >= 0 and array.max() <= 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"solver": "heun"}, "solver: not for a Janus model"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"output_type": "jpg"}, "output_type is 'jpg'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments(janus: Janus, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        janus.generate("a star", progress=False, **arguments)


def test_a_prompt_that_does_not_fit(janus: Janus) -> None:
    with pytest.raises(ValueError, match="holds at most"):
        janus.generate("star " * 3000, progress=False)


def test_saved_and_opened_again(janus: Janus, tmp_path: Path) -> None:
    janus.save_pretrained(tmp_path / "saved")
    again: Any = JanusFlow.from_pretrained(tmp_path / "saved", device="cpu")
    assert again.processor.text == janus.processor.text and again.processor.image == janus.processor.image
    ours, theirs = dict(janus.network.named_parameters()), dict(again.network.named_parameters())
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    opened = TransformersJanus.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, ours[name]) for name, value in opened.named_parameters())


def test_with_offload_a_part_is_on_the_device_while_it_works(
    janus_golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both devices are the CPU here; what is watched is who is sent where, and when."""
    model: Any = JanusFlow.from_pretrained(janus_golden.folder, device="cpu")
    moves: list[str] = []
    monkeypatch.setattr(model.network, "to", lambda where: moves.append("network"))
    monkeypatch.setattr(model.network.model.vqmodel, "to", lambda where: moves.append("codec"))  # never by itself
    model.offload("cpu")
    moves.clear()
    sizes: list[int] = []
    decode = model.network.decode
    monkeypatch.setattr(model.network, "decode", lambda codes: (sizes.append(len(codes)), decode(codes))[1])
    pictures = model.generate(["a", "b"], do_sample=False, decode_batch_size=1, progress=False)
    assert moves == 4 * ["network"] and sizes == [1, 1]
    moves.clear()
    model.ask("hi", max_new_tokens=2)
    assert moves == ["network", "network"]
    monkeypatch.undo()
    plain = model.to("cpu").generate(["a", "b"], do_sample=False, decode_batch_size=1, progress=False)
    assert [one.tobytes() for one in pictures] == [one.tobytes() for one in plain]


def test_it_takes_no_vae(janus_golden: Golden) -> None:
    with pytest.raises(ValueError, match="takes no vae"):
        JanusFlow.from_pretrained(janus_golden.folder, vae=janus_golden.folder, device="cpu")


@pytest.mark.parametrize("change", [{"stop": True}, {"guidance_scale": 2.0}, {"latents": torch.zeros(1)}])
def test_a_change_that_a_callback_of_janus_asks_for_is_refused_by_name(janus: Janus, change: dict) -> None:
    with pytest.raises(ValueError, match=f"callback_on_step_end returned {next(iter(change))}, which a Janus model"):
        janus.generate("a star", callback_on_step_end=lambda *_: change)
    with pytest.raises(ValueError, match="the mapping that callback_on_step_end returned has no argument 'halt'"):
        janus.generate("a star", callback_on_step_end=lambda *_: {"halt": True})


def test_half_of_a_character_is_one_error_for_prompts_questions_and_messages(janus: Janus) -> None:
    for call in (janus.generate, janus.ask, lambda text: janus.chat([{"role": "user", "content": text}])):
        with pytest.raises(ValueError, match=r"is .*\\ud800.*, which is not UTF-8 text"):
            call("\ud800")


def test_a_callback_that_writes_into_the_codes_changes_nothing(janus: Janus) -> None:
    def overwrite(model: Janus, step: int, share: float, found: dict) -> None:
        found["codes"].zero_()

    plain = janus.generate("a star", seed=0, output_type="latent", progress=False)
    found = janus.generate("a star", seed=0, output_type="latent", progress=False, callback_on_step_end=overwrite)
    assert torch.equal(found, plain)


@pytest.mark.parametrize("value", ["false", 0, 1])
def test_do_sample_is_true_or_false(janus: Janus, value: object) -> None:
    with pytest.raises(ValueError, match=f"do_sample is {value!r}; expected true or false"):
        janus.generate("a star", do_sample=value)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"do_sample is {value!r}; expected true or false"):
        janus.ask("what?", do_sample=value)  # type: ignore[arg-type]


def test_codes_without_ids_are_refused(janus: Janus) -> None:
    embeds = torch.zeros(1, 3, janus.network.config.text_config.hidden_size)
    with pytest.raises(ValueError, match="latents need input_ids"):
        janus.network(inputs_embeds=embeds, latents=torch.zeros(1, janus.network.image_tokens, dtype=torch.int64))
