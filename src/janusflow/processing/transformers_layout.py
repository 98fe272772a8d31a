"""Read and write the files in which transformers stores the processor of a Janus (`deepseek-community/...`).

Weights and `config.json` are those of transformers' own classes; only the processor's files differ from ours.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janusflow.files import checked
from janusflow.folders import read_json
from janusflow.processing.chat_template import SYSTEM_PROMPT, chat_template, system_prompt_of

if TYPE_CHECKING:
    from janusflow.processing.processor import JanusFlowProcessor

PROCESSOR = "JanusProcessor"
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


def is_transformers_processor(folder: Path) -> bool:
    """Return whether a folder's processor files are those of transformers' Janus."""
    file = folder / "processor_config.json"
    if not file.is_file():
        file = folder / "preprocessor_config.json"
    return file.is_file() and read_json(file).get("processor_class") == PROCESSOR


@dataclass(frozen=True)
class _Square:
    height: int
    width: int


@dataclass(frozen=True)
class _Whole:
    """Fields read from transformers' `processor_config.json` besides the settings of text and pictures."""

    image_processor: dict[str, Any] | None = None
    use_default_system_prompt: bool = False


def read_transformers_processor(folder: Path) -> tuple[tuple[dict[str, Any], Path], tuple[dict[str, Any], Path]]:
    """Return the values of our text and picture settings, each with the file that they come from.

    The Jinja template shows which `sft_format` it is: Janus-Pro's contains `<|User|>`.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    text_file = image_file = folder / "processor_config.json"
    raw = read_json(text_file) if text_file.is_file() else {}
    whole = checked(_Whole, {key: value for key, value in raw.items() if value is not None}, text_file)
    image = whole.image_processor
    if not image:
        image_file = folder / "preprocessor_config.json"
        image = read_json(image_file)
    size = checked(dict[str, _Square | int], {"size": image.get("size")}, image_file)["size"]
    pictures = {**image, "image_size": size if isinstance(size, int) else size.height}
    template = next((one for one in (_text(folder / name) for name in TEMPLATES) if "messages" in one), "")
    modern = "<|User|>" in template or not template
    system = None if whole.use_default_system_prompt else system_prompt_of(template)
    text = {
        "sft_format": "deepseek" if modern else "deepseek_old",
        "system_prompt": SYSTEM_PROMPT if system is None else system,
        "num_image_tokens": raw.get("num_image_tokens"),
    }
    return (text, text_file), (pictures, image_file)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is damaged: it is not UTF-8") from error


def write_transformers_processor(processor: JanusFlowProcessor, folder: Path) -> None:
    """Write the processor as transformers' `JanusProcessor`, with the chat template in Jinja.

    That class adds the family's system prompt to questions but not to generation prompts, so the template has none.
    Any other system prompt can only be part of the template, and is then used for both.
    """
    from transformers import JanusProcessor, PreTrainedTokenizerFast
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    text, image, own = processor.text, processor.image, processor.tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own.backend_tokenizer,
        bos_token=own.bos_token,
        eos_token=own.eos_token,
        pad_token=own.pad_token,
        extra_special_tokens={
            "image_token": text.image_tag,
            "boi_token": text.image_start_tag,
            "eoi_token": text.image_end_tag,
        },
        clean_up_tokenization_spaces=False,
    )
    pictures = JanusImageProcessorPil(
        size={"height": image.image_size, "width": image.image_size},
        min_size=image.min_size,
        image_mean=list(image.image_mean),
        image_std=list(image.image_std),
        rescale_factor=image.rescale_factor,
        do_normalize=image.do_normalize,
    )
    default = text.system_prompt == SYSTEM_PROMPT
    if text.system_prompt and not default:
        warnings.warn(
            "the system prompt is not the family's, so it is a part of the chat template; for generation_mode='image' "
            "in transformers, start the conversation with {'role': 'system', 'content': ''}",
            stacklevel=2,
        )
    JanusProcessor(
        pictures,
        tokenizer,
        chat_template=chat_template(text.sft_format, "" if default else text.system_prompt, text.image_tag),
        use_default_system_prompt=default,
        num_image_tokens=text.num_image_tokens,
    ).save_pretrained(folder)
