"""A small registry of packages, packed from the files in `tests/data/pictograms`, and what is read from them."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from janusflow.pictograms import catalogue, pictures
from janusflow.pictograms.build import DEFAULT_STYLES, BuildConfig, build
from janusflow.pictograms.catalogue import Package
from janusflow.pictograms.download import Downloads
from janusflow.pictograms.features import pixels
from janusflow.pictograms.pictures import Collection, collect

DATA = Path(__file__).parents[1] / "data" / "pictograms"


def integrity(content: bytes) -> str:
    """A digest as npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}"


def packed(folder: Path) -> bytes:
    """A folder as an npm package, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(f"package/{file.relative_to(folder).as_posix()}")
            entry.size = file.stat().st_size
            tar.addfile(entry, io.BytesIO(file.read_bytes()))
    return buffer.getvalue()


def published(registry: Path, package: Package) -> Package:
    """Puts a small package into a registry; the same package with its digest."""
    content = packed(DATA / package.file.removesuffix(".tgz"))
    place = registry / package.address
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return replace(package, integrity=integrity(content))


@pytest.fixture(scope="package")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a registry with the small packages, which the catalogue then pins."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        names = published(folder, catalogue.NAMES)
        sources = tuple(
            replace(source, package=published(folder, source.package))
            for source in catalogue.SOURCES
            if source.package.registry == "npm"
        )
        for module in (catalogue, pictures):
            patch.setattr(module, "NAMES", names)
            patch.setattr(module, "SOURCES", sources)
        patch.setenv("npm_config_registry", folder.as_uri())
        yield folder


@pytest.fixture(scope="package")
def downloads(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Downloads:
    """A cache that fetches from the small registry."""
    return Downloads(tmp_path_factory.mktemp("cache"), wait=lambda seconds: None)


@pytest.fixture(scope="package")
def collection(downloads: Downloads) -> Collection:
    """All that the small packages hold."""
    return collect(DEFAULT_STYLES, downloads)


@pytest.fixture(scope="package")
def data(downloads: Downloads, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of all small packages."""
    out = tmp_path_factory.mktemp("built") / "data"
    build(out, BuildConfig(shard_size=60, workers=1), downloads)
    return out


class RandomFeatures:
    """Stands for the network: one convolution with random weights, pooled over quarters of the picture."""

    def __init__(self) -> None:
        weights = torch.randn(24, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        self.weights, self.looked = weights / 5, 0

    def __call__(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        self.looked += len(pictures)
        maps = F.conv2d(pixels(pictures, 32), self.weights, stride=2).relu()
        found: np.ndarray = F.adaptive_avg_pool2d(maps, 2).flatten(1).numpy()
        return found


@pytest.fixture
def features() -> RandomFeatures:
    """A small network in place of EfficientNet."""
    return RandomFeatures()
