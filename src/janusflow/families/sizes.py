"""Check the sizes in a `config.json` before a network is built: types, ranges, and the size of the weight files."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

from annotated_types import Ge, Interval

from janusflow.files import checked

if TYPE_CHECKING:
    from janusflow.families.family import Family

Size: TypeAlias = Annotated[int, Interval(ge=1, le=2**20)]  # width of a layer, or number of layers
Count: TypeAlias = Annotated[int, Interval(ge=0, le=2**20)]
Long: TypeAlias = Annotated[int, Interval(ge=1, le=2**26)]  # length of a table
Id: TypeAlias = Annotated[int, Ge(0)]
Side: TypeAlias = Annotated[int, Interval(ge=1, le=2**14)]  # side of a picture in pixels
Epsilon: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
DTYPES = Literal["float64", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Llm:
    """Sizes in `LlamaConfig`."""

    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    head_dim: Size
    vocab_size: Long
    max_position_embeddings: Long
    rms_norm_eps: Epsilon


@dataclass(frozen=True)
class Tower:
    """Sizes in `SiglipVisionConfig` that other towers share with it."""

    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_channels: Literal[3]
    image_size: Side
    patch_size: Side
    layer_norm_eps: Epsilon


@dataclass(frozen=True)
class Sizes:
    """Fields that the configuration of every family has."""

    text_config: Llm
    vision_config: Tower
    image_token_id: Id
    tie_word_embeddings: bool
    dtype: DTYPES | None


def check_sizes(family: Family, config: Any, file: Path, *, tensors: int | None = None) -> None:
    """Check that sizes are possible, fit together, and have no more layers than the weight files.

    Args:
        file: file that the configuration was read from, for the error message.
        tensors: number of tensors in the weight files, if known.

    Raises:
        ValueError: if they do not; the message names the file and the field.
    """
    sizes = checked(family.sizes, _fields(config, family.sizes), file)
    for name, least in family.depths.items():
        depth = attrgetter(name)(config)
        if tensors is not None and depth * least > tensors:
            raise ValueError(f"{file} is damaged: {name} is {depth}, but the weight files have {tensors} tensors")
    vocabulary, room = sizes.text_config.vocab_size, sizes.text_config.max_position_embeddings
    for name in family.token_ids:
        if (index := getattr(config, name)) >= vocabulary:
            raise ValueError(f"{file} is damaged: {name} is {index}; the vocabulary has {vocabulary}")
    vision, given = sizes.vision_config, family.seen_tokens(config)
    seen = (vision.image_size // vision.patch_size) ** 2
    if given != seen:
        raise ValueError(f"{file} is damaged: vision_config.num_image_tokens is {given}; its sizes give {seen}")
    if not 0 < (most := max(seen, family.drawn_tokens(config))) < room:
        raise ValueError(
            f"{file} is damaged: a picture has {most} image tokens; expected 1 to {room - 1}, which the LLM's "
            "max_position_embeddings allows"
        )


def _fields(config: Any, kind: type) -> dict[str, Any]:
    """Return the attributes that a dataclass has fields for, including those of nested configurations."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        value = getattr(config, name, None)
        found[name] = _fields(value, hint) if is_dataclass(hint) and isinstance(hint, type) else value
    if "dtype" in found and found["dtype"] is not None:
        found["dtype"] = str(found["dtype"]).removeprefix("torch.")
    return found
