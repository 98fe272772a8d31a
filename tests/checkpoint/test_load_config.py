"""A config that is damaged, or describes no network of ours, is refused before anything is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from janusflow import JanusFlow
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.describe import describe
from tests.checkpoint.conftest import change_config, network


@pytest.mark.parametrize("block", ["vision_und_enc_config", "vision_gen_enc_config", "vision_gen_dec_config"])
def test_unknown_classes_in_the_config_are_named(folder: Path, block: str) -> None:
    change_config(folder, lambda config: config[block].update(cls="Evil"))
    with pytest.raises(ValueError, match=rf"{block}.cls is 'Evil'; JanusFlow has"):
        open_checkpoint(folder)


def test_an_unknown_tower_is_named(folder: Path) -> None:
    def change(config: dict) -> None:
        del config["small_vision_tower"]
        config["vision_und_enc_config"]["params"]["model_name"] = "dinov9"

    change_config(folder, change)
    with pytest.raises(ValueError, match="tower 'dinov9'; choose from siglip_large"):
        open_checkpoint(folder)


def test_parts_that_do_not_fit_together_are_named(folder: Path) -> None:
    change_config(folder, lambda config: config["vision_gen_dec_config"]["params"].update(hidden_size=63))
    with pytest.raises(ValueError, match="vision_gen_dec_config.hidden_size is 63"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "64"},
        {"num_attention_heads": 5},
        {"num_attention_heads": 0},
        {"hidden_act": "evil"},
        {"rope_parameters": {"rope_type": "evil", "rope_theta": 1.0}},
    ],
)
def test_a_language_model_that_cannot_be_built_is_refused(folder: Path, change: dict) -> None:
    change_config(folder, lambda config: config["language_config"].update(change))
    for use in (network, describe):
        with pytest.raises(ValueError, match=r"config\.json") as caught:
            use(folder)
        assert "\n" not in str(caught.value)


def test_a_change_to_our_own_layout_is_refused_too(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path)
    change_config(tmp_path, lambda config: config["text_config"].update(hidden_act="evil"))
    with pytest.raises(ValueError, match=r"config\.json describes no network that can be built.*evil"):
        network(tmp_path)


def test_a_head_that_is_tied_to_the_embeddings_is_refused(folder: Path, small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "ours")
    change_config(tmp_path / "ours", lambda config: config.update(tie_word_embeddings=True))
    change_config(folder, lambda config: config["language_config"].update(tie_word_embeddings=True))
    for place in (tmp_path / "ours", folder):
        with pytest.raises(ValueError, match=r"config\.json .*: tie_word_embeddings is True; expected False, because"):
            open_checkpoint(place)


def test_a_size_that_cannot_be_is_no_traceback(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["language_config"]["intermediate_size"] = -5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"config\.json is damaged: text_config.intermediate_size: Input should be greater than"
    ):
        network(folder)


def test_another_model_is_named(folder: Path) -> None:
    change_config(folder, lambda config: config.update(model_type="gpt2"))
    with pytest.raises(ValueError, match="'gpt2' model, not a JanusFlow"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_config_that_is_no_json_object_is_said_to_be_damaged(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        open_checkpoint(folder)


@pytest.mark.parametrize("key", ["language_config", "vision_gen_enc_config", "vision_und_enc_config"])
def test_a_config_with_a_block_missing_is_refused(folder: Path, key: str) -> None:
    change_config(folder, lambda config: config.pop(key) and None)
    with pytest.raises(ValueError, match=r"config\.json"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("language_config", "num_hidden_layers"), 10**6, "text_config.num_hidden_layers is 1000000, but the weight"),
        (("language_config", "hidden_size"), 10**9, "hidden_size"),
        (("language_config", "vocab_size"), 10**7, "its sizes are larger than those of the weights"),
        (("language_config", "max_position_embeddings"), 8, "a picture has 16 image tokens; expected 1 to 7"),
        (("small_vision_tower", "layers"), 10**5, "vision_config.num_hidden_layers is 100000"),
        (("small_vision_tower", "heads"), True, "num_attention_heads"),
        (("small_vision_tower",), {"width": 48}, "it lacks 'layers'"),
        (("vision_und_enc_config", "params", "image_size"), 10**9, "vision_config.image_size: Input should be less"),
        (("vision_gen_dec_config", "params", "upsamples"), 10**9, "upsamples is 1000000000"),
        (("vision_gen_enc_config", "params", "layers_in_middle"), 10**6, "generation_encoder_depth is 1000000"),
        (("small_latent_downscale",), "text", "incomplete or damaged"),
        (("torch_dtype",), "complex64", "dtype: Input should be 'float64'"),
        (("language_config",), [], "incomplete or damaged"),
    ],
)
def test_sizes_are_checked_before_anything_is_built(
    folder: Path, place: tuple[str, ...], value: object, message: str
) -> None:
    def change(config: dict) -> None:
        for key in place[:-1]:
            config = config[key]
        config[place[-1]] = value

    change_config(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        network(folder)
    assert str(folder / "config.json") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", True, "image_size is True"),
        ("image_size", 0, "image_size: Input should be greater than or equal to 1"),
        ("image_size", 8192, "image tokens; expected 1 to"),
        ("image_token_id", 10**5, "image_token_id is 100000; the vocabulary has"),
        ("begin_image_token_id", [], "begin_image_token_id"),
        ("begin_image_token_id", 3, "begin_image_token_id is 3, and 406 in tokenizer.json"),
        ("generation_norm_eps", -1.0, "generation_norm_eps"),
        ("text_config", 7, "incomplete or damaged"),
    ],
)
def test_fields_of_our_own_layout_are_checked(
    small_model: JanusFlow, tmp_path: Path, field: str, value: object, message: str
) -> None:
    small_model.save_pretrained(tmp_path)
    change_config(tmp_path, lambda config: config.update({field: value}))
    with pytest.raises(ValueError, match=message) as caught:
        JanusFlow.from_pretrained(tmp_path, device="cpu")
    assert str(tmp_path / "config.json") in str(caught.value)
