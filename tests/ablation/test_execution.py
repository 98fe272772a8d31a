"""Runs are never repeated, fail alone, are shared by processes, and see equal data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from janusflow.ablation import execution as module
from janusflow.ablation.config import load_ablation
from janusflow.ablation.execution import LOCK, run_all
from janusflow.ablation.report import write_report
from janusflow.ablation.runs import FAILED, RESULTS, runs_of
from janusflow.files import locked, read_json
from tests.ablation.conftest import ABLATION, Journal, opened, pretended, write
from tests.processes import fork


def quiet(text: str) -> None:
    """Says nothing."""


def trained(journal: Journal) -> list[tuple[str, ...]]:
    return [entry[1:] for entry in journal if entry[0] == "train"]


def test_all_stages_run_seed_by_seed_and_each_starts_from_the_one_before(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    runs = opened(tmp_path)
    run_all(runs, say=quiet)
    assert [run.name for run in runs] == [f"{variant}/seed-{seed}" for seed in (0, 1) for variant in "FAD"]
    assert trained(journal)[:5] == [
        ("F/seed-0", "first", "2"),
        ("F/seed-0", "second", "8"),
        ("A/seed-0", "first", "2"),
        ("A/seed-0", "second", "8"),
        ("D/seed-0", "second", "2"),  # a quarter of the steps, without the first stage
    ]
    (_, first), (_, second) = runs[0].stages
    assert first.model.checkpoint == "tiny" and second.model.checkpoint == str(Path(first.out) / "export")
    result = read_json(runs[0].folder / RESULTS)
    assert result["scores"] == {"drawing": 10.0} and result["curve"] == {"8": {"drawing": 10.0}}
    assert result["samples"] == 40
    assert not [*tmp_path.rglob("checkpoints")]


def test_equal_seeds_give_equal_data_to_all_variants_and_others_do_not(tmp_path: Path) -> None:
    write(tmp_path)
    seeds = {run.name: [config.seed for _, config in run.stages] for run in opened(tmp_path)}
    assert seeds["F/seed-0"] == seeds["A/seed-0"] and seeds["D/seed-0"] == seeds["F/seed-0"][1:]
    assert not set(seeds["F/seed-0"]) & set(seeds["F/seed-1"])


def test_a_run_that_was_begun_with_other_settings_is_not_continued(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    runs, real = opened(tmp_path, only=["F"], seeds=1), module.train
    monkeypatch.setattr(module, "train", lambda config, **options: real(config).parent)  # as SIGTERM ends it
    with pytest.raises(SystemExit):
        run_all(runs, say=quiet)
    monkeypatch.setattr(module, "train", real)
    file, count = tmp_path / "stage.yaml", len(journal)
    before = file.read_text()
    file.write_text(before.replace("batch_size: 4", "batch_size: 5"))
    with pytest.raises(ValueError, match="F/seed-0 was begun with other settings; give another --out"):
        run_all(opened(tmp_path), say=quiet)
    assert len(journal) == count
    file.write_text(before)
    run_all(opened(tmp_path, only=["F"], seeds=1), say=quiet)
    assert runs[0].result() is not None


def test_settings_are_read_before_anything_is_trained_and_not_again(tmp_path: Path, journal: Journal) -> None:
    variants = {"F": {"about": ""}, "A": {"about": "", "set": ["loss.rpea=0"]}}
    metrics = {"drawing": {"evaluation": "world", "score": "drawing"}}
    write(tmp_path, variants=variants)
    with pytest.raises(ValueError, match="rpea"):
        run_all(opened(tmp_path), say=quiet)
    stages = [{"name": "only", "recipe": "stage.yaml", "set": ["optimizer.schedule=cosine"]}]
    write(tmp_path, at=[4], stages=stages, variants={"F": {"about": ""}}, metrics=metrics)
    with pytest.raises(ValueError, match="at needs a stage of constant rate, but only has the schedule cosine"):
        run_all(opened(tmp_path, only=["F"]), say=quiet)
    assert not journal
    write(tmp_path)
    runs, file = opened(tmp_path, only=["F"]), tmp_path / "stage.yaml"

    def edit(text: str) -> None:
        file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 5"))

    run_all(runs, say=edit)
    assert [one.samples for run in runs if (one := run.result()) is not None] == [40, 40]


def test_what_the_digest_of_settings_tells_apart(tmp_path: Path) -> None:
    def digest(out: str = "out", **changes: Any) -> str:
        write(tmp_path, **changes)
        ablation = load_ablation(tmp_path / "ablation.yaml")
        return runs_of(ablation, tmp_path, tmp_path / out, only=["F"], seeds=1)[0].settings

    metric = ABLATION["metrics"]["drawing"]
    same = [digest(), digest("elsewhere"), digest("with #")]
    same.append(digest(metrics={"drawing": {**metric, "paper": {}, "lower_is_better": True}}))
    for name in ("data.workers=3", "data.allow_changes=true", "data.max_broken=0.5", "spike=4", "watch.every=1"):
        same.append(digest(stages=[ABLATION["stages"][0], {**ABLATION["stages"][1], "set": ["steps=8", name]}]))
    assert len(set(same)) == 1
    inside = [digest(model=f"{tmp_path}/out{rest}") for rest in ("", "/one/export", "/another/export", "2/export")]
    assert len({*same, *inside}) == 5


def test_a_model_that_is_not_there_is_reported_before_anything_is_trained(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path, model=f"{tmp_path}/none/export")
    with pytest.raises(ValueError, match="F/seed-0 starts from .*none/export, which is not there"):
        run_all(opened(tmp_path), say=quiet)
    (tmp_path / "none" / "export").mkdir(parents=True)
    run_all(opened(tmp_path, only=["F"], seeds=1), say=quiet)
    assert len(trained(journal)) == 2


def test_any_name_of_the_folder_reaches_the_stages(tmp_path: Path) -> None:
    write(tmp_path)
    (run,) = runs_of(load_ablation(tmp_path / "ablation.yaml"), tmp_path, tmp_path / "a #1", only=["F"], seeds=1)
    (_, first), (_, second) = run.stages
    assert first.out == str(run.folder / "first") and second.model.checkpoint == f"{first.out}/export"


def test_a_result_of_another_variant_is_refused(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    run_all(opened(tmp_path, only=["A"], seeds=1), say=quiet)
    runs = tmp_path / "out" / "runs"
    (runs / "A").rename(runs / "B")
    variants = {"F": {"about": ""}, "B": {"about": "", "set": ["loss.repa=0"]}}
    write(tmp_path, variants=variants, metrics={"drawing": {"evaluation": "world", "score": "drawing"}})
    with pytest.raises(ValueError, match=r"results\.json is of A/seed-0; give variants their names back"):
        opened(tmp_path, only=["B"], seeds=1)[0].result()


def test_items_that_were_not_judged_fail_a_run(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    some = {"scores": {"drawing": 1.0}, "judged": 1, "items": 3}
    monkeypatch.setattr(module, "evaluate", lambda request: some)
    runs = opened(tmp_path, only=["F"], seeds=1)
    run_all(runs, say=quiet)
    assert runs[0].failure() == "ValueError: world: 2 of 3 items were not judged"


def test_a_finished_run_is_never_repeated(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    run_all(opened(tmp_path, only=["F"], seeds=1), say=quiet)
    count = len(journal)
    run_all(opened(tmp_path, only=["F"], seeds=1), say=quiet)
    assert len(journal) == count
    run_all(opened(tmp_path, only=["A", "F"]), say=quiet)
    assert [entry[0] for entry in trained(journal)[2:]] == ["A/seed-0"] * 2 + ["F/seed-1"] * 2 + ["A/seed-1"] * 2


def test_a_stopped_run_continues_with_the_stage_that_was_not_finished(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    real = module.train

    def stopped(config: Any, **options: Any) -> Path:
        return Path(config.out) if config.steps == 8 else real(config, **options)  # what train gives after SIGTERM

    monkeypatch.setattr(module, "train", stopped)
    runs = opened(tmp_path, only=["F"], seeds=1)
    with pytest.raises(SystemExit):
        run_all(runs, say=quiet)
    assert runs[0].result() is None and runs[0].failure() is None
    monkeypatch.setattr(module, "train", real)
    run_all(runs, say=quiet)
    assert [entry[1] for entry in trained(journal)] == ["first", "second"]


def test_other_settings_are_refused_before_anything_is_trained(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    run_all(opened(tmp_path, only=["F"], seeds=1), say=quiet)
    file = tmp_path / "stage.yaml"
    file.write_text(file.read_text().replace("batch_size: 4", "batch_size: 5"))
    count = len(journal)
    with pytest.raises(ValueError, match=r"F/seed-0 was made with other settings; give another --out"):
        run_all(opened(tmp_path), say=quiet)
    assert len(journal) == count
    with pytest.raises(ValueError, match=r"F/seed-0 was made with other settings"):  # also if others are asked for
        run_all(opened(tmp_path, only=["A"]), say=quiet)
    assert len(journal) == count
    with pytest.raises(ValueError, match="--only has 'X'; expected some of F, A, D"):
        opened(tmp_path, only=["X"])


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    real = module.train

    def failing(config: Any, **options: Any) -> Path:
        if "A/seed-0" in config.out:
            raise RuntimeError("out of memory")
        return real(config, **options)

    monkeypatch.setattr(module, "train", failing)
    runs, said = opened(tmp_path, only=["F", "A"]), list[str]()
    run_all(runs, say=said.append)
    assert "A/seed-0: failed: RuntimeError: out of memory" in said
    assert [run.name for run in runs if run.result() is None] == ["A/seed-0"]
    assert "failing" in read_json(runs[1].folder / FAILED)["traceback"]
    page = write_report(runs, tmp_path).read_text()
    assert "3 runs are finished" in page and "- A/seed-0: RuntimeError: out of memory" in page

    def again(config: Any, **options: Any) -> Path:
        assert runs[1].failure() is None  # a process that ends now must not count it as failed
        return real(config, **options)

    monkeypatch.setattr(module, "train", again)
    run_all(runs, say=quiet)
    assert runs[1].result() is not None and runs[1].failure() is None


def test_a_share_of_the_steps_has_a_share_of_warm_up_and_the_same_share_of_starting_weights(tmp_path: Path) -> None:
    """After a quarter of 400 steps an EMA of 0.99 would be 37 % starting weights, after all of them 2 %."""
    stage = {"name": "train", "recipe": "stage.yaml", "set": ["steps=400", "optimizer.warmup=20"]}
    write(tmp_path, stages=[stage], metrics={}, variants={"F": {"about": ""}, "D": {"about": "", "share": 0.25}})
    (whole,), (quarter,) = ([config for _, config in run.stages] for run in opened(tmp_path, seeds=1))
    assert (quarter.steps, quarter.optimizer.warmup, whole.optimizer.warmup) == (100, 5, 20)
    assert quarter.start_share(100) == pytest.approx(whole.start_share(400)) == pytest.approx(0.018, abs=0.001)
    assert whole.ema == 0.99  # the whole stage is as the recipe says


def test_a_score_that_is_missing_fails_the_run_and_is_named(tmp_path: Path, journal: Journal) -> None:
    variants = {"F": {"about": "all of it"}}
    write(tmp_path, metrics={"x": {"evaluation": "world", "score": "KID"}}, variants=variants)
    runs = opened(tmp_path, only=["F"], seeds=1)
    run_all(runs, say=quiet)
    assert runs[0].failure() == "ValueError: world has no score 'KID'; it has drawing"


def test_a_curve_is_measured_at_its_steps_of_one_training(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path, at=[4])
    runs = opened(tmp_path, only=["F", "D"], seeds=1)
    run_all(runs, say=quiet)
    assert [entry for entry in trained(journal) if entry[0] == "F/seed-0"] == [
        ("F/seed-0", "first", "2"),
        ("F/seed-0", "second", "4"),
        ("F/seed-0", "second", "8"),
    ]
    found = [run.result() for run in runs]
    assert [None if one is None else [*one.curve] for one in found] == [[4, 8], [1, 2]]


def test_options_of_a_variant_and_the_seed_reach_an_evaluation_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def evaluate(request: Any) -> dict[str, Any]:
        asked.append((request.model, dict(request.options), dict(request.settings)))
        return {"scores": {"drawing": 1.0}, "judged": 2, "items": 2}

    monkeypatch.setattr(module, "evaluate", evaluate)
    world = {"benchmark": "tinyworld", "options": {"guidance_scale": 2.0}, "seed_setting": "seed"}
    variants = {"F": {"about": ""}, "w3": {"about": "", "options": {"guidance_scale": 3.0}}}
    metrics = {"drawing": {"evaluation": "world", "score": "drawing"}}
    write(tmp_path, stages=[], evaluations={"world": world}, variants=variants, metrics=metrics)
    run_all(opened(tmp_path), say=quiet)
    scale = "guidance_scale"
    assert asked == [("tiny", {scale: w}, {"seed": seed}) for seed in (0, 100_000) for w in (2.0, 3.0)]
    write(tmp_path, stages=[], evaluations={"world": world}, variants=variants, metrics=metrics, model="another")
    with pytest.raises(ValueError, match="F/seed-0 was made with other settings"):
        run_all(opened(tmp_path), say=quiet)


def test_parts_are_pretrained_once_and_every_run_starts_from_them(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(module, "pretrain", lambda config, **options: asked.append(config.out))
    recipe = Path(__file__).parents[2] / "recipes" / "ablation" / "parts.yaml"
    (tmp_path / "parts.yaml").write_text(recipe.read_text())
    write(tmp_path, parts="parts.yaml", model=None)
    runs = opened(tmp_path, only=["F"])
    run_all(runs, say=quiet)
    assert asked == [str(tmp_path / "out" / "parts")]
    assert {run.stages[0][1].model.checkpoint for run in runs} == {str(tmp_path / "out" / "parts" / "export")}


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path: Path, journal: Journal) -> None:
    write(tmp_path)
    runs = opened(tmp_path, seeds=1, only=["F", "A"])
    runs[0].folder.mkdir(parents=True)
    with locked(runs[0].folder / LOCK, "held"):
        run_all(runs, say=quiet)
    assert [run.result() is None for run in runs] == [True, False]


def test_what_another_process_finishes_or_fails_meanwhile_is_not_repeated(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    real, others = module.train, opened(tmp_path, only=["A", "D"], seeds=1)

    def meanwhile(config: Any, **options: Any) -> Path:
        if "F/" in config.out:
            run_all(others, say=quiet)  # as another process would, while this one trains F
        if "D/" in config.out:
            raise RuntimeError("disk full")
        return real(config, **options)

    monkeypatch.setattr(module, "train", meanwhile)
    said = list[str]()
    run_all(opened(tmp_path, seeds=1), say=said.append)
    assert said[1] == "F/seed-0: started" and not [text for text in said if text.startswith(("A", "D"))]
    assert [entry[0] for entry in trained(journal)].count("A/seed-0") == 2
    assert opened(tmp_path, seeds=1)[2].failure() == "RuntimeError: disk full"


def share(folder: Path) -> None:
    """One of two processes: runs what it finds, and writes down what it trained."""
    done = pretended(setattr)
    run_all(opened(folder), say=quiet)
    (folder / f"journal-{os.getpid()}.json").write_text(json.dumps(done))


def test_two_processes_share_the_runs_and_repeat_none(tmp_path: Path) -> None:
    write(tmp_path)
    both = [fork(share, tmp_path, said=tmp_path / f"said-{number}") for number in range(2)]
    for process in both:
        process.join(60)
        assert process.exitcode == 0, (tmp_path / "said-0").read_text()
    journals = [json.loads(file.read_text()) for file in tmp_path.glob("journal-*.json")]
    evaluated = sorted(entry[1] for one in journals for entry in one if entry[0] == "evaluate")
    assert evaluated == sorted(run.name for run in opened(tmp_path))
    assert all(run.result() is not None for run in opened(tmp_path))
