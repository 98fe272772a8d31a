"""The bytes of tokens, also of those that are part of a character."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from janusflow import JanusFlow
from janusflow.serving.token_bytes import token_bytes

TEXT = "a goose: 鹅, é\n"


def of_bytes() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer whose tokens are single bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={one: index for index, one in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken("<｜a b｜>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_tokens_that_are_part_of_a_character_join_to_it(tiny_model: JanusFlow) -> None:
    for tokenizer in (of_bytes(), tiny_model.processor.tokenizer):
        ids = tokenizer.encode(TEXT, add_special_tokens=False)
        assert "\ufffd" in map(tokenizer.decode, ids)
        assert b"".join(token_bytes(tokenizer, token) for token in ids).decode() == TEXT


def test_special_tokens_are_their_text_and_unknown_ones_are_empty() -> None:
    tokenizer = of_bytes()
    assert token_bytes(tokenizer, 256).decode() == "<｜a b｜>"
    assert token_bytes(tokenizer, 257) == b""


def test_tokens_of_other_tokenizers_are_their_text() -> None:
    backend = Tokenizer(models.WordLevel({"é": 0, "two": 1}, unk_token="two"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert [token_bytes(tokenizer, token).decode() for token in (0, 1)] == ["é", "two"]
