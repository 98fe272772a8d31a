"""What the sizes in a `config.json` may be, checked before a network is built: types, ranges, and the weight files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

from annotated_types import Ge, Interval, Len
from transformers import JanusConfig

from janusflow.files import checked

if TYPE_CHECKING:
    from janusflow.config import JanusFlowConfig

Size: TypeAlias = Annotated[int, Interval(ge=1, le=2**20)]  # of a layer, or a number of layers
Count: TypeAlias = Annotated[int, Interval(ge=0, le=2**20)]
Long: TypeAlias = Annotated[int, Interval(ge=1, le=2**26)]  # of a table
Id: TypeAlias = Annotated[int, Ge(0)]
Side: TypeAlias = Annotated[int, Interval(ge=1, le=2**14)]  # of a picture in pixels
Epsilon: TypeAlias = Annotated[float, Interval(ge=0, le=1)]
LEAST_TENSORS = 5  # that a layer or block of any kind has
DTYPES = Literal["float64", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Llm:
    """`LlamaConfig`."""

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
    """`SiglipVisionConfig`, and what `JanusVisionConfig` has in common with it."""

    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_channels: Literal[3]
    image_size: Side
    patch_size: Side
    layer_norm_eps: Epsilon


@dataclass(frozen=True)
class JanusTower(Tower):
    """`JanusVisionConfig`."""

    depth: Size
    projection_dim: Size
    num_image_tokens: Long


@dataclass(frozen=True)
class Codec:
    """`JanusVQVAEConfig`."""

    embed_dim: Size
    num_embeddings: Long
    latent_channels: Size
    in_channels: Literal[3]
    out_channels: Literal[3]
    base_channels: Size
    channel_multiplier: Annotated[list[Annotated[int, Interval(ge=1, le=64)]], Len(1, 8)]
    num_res_blocks: Annotated[int, Interval(ge=1, le=64)]
    projection_dim: Size
    num_hidden_layers: Size
    image_token_embed_dim: Size


@dataclass(frozen=True)
class JanusFlowSizes:
    """`JanusFlowConfig`."""

    text_config: Llm
    vision_config: Tower
    latent_channels: Size
    latent_downscale: Annotated[int, Interval(ge=1, le=256)]
    latent_patch_size: Annotated[int, Interval(ge=1, le=64)]
    generation_encoder_width: Size
    generation_encoder_depth: Count
    generation_decoder_width: Size
    generation_decoder_depth: Count
    generation_norm_eps: Epsilon
    generation_use_bias: bool
    image_size: Side
    image_token_id: Id
    begin_image_token_id: Id
    end_image_token_id: Id
    tie_word_embeddings: bool
    dtype: DTYPES | None


@dataclass(frozen=True)
class JanusSizes:
    """`JanusConfig`."""

    text_config: Llm
    vision_config: JanusTower
    vq_config: Codec
    image_token_id: Id
    tie_word_embeddings: bool
    dtype: DTYPES | None


def check_sizes(config: JanusFlowConfig | JanusConfig, file: Path, *, tensors: int | None = None) -> None:
    """Refuse sizes that no network has, do not go together, or need more layers than there are weights.

    Args:
        config: as it was read.
        file: from which, for the error.
        tensors: number of tensors in the weight files, if they are known.

    Raises:
        ValueError: one sentence that names the file and the field.
    """
    sizes: JanusFlowSizes | JanusSizes
    if isinstance(config, JanusConfig):
        sizes = checked(JanusSizes, _fields(config, JanusSizes), file)
    else:
        sizes = checked(JanusFlowSizes, _fields(config, JanusFlowSizes), file)
    if tensors is not None:
        for name, depth in _depths(sizes):
            if depth * LEAST_TENSORS > tensors:
                raise ValueError(f"{file} is damaged: {name} is {depth}, but the weight files hold {tensors} tensors")
    vocabulary, room = sizes.text_config.vocab_size, sizes.text_config.max_position_embeddings
    for name in ("image_token_id", "begin_image_token_id", "end_image_token_id"):
        if getattr(sizes, name, 0) >= vocabulary:
            raise ValueError(f"{file} is damaged: {name} is {getattr(sizes, name)}; the vocabulary has {vocabulary}")
    vision = sizes.vision_config
    seen = (vision.image_size // vision.patch_size) ** 2
    if isinstance(config, JanusConfig):
        drawn = seen
        if (given := config.vision_config.num_image_tokens) != seen:
            raise ValueError(f"{file} is damaged: vision_config.num_image_tokens is {given}; its sizes give {seen}")
    else:
        drawn = config.num_generation_tokens
    if not 0 < max(seen, drawn) < room:
        raise ValueError(
            f"{file} is damaged: a picture has {max(seen, drawn)} image tokens; expected 1 to {room - 1}, which the "
            "LLM's max_position_embeddings allows"
        )


def _fields(config: Any, kind: type) -> dict[str, Any]:
    """The attributes that a dataclass has fields for, also of configurations within a configuration."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        value = getattr(config, name, None)
        found[name] = _fields(value, hint) if is_dataclass(hint) and isinstance(hint, type) else value
    if "dtype" in found and found["dtype"] is not None:
        found["dtype"] = str(found["dtype"]).removeprefix("torch.")
    return found


def _depths(sizes: JanusFlowSizes | JanusSizes) -> Iterable[tuple[str, int]]:
    yield "text_config.num_hidden_layers", sizes.text_config.num_hidden_layers
    yield "vision_config.num_hidden_layers", sizes.vision_config.num_hidden_layers
    if isinstance(sizes, JanusFlowSizes):
        yield "generation_encoder_depth", sizes.generation_encoder_depth
        yield "generation_decoder_depth", sizes.generation_decoder_depth
        return
    # two tensors a layer
    yield "vision_config.depth", sizes.vision_config.depth * 2 // LEAST_TENSORS
    yield "vq_config.num_hidden_layers", sizes.vq_config.num_hidden_layers * 2 // LEAST_TENSORS
