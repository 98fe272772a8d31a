"""Every benchmark runs from end to end: the shipped model, small data in the official form, and stand-in judges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from janusflow import JanusFlow
from janusflow.evaluation.benchmarks.geneval import GenEval
from janusflow.evaluation.judges import open_judge as judges
from janusflow.evaluation.registry import BENCHMARKS, find_benchmark
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.test_dpg import dpg_folder
from tests.evaluation.benchmarks.test_geneval import Oracle, at, geneval_folder
from tests.evaluation.benchmarks.test_gqa import gqa_folder
from tests.evaluation.benchmarks.test_mjhq import mjhq_folder
from tests.evaluation.benchmarks.test_mmbench import mmbench_folder
from tests.evaluation.benchmarks.test_mme import mme_folder
from tests.evaluation.benchmarks.test_mmmu import mmmu_folder
from tests.evaluation.benchmarks.test_mmvet import mmvet_folder
from tests.evaluation.benchmarks.test_pope import pope_folder
from tests.evaluation.benchmarks.test_qa import qa_file
from tests.evaluation.benchmarks.test_seedbench import seed_folder
from tests.evaluation.benchmarks.test_uni_mmmu import scored, uni_mmmu_folder
from tests.evaluation.benchmarks.test_vqav2 import vqa_folder
from tests.evaluation.benchmarks.test_wise import write_prompts
from tests.evaluation.vision.test_frechet import save_inception


@dataclass(frozen=True)
class Case:
    """One benchmark: what makes its data, settings, the reply of its judge, and some of its official files."""

    folder: Callable[[Path], Path] | None
    official: tuple[str, ...]
    reply: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    items: int = 2
    score: float | None = None  # where the judge decides it alone


WISE = "Consistency: 2\nRealism: 2\nAesthetic Quality: 2"
UNI_MMMU = scored(5, 5).replace("{", '{"text_semantic_match": 1, ')
CASES = {
    "geneval": Case(
        geneval_folder, ("images/00000/metadata.jsonl", "images/00001/samples/0000.png"), settings={"images": 1}
    ),
    "dpg": Case(dpg_folder, ("grids/p2.png",), "Yes.", {"mode": "fixed"}, items=4, score=100),
    "wise": Case(lambda folder: write_prompts(folder, "legacy"), ("report.json",), WISE),
    "mjhq": Case(mjhq_folder, ("images/animals/a1.png",), settings={"clip": "", "eval_size": 32, "device": "cpu"}),
    "uni_mmmu": Case(
        uni_mmmu_folder,
        tuple(f"outputs/janusflow/code/case_01_A0/{name}" for name in ("model_image_01.png", "model_text.txt")),
        UNI_MMMU,
        {"max_new_tokens": 4},
    ),
    "pope": Case(pope_folder, ("official/answer/coco_pope_random.json",), items=3),
    "mme": Case(mme_folder, ("official/Your_Results/existence.txt",), items=28),
    "mmbench": Case(mmbench_folder, ("official/MMBench_DEV_EN.tsv",), "A"),
    "seedbench": Case(seed_folder, ("official/results.jsonl",)),
    "vqav2": Case(vqa_folder, ("official/v2_OpenEnded_mscoco_val2014_janusflow_results.json",)),
    "gqa": Case(gqa_folder, ("official/testdev_balanced_predictions.json",)),
    "mmmu": Case(mmmu_folder, ("official/total_val_output.json",)),
    "mmvet": Case(mmvet_folder, ("official/results/janusflow.json",), "0.5", score=50),
    "tinyworld": Case(None, (), settings={"prompts": 1, "images": 1, "questions": 1, "features": False}),
    "qa": Case(qa_file, ()),
}


def test_no_benchmark_is_left_out() -> None:
    assert set(CASES) == {*BENCHMARKS, "tinyworld"}


@pytest.mark.parametrize("name", list(CASES))
def test_it_runs_from_end_to_end(
    name: str, tiny_model: JanusFlow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, kind, out = CASES[name], find_benchmark(name), tmp_path / "out"
    settings = dict(case.settings)
    if not kind.draws:
        (tmp_path / "data").mkdir()
    if name == "mjhq":
        settings["inception"] = str(save_inception(tmp_path / "inception.pt"))
    if case.reply:
        settings["judge"] = "stand-in"
    opened = []
    monkeypatch.setattr(judges, "open_judge", lambda spec, **options: opened.append(spec) or Oracle(case.reply))
    monkeypatch.setattr(GenEval, "detector", lambda self, picture: [at("cat", 10, 10)])
    monkeypatch.setattr(GenEval, "judging_models", ())
    monkeypatch.setattr(GenEval, "color_namer", lambda self, picture, found: ["red"])
    options = {"num_inference_steps": 1} if kind.draws else {"max_new_tokens": 3}
    data = None if case.folder is None else case.folder(tmp_path / "data")
    request = EvalRequest(name, out, model="tiny", data=data, limit=case.items, options=options, settings=settings)
    report = evaluate(request, model=tiny_model)
    assert report["judged"] == report["items"] == case.items and not report["not_judged"]
    benchmark = request.open()
    parts = {benchmark.part(item) for item in benchmark.items()}
    assert not parts.isdisjoint(benchmark.parts_of(kind.main)) or not benchmark.parts_of(kind.main)
    assert report["scores"] and (case.score is None or report["score"] == pytest.approx(case.score))
    assert set(report["n"]) == set(report["scores"]), "every score says what it is over"
    assert all(0 <= low <= report["scores"][name] <= high for name, (low, high) in report["intervals_95"].items())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert report["title"] in page and page.count("data:image/png") >= 1
    assert all((out / file).stat().st_size for file in case.official)
    assert (out / "results.jsonl").read_text().count("\n") == case.items
    assert bool(opened) == bool(case.reply) or name == "mmbench"


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00\xd8not text", b"[" * 100_000, b""], ids=["binary", "nested", "empty"]
)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.folder is not None])
def test_a_damaged_file_is_named_in_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    case, kind = CASES[name], find_benchmark(name)
    if not kind.draws:
        (tmp_path / "data").mkdir()
    assert case.folder is not None
    data = case.folder(tmp_path / "data")
    settings = {**case.settings, "inception": "it"} if name == "mjhq" else case.settings
    request = EvalRequest(name, tmp_path / "out", data=data, settings=settings)
    benchmark = request.open()
    benchmark.items()
    files = [
        file for file in benchmark.files() if file.suffix in (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt")
    ]
    for file in [file for file in files if file.name != "object_names.txt"]:
        before = file.read_bytes()
        file.write_bytes(content)
        if not (file.suffix == ".txt" and content[:1] != b"\xff") and (content or file.suffix != ".jsonl"):
            with pytest.raises(ValueError, match=re.escape(file.name)) as caught:
                request.open().items()
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 1200
        file.write_bytes(before)
