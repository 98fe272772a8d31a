"""transformers' Auto classes open what we save, and its ways of calling a model work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, pipeline

import janusflow.model  # noqa: F401 (registers the classes)
from janusflow import JanusFlow
from janusflow.config import JanusFlowConfig
from janusflow.folders import find_folder
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.processing.processor import JanusFlowProcessor
from tests.conftest import Golden


def test_auto_classes_open_a_saved_model_and_it_answers(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), JanusFlowConfig)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(model, JanusFlowForConditionalGeneration) and isinstance(processor, JanusFlowProcessor)
    picture = Image.new("RGB", (50, 30), (200, 30, 30))
    talk = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "what?"}]}]
    inputs = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=True)
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    text = processor.decode(ids[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == small_model.ask("what?", picture, max_new_tokens=8)


def test_chat_templates_give_the_golden_strings(golden: Golden, golden_model: JanusFlow) -> None:
    processor = golden_model.processor
    for talk, text in zip(golden.cases["conversations"], golden.cases["sft"], strict=True):
        assert processor.apply_chat_template(talk) == text
        assert processor.apply_chat_template(talk[:-1], add_generation_prompt=True) == text
    for case in golden.cases["t2i"]:
        messages = [{"role": "system", "content": ""}, {"role": "user", "content": case["prompt"]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        assert text + processor.text.image_start_tag == case["text"]


def test_chat_templates_agree_with_render(small_model: JanusFlow) -> None:
    processor = small_model.processor
    talks = [
        [{"role": "user", "content": " hi "}],
        [{"role": "system", "content": "be short\n"}, {"role": "user", "content": "hi"}],
        [
            {"role": "user", "content": "it's \\ 'quoted'"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "more?"},
        ],
    ]
    for talk in talks:
        assert processor.apply_chat_template(talk, add_generation_prompt=True) == processor.render(talk)
    together = processor.apply_chat_template(talks, add_generation_prompt=True, tokenize=True)
    assert torch.equal(together["attention_mask"][:, -1], torch.ones(3, dtype=torch.long))
    assert together["input_ids"].shape == together["attention_mask"].shape


def test_chat_templates_continue_the_final_message(golden: Golden, golden_model: JanusFlow) -> None:
    processor = golden_model.processor
    for talk, text in zip(golden.cases["conversations"], golden.cases["sft"], strict=True):
        begun = [*talk[:-1], {"role": "assistant", "content": "It is "}]
        assert processor.apply_chat_template(begun, continue_final_message=True) == f"{text} It is"
        assert processor.apply_chat_template(begun) == f"{text} It is{processor.tokenizer.eos_token}"
        assert processor.render(begun, continue_final_message=True) == f"{text} It is"
        assert processor.apply_chat_template(talk, continue_final_message=True) == text
    with pytest.raises(ValueError, match="continue_final_message and add_generation_prompt"):
        processor.apply_chat_template(begun, continue_final_message=True, add_generation_prompt=True)


def test_device_map_and_low_rank_adapters(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path)
    network = AutoModelForImageTextToText.from_pretrained(tmp_path, device_map="auto")
    options = {"num_inference_steps": 2, "seed": 0, "output_type": "latent", "progress": False}
    mapped = JanusFlow(network, small_model.processor, small_model.vae)
    assert torch.allclose(mapped.generate("a star", **options), small_model.generate("a star", **options), atol=1e-5)
    adapted = get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.allclose(adapted(input_ids=ids).logits, network(input_ids=ids).logits, atol=1e-5)


def test_the_pipeline_of_transformers_answers_as_we_do(tiny_model: JanusFlow, picture: Path) -> None:
    folder = find_folder("tiny")
    network, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    ask = pipeline("image-text-to-text", model=network, processor=processor)
    parts = [{"type": "image", "path": str(picture)}, {"type": "text", "text": "describe the picture."}]
    (said,) = ask(text=[{"role": "user", "content": parts}], max_new_tokens=24, return_full_text=False)
    assert said["generated_text"].strip() == tiny_model.ask("describe the picture.", picture, max_new_tokens=24)


def test_the_pipeline_of_transformers_opens_a_folder(small_model: JanusFlow, picture: Path, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path)
    ask = pipeline("image-text-to-text", model=str(tmp_path))
    settings: dict[str, Any] = {"max_new_tokens": 6, "return_full_text": False}

    def talk(*questions: str) -> list[list[dict[str, Any]]]:
        image = {"type": "image", "path": str(picture)}
        return [[{"role": "user", "content": [image, {"type": "text", "text": text}]}] for text in questions]

    questions = ["what is it?", "what is it, and where does it stand?"]
    wanted = [small_model.ask(question, picture, max_new_tokens=6) for question in questions]
    for batch_size in (1, 2):
        said = ask(text=talk(*questions), batch_size=batch_size, **settings)
        assert [one["generated_text"] for (one,) in said] == wanted
    begun = [*talk(questions[0])[0], {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}]
    assert ask(text=begun, **settings)[0]["generated_text"] == small_model.chat(begun, max_new_tokens=6)
    (said,) = ask(images=str(picture), text="User: <image_placeholder>", **settings)
    assert said["generated_text"]
    assert "num_image_tokens" in repr(ask.processor)
