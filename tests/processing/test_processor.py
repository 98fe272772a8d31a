"""Templates, image tokens and batches beyond what the golden cases hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from jinja2.exceptions import TemplateError
from PIL import Image

from janusflow import JanusFlow
from janusflow.checkpoint.convert import convert
from janusflow.processing import images as loading
from janusflow.processing.chat_template import SYSTEM_PROMPT
from janusflow.processing.folder import PAD_TOKEN
from janusflow.processing.processor import JanusFlowProcessor
from tests.conftest import GOLDEN


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
    with pytest.raises(ValueError, match="has 1 <image_placeholder>, but 2 pictures"):
        processor.question(f"is {tag} red?", 2)


def test_pictures_and_placeholders_must_agree(processor: JanusFlowProcessor, picture: Path) -> None:
    tag = processor.text.image_tag
    for content, images, words in (("what?", [picture], "has 0 .* 1 picture "), (tag, [], "has 1 .* 0 pictures")):
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
        ([{"role": "user", "content": 5}], "content is 5; expected a string or a list"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "type 'audio'"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "the text of a part of a message is None"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a part of type image has no picture; expected image or"),
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


def test_parts_may_name_the_place_of_pictures_that_the_message_holds(
    processor: JanusFlowProcessor, picture: Path
) -> None:
    parts = [{"type": "text", "text": "Is "}, {"type": "image"}, {"type": "text", "text": "a star?"}]
    given = [picture]
    inputs = processor.encode_conversations([[{"role": "user", "content": parts, "images": given}]])
    assert inputs.pixel_values is not None and len(inputs.pixel_values) == 1 and given == [picture]
    assert "Is <image_placeholder>\na star?" in inputs.text[0]


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (["user", "tool"], "expected the roles user, assistant, and system at the start"),
        (["user", "assistant", "system"], "expected the roles user"),
        (["user", "user"], "user and assistant must take turns"),
        (["assistant"], "user and assistant must take turns"),
    ],
)
def test_the_chat_template_refuses_what_render_refuses(
    processor: JanusFlowProcessor, roles: list[str], words: str
) -> None:
    talk = [{"role": role, "content": "x"} for role in roles]
    with pytest.raises(TemplateError, match=words):
        processor.apply_chat_template(talk)
    with pytest.raises(ValueError, match="role is|take turns"):
        processor.render(talk)


def test_a_declared_pad_token_is_used_without_the_family_s_own(processor: JanusFlowProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    file, config_file = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    file.write_text(file.read_text(encoding="utf-8").replace(PAD_TOKEN, "<pad>"), encoding="utf-8")
    config = {**json.loads(config_file.read_text()), "pad_token": "<pad>"}
    config_file.write_text(json.dumps(config))
    assert JanusFlowProcessor.from_pretrained(tmp_path).tokenizer.pad_token == "<pad>"
    config_file.write_text(json.dumps({**config, "pad_token": "<none>"}))
    tokenizer = JanusFlowProcessor.from_pretrained(tmp_path).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token


def test_a_misspelled_argument_of_the_processor_is_refused(processor: JanusFlowProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="there is no argument 'sft_fromat'; did you mean sft_format"):
        JanusFlowProcessor.from_pretrained(tmp_path, sft_fromat="deepseek")
    assert JanusFlowProcessor.from_pretrained(tmp_path, use_fast=True, trust_remote_code=False).text == processor.text


@pytest.mark.parametrize("name", ["image", "url", "path"])
def test_pictures_of_a_message_in_the_forms_of_transformers(small_model: JanusFlow, picture: Path, name: str) -> None:
    parts = [{"type": "image", name: str(picture)}, {"type": "text", "text": "what?"}]
    processor = small_model.processor
    inputs = processor.encode_conversations([[{"role": "user", "content": parts}]])
    assert inputs.pixel_values is not None and "<image_placeholder>\nwhat?" in inputs.text[0]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    assert processor(text=[text], images=[picture], padding=True)["pixel_values"].shape[0] == 1


@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        ("processor_config.json", "num_image_tokens", 2**31, "num_image_tokens: Input should be less than"),
        ("processor_config.json", "num_image_tokens", {}, "num_image_tokens: Input should be a valid integer"),
        ("processor_config.json", "num_image_tokens", 0, "num_image_tokens: Input should be greater than"),
        ("processor_config.json", "num_image_tokens", 17, "num_image_tokens is 17; the network makes 16 tokens"),
        ("processor_config.json", "sft_format", "../outside", "sft_format is '../outside'; known templates are"),
        ("processor_config.json", "image_tag", {"a": 1}, "image_tag: Input should be a valid string"),
        ("processor_config.json", "image_tag", "<none>", "has no token '<none>'"),
        ("preprocessor_config.json", "image_std", [0.5, 0.5], "image_std: "),
        ("preprocessor_config.json", "image_std", [0.5, 0.0, 0.5], "image_std.1: Input should be greater than"),
        ("preprocessor_config.json", "image_mean", [[], 0.5, 0.5], "image_mean.0: Input should be a valid number"),
        ("preprocessor_config.json", "image_size", 10**9, "image_size: Input should be less than"),
        ("preprocessor_config.json", "image_size", 128, "makes pictures of 128 pixels; the network expects 64"),
        ("preprocessor_config.json", "min_size", 4000, "min_size is 4000, larger than image_size"),
        ("preprocessor_config.json", "do_normalize", "text", "do_normalize: Input should be a valid boolean"),
        ("tokenizer_config.json", "pad_token", {}, "pad_token"),
        ("tokenizer_config.json", "bos_token", None, "bos_token: Field required"),
        ("tokenizer_config.json", "eos_token", "<none>", "names the token '<none>', which tokenizer.json lacks"),
        ("tokenizer.json", "model", [], "tokenizer.json is damaged"),
        ("tokenizer.json", "added_tokens", [{"id": "3"}], "added_tokens.0.id: Input should be a valid integer"),
    ],
)
def test_settings_of_wrong_types_and_ranges_are_refused_when_a_checkpoint_is_opened(
    small_folder: Path, tmp_path: Path, file: str, field: str, value: object, message: str
) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "checkpoint"))
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, field: value}))
    with pytest.raises(ValueError, match=message) as caught:
        JanusFlow.from_pretrained(folder, device="cpu", progress=False)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_an_infinite_deviation_is_refused(small_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_folder, tmp_path / "checkpoint"))
    file = folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace("0.5", "-Infinity"))
    with pytest.raises(ValueError, match=r"preprocessor_config.json is damaged: it holds -Infinity"):
        JanusFlowProcessor.from_pretrained(folder)


def test_the_processor_of_transformers_is_checked_too(tmp_path: Path) -> None:
    folder = convert(GOLDEN / "janus-small-a", tmp_path / "model", to="transformers", progress=False)
    file = folder / "processor_config.json"
    whole = json.loads(file.read_text())
    for field, value, message in (
        ("num_image_tokens", 1.5, "num_image_tokens: Input should be a valid integer"),
        ("image_processor", [1], "image_processor: Input should be an object"),
        ("image_processor", {**whole["image_processor"], "size": {"height": "x"}}, "size"),
        ("use_default_system_prompt", {}, "use_default_system_prompt: Input should be a valid boolean"),
    ):
        file.write_text(json.dumps({**whole, field: value}))
        with pytest.raises(ValueError, match=message) as caught:
            JanusFlowProcessor.from_pretrained(folder)
        assert str(file) in str(caught.value)
    file.write_text(json.dumps(whole))
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"chat_template.jinja is damaged: it is not UTF-8"):
        JanusFlowProcessor.from_pretrained(folder)


@pytest.mark.parametrize("call", ["ask", "chat", "stream", "encode"])
def test_a_picture_is_loaded_once(
    small_model: JanusFlow, picture: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    loaded: list[object] = []
    read = loading._read
    monkeypatch.setattr(loading, "_read", lambda source, convert: loaded.append(source) or read(source, convert))
    if call == "ask":
        small_model.ask("what is it?", [picture, picture], max_new_tokens=1)
    elif call == "chat":
        parts = [{"type": "image", "path": picture}, {"type": "image", "path": picture}]
        small_model.chat([{"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]}], max_new_tokens=1)
    elif call == "stream":
        list(small_model.stream("what is it?", [picture, picture], max_new_tokens=1))
    else:
        tag = small_model.processor.text.image_tag
        small_model.processor(f"{tag}{tag} what?", [picture, picture])
    assert loaded == [picture, picture]
