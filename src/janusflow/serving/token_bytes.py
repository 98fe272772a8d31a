"""The bytes of a token. In byte-level tokenizers, a character may be spread over several tokens."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTES = {character: byte for byte, character in bytes_to_unicode().items()}
"""Byte that each character stands for in the vocabulary of a byte-level tokenizer."""


def token_bytes(tokenizer: PreTrainedTokenizerFast, token: int) -> bytes:
    """Return the bytes of a token; joined, those of several tokens are their text in UTF-8.

    Args:
        tokenizer: the model's tokenizer; one that is not byte-level decodes each token to whole characters.
        token: id of the token; one that the tokenizer does not have is empty.
    """
    if "ByteLevel" not in str(tokenizer.backend_tokenizer.decoder):
        text: str = tokenizer.decode([token])
        return text.encode()
    written: str = tokenizer.convert_ids_to_tokens(token) or ""
    if all(character in BYTES for character in written):
        return bytes(BYTES[character] for character in written)
    return written.encode()  # a special token
