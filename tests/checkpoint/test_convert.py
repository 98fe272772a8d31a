"""Every layout into ours and the official one and back, to the bit; all or nothing; in little memory."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, GenerationConfig, JanusForConditionalGeneration

from janusflow import JanusFlow
from janusflow.checkpoint import convert as convert_module
from janusflow.checkpoint import open_checkpoint
from janusflow.checkpoint.convert import convert
from janusflow.checkpoint.describe import describe
from janusflow.processing.processor import JanusFlowProcessor
from tests.conftest import GOLDEN
from tests.processes import command, fork

OFFICIAL, JANUS = GOLDEN / "janusflow-small-a", GOLDEN / "janus-small-a"


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same tensors."""
    files = [
        {name: value for file in path.glob("*.safetensors") for name, value in load_file(file).items()}
        for path in (one, other)
    ]
    return files[0].keys() == files[1].keys() and all(
        files[1][name].dtype == value.dtype and torch.equal(files[1][name], value) for name, value in files[0].items()
    )


@pytest.mark.parametrize("name", ["janusflow-small-a", "janusflow-small-a-paddle"])
@pytest.mark.parametrize("way", [("official",), ("janusflow", "official"), ("official", "janusflow", "official")])
def test_round_trips_are_exact_to_the_bit(tmp_path: Path, name: str, way: tuple[str, ...]) -> None:
    place = GOLDEN / name
    for step, layout in enumerate(way):
        place = convert(place, tmp_path / f"{step}", to=layout, progress=False)
        assert open_checkpoint(place).layout.name == layout
    is_golden(place, OFFICIAL, tmp_path)


@pytest.mark.parametrize(
    "way", [("official",), ("transformers", "official"), ("janusflow", "transformers", "official")]
)
def test_round_trips_of_janus_are_exact_to_the_bit(tmp_path: Path, way: tuple[str, ...]) -> None:
    place = JANUS
    for step, layout in enumerate(way):
        place = convert(place, tmp_path / f"{step}", to=layout, progress=False)
        assert open_checkpoint(place).layout.name == layout.replace("janusflow", "transformers")
    is_golden(place, JANUS, tmp_path)


def test_a_saved_janus_keeps_what_its_network_has_no_use_for(tmp_path: Path) -> None:
    JanusFlow.from_pretrained(JANUS, device="cpu").save_pretrained(tmp_path / "saved")
    JanusFlow.from_pretrained(tmp_path / "saved", device="cpu").save_pretrained(tmp_path / "again")
    is_golden(convert(tmp_path / "again", tmp_path / "back", to="official", progress=False), JANUS, tmp_path)


def test_janus_from_paddle_and_from_pickled_files(tmp_path: Path) -> None:
    for name in ("paddle", "bin"):
        shutil.copytree(
            JANUS, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors", "expected.json", "*.png")
        )
    weights = load_file(JANUS / "model.safetensors")
    torch.save(weights, tmp_path / "bin" / "pytorch_model.bin")
    write_pdparams(weights, tmp_path / "paddle" / "model_state.pdparams")
    for name, layout in (("paddle", "paddle"), ("bin", "official")):
        assert open_checkpoint(tmp_path / name).layout.name == layout
        is_golden(convert(tmp_path / name, tmp_path / f"{name}-out", to="official", progress=False), JANUS, tmp_path)


def test_transformers_opens_a_converted_janus_and_draws_the_same(tmp_path: Path) -> None:
    folder = convert(JANUS, tmp_path / "converted", to="transformers", progress=False)
    cases = json.loads((JANUS / "expected.json").read_text(encoding="utf-8"))
    model = JanusForConditionalGeneration.from_pretrained(folder)
    opened = JanusFlow.from_pretrained(JANUS, device="cpu")
    ours = dict(opened.network.named_parameters())
    assert all(torch.equal(value, ours[name]) for name, value in model.named_parameters())
    golden, case = load_file(JANUS / "expected.safetensors"), cases["t2i"][0]
    prompt = torch.tensor([case["input_ids"]])
    codes = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_mode="image", do_sample=False)
    assert torch.equal(codes, golden["t2i.0.tokens"][:1].long())


def test_a_converted_janus_is_used_as_transformers_documents_it(tmp_path: Path) -> None:
    folder = convert(JANUS, tmp_path / "converted", to="transformers", progress=False)
    cases = json.loads((JANUS / "expected.json").read_text(encoding="utf-8"))
    golden = load_file(JANUS / "expected.safetensors")
    processor, model = AutoProcessor.from_pretrained(folder), JanusForConditionalGeneration.from_pretrained(folder)
    for index, case in enumerate(cases["t2i"]):
        messages = [{"role": "user", "content": [{"type": "text", "text": case["prompt"]}]}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(text=prompt, generation_mode="image", return_tensors="pt")
        assert inputs["input_ids"].tolist() == [case["input_ids"]]
        codes = model.generate(
            **inputs, generation_mode="image", do_sample=False, guidance_scale=case["cfg_weight"], use_cache=True
        )
        assert torch.equal(codes, golden[f"t2i.{index}.tokens"][:1].long())
    for index, (talk, visible) in enumerate(zip(cases["conversations"], golden["und.attention_mask"], strict=False)):
        pictures = [Image.open(JANUS / name) for message in talk for name in message.get("images", [])]
        text = processor.apply_chat_template(talk[:-1], add_generation_prompt=True)
        inputs = processor(text=text, images=pictures or None, return_tensors="pt")
        assert torch.equal(inputs["input_ids"][0], golden["und.input_ids"][index][visible.bool()])


@pytest.mark.parametrize("system", ["", "Be 'brief' \\ and\nkind."])
def test_another_system_prompt_survives_the_layout_of_transformers(tmp_path: Path, system: str) -> None:
    official = Path(shutil.copytree(JANUS, tmp_path / "official"))
    settings = json.loads((official / "processor_config.json").read_text(encoding="utf-8"))
    (official / "processor_config.json").write_text(json.dumps({**settings, "system_prompt": system}))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        folder = convert(official, tmp_path / "converted", to="transformers", progress=False)
    assert any(
        "start the conversation with {'role': 'system', 'content': ''}" in str(one.message) for one in heard
    ) == bool(system)
    ours, theirs = JanusFlowProcessor.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    talk = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert ours.text.system_prompt == system
    assert theirs.apply_chat_template(talk, add_generation_prompt=True) == ours.render(talk)


@pytest.mark.parametrize("source", [OFFICIAL, JANUS])
def test_the_ids_of_the_tokenizer_are_told_to_the_network(tmp_path: Path, source: Path) -> None:
    converted = convert(source, tmp_path / "converted", progress=False)
    opened = JanusFlow.from_pretrained(source, device="cpu")
    opened.save_pretrained(tmp_path / "saved")
    tokenizer = opened.processor.tokenizer
    wanted = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert len({*wanted, 1, 2}) == 5
    for folder in (converted, tmp_path / "saved"):
        ids = GenerationConfig.from_pretrained(folder)
        assert (ids.bos_token_id, ids.eos_token_id, ids.pad_token_id) == wanted
        llm = JanusFlow.from_pretrained(folder, device="cpu").network.config.text_config
        assert (llm.bos_token_id, llm.eos_token_id) == wanted[:2]
        assert llm.pad_token_id is None  # Llama would not train its embedding


def test_the_licence_outlives_a_second_step_and_own_weights_keep_their_own(tmp_path: Path) -> None:
    JanusFlow.from_pretrained(OFFICIAL, device="cpu").save_pretrained(tmp_path / "one")
    JanusFlow.from_pretrained(tmp_path / "one", device="cpu").save_pretrained(tmp_path / "two")
    card = convert(tmp_path / "one", tmp_path / "three", to="official", progress=False) / "README.md"
    for file in (tmp_path / "one" / "README.md", tmp_path / "two" / "README.md", card):
        assert "DeepSeek Model License" in file.read_text(encoding="utf-8")
    (tmp_path / "one" / "README.md").write_text("mine", encoding="utf-8")
    JanusFlow.from_pretrained(OFFICIAL, device="cpu").save_pretrained(tmp_path / "one")
    words = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert words.startswith("mine\n") and "DeepSeek Model License" in words
    mirror = Path(shutil.copytree(OFFICIAL, tmp_path / "mirror"))
    (mirror / "README.md").write_text("A copy for our cluster.", encoding="utf-8")
    copied = convert(mirror, tmp_path / "copied", progress=False) / "README.md"
    assert "DeepSeek Model License" in copied.read_text(encoding="utf-8")
    convert("tiny", tmp_path / "tiny", to="official", progress=False)
    back = convert(tmp_path / "tiny", tmp_path / "back", progress=False)
    assert (back / "README.md").read_text(encoding="utf-8") == (tmp_path / "tiny" / "README.md").read_text(
        encoding="utf-8"
    )
    assert "DeepSeek Model License" not in (back / "README.md").read_text(encoding="utf-8")


def test_a_vae_that_does_not_fit_is_refused_before_weights_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_module, "write", lambda *_: pytest.fail("weights were written"))
    with pytest.raises(ValueError, match="no-such-folder"):
        convert(OFFICIAL, tmp_path / "new", vae=tmp_path / "no-such-folder", progress=False)


def test_a_folder_of_licences_is_no_licence_file(tmp_path: Path) -> None:
    source = Path(shutil.copytree(OFFICIAL, tmp_path / "source"))
    (source / "LICENSES").mkdir()
    (source / "LICENSE").write_text("mine")
    assert (convert(source, tmp_path / "new", progress=False) / "LICENSE").read_text() == "mine"


def test_a_janusflow_has_no_transformers_layout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JanusFlow has no layout 'transformers'; expected janusflow, official"):
        convert(OFFICIAL, tmp_path / "new", to="transformers", progress=False)
    assert not list(tmp_path.iterdir())


def is_golden(place: Path, source: Path, scratch: Path) -> None:
    """Asserts that a folder holds the tensors and the configuration of a golden one, and a card with its licence."""
    golden = scratch / f"golden-{place.name}"
    golden.mkdir()
    shutil.copy(source / "model.safetensors", golden)
    assert same(place, golden)
    assert json.loads((place / "config.json").read_text()) == json.loads((source / "config.json").read_text())
    assert "DeepSeek Model License" in (place / "README.md").read_text()


def write_pdparams(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Writes tensors as PaddlePaddle does: numpy arrays in a pickle, linear weights transposed, with their names."""
    arrays = {}
    for name, value in weights.items():
        linear = value.ndim == 2 and not name.endswith(("embed_tokens.weight", "gen_embed.weight", "embedding.weight"))
        array = (value.T if linear else value).contiguous().numpy()
        arrays[name.replace("language_model.model.", "language_model.llama.")] = array
    with file.open("wb") as stream:
        pickle.dump({**arrays, "StructuredToParameterName@@": {name: name for name in arrays}}, stream, protocol=4)


def test_what_is_converted_paints_and_answers_the_same(tmp_path: Path) -> None:
    before = JanusFlow.from_pretrained(OFFICIAL, device="cpu")
    after = JanusFlow.from_pretrained(convert(OFFICIAL, tmp_path / "ours", progress=False), device="cpu")
    options = {"num_inference_steps": 2, "seed": 0, "output_type": "latent", "progress": False}
    assert torch.equal(after.generate("a star", **options), before.generate("a star", **options))  # type: ignore
    assert after.ask("hi", max_new_tokens=8) == before.ask("hi", max_new_tokens=8)


def test_large_models_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "SHARD_BYTES", 300_000)
    folder = convert(OFFICIAL, tmp_path / "shards", to="official", progress=False)
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    monkeypatch.undo()
    assert same(convert(folder, tmp_path / "one", to="official", progress=False), folder)


def test_a_dtype_is_taken_and_a_vae_travels_along(small_model: JanusFlow, tmp_path: Path) -> None:
    small_model.save_pretrained(tmp_path / "ours")
    (tmp_path / "ours" / "LICENSE-MODEL").write_text("terms")
    folder = convert(tmp_path / "ours", tmp_path / "half", dtype="bfloat16", progress=False)
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert (folder / "vae" / "config.json").is_file()
    assert (folder / "LICENSE-MODEL").read_text() == "terms"
    assert JanusFlow.from_pretrained(folder, device="cpu").network.dtype == torch.bfloat16


@pytest.mark.parametrize(("source", "to"), [(OFFICIAL, "official"), (OFFICIAL, "janusflow"), (JANUS, "transformers")])
def test_the_dtype_of_the_weights_is_the_one_that_is_told(tmp_path: Path, source: Path, to: str) -> None:
    half = convert(source, tmp_path / "half", to="official", dtype="bfloat16", progress=False)
    same = convert(half, tmp_path / "same", to=to, progress=False)
    assert describe(half).dtype == describe(same).dtype == open_checkpoint(same).dtype == torch.bfloat16
    assert JanusFlow.from_pretrained(same, device="cpu").network.dtype == torch.bfloat16


def test_a_card_of_ours_is_written_anew(tmp_path: Path) -> None:
    first = convert(JANUS, tmp_path / "first", to="transformers", progress=False)
    second = convert(first, tmp_path / "second", to="official", dtype="bfloat16", progress=False)
    words = (second / "README.md").read_text(encoding="utf-8")
    assert "# second" in words and "from `first` in the official layout" in words and "cast to bfloat16" in words
    assert str(tmp_path) not in words and "DeepSeek Model License" in words
    own = JanusFlow.from_pretrained("tiny", device="cpu")
    own.save_pretrained(tmp_path / "own")
    mine = "---\nlanguage:\n- en\nlicense: mit\n---\n\n# own\n\nSaved with janusflow; mine.\n"
    (tmp_path / "own" / "README.md").write_text(mine, encoding="utf-8")
    words = (convert(tmp_path / "own", tmp_path / "other", progress=False) / "README.md").read_text(encoding="utf-8")
    assert "# other" in words and "license: mit" in words and "DeepSeek" not in words


def test_sigterm_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a batch system ends a job: the signal comes while the weights are written."""

    def waiting(*args: Any, **options: Any) -> None:
        print("writing", flush=True)
        time.sleep(60)

    monkeypatch.setattr(convert_module, "write", waiting)
    said, place = tmp_path / "said", tmp_path / "place"
    place.mkdir()
    life = fork(command, ["convert", "tiny", str(place / "new")], said=said)
    while life.is_alive() and "writing" not in (said.read_text() if said.exists() else ""):
        time.sleep(0.02)
    assert len(list(place.iterdir())) == 1
    life.terminate()
    life.join(60)
    assert life.exitcode == 128 + signal.SIGTERM and not list(place.iterdir())


def test_nothing_is_left_of_one_that_fails(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(OFFICIAL, tmp_path / "broken"))
    raw = json.loads((broken / "config.json").read_text())
    raw["language_config"]["vocab_size"] += 1
    (broken / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"misshapen tensors: .*has shape"):
        convert(broken, tmp_path / "new", to="official", progress=False)
    for name, to, words in (("broken", "official", "already exists"), ("new", "other", "expected janusflow")):
        with pytest.raises(ValueError, match=words):
            convert(OFFICIAL, tmp_path / name, to=to, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_folder_of_a_like_name_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "new.tmp"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    convert("tiny", tmp_path / "new", to="official", progress=False)
    assert (other / "mine.txt").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "new.tmp"]


@pytest.mark.parametrize("source", [OFFICIAL, JANUS], ids=["janusflow", "janus"])
@pytest.mark.parametrize("value", [float("inf"), torch.int32])
def test_weights_that_are_not_finite_numbers_are_not_converted(
    tmp_path: Path, source: Path, value: float | torch.dtype
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    weights = load_file(folder / "model.safetensors")
    name = "language_model.model.norm.weight"
    weights[name] = weights[name].to(value) if isinstance(value, torch.dtype) else weights[name] * value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for to in ("janusflow", "official"):
        with pytest.raises(ValueError, match=rf"source: tensor {name} contains (NaN or infinite|int32) values"):
            convert(folder, tmp_path / "out", to=to, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
