"""A generated picture can be generated again from what it carries; what a file says is checked before it is used."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from janusflow import JanusFlow, __version__, settings_of
from janusflow.flow import METHODS
from janusflow.interop.diffusers_pipeline import JanusFlowPipeline
from janusflow.pipelines.provenance import KEY, describe_picture, input_digests, provenance_of, weights_digest
from janusflow.pipelines.sheet import save_png
from tests.conftest import GOLDEN


def same(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def alike(one: Image.Image, other: Image.Image) -> bool:
    """The same up to the rounding of products, whose order depends on how many pictures are made at once."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max()) <= 1


@pytest.fixture(scope="module")
def janus() -> Any:
    return JanusFlow.from_pretrained(GOLDEN / "janus-small-a", device="cpu")


def test_a_picture_without_a_seed_keeps_the_one_that_was_drawn(small_model: JanusFlow) -> None:
    first, second = small_model.generate("a star", num_images_per_prompt=2, num_inference_steps=1)
    assert type(first.info["seed"]) is int and second.info["seed"] == first.info["seed"] + 1
    assert alike(small_model.generate("a star", seed=second.info["seed"], num_inference_steps=1)[0], second)


def test_a_saved_picture_is_generated_again_to_the_bit(small_model: JanusFlow, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "num_inference_steps": 3,
        "guidance_scale": 3.5,
        "guidance_interval": (0.1, 0.9),
        "solver": "heun",
        "shift": 2.0,
        "height": 32,
        "width": 80,
    }
    with pytest.warns(UserWarning, match="at 80 x 32 .width x height.; .* trained at 64 x 64"):
        several = small_model.generate(["a star", "two réd cats"], num_images_per_prompt=2, seed=7, **settings)
    assert settings_of(several[3]) == {"prompts": "two réd cats", "seed": 8, **settings}
    picture = small_model.generate("two réd cats", seed=8, **settings)[0]
    assert alike(picture, several[3])
    picture.save(tmp_path / "scene.png")
    for source in (str(tmp_path / "scene.png"), (tmp_path / "scene.png").read_bytes(), picture, several[3]):
        assert same(small_model.generate(**settings_of(source))[0], picture)


def test_settings_of_a_janus(janus: Any, tmp_path: Path) -> None:
    picture = janus.generate("a star", temperature=0.8, top_k=20, top_p=0.9)[0]
    picture.save(tmp_path / "a.png")
    settings = settings_of(tmp_path / "a.png")
    assert settings.keys() == {"prompts", "seed", "guidance_scale", "do_sample", "temperature", "top_k", "top_p"}
    assert same(janus.generate(**settings)[0], picture)
    assert provenance_of(picture).model["family"] == "Janus"


def test_a_diffusers_generator_that_is_new_gives_its_seed(small_model: JanusFlow) -> None:
    generator = torch.Generator().manual_seed(5)
    pipe = JanusFlowPipeline(small_model)
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe("a star", num_images_per_prompt=2, generator=generator, num_inference_steps=1).images
    assert [picture.info.get("seed") for picture in pictures] == [5, None]
    assert alike(small_model.generate(**settings_of(pictures[0]))[0], pictures[0])
    used = pipe("a star", generator=generator, num_inference_steps=1).images[0]
    given = small_model.generate("a star", latents=torch.zeros(1, 4, 8, 8), num_inference_steps=1)[0]
    for picture in (pictures[1], used, given):
        with pytest.raises(ValueError, match="latents= or a used generator"):
            settings_of(picture)


def test_pictures_to_begin_with_are_named_by_their_digest(small_model: JanusFlow, picture: Path) -> None:
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[:, :20] = 255
    pictures = small_model.generate(["a", "b"], image=picture, mask=mask, strength=0.5, num_inference_steps=2, seed=0)
    made = provenance_of(pictures[1])
    assert made.inputs == {"image": input_digests("image", picture)[0], "mask": input_digests("mask", mask)[0]}
    with Image.open(picture) as opened:
        assert input_digests("image", [opened, picture.read_bytes()]) == [made.inputs["image"]] * 2
    with pytest.raises(ValueError, match="need an image"):
        small_model.generate(**settings_of(pictures[1]))
    again = small_model.generate(**settings_of(pictures[1]), image=picture, mask=mask)[0]
    assert alike(again, pictures[1])


def test_other_programs_find_plain_keys(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.generate("a star", seed=3, num_inference_steps=1)[0].save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        text = opened.text  # type: ignore[attr-defined]
    assert text["prompt"] == "a star" and text["seed"] == "3" and text["Software"] == f"janusflow {__version__}"
    assert text["parameters"].startswith("a star\nSteps: 1, Sampler: euler, CFG scale: 2.0, Seed: 3, Size: 64x64, ")
    told = json.loads(text[KEY])
    assert told["settings"]["seed"] == 3 and told["versions"]["janusflow"] == __version__
    assert told["model"]["digest"] == weights_digest(small_model.network, small_model.codec.vae)


def test_the_picture_stays_one_of_pil(small_model: JanusFlow, tmp_path: Path) -> None:
    picture = small_model.generate("a star", seed=3, num_inference_steps=1)[0]
    assert isinstance(picture, Image.Image) and pickle.loads(pickle.dumps(picture)) == picture
    picture.save(tmp_path / "a.jpg")
    own = PngImagePlugin.PngInfo()
    own.add_text("mine", "1")
    picture.save(tmp_path / "own.png", pnginfo=own)
    with Image.open(tmp_path / "own.png") as opened:
        assert opened.info == {"mine": "1"}
    save_png(picture, tmp_path / "kept.png", {"note": "mine"})
    with Image.open(tmp_path / "kept.png") as opened:
        assert opened.info["note"] == "mine"
    assert settings_of(tmp_path / "kept.png") == settings_of(picture)
    small_model.generate("a star", seed=3, num_inference_steps=1)[0].resize((8, 8)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="does not say how it was made"):
        settings_of(tmp_path / "small.png")


def test_a_batch_of_pictures_has_the_digests_of_its_parts() -> None:
    batch = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert input_digests("image", batch) == input_digests("image", list(batch))


def test_the_digest_is_that_of_the_weights(mutable_model: JanusFlow) -> None:
    before = weights_digest(mutable_model.network)
    assert weights_digest(mutable_model.network) == before
    with torch.no_grad():
        mutable_model.network.lm_head.weight.mul_(1.01)
    assert weights_digest(mutable_model.network) != before


@pytest.mark.parametrize(
    ("change", "altered"),
    [
        (lambda step, x: {"guidance_scale": 1.0} if step == 0 else None, True),
        (lambda step, x: {"latents": x * 0.5}, True),
        (lambda step, x: {"stop": bool(x.mul_(0.5).isnan().any())}, True),
        (lambda step, x: {"stop": step == 1}, True),
        (lambda step, x: {"stop": False, "guidance_scale": 2.0, "latents": x}, False),
        (lambda step, x: {"stop": step == 2, "guidance_scale": 1.0 if step == 2 else 2.0}, False),
    ],
    ids=["guidance", "latents", "in place", "stop", "nothing", "after the last step"],
)
def test_a_picture_that_a_callback_changed_is_not_recreated(
    small_model: JanusFlow, tmp_path: Path, change: Callable[[int, torch.Tensor], Any], altered: bool
) -> None:
    def callback(model: Any, step: int, t: float, tensors: dict[str, torch.Tensor]) -> Any:
        return change(step, tensors["latents"]) if len(tensors["latents"]) == 1 else None

    pictures = small_model.generate(
        ["a", "b", "c"], seed=0, num_inference_steps=3, batch_size=2, callback_on_step_end=callback
    )
    assert [provenance_of(one).changed_by_callback for one in pictures] == [False, False, altered]
    assert settings_of(pictures[0])["seed"] == 0
    pictures[2].save(tmp_path / "cb.png")
    rows = dict(describe_picture(tmp_path / "cb.png"))
    assert ("changed by callback" in rows) == altered
    if altered:
        words = "cb.png' was changed by a callback during generation, so its settings do not recreate it"
        with pytest.raises(ValueError, match=words):
            settings_of(tmp_path / "cb.png")
    else:
        settings_of(tmp_path / "cb.png")


def test_pictures_after_a_stop_and_of_an_interrupted_pipeline_are_changed(small_model: JanusFlow) -> None:
    stopped = small_model.generate(
        ["a", "b"], seed=0, num_inference_steps=1, batch_size=1, callback_on_step_end=lambda *_: {"stop": True}
    )
    assert [provenance_of(one).changed_by_callback for one in stopped] == [False, True]
    pipe = JanusFlowPipeline(small_model)
    pipe.set_progress_bar_config(disable=True)

    def cutoff(pipe: Any, step: int, t: float, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pipe._guidance_scale = 0.0
        return tensors

    for callback, altered in ((cutoff, True), (lambda pipe, step, t, tensors: tensors, False)):
        (picture,) = pipe("a", num_inference_steps=2, callback_on_step_end=callback, seed=0).images
        assert provenance_of(picture).changed_by_callback == altered


def test_an_edited_copy_is_not_recreated(small_model: JanusFlow, tmp_path: Path) -> None:
    picture = small_model.generate("a star", seed=3, num_inference_steps=1)[0]
    for edited in (picture.resize((32, 32)), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), picture.convert("L")):
        with pytest.raises(ValueError, match="the picture was edited after it was generated"):
            settings_of(edited)
    picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        copies = [picture.copy(), opened, opened.convert("RGB")]
        assert all(settings_of(one)["seed"] == 3 for one in copies)


def test_a_picture_of_a_registered_solver_is_recreated(small_model: JanusFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "my-own", METHODS["heun"])
    picture = small_model.generate("a star", seed=3, num_inference_steps=1, solver="my-own")[0]
    assert small_model.generate(**settings_of(picture))[0].tobytes() == picture.tobytes()
    monkeypatch.delitem(METHODS, "my-own")
    with pytest.raises(ValueError, match="solver is 'my-own'; choose from euler"):
        small_model.generate(**settings_of(picture))


@pytest.fixture
def told(small_model: JanusFlow) -> dict[str, Any]:
    """What a good picture says."""
    return json.loads(small_model.generate("a star", seed=3, num_inference_steps=1)[0].info[KEY])  # type: ignore[no-any-return]


def write(file: Path, text: str) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, text)
    Image.new("RGB", (8, 8)).save(file, pnginfo=info)
    return file


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["settings"].update(seed="3"), "has seed '3'; expected a whole number"),
        (lambda t: t["settings"].update(seed=-1), "has seed '-1'"),
        (lambda t: t["settings"].update(seed=True), "has seed 'True'"),
        (lambda t: t["settings"].update(num_inference_steps=10**9), "num_inference_steps '1000000000'"),
        (lambda t: t["settings"].update(guidance_scale=float("nan")), "guidance_scale 'nan'"),
        (lambda t: t["settings"].update(height=10**6), "height '1000000'"),
        (lambda t: t["settings"].update(solver="os.system"), "solver 'os.system'"),
        (lambda t: t["settings"].update(guidance_interval=[0, 2]), "guidance_interval"),
        (lambda t: t["settings"].update(output_type="latent"), "a setting 'output_type' that is not known here"),
        (lambda t: t["settings"].update(prompts=""), "prompts ''"),
        (lambda t: t["settings"].pop("seed"), "does not say how it was made"),
        (lambda t: t.update(settings=[]), "does not say how it was made"),
        (lambda t: t["model"].update(name="\x1b[2J"), "model 'name'"),
        (lambda t: t["model"].update(name=["tiny"]), "model 'name'"),
    ],
)
def test_what_is_not_allowed_in_a_file_is_one_sentence(
    told: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    change(told)
    with pytest.raises(ValueError) as caught:
        settings_of(write(tmp_path / "a.png", json.dumps(told)))
    assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_foreign_and_damaged_files_are_one_sentence(tmp_path: Path, picture: Path) -> None:
    cut, none = tmp_path / "cut.png", tmp_path / "none.png"
    cut.write_bytes(picture.read_bytes()[:30])
    for file, words in (
        (picture, "does not say how it was made"),
        (write(tmp_path / "a.png", "{"), "is not JSON"),
        (write(tmp_path / "b.png", "[" * 100_000), "is not JSON"),
        (write(tmp_path / "c.png", "3"), "does not say how it was made"),
        (cut, "is not a readable image"),
        (none, "does not exist"),
        (Path(__file__), "is not a readable image"),
    ):
        with pytest.raises(ValueError) as caught:
            settings_of(file)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="does not say how it was made"):
        settings_of(np.zeros((4, 4), dtype=np.uint8))


def test_a_model_whose_folder_has_control_characters_makes_pictures_that_can_be_saved(
    small_model: JanusFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_model, "opened", {**small_model.opened, "name": "my\tmodel" + 5000 * "x"})
    small_model.generate("a star", num_inference_steps=1)[0].save(tmp_path / "a.png")
    assert provenance_of(tmp_path / "a.png").model["name"] == "my model" + 4088 * "x"


@pytest.mark.parametrize(
    "name", ["my\u00a0model", "\u6a21\u578b\u3000", "\u0915\u094d\u200d\u0937", "models/" + 600 * "x"]
)
def test_a_model_may_have_a_name_in_any_language(small_model: JanusFlow, tmp_path: Path, name: str) -> None:
    picture = small_model.generate("a star", seed=3, num_inference_steps=1)[0]
    made = json.loads(picture.info[KEY])
    made["model"]["name"] = name
    picture.info[KEY] = json.dumps(made)
    picture.save(tmp_path / "a.png")
    assert provenance_of(tmp_path / "a.png").model["name"] == name


def test_a_description_holds_nothing_that_steers_a_terminal(told: dict[str, Any], tmp_path: Path) -> None:
    told["settings"]["prompts"] = "a star\x1b[2J\nand more"
    rows = dict(describe_picture(write(tmp_path / "a.png", json.dumps(told))))
    assert rows["prompt"] == "a star [2J and more" and rows["seed"] == "3"
