"""Find benchmarks by name: those of this package, those that other packages register, and a user's own classes.

Another package registers a benchmark in its `pyproject.toml`:

    [project.entry-points."janusflow.benchmarks"]
    capitals = "my_package.capitals:Capitals"
"""

from __future__ import annotations

import ast
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from janusflow import functions
from janusflow.arguments import quoted, suggestion
from janusflow.evaluation.protocol import Benchmark
from janusflow.functions import code_of, load_function, load_plugin

GROUP = "janusflow.benchmarks"  # entry points of other packages
OWN = "MODULE:CLASS"  # a user's own class
REQUIRED = ("name", "title", "draws")
BENCHMARKS: dict[str, tuple[str, ...]] = {  # name: file in benchmarks/, class, and one line for --help
    "geneval": ("geneval", "GenEval", "objects, counts, colors and positions in generated pictures"),
    "dpg": ("dpg", "Dpg", "DPG-Bench: long prompts, each detail judged by a model"),
    "wise": ("wise", "Wise", "prompts that need world knowledge, judged by a model"),
    "mjhq": ("mjhq", "Mjhq", "MJHQ-30K: Frechet distance and CLIP similarity"),
    "uni_mmmu": ("uni_mmmu", "UniMmmu", "Uni-MMMU: the code task, pictures and descriptions judged by a model"),
    "pope": ("pope", "Pope", "yes/no questions about objects that are or are not in a picture"),
    "mme": ("mme", "Mme", "yes/no questions on perception and cognition"),
    "mmbench": ("mmbench", "MmBench", "multiple choice, circular and vanilla accuracy"),
    "seedbench": ("seedbench", "SeedBench", "SEED-Bench: multiple choice about pictures"),
    "vqav2": ("vqav2", "VqaV2", "open questions with ten people's answers each"),
    "gqa": ("gqa", "Gqa", "questions about objects, attributes and relations"),
    "mmmu": ("mmmu", "Mmmu", "college-level questions with several pictures"),
    "mmvet": ("mmvet", "MmVet", "MM-Vet: open questions, answers graded by a model"),
    "qa": ("qa", "Qa", "your own questions: --data FILE.json or FILE.jsonl"),
}


def find_benchmark(name: str) -> type[Benchmark]:
    """Return the class of a benchmark.

    Args:
        name: a key of `BENCHMARKS`, the name of an entry point in the group `janusflow.benchmarks`, or "module:Class",
            where the module is installed or in the current folder.

    Raises:
        ValueError: for an unknown name, or a class that cannot be loaded or is not a benchmark.

    Example:
        >>> find_benchmark("pope").title
        'POPE'
    """
    if name in BENCHMARKS:
        file, kind = BENCHMARKS[name][:2]
        found: type[Benchmark] = getattr(import_module(f"janusflow.evaluation.benchmarks.{file}"), kind)
        return found
    if ":" in name:
        example = "my_benchmark:Capitals for the class Capitals in my_benchmark.py"
        return _checked(load_function(name, "benchmark", form="module:Class", example=example), name)
    plugin = plugins().get(name)
    if plugin is None:
        known = [*BENCHMARKS, *plugins()]
        near = suggestion(name, known)
        raise ValueError(
            f"there is no benchmark {quoted(name)}; choose from {', '.join(known)}, and {OWN} of your own{near}"
        )
    return _checked(load_plugin(plugin, "benchmark"), name)


def plugins() -> dict[str, EntryPoint]:
    """Return the benchmarks that installed packages register, by name; built-in names are not replaced."""
    return functions.plugins(GROUP, BENCHMARKS)


def plugin_code(benchmark: Benchmark) -> str:
    """Return a digest of a plug-in's file: its verdicts are outdated when its rules have changed.

    Returns:
        The digest; "" for a benchmark of this package.
    """
    kind = type(benchmark)
    return "" if kind.__module__.startswith("janusflow.") else code_of(kind)


def summaries() -> dict[str, str]:
    """Return one line for each benchmark, by name, without importing any of them."""
    return {name: (*words, "")[2] for name, words in BENCHMARKS.items()} | {
        name: _described(found) for name, found in plugins().items()
    }


def _described(plugin: EntryPoint) -> str:
    """Return the first line of the docstring of a plug-in's module, which is read but not imported."""
    try:
        found = find_spec(plugin.module)
        source = found and found.origin and Path(found.origin).read_text(encoding="utf-8")
        words = (source and ast.get_docstring(ast.parse(source))) or ""
    except (ImportError, OSError, ValueError, SyntaxError):
        words = ""
    return words.partition("\n")[0] or f"registered as {plugin.value}"


def _checked(found: Any, name: str) -> type[Benchmark]:
    """Return a plug-in's class if it can be used."""
    if not isinstance(found, type) or not issubclass(found, Benchmark):
        raise ValueError(f"{name} is not a benchmark; expected a subclass of janusflow.evaluation.protocol.Benchmark")
    missing = [*sorted(getattr(found, "__abstractmethods__", ())), *(x for x in REQUIRED if not hasattr(found, x))]
    if missing:
        raise ValueError(f"benchmark {name} does not define {', '.join(missing)}; see docs/evaluation.md")
    return found
