"""Require the packages of optional features, the extras of pyproject.toml, when a feature starts."""

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
        feature: what needs the packages, as the start of a sentence.
        packages: module names, which are keys of `EXTRAS`.
        extra: extra to name instead of the one in `EXTRAS`, because several contain the same package.

    Raises:
        ValueError: for the first missing package; the message has the command that installs it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            named = extra or EXTRAS[package]
            raise ValueError(f'{feature} needs {package}: pip install "janusflow[{named}]"') from error
