"""Templates, image tokens and batches beyond what the golden cases hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from janusflow import JanusFlow
from janusflow.chat_template import SYSTEM_PROMPT
from janusflow.processor import JanusFlowProcessor


@pytest.fixture(scope="module")
def processor(small_model: JanusFlow) -> JanusFlowProcessor:
    return small_model.processor


def test_system_prompt_of_the_conversation_replaces_the_default(processor: JanusFlowProcessor) -> None:
    talk = [{"role": "user", "content": "hi"}]
    assert processor.render(talk) == f"{SYSTEM_PROMPT}\n\nUser: hi\n\nAssistant:"
    assert processor.render([{"role": "system", "content": "Be brief."}, *talk]) == (
        "Be brief.\n\nUser: hi\n\nAssistant:"
    )
    assert processor.render([{"role": "system", "content": ""}, *talk]) == "User: hi\n\nAssistant:"


def test_the_newer_template_has_other_role_words(small_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "pro"))
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**settings, "sft_format": "deepseek"}))
    processor = JanusFlowProcessor.from_pretrained(folder)
    assert processor.render_prompt("a star") == "<|User|>: a star\n\n<|Assistant|>:<begin_of_image>"
    (folder / "processor_config.json").write_text(json.dumps({**settings, "sft_format": "chatml"}))
    with pytest.raises(ValueError, match="chatml"):
        JanusFlowProcessor.from_pretrained(folder)


def test_openai_parts_and_data_urls_equal_placeholders(processor: JanusFlowProcessor, picture: Path) -> None:
    parts = [{"type": "image_url", "image_url": {"url": str(picture)}}, {"type": "text", "text": "what?"}]
    in_parts = processor.encode_conversations([[{"role": "user", "content": parts}]])
    message = {"role": "User", "content": "<image_placeholder>\nwhat?", "images": [picture]}
    placed = processor.encode_conversations([[message]])
    assert torch.equal(in_parts.input_ids, placed.input_ids)
    assert in_parts.pixel_values is not None
    assert placed.pixel_values is not None
    assert torch.equal(in_parts.pixel_values, placed.pixel_values)


def test_batches_are_padded_left_for_answers_and_right_for_prompts(processor: JanusFlowProcessor) -> None:
    talks = [[{"role": "user", "content": text}] for text in ("hi", "a much longer question")]
    inputs = processor.encode_conversations(talks)
    assert inputs.attention_mask[0, 0] == 0
    assert inputs.attention_mask[0, -1] == 1
    ids, mask = processor.encode_prompts(["hi", "a much longer prompt"])
    assert mask[0, -1] == 0
    assert (ids[0][mask[0] == 0] == processor.tokenizer.pad_token_id).all()
    assert (ids[:, 0] == processor.tokenizer.bos_token_id).all()


def test_no_pictures_give_no_pixels(processor: JanusFlowProcessor) -> None:
    assert processor.encode_conversations([[{"role": "user", "content": "hi"}]]).pixel_values is None


def test_placeholders_are_put_before_a_question_unless_it_has_them(processor: JanusFlowProcessor) -> None:
    tag = processor.text.image_tag
    assert processor.question("what?", 2) == f"{tag}\n{tag}\nwhat?"
    assert processor.question(f"is {tag} red?", 1) == f"is {tag} red?"
    with pytest.raises(ValueError, match="holds 1 <image_placeholder>, but 2 pictures"):
        processor.question(f"is {tag} red?", 2)


def test_pictures_and_placeholders_must_agree(processor: JanusFlowProcessor, picture: Path) -> None:
    tag = processor.text.image_tag
    for content, images, words in (("what?", [picture], "holds 0 .* 1 pictures"), (tag, [], "holds 1 .* 0 pictures")):
        with pytest.raises(ValueError, match=words):
            processor.encode_conversations([[{"role": "user", "content": content, "images": images}]])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no message"),
        ([{"role": "system", "content": "x"}], "no message"),
        ([{"role": "tool", "content": "x"}], "role is 'tool'"),
        ([{"role": "assistant", "content": "x"}], "take turns"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}], "take turns"),
        ([{"role": "user", "content": "  "}], "message 1 of the conversation is empty"),
        ([{"role": "user", "content": 5}], "content is a string or a list"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "type 'audio'"),
        ([{"content": "x"}], "a mapping with role and content"),
        (["x"], "a mapping with role and content"),
    ],
)
def test_malformed_conversations(processor: JanusFlowProcessor, messages: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        processor.encode_conversations([messages])


def test_a_stray_begin_of_image_in_a_question_is_only_text(small_model: JanusFlow, picture: Path) -> None:
    assert isinstance(small_model.ask("what is <begin_of_image> here?", picture, max_new_tokens=2), str)


def test_extreme_shapes_of_pictures(processor: JanusFlowProcessor) -> None:
    size = processor.image.image_size
    for shape in ((1, 1), (1, 500), (500, 1), (3, 4000)):
        pixels = processor.preprocess(Image.new("RGB", shape, (10, 20, 30)))
        assert pixels.shape == (3, size, size)
        assert torch.isfinite(pixels).all()


def test_what_is_saved_opens_and_encodes_the_same(processor: JanusFlowProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    again = JanusFlowProcessor.from_pretrained(tmp_path)
    assert (again.text, again.image) == (processor.text, processor.image)
    for text in ("a red circle", "def f(x): 你好 ½", "<|User|>: <image_placeholder>\n\nhello"):
        assert again.tokenizer.encode(text) == processor.tokenizer.encode(text)


@pytest.mark.parametrize("name", ["image", "url", "path"])
def test_pictures_of_a_message_in_the_forms_of_transformers(small_model: JanusFlow, picture: Path, name: str) -> None:
    parts = [{"type": "image", name: str(picture)}, {"type": "text", "text": "what?"}]
    processor = small_model.processor
    inputs = processor.encode_conversations([[{"role": "user", "content": parts}]])
    assert inputs.pixel_values is not None and "<image_placeholder>\nwhat?" in inputs.text[0]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    assert processor(text=[text], images=[picture], padding=True)["pixel_values"].shape[0] == 1
