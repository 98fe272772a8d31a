"""Read the settings and the tokenizer of a processor from a checkpoint's folder, in any of its layouts.

Weights are read by `checkpoint/load.py`; transformers' own files by `transformers_layout.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from janusflow.arguments import quoted, shortened
from janusflow.files import checked
from janusflow.folders import read_json
from janusflow.offline import first_line
from janusflow.processing.chat_template import Tag, TextSettings
from janusflow.processing.pixels import ImageSettings
from janusflow.processing.transformers_layout import is_transformers_processor, read_transformers_processor

PADDLE_IMAGES = "image_preprocessor_config.json"
PAD_TOKEN = "<｜▁pad▁｜>"


def read_settings(
    folder: Path, *, num_image_tokens: int | None, sft_format: str | None
) -> tuple[TextSettings, ImageSettings]:
    """Read how a checkpoint turns conversations into text and pictures into pixels.

    Args:
        num_image_tokens: the network's number of tokens per picture, for layouts that do not store it here.
        sft_format: chat template to use instead of the folder's.

    Raises:
        ValueError: if a file is missing or damaged, or `sft_format` is unknown.
    """
    if is_transformers_processor(folder):
        (text, text_file), (image, image_file) = read_transformers_processor(folder)
    elif (folder / PADDLE_IMAGES).is_file() and not (folder / "processor_config.json").is_file():
        text, text_file, image_file = {}, folder / PADDLE_IMAGES, folder / PADDLE_IMAGES
        image = read_json(image_file)
    else:
        text_file, image_file = folder / "processor_config.json", folder / "preprocessor_config.json"
        text, image = read_json(text_file), read_json(image_file)
    text = {"num_image_tokens": num_image_tokens, **_known(TextSettings, text)}
    if sft_format is not None:
        text["sft_format"] = TextSettings(1, sft_format=sft_format).sft_format  # raises for an unknown one
    text_settings = checked(TextSettings, text, text_file)
    if num_image_tokens not in (None, text_settings.num_image_tokens):
        raise ValueError(
            f"{text_file} is damaged: num_image_tokens is {text_settings.num_image_tokens}; the network makes "
            f"{num_image_tokens} tokens of a picture"
        )
    return text_settings, checked(ImageSettings, _known(ImageSettings, image), image_file)


def _known(settings: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the non-null values that the dataclass has fields for; released files contain others as well."""
    names = {entry.name for entry in fields(settings)}
    return {key: value for key, value in values.items() if key in names and value is not None}


@dataclass(frozen=True)
class _AddedToken:
    content: Tag


@dataclass(frozen=True)
class _TokenizerConfig:
    """Fields that are read from `tokenizer_config.json`."""

    bos_token: Tag | _AddedToken
    eos_token: Tag | _AddedToken
    pad_token: Tag | _AddedToken | None = None


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read `tokenizer.json` as it is: the Llama class that released files name would change the ids in transformers 5.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    file, config_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    config = checked(_TokenizerConfig, _known(_TokenizerConfig, read_json(config_file)), config_file)
    if not file.is_file():
        raise ValueError(f"{folder} contains no tokenizer.json")
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises bare Exception
        raise ValueError(f"{file} is damaged: {shortened(first_line(error))}") from error
    declared = (config.bos_token, config.eos_token, config.pad_token or config.eos_token)
    bos, eos, pad = (token if isinstance(token, str) else token.content for token in declared)
    for token in (bos, eos):
        if backend.token_to_id(token) is None:
            raise ValueError(f"{config_file} names the token {quoted(token)}, which {file.name} lacks")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        bos_token=bos,
        eos_token=eos,
        pad_token=next((token for token in (PAD_TOKEN, pad) if backend.token_to_id(token) is not None), eos),
    )
