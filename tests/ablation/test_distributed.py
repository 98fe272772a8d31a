"""Workers of a Ray of this machine share the runs of an ablation."""

from __future__ import annotations

from pathlib import Path

import pytest

from janusflow.ablation.report import by_seed
from tests.ablation.conftest import opened, write

ray = pytest.importorskip("ray", reason='pip install "janusflow[ray]"')

from janusflow.ablation.distributed import RayWorkers, room, run_on_ray  # noqa: E402


def test_two_workers_share_the_runs_and_a_second_call_repeats_none(tmp_path: Path) -> None:
    variants = {"F": {"about": "two steps"}, "A": {"about": "fewer steps", "options": {"num_inference_steps": 1}}}
    short = {"prompts": 1, "images": 1, "questions": 0, "all_kinds": False, "features": False}
    world = {"benchmark": "tinyworld", "settings": short, "options": {"num_inference_steps": 2}}
    write(tmp_path, stages=[], variants=variants, evaluations={"world": world})
    runs, said = opened(tmp_path, seeds=1), list[str]()
    workers = RayWorkers(count=2, cpus=0.5)
    run_on_ray(runs, workers, device="cpu", say=said.append)
    results = [found for run in runs if (found := run.result()) is not None]
    assert said == ["0 of 2 runs are finished", "2 workers share 2 runs"] and set(by_seed(results)) == {"F", "A"}
    times = [(run.folder / "results.json").stat().st_mtime_ns for run in runs]
    run_on_ray(runs, workers, device="cpu", say=said.append)
    assert said[2:] == ["2 of 2 runs are finished"]  # no cluster is started
    assert [(run.folder / "results.json").stat().st_mtime_ns for run in runs] == times
    assert not ray.is_initialized()


def test_workers_fill_the_scarcest_resource() -> None:
    assert room({"CPU": 16.0, "GPU": 4.0}, RayWorkers(cpus=2, gpus=0.5)) == 8
    assert room({"CPU": 16.0, "GPU": 1.0}, RayWorkers(cpus=1, gpus=0.5)) == 2
    assert room({"CPU": 0.5}, RayWorkers()) == 1


def test_an_address_without_a_cluster_is_refused_in_a_sentence(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=r"ray_address is 127\.0\.0\.1:1, where no cluster answers"):
        run_on_ray(opened(tmp_path), RayWorkers(address="127.0.0.1:1"))
