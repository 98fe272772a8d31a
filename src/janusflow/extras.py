"""Require the packages of optional features, the extras of pyproject.toml, where a feature starts."""

from __future__ import annotations

import importlib

EXTRAS = {
    "datasets": "train",
    "omegaconf": "train",
    "peft": "train",
    "efficientnet_lite_pytorch": "eval",
    "fastapi": "serve",
    "httpcore2": "serve",
    "matplotlib": "eval",
    "multipart": "serve",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openai": "eval",
    "prometheus_client": "serve",
    "pyarrow": "eval",
    "resvg_py": "pictograms",
    "ray": "ray",
    "ray.serve": "ray",
    "torchao": "quantize",
    "uvicorn": "serve",
}


def require(feature: str, *packages: str, extra: str | None = None) -> None:
    """Check that the packages of a feature can be imported.

    Args:
        feature: what needs them, as the start of a sentence.
        packages: names of modules, keys of `EXTRAS`.
        extra: the extra to name instead of that in `EXTRAS`, because several contain the same package.

    Raises:
        ValueError: for the first that is missing, with the line that installs it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            named = extra or EXTRAS[package]
            raise ValueError(f'{feature} needs {package}: pip install "janusflow[{named}]"') from error
