"""`/v1/images/generations` and `/v1/images/edits` with the official client."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from janusflow.pipelines.janus import Janus
from janusflow.pipelines.provenance import provenance_of, settings_of
from janusflow.serving.scheduler import QueueSettings
from tests.serving.conftest import Served, serving

PROMPT = "a red circle above a blue square"


def opened(data: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data or "")))


def difference(one: Image.Image, other: Image.Image) -> int:
    """In levels of 255."""
    return int(np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).max())


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def test_pictures_of_one_request_are_those_of_generate(served: Served, client: OpenAI) -> None:
    settings: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0, "solver": "heun"}
    found = client.images.generate(model="tiny", prompt=PROMPT, n=3, extra_body={**settings, "seed": 11})
    expected = served.model.generate(PROMPT, num_images_per_prompt=3, seed=11, progress=False, **settings)
    assert found.data is not None
    for one, picture in zip(found.data, expected, strict=True):
        assert difference(opened(one.b64_json), picture) <= 1
    assert found.size == "64x64" and found.usage is not None and found.usage.output_tokens == 3 * 64


def test_a_png_says_how_it_was_made_and_no_path(served: Served, client: OpenAI) -> None:
    found = client.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 2, "seed": 5})
    assert found.data is not None
    data = base64.b64decode(found.data[0].b64_json or "")
    assert settings_of(data)["seed"] == 5 and settings_of(data)["num_inference_steps"] == 2
    assert b"/" not in (Image.open(io.BytesIO(data)).info["janusflow"]).encode()


def test_quality_and_preset_name_settings_that_others_override(client: OpenAI) -> None:
    def made(**more: Any) -> tuple[Any, dict[str, Any]]:
        found = client.images.generate(prompt=PROMPT, **more)
        assert found.data is not None
        return found.quality, settings_of(base64.b64decode(found.data[0].b64_json or ""))

    said, low = made(quality="low", extra_body={"seed": 1})
    assert (said, low["num_inference_steps"], low["solver"]) == ("low", 6, "ab2")
    said, fast = made(extra_body={"preset": "fast", "seed": 1, "num_inference_steps": 2})
    assert said == "low" and fast == {**low, "num_inference_steps": 2}


@pytest.mark.parametrize(("kind", "format_name"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
def test_formats_and_addresses_are_as_asked_for(client: OpenAI, kind: Any, format_name: str) -> None:
    found = client.images.generate(
        prompt=PROMPT,
        output_format=kind,
        size="96x64",
        response_format="url",
        extra_body={"num_inference_steps": 1},  # type: ignore[call-overload]
    )
    head, _, data = found.data[0].url.partition(",")
    assert head == f"data:image/{kind};base64"
    picture = opened(data)
    assert picture.format == format_name and picture.size == (96, 64)


def test_a_stream_sends_previews_that_approach_the_picture(client: OpenAI) -> None:
    events = list(
        client.images.generate(
            model="tiny",
            prompt=PROMPT,
            stream=True,
            partial_images=2,
            extra_body={"num_inference_steps": 6, "seed": 3},
        )
    )
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, None]
    pictures = [np.asarray(opened(event.b64_json).convert("RGB"), float) for event in events]
    distances = [float(np.abs(picture - pictures[-1]).mean()) for picture in pictures[:-1]]
    assert distances[0] > distances[1] > 0
    whole = client.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 6, "seed": 3})
    assert whole.data is not None
    assert difference(opened(events[-1].b64_json), opened(whole.data[0].b64_json)) == 0


def test_an_edit_starts_from_the_picture_as_generate_does(served: Served, client: OpenAI) -> None:
    source = Image.new("RGB", (80, 64), (10, 200, 30))
    settings: dict[str, Any] = {"num_inference_steps": 5, "strength": 0.5, "seed": 2, "guidance_interval": [0.5, 1.0]}
    found = client.images.edit(image=[("a.png", png(source))], prompt=PROMPT, extra_body=settings)
    expected = served.model.generate(PROMPT, image=source, progress=False, **settings)[0]
    assert found.data is not None
    assert difference(opened(found.data[0].b64_json), expected) <= 1


def test_transparent_pixels_of_a_mask_are_generated_anew_and_no_others(client: OpenAI) -> None:
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    mask = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 32, 64))
    found = client.images.edit(
        image=("a.png", png(source)), mask=("m.png", png(mask)), prompt=PROMPT, extra_body={"num_inference_steps": 2}
    )
    assert found.data is not None
    made, given = np.asarray(opened(found.data[0].b64_json).convert("RGB")), np.asarray(source)
    assert (made[:, 32:] == given[:, 32:]).all()
    assert (made[:, :32] != given[:, :32]).any(axis=-1).mean() > 0.9


def test_an_edit_waits_with_its_picture_at_the_size_that_is_generated_and_records_what_was_sent(
    served: Served, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, mask = Image.new("RGB", (90, 80), (10, 200, 30)), Image.new("RGBA", (90, 80))
    submitted, submit = list[Any](), served.scheduler.submit

    def submitting(requests: Any, *given: Any, **options: Any) -> Any:
        submitted.extend(requests)
        return submit(requests, *given, **options)

    monkeypatch.setattr(served.scheduler, "submit", submitting)
    settings = {"num_inference_steps": 2, "seed": 4}
    files: dict[str, Any] = {"image": ("a.png", png(source)), "mask": ("m.png", png(mask))}
    found = client.images.edit(**files, prompt=PROMPT, extra_body=settings)
    assert [one.image.size for one in submitted] == [(64, 64)] and submitted[0].mask.shape == (64, 64)
    everywhere = np.ones((80, 90), bool)
    expected = served.model.generate(PROMPT, image=source, mask=everywhere, progress=False, **settings)[0]
    assert found.data is not None
    data = base64.b64decode(found.data[0].b64_json or "")
    assert difference(Image.open(io.BytesIO(data)), expected) <= 1
    assert provenance_of(data).inputs == provenance_of(expected).inputs


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"quality": "best"}, "quality"),
        ({"quality": "low", "preset": "fast"}, "quality"),
        ({"cfg": 2}, "cfg"),
        ({"n": 5}, "n"),
        ({"num_inference_steps": 61}, "num_inference_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"solver": "magic"}, "solver"),
        ({"size": "70x64"}, "width"),
        ({"size": "huge"}, "size"),
        ({"size": "2048x1024"}, "size"),
        ({"partial_images": 1}, "partial_images"),
        ({"temperature": 1.0}, "temperature"),
        ({"seed": 2**64}, "seed"),
        ({"prompt": ""}, "prompt"),
        ({"output_compression": 3}, "output_compression"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(served: Served, settings: dict[str, Any], param: str) -> None:
    with served.http() as http:
        found = http.post("/v1/images/generations", json={"prompt": PROMPT, **settings})
    assert found.status_code == 400, found.text
    assert param in found.json()["error"]["message"]


def test_a_janus_edits_and_says_which_settings_it_takes(janus: Janus) -> None:
    source = Image.new("RGB", (80, 64), (10, 200, 30))
    with serving(janus, QueueSettings()) as served, served.http() as http:
        settings = http.get("/v1/models").json()["data"][0]["settings"]
        assert settings["guidance_scale"] == 5.0 and "image_guidance_scale" in settings
        assert not {"num_inference_steps", "strength", "mask", "height"} & settings.keys()
        sent = {"prompt": PROMPT, "seed": "2", "image_guidance_scale": "3"}
        found = http.post("/v1/images/edits", data=sent, files={"image": ("a.png", png(source))})
        expected = janus.generate(PROMPT, image=source, seed=2, image_guidance_scale=3.0, progress=False)[0]
        assert difference(opened(found.json()["data"][0]["b64_json"]), expected) == 0
        seen = found.json()["usage"]["input_tokens_details"]["image_tokens"]
        assert seen == janus.processor.text.num_image_tokens + janus.network.image_tokens
        for name, value in (("strength", "0.5"), ("num_inference_steps", "4")):
            refused = http.post("/v1/images/edits", data={**sent, name: value}, files={"image": ("a.png", png(source))})
            assert f"{name} is not a setting of a Janus model" in refused.json()["error"]["message"]


def test_edits_that_do_not_go_together_are_refused(client: OpenAI) -> None:
    source, small = Image.new("RGB", (64, 64)), Image.new("RGBA", (32, 32))
    refused: list[tuple[dict[str, Any], str]] = [
        ({"mask": ("m.png", png(small))}, "mask has 32 x 32 pixels"),
        ({"mask": ("m.png", png(source))}, "no transparent pixels"),
        ({"extra_body": {"paste_original": True}}, "paste_original needs a mask"),
        ({"extra_body": {"colour": 1}}, "colour is not a parameter"),
        ({"extra_body": {"strength": 2}}, "strength"),
    ]
    for options, reason in refused:
        with pytest.raises(BadRequestError, match=reason):
            client.images.edit(image=("a.png", png(source)), prompt=PROMPT, **options)
    with pytest.raises(BadRequestError, match="not a readable picture"):
        client.images.edit(image=("a.png", b"GIF89a"), prompt=PROMPT)
