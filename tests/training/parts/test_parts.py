"""Parts: what their data and losses are, and that a run continues and its result opens."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from janusflow.config import tiny
from janusflow.data.records import Record
from janusflow.data.samples import SampleConfig
from janusflow.data.sources.jsonl import JsonlConfig
from janusflow.pipelines.janusflow import JanusFlow
from janusflow.tinyworld.source import TinyworldConfig
from janusflow.training.parts.config import LlmConfig, PartsConfig, TokenizerConfig, TowerConfig, VaeConfig, load_parts
from janusflow.training.parts.data import PICTURES, PictureMaker, batches, corpus, described
from janusflow.training.parts.fit import FitConfig
from janusflow.training.parts.pretrain import make_processor, pretrain

FIT = FitConfig(steps=2, learning_rate=1e-3, warmup=1, precision="float32")
NETWORK = {
    "text_config": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3},
    "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}
TAG = "<image_placeholder>"


def small(out: Path) -> PartsConfig:
    return PartsConfig(
        str(out),
        pictures=[TinyworldConfig(described=1.0)],
        texts=[TinyworldConfig(questions=2)],
        vae=VaeConfig(FIT, batch_size=2, channels=(8, 8, 8)),
        tower=TowerConfig(FIT, batch_size=3, text_layers=1, text_tokens=24),
        llm=LlmConfig(FIT, batch_size=2),
        tokenizer=TokenizerConfig(vocabulary=300, records=20),
        network=NETWORK,
    )


def test_parts_are_made_once_and_open_as_a_model(tmp_path: Path) -> None:
    export = pretrain(small(tmp_path / "parts"), device="cpu")
    model = JanusFlow.from_pretrained(export, device="cpu")
    assert len(model.processor.tokenizer) == 300
    assert model.generate("a star", num_inference_steps=1)[0].size == (64, 64)
    assert model.codec.vae.config.scaling_factor > 0
    changed = (export / "model.safetensors").stat().st_mtime_ns
    assert pretrain(small(tmp_path / "parts"), device="cpu") == export
    assert (export / "model.safetensors").stat().st_mtime_ns == changed


def test_a_run_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    pretrain(small(tmp_path), device="cpu")
    other = replace(small(tmp_path), seed=1, llm=LlmConfig(FIT, batch_size=3))
    with pytest.raises(ValueError, match=r"started with other settings \(llm.batch_size \d+ -> 3, seed 0 -> 1\)"):
        pretrain(other, device="cpu")
    assert pretrain(replace(small(tmp_path), max_broken=0.5, workers=1), device="cpu") == tmp_path / "export"


def test_workers_make_the_same_samples_and_end_when_they_are_closed(tmp_path: Path) -> None:
    maker = PictureMaker(make_processor(small(tmp_path), tmp_path / "processor"), tiny(300), SampleConfig())
    given = {"sources": [TinyworldConfig(described=1.0)], "maker": maker, "size": 3, "seed": 4}
    alone, ahead = (batches(PICTURES, workers=workers, **given) for workers in (0, 1))
    for step in (5, 6, 7, 2, 3):  # in order, and another one than was made ahead
        wanted, found = alone(step), ahead(step)
        assert [sample.tokens for sample in found] == [sample.tokens for sample in wanted]
        assert all(torch.equal(a.drawn.pixels, b.drawn.pixels) for a, b in zip(found, wanted, strict=True))
    assert len(multiprocessing.active_children()) == 1
    ahead.close()
    assert not multiprocessing.active_children()


def test_broken_records_are_named_once_and_end_the_training_above_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    rows = [{"image": "good.png" if n % 4 else f"missing-{n}.png", "text": "a black picture"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    maker = PictureMaker(make_processor(small(tmp_path), tmp_path / "processor"), tiny(300), SampleConfig())
    sources = [JsonlConfig(path=str(tmp_path / "rows.jsonl"))]
    lenient, strict = (batches(PICTURES, sources, maker, size=10, seed=0, max_broken=limit) for limit in (0.9, 0.1))
    for step in range(12):
        assert len(lenient(step)) == 10
    named = capsys.readouterr().err.splitlines()
    assert len(named) == len(set(named)) == 10 and all("skipped: " in line and "missing-" in line for line in named)
    with pytest.raises(
        ValueError,
        match=r"of [56]\d records that were taken are broken .*, more than max_broken=0.1; the last: .*missing",
    ):
        for step in range(12):
            strict(step)
    (tmp_path / "rows.jsonl").write_text("\n".join(["broken", *map(json.dumps, rows[1:4])]))
    with pytest.raises(ValueError, match=r"records that were taken are broken .*, more than max_broken=0.05"):
        corpus(sources, sources, 60, 0)


def test_the_text_of_a_record_takes_the_place_of_its_picture() -> None:
    tagged = Record("a", (b"",), "a red fox", ((f"{TAG}\nWhat is this?", "a fox"), ("Which color?", "red")))
    assert described(tagged, TAG).turns == (("a red fox\nWhat is this?", "a fox"), ("Which color?", "red"))
    untagged = Record("b", (b"",), "a red fox", (("What is this?", "a fox"),))
    assert described(untagged, TAG).turns == (("a red fox\nWhat is this?", "a fox"),)
    assert not described(tagged, TAG).images and not described(untagged, TAG).images


def test_a_tokenizer_reads_captions_questions_and_answers() -> None:
    sentences = corpus([TinyworldConfig()], [TinyworldConfig()], 50, 0)
    assert any(text.endswith("Assistant:") for text in sentences)
    assert any("?" in text and "Assistant: " in text for text in sentences)
    assert corpus([TinyworldConfig()], [TinyworldConfig()], 50, 0) == sentences


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pictures.0.kind=pictures", "kind of source is 'pictures'"),
        ("texts.0.streaming=true", "leave streaming out"),
        ("texts=[]", "texts has no source"),
        ("pictures=[{kind: folder}]", "pictures: a source of 'folder' needs a path"),
        ("pictures.0.crop=pad", "crop is 'pad', but parts learn from cropped pictures"),
        ("texts.0.anchor=true", "texts: anchors keep what model.checkpoint can do"),
        ("texts.1.shares={typo: 1}", "tinyworld has no scenes 'typo'"),
        ("tokenizer.vocabulary=100", "tokenizer.vocabulary is 100"),
        ("vae.fit.rate=1", "vae.fit.rate is not a setting"),
        ("llm.fit.steps=0", "llm.fit.steps is 0"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(change: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_parts(Path(__file__).parents[3] / "recipes" / "pictograms" / "parts.yaml", [change])


def test_an_unknown_size_of_the_network_is_refused(tmp_path: Path) -> None:
    config = replace(small(tmp_path), network={"text_config": {"hidden": 3}})
    with pytest.raises(ValueError, match="network has no size 'hidden'; choose from vocab_size, hidden_size, .*"):
        config.sizes(300)
    for value in (3, {"hidden": 3}):
        with pytest.raises(ValueError, match="network has no size 'sizes'; choose from text_config, vision_config, .*"):
            replace(config, network={"sizes": value}).sizes(300)
