"""`plan`, `best_of` and `redraw`: what they generate, what they record, and that it can be generated again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from janusflow import JanusFlow, settings_of
from janusflow.families.descendants import DESCENDANTS
from janusflow.pipelines.procedures import INSTRUCTION, Procedure, later_seed
from janusflow.pipelines.provenance import KEY, describe_picture, provenance_of
from tests.conftest import GOLDEN

PROMPTS = ["a red circle", "three stars"]
FAST = {"num_inference_steps": 2, "batch_size": 1, "progress": False}


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture
def janus() -> Any:
    return JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")


@torch.inference_mode()
def score(model: Any, prompt: str, picture: Image.Image) -> float:
    """p(yes) by the network's own forward, one picture at a time."""
    question = model.match_question.replace("{}", prompt)
    talk = [{"role": "user", "content": f"<image_placeholder>\n{question}", "images": [picture]}]
    inputs = model.processor.encode_conversations([talk])
    logits = model.network(input_ids=inputs.input_ids, pixel_values=inputs.pixel_values).logits[0, -1]
    named = model.processor.tokenizer.convert_tokens_to_ids
    # One tokenizer has whole words, the other one only their letters.
    spelled = (["Ġyes"], ["no", "Ġno"]) if isinstance(model, JanusFlow) else (["Y", "y"], ["N", "n"])
    yes, no = (float(logits.double().softmax(dim=-1)[named(tokens)].sum()) for tokens in spelled)
    return yes / (yes + no)


def test_tags_of_pictures_in_a_prompt_place_nothing(tiny_model: JanusFlow) -> None:
    prompt = "a <image_placeholder> star <image_placeholder>"
    picture = tiny_model.generate(prompt, best_of=2, plan=True, seed=0, **FAST)[0]
    scores = [tiny_model.match([text], [picture]) for text in (prompt, "a  star ")]
    assert scores[0] == scores[1]
    with pytest.raises(ValueError, match="images is one picture; give a list with one picture per prompt"):
        tiny_model.match([prompt], picture)  # type: ignore[arg-type]


def test_a_batch_of_masks_has_one_for_each_prompt(tiny_model: JanusFlow) -> None:
    start = tiny_model.generate("a blue square", seed=3, **FAST)[0]
    masks = np.zeros((2, 64, 64), dtype=bool)
    masks[0, :32], masks[1, 32:] = True, True
    for given in (masks, torch.from_numpy(masks), list(masks)):
        kept = tiny_model.generate(PROMPTS, image=start, mask=given, best_of=2, seed=0, **FAST)
        for picture, mask in zip(kept, masks, strict=True):
            changed = (np.asarray(picture) != np.asarray(start)).any(axis=2)
            assert changed[mask].any() and not changed[~mask].any()


@pytest.mark.parametrize("family", ["JanusFlow", "Janus"])
def test_best_of_keeps_the_picture_with_the_highest_score(family: str, tiny_model: JanusFlow, janus: Any) -> None:
    model: Any = tiny_model if family == "JanusFlow" else janus
    fast = FAST if family == "JanusFlow" else {"batch_size": 1, "progress": False}
    kept = model.generate(PROMPTS, best_of=3, seed=5, **fast)
    for prompt, picture in zip(PROMPTS, kept, strict=True):
        seeds = [later_seed(5, number) for number in range(3)]
        candidates = [model.generate(prompt, seed=seed, **fast)[0] for seed in seeds]
        scores = [score(model, prompt, candidate) for candidate in candidates]
        done = provenance_of(picture).done
        assert done["scores"] == pytest.approx(scores, abs=1e-4) and len(set(scores)) == 3
        assert done["kept"] == int(np.argmax(scores)) and done["seeds"] == seeds
        assert same(picture, candidates[done["kept"]])


def test_a_picture_says_what_was_done_and_is_made_again(tiny_model: JanusFlow, tmp_path: Path) -> None:
    first, second = tiny_model.generate("a star", num_images_per_prompt=2, best_of=2, seed=1, **FAST)
    first.save(tmp_path / "star.png")
    assert settings_of(tmp_path / "star.png")["best_of"] == 2 and settings_of(first)["seed"] == 1
    assert same(tiny_model.generate(**settings_of(tmp_path / "star.png"), batch_size=1, progress=False)[0], first)
    assert settings_of(second)["seed"] == 2
    assert provenance_of(tmp_path / "star.png").done == provenance_of(first).done
    rows = dict(describe_picture(tmp_path / "star.png"))
    assert rows["best_of"] == "2" and rows["kept"] in "01" and rows["scores"].startswith("[")
    plain = tiny_model.generate("a star", seed=1, **FAST)[0]
    assert provenance_of(plain).done == {} and "best_of" not in settings_of(plain)


def test_a_callback_in_any_round_is_remembered(tiny_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def second(model: Any, step: int, t: float, tensors: dict[str, torch.Tensor]) -> dict[str, float] | None:
        seen.append(step)
        return {"guidance_scale": 9.0} if len(seen) == 3 else None  # the first step of the second picture

    judge(tiny_model, monkeypatch, [[0.9, 0.1], [0.1], [0.9]])
    asked = {"seed": 0, "callback_on_step_end": second, **FAST}
    assert provenance_of(tiny_model.generate("a star", best_of=2, **asked)[0]).changed_by_callback
    seen.clear()
    seen += [0, 1]  # now it is the first step of the first round
    assert provenance_of(tiny_model.generate("a star", redraw=1, **asked)[0]).changed_by_callback


def test_a_callback_that_stops_ends_all_rounds(tiny_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def stop(model: Any, step: int, t: float, tensors: dict[str, torch.Tensor]) -> dict[str, bool] | None:
        steps.append(step)
        return {"stop": True} if len(steps) == ends else None

    asked = {"seed": 0, "redraw": 3, "callback_on_step_end": stop, **FAST}
    for ends, rounds in ((1, 0), (FAST["num_inference_steps"] + 1, 1)):
        steps.clear()
        judge(tiny_model, monkeypatch, [[0.1]] * rounds)
        (picture,) = tiny_model.generate("a star", **asked)
        assert len(steps) == ends and provenance_of(picture).changed_by_callback


@pytest.mark.parametrize(
    ("prompts", "settings", "said"),
    [
        ("", {}, "prompt is ''; expected a text that is not empty"),
        (["a star", " "], {}, "prompt is ' '"),
        ([None], {}, "prompt is None"),
        ("a star", {"guidance_scale": 0.1}, "guidance_scale is 0.1"),
        ("a star", {"num_inference_steps": 0}, "num_inference_steps is 0"),
    ],
)
def test_a_request_is_checked_before_plans_are_written(
    tiny_model: JanusFlow, monkeypatch: pytest.MonkeyPatch, prompts: Any, settings: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(tiny_model, "chat_batch", lambda *_, **__: pytest.fail("a plan was written"))
    with pytest.raises(ValueError, match=said):
        tiny_model.generate(prompts, plan=True, **settings)


def test_a_damaged_record_is_refused(tiny_model: JanusFlow) -> None:
    picture = tiny_model.generate("a star", best_of=2, seed=1, **FAST)[0]
    picture.info[KEY] = picture.info[KEY].replace('"kept": ', '"kept": -')
    picture.info[KEY] = picture.info[KEY].replace('"kept": -0', '"kept": -1')
    with pytest.raises(ValueError, match="what was done for it is not a record"):
        provenance_of(picture)


def judge(model: Any, monkeypatch: pytest.MonkeyPatch, rounds: list[list[float]]) -> None:
    """Let a model give these scores, round by round."""
    given = iter(rounds)

    def match(prompts: Sequence[str], pictures: Sequence[Image.Image]) -> list[float]:
        scores = next(given)
        assert len(scores) == len(prompts) == len(pictures)
        return scores

    monkeypatch.setattr(model, "match", match)


def test_a_picture_that_does_not_match_is_generated_again(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(janus, monkeypatch, [[0.9, 0.2, 0.1], [0.7, 0.4], [0.3]])
    pictures = janus.generate("a star", num_images_per_prompt=3, redraw=2, seed=0, batch_size=1, progress=False)
    done = [provenance_of(picture).done for picture in pictures]
    assert [one["redraws"] for one in done] == [0, 1, 2]
    assert [one["scores"] for one in done] == [[0.9], [0.2, 0.7], [0.1, 0.4, 0.3]]
    for number, (picture, one) in enumerate(zip(pictures, done, strict=True)):
        seeds = [later_seed(number, attempt) for attempt in range(number + 1)]
        assert one["seeds"] == seeds and "reasons" not in one
        assert same(picture, janus.generate("a star", seed=seeds[-1], progress=False)[0])
    assert not same(pictures[1], janus.generate("a star", seed=1, progress=False)[0])
    assert settings_of(pictures[2])["redraw"] == 2 and settings_of(pictures[2])["seed"] == 2


def test_the_first_of_equal_scores_is_kept(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judge(janus, monkeypatch, [[0.2, 0.5, 0.5]])
    picture = janus.generate("a star", best_of=3, seed=0, batch_size=1, progress=False)[0]
    assert provenance_of(picture).done["kept"] == 1
    assert same(picture, janus.generate("a star", seed=later_seed(0, 1), progress=False)[0])


def test_a_janus_pro_r1_redraws_with_its_reason_in_view(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    janus.descendant = next(one for one in DESCENDANTS if one.introspects)
    judge(janus, monkeypatch, [[0.1], [0.8], [0.1], [0.8]])
    asked = {"redraw": 1, "seed": 0, "temperature": 0.9, "batch_size": 1, "progress": False}
    picture, again = (janus.generate("a star", **asked)[0] for _ in range(2))
    done = provenance_of(picture).done
    assert done["redraws"] == 1 and done["reasons"][0].startswith("No")
    assert same(picture, again) and settings_of(picture) == settings_of(again)
    fresh = janus.generate("a star", seed=later_seed(0, 1), temperature=0.9, progress=False)[0]
    assert not same(picture, fresh)  # it saw more than the prompt


def test_a_plan_follows_the_prompt(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def chat_batch(talks: Any, **decoding: Any) -> list[str]:
        asked.extend((talk[-1]["content"], seed) for talk, seed in zip(talks, decoding["seed"], strict=True))
        return [f" plan <begin_of_image>{seed} " for seed in decoding["seed"]]

    monkeypatch.setattr(janus, "chat_batch", chat_batch)
    pictures = janus.generate(PROMPTS, plan=True, num_images_per_prompt=2, seed=7, batch_size=1, progress=False)
    assert asked == [(INSTRUCTION.replace("{}", prompt), seed) for prompt in PROMPTS for seed in (7, 8)]
    assert provenance_of(pictures[3]).done == {"plan": "plan 8"} and settings_of(pictures[3])["plan"] is True
    assert settings_of(pictures[3])["prompts"] == "three stars"
    assert same(pictures[3], janus.generate("three stars. plan 8", seed=8, progress=False)[0])
    janus.generate("a star", plan="Describe {}!", seed=0, progress=False)
    assert asked[-1] == ("Describe a star!", 0)


def test_a_plan_comes_from_the_seed(janus: Any) -> None:
    first, again, other = (
        provenance_of(janus.generate("a star", plan=True, seed=seed, progress=False)[0]).done["plan"]
        for seed in (1, 1, 2)
    )
    assert first == again != other and first


def test_pictures_to_start_from_are_kept_with_their_prompts(tiny_model: JanusFlow) -> None:
    starts = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    kept = tiny_model.generate(PROMPTS, image=starts, num_images_per_prompt=2, best_of=2, seed=0, **FAST)
    seed = (made := provenance_of(kept[3])).done["seeds"][made.done["kept"]]
    alone = tiny_model.generate(PROMPTS[1], image=starts[1], seed=seed, **FAST)[0]
    assert same(kept[3], alone) and made.inputs == provenance_of(alone).inputs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"best_of": 0}, "best_of is 0; expected a whole number from 1 to 256"),
        ({"redraw": -1}, "redraw is -1; expected a whole number from 0 to 64"),
        ({"best_of": 2, "redraw": 1}, "best_of and redraw were given"),
        ({"plan": "draw it"}, "plan is 'draw it'; expected true, false, or an instruction with {} in it"),
        ({"plan": 1}, "plan is 1"),
        ({"best_of": 2, "output_type": "latent"}, "output_type is 'latent'; with plan, best_of and redraw"),
        ({"redraw": 1, "generator": torch.Generator()}, "generator was given; plan, best_of and redraw need seeds"),
        ({"best_of": 2, "stepz": 1}, "generate has no argument 'stepz'"),
        ({"image_guidance_scale": 2.0}, "image_guidance_scale: not for a JanusFlow model"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(tiny_model: JanusFlow, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_model.generate("a star", **arguments)


def test_janus_pro_r1_reads_a_prompt_with_a_tag_again(janus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    janus.descendant = next(one for one in DESCENDANTS if one.introspects)
    judge(janus, monkeypatch, [[0.1], [0.8]])
    picture = janus.generate("a <image_placeholder>", redraw=1, seed=0, progress=False)[0]
    assert provenance_of(picture).done["redraws"] == 1
    with pytest.raises(ValueError, match="guidance_scale is '5'; expected a number"):
        janus.generate("a star", guidance_scale="5")


def test_matching_needs_a_prompt_for_each_picture(tiny_model: JanusFlow) -> None:
    with pytest.raises(ValueError, match="'a star' for 1 pictures; give a list with one prompt per picture"):
        tiny_model.match("a star", [Image.new("RGB", (64, 64))])


def test_only_what_was_asked_for_is_recorded() -> None:
    assert Procedure.asked({"plan": False, "best_of": 1, "redraw": None, "seed": 3}) == {}
    assert Procedure.asked({"plan": True, "redraw": np.int64(2)}) == {"plan": True, "redraw": 2}
    rounds = [torch.rand(4, generator=torch.Generator().manual_seed(later_seed(5, number))) for number in range(3)]
    assert not torch.equal(rounds[0], rounds[1]) and not torch.equal(rounds[1], rounds[2])
    assert torch.equal(rounds[0], torch.rand(4, generator=torch.Generator().manual_seed(5 + 2**32)))  # why BITS is 32
    assert later_seed(2**64 - 1, 0) == 2**64 - 1 and later_seed(2**64 - 1, 1) == 1_000_002
