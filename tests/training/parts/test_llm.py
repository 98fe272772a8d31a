"""The language model's first heads look back, and its tokenizer knows the words of its data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from janusflow.config import tiny
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.training.parts.config import load_parts
from janusflow.training.parts.llm import look_back, spread
from janusflow.training.parts.pretrain import make_processor

RECIPE = Path(__file__).parents[3] / "recipes" / "tiny" / "parts.yaml"


def test_the_tokenizer_knows_the_words_of_its_data_and_spells_others(tmp_path: Path) -> None:
    tokenizer = make_processor(load_parts(RECIPE, ["tokenizer.records=300"]), tmp_path / "processor").tokenizer
    words = ["a", "red", "circle", "above", "a", "blue", "square"]
    assert tokenizer.tokenize(" " + " ".join(words)) == [f"Ġ{word}" for word in words]
    assert tokenizer.decode(tokenizer.encode(" red", add_special_tokens=False)) == "red"
    for text in ("你好 ½ ünïcode", "User: hi\n\nAssistant:"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_first_heads_look_one_and_two_words_back() -> None:
    torch.manual_seed(0)
    network = JanusFlowForConditionalGeneration(tiny(512))
    spread(network)
    ids = torch.randint(10, 500, (2, 60))
    before = seen_by_heads(network, ids)
    look_back(network)
    heads = seen_by_heads(network, ids)
    for layer in range(3):
        for head, offset in enumerate((1, 2)):
            there = heads[layer][:, head].diagonal(-offset, 1, 2)  # (2, 60 - offset)
            assert there.mean() > 0.7 > 0.1 > before[layer][:, head].diagonal(-offset, 1, 2).mean()
        others = heads[layer][:, 2:].diagonal(-1, 2, 3)
        assert others.mean() < 0.1


def seen_by_heads(network: JanusFlowForConditionalGeneration, ids: Tensor) -> tuple[Tensor, ...]:
    """Attention of each layer, (B, heads, T, T)."""
    network.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        return network.language_model(input_ids=ids, output_attentions=True).attentions
