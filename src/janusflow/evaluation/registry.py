"""The benchmarks by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from janusflow.arguments import quoted
from janusflow.evaluation.protocol import Benchmark

BENCHMARKS = {  # name: file of this folder, and its class
    "geneval": ("geneval", "GenEval"),
    "dpg": ("dpg", "Dpg"),
    "wise": ("wise", "Wise"),
    "mjhq": ("mjhq", "Mjhq"),
    "uni_mmmu": ("uni_mmmu", "UniMmmu"),
    "pope": ("pope", "Pope"),
    "mme": ("mme", "Mme"),
    "mmbench": ("mmbench", "MmBench"),
    "seedbench": ("seedbench", "SeedBench"),
    "vqav2": ("vqav2", "VqaV2"),
    "gqa": ("gqa", "Gqa"),
    "mmmu": ("mmmu", "Mmmu"),
    "mmvet": ("mmvet", "MmVet"),
    "tinyworld": ("world", "TinyWorld"),
}


def find_benchmark(name: str) -> type[Benchmark]:
    """The class of a benchmark.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"there is no benchmark {quoted(name)}; known are {', '.join(BENCHMARKS)}")
    file, kind = BENCHMARKS[name]
    found: type[Benchmark] = getattr(import_module(f"janusflow.evaluation.{file}"), kind)
    return found
