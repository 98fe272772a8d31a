"""The lock files: every file that is installed is known by its hash, except torch's."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==\S+(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", re.MULTILINE)


def pinned(name: str) -> set[str]:
    """The packages of a lock file; each line of it belongs to one that has hashes."""
    text = (ROOT / name).read_text()
    assert not PINNED.sub("", text).strip(), "a line without a version or without hashes"
    return {match[1].lower() for match in PINNED.finditer(text)}


def test_everything_but_torch_is_locked_with_hashes() -> None:
    locked = pinned("requirements.lock")
    assert {"transformers", "diffusers", "safetensors", "numpy", "pillow", "setuptools"} <= locked
    assert "torch" not in locked
    assert pinned("requirements-quantize.lock") == {"torchao"}
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+\n", (ROOT / "requirements-torch.lock").read_text())


def test_the_environment_is_installed_with_hashes_required() -> None:
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-r requirements" in line]
    assert lines and all("--require-hashes" in line or "requirements-torch.lock" in line for line in lines)


def test_locked_versions_are_within_the_ranges_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name != "lmms"}
    locks = "".join(file.read_text() for file in ROOT.glob("requirements*.lock"))
    versions = {canonicalize_name(name): version for name, version in re.findall(r"^(\S+)==(\S+)", locks, re.MULTILINE)}
    for requirement in map(Requirement, (*project["dependencies"], *itertools.chain(*extras.values()))):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} excludes the locked {version}"
