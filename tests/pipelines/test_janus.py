"""Janus: every number of the golden case, the loop's properties, and that each mistake would be seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import GenerationConfig
from transformers import JanusForConditionalGeneration as TransformersJanus

from janusflow import JanusFlow
from janusflow.engine import token_generation
from janusflow.engine.text import Slots
from janusflow.engine.token_generation import TokenSampling
from janusflow.model.llama import run_layers
from janusflow.pipelines.janus import Janus
from tests.conftest import TOLERANCE, Golden, error, golden_folders

PROMPTS = ["a red circle", "two blue squares left of a small green star on a white background"]


@pytest.fixture(scope="module", params=golden_folders("janus-*"), ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    folder: Path = request.param
    cases = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return Golden(folder, load_file(folder / "expected.safetensors"), cases)


@pytest.fixture(scope="module")
def janus(golden: Golden) -> Janus:
    model: Any = JanusFlow.from_pretrained(golden.folder, device="cpu")
    assert isinstance(model, Janus)
    return model


def drawn(model: Janus, case: dict[str, Any]) -> Tensor:
    """The codes of a golden case, the likeliest each time."""
    codes = model.generate(
        case["prompt"],
        num_images_per_prompt=case["parallel_size"],
        guidance_scale=case["cfg_weight"],
        do_sample=False,
        output_type="latent",
        progress=False,
    )
    assert isinstance(codes, Tensor)
    return codes


# --- parity ---------------------------------------------------------------------------------------------------------


def test_inputs_and_embeddings_of_a_batch(janus: Janus, golden: Golden) -> None:
    inputs = janus.processor.encode_conversations(golden.conversations)
    expected = golden.tensors
    assert inputs.text == golden.cases["sft"]
    assert torch.equal(inputs.input_ids, expected["und.input_ids"])
    assert torch.equal(inputs.attention_mask, expected["und.attention_mask"])
    shown = expected["und.images_emb_mask"].any(dim=-1)
    assert inputs.pixel_values is not None
    assert error(inputs.pixel_values, expected["und.pixel_values"][shown]) < TOLERANCE
    embeds = janus.network.embed(inputs.input_ids, inputs.pixel_values)
    visible = inputs.attention_mask.bool()
    assert error(embeds[visible], expected["und.inputs_embeds"][visible]) < TOLERANCE


def test_logits_and_greedy_text(janus: Janus, golden: Golden, caplog: pytest.LogCaptureFixture) -> None:
    inputs = janus.processor.encode_conversations(golden.conversations)
    embeds = janus.network.embed(inputs.input_ids, inputs.pixel_values)
    outputs = janus.network(inputs_embeds=embeds, attention_mask=inputs.attention_mask)
    assert error(outputs.logits[:, -1], golden.tensors["und.last_logits"]) < TOLERANCE
    tokenizer = janus.processor.tokenizer
    wanted = [tokenizer.decode(row, skip_special_tokens=True) for row in golden.tensors["und.greedy_tokens"]]
    length = golden.tensors["und.greedy_tokens"].shape[1]
    assert janus.chat_batch(golden.conversations, max_new_tokens=length) == wanted
    assert not caplog.records  # transformers' warnings
    for talk, text in zip(golden.conversations, wanted, strict=True):
        assert janus.chat(talk, max_new_tokens=length) == text
        assert "".join(janus.stream(talk, max_new_tokens=length)) == text


def test_prompt_ids(janus: Janus, golden: Golden) -> None:
    for case in golden.cases["t2i"]:
        ids, mask = janus.processor.encode_prompts([case["prompt"]], side="left", keep_last=True)
        assert janus.processor.render_prompt(case["prompt"]) == case["text"]
        assert ids.tolist() == [case["input_ids"]] and bool(mask.all())


def test_first_logits_all_codes_and_pixels(janus: Janus, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, case in enumerate(golden.cases["t2i"]):
        seen: list[Tensor] = []
        guide = TokenSampling.guide

        def spy(self: TokenSampling, logits: Tensor, seen: list[Tensor] = seen, guide: Any = guide) -> Tensor:
            seen.append(guide(self, logits))
            return seen[-1]

        monkeypatch.setattr(TokenSampling, "guide", spy)
        codes = drawn(janus, case)
        monkeypatch.undo()
        assert error(seen[0], golden.tensors[f"t2i.{index}.first_logits"]) < TOLERANCE
        assert torch.equal(codes, golden.tensors[f"t2i.{index}.tokens"].long())
        assert error(janus.network.decode(codes), golden.tensors[f"t2i.{index}.pixels"]) < TOLERANCE


def test_codes_of_a_picture(janus: Janus, golden: Golden) -> None:
    codes = janus.network.encode(golden.tensors["vq.encode.input"])
    assert torch.equal(codes.flatten(), golden.tensors["vq.encode.indices"])


def test_transformers_own_loop_draws_the_same(janus: Janus, golden: Golden) -> None:
    case = golden.cases["t2i"][0]
    tokenizer = janus.processor.tokenizer
    config = GenerationConfig(
        guidance_scale=case["cfg_weight"],
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": janus.processor.image_start_id},
    )
    codes = TransformersJanus.generate(
        janus.network,
        torch.tensor([case["input_ids"]]),
        attention_mask=torch.ones(1, len(case["input_ids"]), dtype=torch.long),
        generation_mode="image",
        generation_config=config,
    )
    assert torch.equal(codes, drawn(janus, {**case, "parallel_size": 1}))


def test_layers_with_hooks_draw_the_same_codes(janus: Janus, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"seed": 3, "output_type": "latent", "progress": False}
    expected = janus.generate(PROMPTS, **settings)
    monkeypatch.setattr(Slots, "step", None)  # transformers' forward runs
    calls: list[int] = []
    hook = janus.network.get_decoder().layers[0].register_forward_hook(lambda *given: calls.append(1))
    assert torch.equal(janus.generate(PROMPTS, **settings), expected)
    hook.remove()
    assert len(calls) == janus.network.image_tokens


# --- a mistake would be seen ----------------------------------------------------------------------------------------


def _hide_pads(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    read = token_generation.read_prompts

    def hiding(network: Any, ids: Tensor, visible: Tensor, pad: int, *, guided: bool) -> Any:
        found = read(network, ids, visible, pad, guided=guided)
        found.visible[len(ids) :, 1:-1] = 0
        return found

    monkeypatch.setattr("janusflow.pipelines.janus.read_prompts", hiding)


def _other_pad(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    model.processor.tokenizer.pad_token = model.processor.tokenizer.eos_token


def _no_guidance(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenSampling, "guide", lambda self, logits: logits.chunk(2)[0])


def _positions_stand_still(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Slots.step

    def still(slots: Slots, embeds: Tensor) -> Tensor:
        states = step(slots, embeds)
        for row in range(len(slots.lengths)):
            slots.forget(row, 1)
        return states

    monkeypatch.setattr(Slots, "step", still)


def _forgets_the_prompt(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    read = model.network.read

    def empty(ids: Tensor, mask: Tensor) -> Any:
        return read(torch.zeros_like(ids), mask)

    model.network.read = empty  # type: ignore[method-assign]


def _unscaled_codes(model: Janus, monkeypatch: pytest.MonkeyPatch) -> None:
    model.network.model.vqmodel.quantize.get_codebook_entry = lambda codes: (
        model.network.model.vqmodel.quantize.embedding(codes).view(len(codes), 4, 4, -1).permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    "mistake",
    [_hide_pads, _other_pad, _no_guidance, _positions_stand_still, _forgets_the_prompt, _unscaled_codes],
    ids=lambda mistake: mistake.__name__.strip("_"),
)
def test_a_mistake_changes_the_pictures(golden: Golden, mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = JanusFlow.from_pretrained(golden.folder, device="cpu")
    mistake(model, monkeypatch)
    wrong = model.network.decode(drawn(model, golden.cases["t2i"][0]))
    assert error(wrong, golden.tensors["t2i.0.pixels"]) > 100 * TOLERANCE


# --- the loop -------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def chances() -> Iterator[Tensor]:
    yield torch.rand(20000, generator=torch.Generator().manual_seed(0))


def test_codes_are_drawn_with_their_probabilities(chances: Tensor) -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0]).log().expand(len(chances), -1)
    for temperature in (1.0, 0.5):
        share = torch.bincount(TokenSampling(temperature=temperature).choose(logits, chances), minlength=5) / 20000
        wanted = (logits[0] / temperature).softmax(-1)
        assert float((share - wanted).abs().max()) < 0.01


def test_top_k_and_top_p_leave_the_likeliest(chances: Tensor) -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(len(chances), -1)
    assert set(TokenSampling(top_k=2).choose(logits, chances).tolist()) == {2, 3}
    assert set(TokenSampling(top_p=0.4).choose(logits, chances).tolist()) == {3}
    assert set(TokenSampling(top_p=0.41).choose(logits, chances).tolist()) == {2, 3}
    assert set(TokenSampling(do_sample=False).choose(logits, chances).tolist()) == {3}


def test_a_chance_of_one_minus_rounding_stays_in_the_codebook() -> None:
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    chance = torch.tensor([1.0 - 2**-24])
    assert TokenSampling().choose(logits, chance).tolist() == [1]


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


# --- files ----------------------------------------------------------------------------------------------------------


def test_saved_and_opened_again(janus: Janus, tmp_path: Path) -> None:
    janus.save_pretrained(tmp_path / "saved")
    again: Any = JanusFlow.from_pretrained(tmp_path / "saved", device="cpu")
    assert again.processor.text == janus.processor.text and again.processor.image == janus.processor.image
    ours, theirs = dict(janus.network.named_parameters()), dict(again.network.named_parameters())
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    opened = TransformersJanus.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(value, ours[name]) for name, value in opened.named_parameters())


def test_with_offload_a_part_is_on_the_device_while_it_works(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both devices are the CPU here; what is watched is who is sent where, and when."""
    model: Any = JanusFlow.from_pretrained(golden.folder, device="cpu")
    moves: list[str] = []
    monkeypatch.setattr(model.network, "to", lambda where: moves.append("network"))
    monkeypatch.setattr(model.network.model.vqmodel, "to", lambda where: moves.append("codec"))
    model.offload("cpu")
    moves.clear()
    sizes: list[int] = []
    decode = model.network.decode
    monkeypatch.setattr(model.network, "decode", lambda codes: (sizes.append(len(codes)), decode(codes))[1])
    pictures = model.generate(["a", "b"], do_sample=False, decode_batch_size=1, progress=False)
    assert moves == ["network", "network", "codec", "codec"] and sizes == [1, 1]
    moves.clear()
    model.ask("hi", max_new_tokens=2)
    assert moves == ["network", "network"]
    monkeypatch.undo()
    plain = model.to("cpu").generate(["a", "b"], do_sample=False, decode_batch_size=1, progress=False)
    assert [one.tobytes() for one in pictures] == [one.tobytes() for one in plain]


def test_it_takes_no_vae(golden: Golden) -> None:
    with pytest.raises(ValueError, match="takes no vae"):
        JanusFlow.from_pretrained(golden.folder, vae=golden.folder, device="cpu")


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
