"""Judges on this machine: a model of the family, and transformers models of text and of pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from janusflow.evaluation.judges import local as local_judges
from janusflow.evaluation.judges.local import FamilyJudge, LocalJudge
from janusflow.evaluation.judges.open_judge import open_judge
from janusflow.evaluation.protocol import NotJudgedError

RED = Image.new("RGB", (4, 4), "red")


def test_the_family_judges(tiny_model: Any, tmp_path: Path) -> None:
    asked = open_judge("tiny", max_tokens=8, device="cpu")
    assert isinstance(asked, FamilyJudge)
    expected = tiny_model.ask("what color is it?", RED.resize((64, 64)), max_new_tokens=8)
    system = tiny_model.processor.render([{"role": "user", "content": "?"}])
    assert system is not None and asked.reply("what color is it?", [RED.resize((64, 64))]) == expected
    warm = [asked.reply("what color is it?", temperature=5.0, attempt=n) for n in (0, 0, 1)]
    assert warm[0] == warm[1] != warm[2]


WORDS = ["[PAD]", "[END]", "[UNK]", "<image>", "user", "system", "assistant", "yes", "no", "what", "it", "brief"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% if m.content is string %}{{ m.content }} {% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<image> {% else %}{{ c.text }} {% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


@pytest.fixture
def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    words.add_special_tokens(["<image>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="[END]", pad_token="[PAD]", chat_template=TEMPLATE
    )


TEXT = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def test_a_local_model_of_text_judges(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TEXT, bos_token_id=0, eos_token_id=1, pad_token_id=0)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = open_judge(str(tmp_path), max_tokens=6, device="cpu")
    assert isinstance(asked, LocalJudge) and not asked.sees
    said = asked.reply("what", system="brief")
    assert said and set(said.split()) <= set(WORDS) and said == asked.reply("what", system="brief")
    warm = [asked.reply("what", temperature=9.0, attempt=n) for n in (0, 0, 1)]
    assert warm[0] == warm[1] != warm[2]
    with pytest.raises(NotJudgedError, match="only reads text, but got 1 pictures"):
        asked.reply("what", [RED])


def test_a_local_model_that_sees_judges(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, **vision},
        text_config={"model_type": "llama", **TEXT},
        image_token_index=3,
    )
    network = LlavaForConditionalGeneration(config)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # fresh ones say the same whatever they see
    network.save_pretrained(tmp_path)
    size = {"height": 16, "width": 16}
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size)
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(tmp_path)
    asked = open_judge(str(tmp_path), max_tokens=6, device="cpu")
    assert isinstance(asked, LocalJudge) and asked.sees
    noise = Image.effect_noise((20, 30), 80)
    said = [asked.reply("what", shown) for shown in ([], [RED], [noise, RED.convert("P")], [RED])]
    assert said[1] == said[3] and len(set(said)) > 1


def test_a_qwen_that_sees_needs_no_torchvision(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2VLImageProcessorPil

    config = Qwen2_5_VLConfig(image_token_id=3)
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=112 * 112).save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "Qwen2_5_VLProcessor"}))
    processor = local_judges._open_processor(str(tmp_path), config)
    processor.image_token, processor.image_token_id = "<image>", 3
    shown = [{"type": "image", "image": RED.resize((64, 64))}, {"type": "text", "text": "what"}]
    read = processor.apply_chat_template(
        [{"role": "user", "content": shown}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert read["pixel_values"].shape[0] == read["image_grid_thw"].prod()
    assert int((read["input_ids"] == 3).sum()) == int(read["image_grid_thw"].prod()) // 4
