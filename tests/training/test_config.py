"""Recipes are checked before anything is loaded, and every mistake is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import janusflow.families as registry
from janusflow import JanusFlow, JanusFlowForConditionalGeneration
from janusflow.config import tiny
from janusflow.families import families
from janusflow.training.config import load_config
from janusflow.training.config.sources import sources_of, weights_of
from janusflow.training.dryrun import describe, estimate
from janusflow.training.start import check_sizes
from tests.conftest import GOLDEN
from tests.training.paper import PAPER

RECIPES = Path(__file__).parents[2] / "recipes"
GOOD: dict[str, Any] = {
    "out": "runs/x",
    "parts": ["llm"],
    "steps": 5,
    "batch_size": 4,
    "model": {"checkpoint": "tiny"},
    "data": {"text": [{"kind": "tinyworld"}], "ratios": [{"understanding": 0, "generation": 0, "text": 1}]},
}


def write(tmp_path: Path, **changes: Any) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({**GOOD, **changes}))
    return file


TRAINED = sorted(file for file in RECIPES.rglob("*.yaml") if file.parent.name != "eval" and file.name != "parts.yaml")


@pytest.mark.parametrize("file", TRAINED, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_every_recipe_is_sound(file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a black picture")
    load_config(
        file, [f"data={tmp_path}"] if file.name in ("both.yaml", "generation.yaml", "understanding.yaml") else []
    )


@pytest.mark.parametrize("name", ["both", "generation", "understanding"])
def test_a_recipe_for_ones_own_data_asks_for_it(name: str) -> None:
    with pytest.raises(ValueError, match="no source of .* is given; give data=FOLDER with records for it"):
        load_config(RECIPES / "finetune" / f"{name}.yaml", ["model=tiny"])


def test_generic_recipes_do_not_name_the_tiny_world() -> None:
    for file in (RECIPES / "finetune").glob("*.yaml"):
        assert "kind: tinyworld" not in file.read_text() and "path: tinyworld" not in file.read_text()


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes_hold_the_papers_values(name: str) -> None:
    config, stage = load_config(RECIPES / "paper" / f"{name}.yaml"), PAPER[name]
    assert tuple(config.parts) == stage.parts
    assert config.steps == stage.steps
    assert config.batch_size == stage.batch_size
    assert tuple(config.data.ratios) == stage.ratios
    assert config.samples.template == stage.template
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.warmup, optimizer.schedule) == (
        stage.learning_rate,
        stage.warmup,
        "constant",
    )
    assert (optimizer.betas, optimizer.weight_decay, optimizer.clip) == ((0.9, 0.95), 0.0, 1.0)
    assert (config.pack_length, config.ema, config.samples.prompt_dropout) == (4096, 0.99, 0.1)
    assert (config.samples.time, config.samples.time_mean, config.samples.time_scale) == ("logit_normal", 0.0, 1.0)
    assert (config.loss.ar, config.loss.flow, config.loss.repa, config.loss.repa_block) == (1.0, 1.0, 1.0, 6)
    assert (config.samples.crop, optimizer.name, config.precision) == ("random", "adamw", "auto")


def test_overrides_reach_every_depth(tmp_path: Path) -> None:
    overrides = ["optimizer.learning_rate=1e-4", "data.text.0.weight=2", "steps=7", "model=runs/y", "lora.rank=4"]
    config = load_config(write(tmp_path), overrides)
    assert config.optimizer.learning_rate == 1e-4
    assert config.data.text[0].weight == 2
    assert (config.steps, config.model.checkpoint, config.lora.rank) == (7, "runs/y", 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": 5}, r"stepz is not a setting of a recipe; did you mean steps\?"),
        (
            {"optimizer": {"learningrate": 1}},
            r"optimizer.learningrate is not a setting of a recipe; did you mean optimizer.learning_rate\?",
        ),
        ({"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "foo": 1}]}}, "data.text.0.foo is not a setting"),
        ({"steps": "many"}, "steps is 'many': input should be a valid integer"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate is 'fast'"),
        ({"precision": "int8"}, "precision is 'int8': input should be 'auto', 'float32' or 'bfloat16'"),
        ({"parts": ["head"]}, "parts are \\['head'\\]; expected some of aligner"),
        ({"parts": []}, "parts are \\[\\]"),
        ({"steps": 0}, "steps is 0: input should be greater than or equal to 1"),
        ({"ema": 1.5}, "ema is 1.5: input should be less than or equal to 1"),
        ({"model": {}}, "exactly one of model.checkpoint and model.preset"),
        ({"model": {"preset": "tiny"}}, "needs model.processor"),
        ({"lora": {"rank": 4}, "parts": ["aligner"]}, "lora.rank is 4, but parts"),
        ({"data": {"text": [{"kind": "tinyworld"}]}}, "gives 1 to understanding, but no source"),
        ({"data": {**GOOD["data"], "ratios": []}}, "data.ratios are empty"),
        ({"data": {**GOOD["data"], "own": "/no/such/folder"}}, "/no/such/folder does not exist"),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "csv"}]}},
            "data.text.0: kind of source is 'csv'; choose from folder, .*tinyworld",
        ),
        ({"optimizer": {"schedule": "decay", "decay": 0}}, "optimizer.decay is 0: input should be greater than 0"),
        ({"model": {"checkpoint": "tiny", "llm": "x"}}, "model.llm is for a new network"),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "judge": "mine:score"}]}},
            "data.generation.0.judge is not a setting of a recipe",
        ),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "replay", "path": "x", "teacher": "y", "anchor": True}]}},
            "data.generation: an anchor keeps what the model says, so it takes no teacher",
        ),
        ({"steps": True}, "steps is True: input should be a valid integer"),
        ({"steps": "5"}, "steps is '5': input should be a valid integer"),
        ({"compile": "no"}, "compile is 'no': input should be a valid boolean"),
        ({"loss": {"ar": -1}}, "loss.ar is -1: input should be greater than or equal to 0"),
        ({"loss": {"ar": 0, "flow": 0, "repa": 0, "codes": 0}}, "loss are all 0, so there is nothing to learn"),
        ({"samples": {"time_scale": 0}}, "samples.time_scale is 0: input should be greater than 0"),
        ({"samples": {"time_scale": float("inf")}}, "samples.time_scale is inf: input should be a finite number"),
        ({"loss": {"flow": float("inf")}}, "loss.flow is inf: input should be a finite number"),
        ({"seed": 2**70}, "seed is 1180591620717411303424: input should be less than 18446744073709551616"),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "weight": float("nan")}]}},
            "data.text.0.weight is nan: input should be a finite number",
        ),
        ({"samples": {"time_mean": float("nan")}}, "samples.time_mean is nan: input should be a finite number"),
        ({"optimizer": {"betas": [0.9, 3]}}, "optimizer.betas.1 is 3: input should be less than or equal to 1"),
        ({"optimizer": {"weight_decay": -1}}, "optimizer.weight_decay is -1"),
        ({"optimizer": {"floor": 3}}, "optimizer.floor is 3"),
        ({"lora": {"dropout": 2}}, "lora.dropout is 2"),
        ({"lora": {"alpha": 0}}, "lora.alpha is 0"),
        (
            {"watch": {"every": 5, "guidance_scale": 0.5}},
            "watch.guidance_scale is 0.5: input should be greater than or equal to 1",
        ),
        (
            {
                "parts": ["tower"],
                "data": {**GOOD["data"], "ratios": [{"understanding": 0, "generation": 1, "text": 1}]},
            },
            r"parts are \['tower'\], which learn only from understanding, and data.ratios give it no share",
        ),
        ({"watch": {"every": 5, "prompts": []}}, "watch.every asks for sheets of pictures, which need watch.prompts"),
        ({"data": {**GOOD["data"], "text": [{"kind": "jsonl"}]}}, "data.text: a source of 'jsonl' needs a path"),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "shares": {"singel_object": 3}}]}},
            "data.text: tinyworld has no scenes 'singel_object'; choose from single_object",
        ),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "shares": {"counting": -1}}]}},
            "expected none below 0 and at least one above",
        ),
        ({"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "questions": 0}]}}, "data.text.0.questions is 0: "),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "ordered": 2.0}]}},
            "ordered is 2.0: input should be less than or equal to 1",
        ),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "unnamed": 0.5}]}},
            "data.text: tinyworld's unnamed is for pictures to generate",
        ),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "composed": -1.0}]}},
            "composed is -1.0: input should be greater",
        ),
        (
            {"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "composed": 0.5}]}},
            "data.text: tinyworld's composed",
        ),
        (
            {"data": {**GOOD["data"], "understanding": [{"kind": "tinyworld", "spoiled": 1.5}]}},
            "spoiled is 1.5: input should be less",
        ),
        (
            {"data": {**GOOD["data"], "generation": [{"kind": "tinyworld", "spoiled": 0.5}]}},
            "data.generation: tinyworld's spoiled is for pictures to understand",
        ),
        ({"data": {**GOOD["data"], "text": [{"kind": "tinyworld", "bold": 2}]}}, "bold is 2: input should be less"),
        (
            {"data": {**GOOD["data"], "ratios": [{"understanding": 0, "generation": 0, "text": float("nan")}]}},
            "data.ratios.0.text is nan: input should be a finite number",
        ),
        ({"watch": {"wandb": True}}, "the package wandb is not installed"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        load_config(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("learning_rate=1", "optimizer.learning_rate"),
        ("lr=1", "optimizer.learning_rate"),
        ("lora_rank=4", "lora.rank"),
        ("lora.r=4", "lora.rank"),
        ("batch=4", "batch_size"),
        ("max_steps=4", "steps"),
        ("checkpoint=tiny", "model.checkpoint"),
        ("data.text.0.questons=3", "data.text.0.questions"),
        ("data.text=[{kind: jsonl, path: x, streming: true}]", "data.text.0.streaming"),
        ("data.ratios.0.generaton=1", "data.ratios.0.generation"),
        ("xyzzy=1", None),
    ],
)
def test_an_unknown_key_suggests_the_right_one(tmp_path: Path, given: str, meant: str | None) -> None:
    with pytest.raises(ValueError, match=r"^\S+ is not a setting of a recipe") as told:
        load_config(write(tmp_path), [given])
    assert str(told.value).partition("; ")[2] == ("" if meant is None else f"did you mean {meant}?")


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="steps is 'xxx") as told:
        load_config(write(tmp_path), [f"steps={'x' * 9000}"])
    assert len(str(told.value)) < 400


def test_files_and_overrides_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1, 2")
    with pytest.raises(ValueError, match="cannot be read"):
        load_config(tmp_path / "broken.yaml")
    for override, words in (
        ("steps", "is not of the form key=value"),
        ("=5", "is not of the form key=value"),
        ("data.text.7.kind=x", "does not fit the recipe: it has no such item"),
    ):
        with pytest.raises(ValueError, match=f"override {override!r} {words}"):
            load_config(write(tmp_path), [override])


def test_a_dry_run_counts_what_learns_and_loads_nothing(tmp_path: Path) -> None:
    preset = ["model.checkpoint=null", "model.preset=janusflow_1b", "model.processor=x"]
    stage1 = estimate(load_config(RECIPES / "paper" / "stage1.yaml"))
    stage2 = estimate(load_config(RECIPES / "paper" / "stage2.yaml", preset))
    stage3 = estimate(load_config(RECIPES / "paper" / "stage3.yaml", preset))
    assert set(stage1.learning) == {"aligner", "generation", "repa"}
    assert set(stage2.frozen) == {"tower"}
    pool_head = 12_595_200  # SigLIP's, which is never run
    for found in (stage1, stage2, stage3):
        counted = sum(found.learning.values()) + sum(found.frozen.values()) - found.learning["repa"]
        assert counted == 2_046_367_504
    assert stage3.frozen == {"tower": pool_head}
    assert stage1.flops < stage2.flops
    assert stage2.memory(8) < stage2.memory(1)
    only_talks = [*preset, "data.ratios=[{understanding: 1, generation: 0, text: 0}]"]
    seeing = estimate(load_config(RECIPES / "paper" / "stage3.yaml", only_talks))
    blind = estimate(load_config(RECIPES / "paper" / "stage3.yaml", [*only_talks, "parts=[aligner,generation,llm]"]))
    assert seeing.activations > 1.05 * blind.activations, "a tower that learns keeps its activations"
    lora = estimate(
        load_config(RECIPES / "paper" / "stage3.yaml", [*preset, "lora.rank=16", "parts=[aligner,generation,llm]"])
    )
    assert "llm" not in lora.learning
    assert 1e6 < lora.learning["adapters"] < 5e7
    assert lora.state < stage3.state / 2
    text = describe(load_config(RECIPES / "paper" / "stage1.yaml"))
    for words in ("learning:", "frozen:", "tokens per step", "FLOPs per step", "on 64 GPUs"):
        assert words in text
    assert "replay" not in text
    assert text.count("not there yet: ") == len({line for line in text.splitlines() if "not there yet" in line}) > 0
    worlds = [f"data.{task}=[{{kind: tinyworld}}]" for task in ("understanding", "generation")]
    finetuning = load_config(RECIPES / "finetune" / "both.yaml", ["model=tiny", *worlds])
    assert "not there yet" not in describe(finetuning)
    replayed = [worlds[0], "data.generation=[{kind: replay, path: tinyworld, images: 300}]"]
    assert "generated before the first step: 300 pictures (replay)" in describe(
        load_config(RECIPES / "finetune" / "both.yaml", replayed)
    )
    stage3_kept = ["model.checkpoint=tiny", "data.understanding.0.anchor=true", "loss.repa=0"]
    kept = load_config(RECIPES / "paper" / "stage3.yaml", stage3_kept)
    assert (
        estimate(kept).memory(64)
        > estimate(kept).anchor
        == 4 * sum(p.numel() for p in JanusFlow.from_pretrained("tiny").network.parameters())
    )
    assert "anchor (the weights before the run" in describe(kept)


def test_every_parameter_belongs_to_one_part() -> None:
    with torch.device("meta"):
        network = JanusFlowForConditionalGeneration(tiny())
    family = families()["JanusFlow"]
    for name, _ in network.named_parameters():
        assert sum(name.startswith(prefixes) for prefixes in family.trainable.values()) == 1, name
    assert {family.part_of(name) for name, _ in network.named_parameters()} == set(family.trainable)


def test_what_does_not_fit_the_model_is_told_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(write(tmp_path), ["model=tiny", "loss.repa_block=9"])
    for check in (describe, check_sizes):
        with pytest.raises(ValueError, match="repa_block is 9; the LLM has blocks 1 to 8"):
            check(config)
    nothing = load_config(write(tmp_path), ["model=tiny", "loss.ar=0", "loss.flow=0", "loss.repa=0"])
    with pytest.raises(ValueError, match="weights of ar, flow, repa in loss are all 0, so a JanusFlow learns nothing"):
        check_sizes(nothing)
    janus = load_config(write(tmp_path), [f"model={GOLDEN / 'janus-small-a'}"])
    assert check_sizes(janus).model_type == "janus"
    monkeypatch.setitem(registry._found, "Janus", replace(families()["Janus"], trainable={}))
    with pytest.raises(ValueError, match="is a Janus model; here JanusFlow is trained"):
        check_sizes(janus)


def test_what_is_anchored_alone_is_refused() -> None:
    recipe = RECIPES / "tiny" / "finetune_both.yaml"
    for check in (describe, check_sizes):
        with pytest.raises(ValueError, match="all data is anchored .* so it learns nothing; give data=FOLDER"):
            check(load_config(recipe, ["model=tiny"]))
    check_sizes(load_config(RECIPES / "tiny" / "order.yaml", ["model=tiny"]))
    with pytest.raises(ValueError, match="model.checkpoint: .*runs/tiny/parts"):
        check_sizes(load_config(RECIPES / "tiny" / "stage1.yaml"))


def test_the_share_of_ones_own_data(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / "a.png")
    (tmp_path / "own" / "a.txt").write_text("a black picture")
    for share in (0.25, 0.5, 1.0):
        given = ["data.understanding=[{kind: tinyworld}]", "data.generation=[{kind: tinyworld, weight: 3}]"]
        given.append("data.ratios=[{understanding: 1, generation: 1, text: 0}]")
        config = load_config(write(tmp_path), [f"data={tmp_path / 'own'}", f"data.own_share={share}", *given])
        for task in ("understanding", "generation"):
            weights = weights_of(config.data)[task]
            assert weights[-1] / sum(weights) == pytest.approx(share)
            assert len(weights) == 1 + (share < 1) * len(getattr(config.data, task))


def test_several_data_sets_of_ones_own_are_taken_as_one(tmp_path: Path) -> None:
    pictures, talks = tmp_path / "pictures", tmp_path / "talks.jsonl"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a black picture")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "nothing"}]
    talks.write_text(f"{json.dumps({'image': 'pictures/0.png', 'conversations': talk})}\n" * 9)
    words = ["data.understanding=[{kind: tinyworld}]", "data.generation=[{kind: tinyworld}]", "data.own_share=0.5"]
    words.append("data.ratios=[{understanding: 1, generation: 1, text: 0}]")
    config = load_config(write(tmp_path), [f"data=[{pictures},{talks}]", "crop=pad", *words])
    assert config.samples.crop == "pad"
    assert weights_of(config.data)["understanding"] == pytest.approx([1, 3 / 12, 9 / 12])
    assert weights_of(config.data)["generation"] == pytest.approx([1, 1])
    assert [source.path for source in sources_of(config.data)["generation"][1:]] == [str(pictures)]
    for wrong in ("[]", f"[{pictures},{pictures}]"):
        with pytest.raises(ValueError, match="data.own is .*; expected one or more folders or files, each once"):
            load_config(write(tmp_path), [f"data={wrong}", *words])
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load_config(write(tmp_path), [f"data=[{pictures},{tmp_path / 'nowhere'}]", *words])


def test_a_cache_takes_every_crop_but_a_random_one(tmp_path: Path) -> None:
    words = ["data.generation=[{kind: tinyworld}]", "data.understanding=[{kind: tinyworld}]", f"data.cache={tmp_path}"]
    for crop in ("center", "pad"):
        load_config(write(tmp_path), [*words, f"crop={crop}"])
    for given in (["crop=random"], ["crop=pad", "data.generation.0.crop=random"]):
        with pytest.raises(ValueError, match="data.cache keeps .* it needs samples.crop=center or pad"):
            load_config(write(tmp_path), [*words, *given])


def test_own_data_that_nobody_would_see_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    talk = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "nothing"}]
    (tmp_path / "talks.jsonl").write_text(json.dumps({"image": "a.png", "conversations": talk}) + "\n")
    with pytest.raises(ValueError, match=r"talks.jsonl serves only understanding, which data.ratios give no share"):
        load_config(RECIPES / "finetune" / "generation.yaml", ["model=tiny", f"data={tmp_path / 'talks.jsonl'}"])
    load_config(RECIPES / "tiny" / "finetune_both.yaml", ["model=tiny", f"data={tmp_path / 'talks.jsonl'}"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optimizer.clip=0", "optimizer.clip is 0: input should be greater than 0"),
        ("lora.rank=4", "give lora.tower=true, or leave tower out of parts"),
        ("data.generation=[{kind: tinyworld, weight: 0}, {kind: tinyworld, weight: 0}]", r"weights \[0.0, 0.0\]"),
        (
            "data.generation=[{kind: tinyworld, weight: 3}, {kind: tinyworld, weight: -1}]",
            "data.generation.1.weight is -1: input should be greater",
        ),
        ("data.generation.0.fitting=true", "fitting rows are found before the run, so not in a stream"),
    ],
)
def test_what_would_silently_do_nothing_is_refused(change: str, told: str) -> None:
    given = ["data.generation=[{kind: parquet, path: nowhere, streaming: true}]", change]
    with pytest.raises(ValueError, match=told):
        load_config(RECIPES / "paper" / "stage3.yaml", given)


def test_a_recipe_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    file, good = tmp_path / "recipe.yaml", write(tmp_path).read_text()
    levels = "\n".join(["l0: &l0 [1]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9))])
    references = "\n".join(["r0: x", *(f"r{n}: '{(chr(36) + f'{{r{n - 1}}}') * 10}'" for n in range(1, 9))])
    for added, words in (
        (levels, "its aliases make it .* values"),
        (references, "80 references"),
        ("odd: &odd [*odd]", "holds itself"),
        ("odd: ${no.such.key}", "the recipe has a reference that cannot be read"),
    ):
        file.write_text(f"{good}\n{added}\n")
        with pytest.raises(ValueError, match=words) as told:
            load_config(file)
        assert "\n" not in str(told.value)
