"""The processor's call with the options of transformers: each works or is refused, none is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from janusflow import JanusFlow
from janusflow.processing.processor import JanusFlowProcessor

TEXTS = ["hi", "a much longer text"]


@pytest.fixture(scope="module")
def processor(small_model: JanusFlow) -> JanusFlowProcessor:
    return small_model.processor


def test_nested_pictures_belong_to_their_texts(processor: JanusFlowProcessor, picture: Path) -> None:
    tag = processor.text.image_tag
    texts = [f"{tag} a", f"{tag}{tag} b", "c"]
    flat = processor(texts, [picture] * 3)
    for images in ([[picture], [picture, picture], []], [[picture], (picture, picture), None]):
        nested = processor(text=texts, images=images)
        assert all(torch.equal(nested[name], flat[name]) for name in flat)
    with pytest.raises(ValueError, match="text 1 has 1 <image_placeholder>, but 2 pictures were given for it"):
        processor(texts, [[picture, picture], [picture], []])
    with pytest.raises(ValueError, match="2 lists were given with pictures for 3 texts"):
        processor(texts, [[picture], [picture, picture]])
    with pytest.raises(ValueError, match="has 3 <image_placeholder>, but 1 picture was given"):
        processor(texts, picture)


def test_pictures_without_text(processor: JanusFlowProcessor, picture: Path) -> None:
    assert list(processor(images=[picture, picture])) == ["pixel_values"]
    with pytest.raises(ValueError, match="neither text nor pictures"):
        processor()


def test_padding(processor: JanusFlowProcessor) -> None:
    left, right = processor(TEXTS), processor(TEXTS, padding_side="right")
    assert left["attention_mask"][0, 0] == right["attention_mask"][0, -1] == 0
    assert left["attention_mask"][0].sum() == right["attention_mask"][0].sum()
    assert torch.equal(left["input_ids"][1], right["input_ids"][1])
    fixed = processor(TEXTS, padding="max_length", max_length=40)
    assert fixed["input_ids"].shape == (2, 40) and torch.equal(fixed["input_ids"][0, -1], left["input_ids"][0, -1])
    assert processor(TEXTS, pad_to_multiple_of=32)["input_ids"].shape == (2, 32)
    assert processor("hi", padding=False)["attention_mask"].all()
    with pytest.raises(ValueError, match="texts have [0-9]+ to [0-9]+ tokens; give padding=True"):
        processor(TEXTS, padding=False)


def test_special_tokens(processor: JanusFlowProcessor) -> None:
    bare = processor("hi", add_special_tokens=False)["input_ids"]
    assert torch.equal(processor("hi")["input_ids"][:, 1:], bare)


def test_truncation_cuts_text_and_no_picture(processor: JanusFlowProcessor, picture: Path) -> None:
    whole = processor(f"{processor.text.image_tag} what?", picture)["input_ids"]
    end = whole[0].tolist().index(processor.image_end_id) + 1
    for length in (end, end + 1):
        cut = processor(f"{processor.text.image_tag} what?", picture, truncation=True, max_length=length)
        assert torch.equal(cut["input_ids"], whole[:, :length])
    with pytest.raises(ValueError, match=f"max_length is {end - 1}, which cuts a picture; expected at least {end}"):
        processor(f"{processor.text.image_tag} what?", picture, truncation=True, max_length=end - 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": "left"}, "padding is 'left'; expected True, 'longest', False"),
        ({"padding_side": "top"}, "padding_side is 'top'; expected 'left', 'right'"),
        ({"truncation": True}, "need max_length"),
        ({"max_length": 5}, "max_length needs truncation=True or padding='max_length'"),
        ({"max_length": 0, "truncation": True}, "max_length is 0"),
        ({"pad_to_multiple_of": 1.5}, "pad_to_multiple_of is 1.5"),
        ({"return_tensors": "np"}, "return_tensors is 'np'; only PyTorch"),
        ({"do_resize": False}, "do_resize: not options of the processor, which are return_tensors, padding,"),
        ({"text": []}, "text must be a string or a list of at least one string"),
        ({"text": [["hi"]]}, "text must be a string"),
    ],
)
def test_what_is_refused(processor: JanusFlowProcessor, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        processor(**{"text": "hi", **options})


def test_what_none_means_is_the_default(processor: JanusFlowProcessor) -> None:
    assert torch.equal(processor("hi", max_length=None, videos=None)["input_ids"], processor("hi")["input_ids"])


def test_chat_templates_pass_options_on(processor: JanusFlowProcessor) -> None:
    talk = [{"role": "user", "content": "hi"}]
    inputs = processor.apply_chat_template(talk, tokenize=True, padding="max_length", max_length=128)
    assert inputs["input_ids"].shape == (1, 128)
    options = {"padding": "max_length", "max_length": 128, "padding_side": "right"}
    inputs = processor.apply_chat_template(talk, tokenize=True, processor_kwargs=options, return_tensors="pt")
    assert inputs["attention_mask"][0, -1] == 0
    ids = processor.apply_chat_template(talk, tokenize=True, return_dict=False)
    bare = processor.apply_chat_template(talk, tokenize=True, return_dict=False, add_special_tokens=False)
    assert torch.equal(ids[:, 1:], bare)
    assert processor.apply_chat_template(talk, "{{ messages[0]['content'] }}!") == "hi!"
    for unknown in ({"tools": [print]}, {"return_assistant_tokens_mask": True}, {"enable_thinking": True}):
        with pytest.raises(ValueError, match="not options of the processor"):
            processor.apply_chat_template(talk, **unknown)


def test_hub_options_that_would_read_other_files_are_refused(small_folder: Path) -> None:
    with pytest.raises(ValueError, match="revision='v2' cannot be given with a hub id"):
        JanusFlowProcessor.from_pretrained("some/model", revision="v2")
    assert JanusFlowProcessor.from_pretrained(small_folder, revision="v2", token=None)
