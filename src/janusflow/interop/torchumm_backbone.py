"""A model of the family as one of TorchUMM's backbones: its keys, defaults and results."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from janusflow.arguments import number_from, quoted, suggestion, whole_number
from janusflow.engine.decoding import SAMPLING
from janusflow.flow import standard_normal
from janusflow.pipelines.base import Pipeline

UNDERSTANDING = {"max_new_tokens": 512, "do_sample": False, "use_cache": True}
JANUS_GENERATION = {
    "temperature": 1.0,
    "parallel_size": 4,
    "cfg_weight": 5.0,
    "image_token_num_per_image": 576,
    "img_size": 384,
    "patch_size": 16,
}
BACKBONES: dict[str, tuple[str, str, dict[str, Any]]] = {  # name -> family, hub id, generation defaults
    "janus_flow": (
        "JanusFlow",
        "deepseek-ai/JanusFlow-1.3B",
        {"cfg_weight": 2.0, "num_inference_steps": 30, "parallel_size": 5, "img_size": 384},
    ),
    "janus": ("Janus", "deepseek-ai/Janus-1.3B", JANUS_GENERATION),
    "janus_pro": ("Janus", "deepseek-ai/Janus-Pro-7B", JANUS_GENERATION),
}
DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16", "half": "float16"}
DECODING = ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
KNOWN = {*JANUS_GENERATION, "num_inference_steps", *UNDERSTANDING, *DECODING}  # keys of requests
LARGEST_SIZE = 1024
FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}


class Backbone:
    """A model of the family behind TorchUMM's interface for backbones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.family, self.model_path, defaults = BACKBONES[name]
        self.generation_cfg, self.understanding_cfg = dict(defaults), dict(UNDERSTANDING)
        self.generator = torch.Generator()
        self.model: Pipeline | None = None
        self._settings: Mapping[str, Any] = {}  # of the last `load`

    def load(self, cfg: Mapping[str, Any]) -> None:
        """Open the model.

        Args:
            cfg: model_path, vae_path, seed (42), torch_dtype ("bfloat16"), generation_cfg, understanding_cfg, device
                ("auto"), sft_format (the checkpoint's); janus_root is accepted but not needed.

        Raises:
            ValueError: if the model cannot be opened or is not of the backbone's family.
        """
        self._settings = cfg = _given(cfg)
        self.generation_cfg.update(_known(cfg.get("generation_cfg", {})))
        self.understanding_cfg.update(_known(cfg.get("understanding_cfg", {})))
        self.generator.manual_seed(int(cfg.get("seed", 42)))
        dtype = str(cfg.get("torch_dtype", "bfloat16")).lower().removeprefix("torch.")
        options: dict[str, Any] = {"dtype": DTYPES.get(dtype, dtype), "device": cfg.get("device", "auto")}
        options["sft_format"] = cfg.get("sft_format")
        if self.name == "janus_flow" and cfg.get("vae_path"):
            options["vae"] = cfg["vae_path"]
        path = cfg.get("model_path") or self.model_path
        self.model = Pipeline.from_pretrained(path, progress=False, **options)
        if self.model.family.name != self.family:
            raise ValueError(f"backbone is {self.name!r}, but {path} is a {self.model.family.name} model")

    def generation(
        self, prompt: str | None, output_path: str | None = None, generation_cfg: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Generate pictures of one prompt: `image`, `images`, `saved_paths`."""
        return self.generate_many([(prompt, output_path)], generation_cfg or {})[0]

    def generate_many(
        self, wanted: Sequence[tuple[str | None, str | None]], generation_cfg: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Generate pictures of several prompts in one batch, with the same noise as one after the other.

        Args:
            wanted: (prompt, output path) of each.
        """
        config = {**self.generation_cfg, **_known(generation_cfg)}
        for prompt, _ in wanted:
            if not isinstance(prompt, str) or not prompt:
                raise ValueError("`prompt` is required for task `generation`.")
        each = whole_number("parallel_size", config["parallel_size"])
        size = whole_number("img_size", config["img_size"], most=LARGEST_SIZE)
        prompts = [str(prompt) for prompt, _ in wanted]
        pictures = self._generate(prompts, each, config)
        resized = [picture.resize((size, size), Image.Resampling.LANCZOS) for picture in pictures]
        results = []
        for number, (_, path) in enumerate(wanted):
            own = resized[number * each : (number + 1) * each]
            results.append({"image": own[0], "images": own, "saved_paths": _save(own, path)})
        return results

    def _generate(self, prompts: list[str], each: int, config: Mapping[str, Any]) -> list[Image.Image]:
        model, count = self._loaded(), len(prompts) * each
        options: dict[str, Any] = {
            "num_images_per_prompt": each,
            "guidance_scale": number_from("cfg_weight", config["cfg_weight"]),
            "batch_size": count,
            "progress": False,
        }
        if "latents" not in signature(model.generate).parameters:
            seeds = [seed for _ in prompts for seed in self._chance(config, each)]
            options.update(seed=seeds, temperature=number_from("temperature", config["temperature"]))
        else:
            sizes = model.network.config
            shape = (each, sizes.latent_channels, sizes.latent_size, sizes.latent_size)
            noises = [standard_normal(shape, self._seeded(config)) for _ in prompts]
            options.update(latents=torch.cat(noises), num_inference_steps=config["num_inference_steps"])
        pictures: list[Image.Image] = model.generate(prompts, **options)
        return pictures

    def _seeded(self, config: Mapping[str, Any]) -> torch.Generator:
        """Return the backbone's generator; a request with a seed reseeds it, as if it were the only one."""
        return self.generator.manual_seed(int(config["seed"])) if "seed" in config else self.generator

    def _chance(self, config: Mapping[str, Any], count: int) -> list[int]:
        """Return seeds for a request's pictures or answers."""
        generator = self._seeded(config)
        return torch.randint(2**62, (count,), generator=generator, device=generator.device).tolist()

    def understanding(
        self,
        prompt: str | None = None,
        images: Sequence[str] | None = None,
        videos: Sequence[str] | None = None,
        understanding_cfg: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Answer one question: `text`, and the conversation as the tokenizer got it, `sft_format`."""
        return self.understand_many([(prompt, images or [], videos or [])], understanding_cfg or {})[0]

    def understand_many(
        self,
        asked: Sequence[tuple[str | None, Sequence[str], Sequence[str]]],
        understanding_cfg: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Answer several questions, in one batch unless they are sampled.

        Args:
            asked: (prompt, images, videos) of each.
        """
        model, talks = self._loaded(), []
        for prompt, images, videos in asked:
            if videos:
                raise NotImplementedError(f"{self.name} does not understand videos.")
            if not prompt and not images:
                raise ValueError("Understanding requires at least one input: prompt or images.")
            images = [images] if isinstance(images, str) else images
            for path in images:
                if not Path(path).expanduser().exists():
                    raise FileNotFoundError(f"Understanding image not found: {path}")
            paths = [str(Path(path).expanduser()) for path in images]
            content = model.processor.question(prompt or "Describe the image.", len(paths))
            talks.append([{"role": "user", "content": content, "images": paths}])
        config = {**self.understanding_cfg, **_known(understanding_cfg)}
        options = decoding(config)
        if options.get("do_sample"):
            answers = [model.chat_batch([t], **{**options, "seed": self._chance(config, 1)[0]})[0] for t in talks]
        else:
            answers = model.chat_batch(talks, **options)
        texts = [model.processor.render(talk) for talk in talks]
        return [{"text": answer, "sft_format": text} for answer, text in zip(answers, texts, strict=True)]

    def editing(self, **request: Any) -> dict[str, Any]:
        """Raise an error: no released weights of the family were trained for editing.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{self.name} does not edit pictures; its released weights were not trained for it.")

    def close(self) -> None:
        """Release the model."""
        self.model = None

    def _loaded(self) -> Pipeline:
        if self.model is None:
            self.load(self._settings)
        assert self.model is not None
        return self.model


def _given(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without the values that are None."""
    return {name: value for name, value in config.items() if value is not None}


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without the values that are None; warns of keys that have no effect."""
    given = _given(config)
    if odd := sorted(given.keys() - KNOWN):
        warnings.warn(f"{quoted(odd[0])} has no effect{suggestion(odd[0], KNOWN)}", stacklevel=4)
    return given


def decoding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that transformers' `generate` would use: without None, and greedy for temperature 0."""
    given = {name: config[name] for name in DECODING if config.get(name) is not None}
    if given.get("do_sample") and given.get("temperature") == 0:
        given["do_sample"] = False
    return given if given.get("do_sample") else {k: v for k, v in given.items() if k not in SAMPLING}


def _save(pictures: Sequence[Image.Image], output_path: str | None) -> list[str]:
    if not output_path:
        return []
    place = Path(output_path).expanduser()
    place = place / "output.png" if place.is_dir() else place
    place.parent.mkdir(parents=True, exist_ok=True)
    suffix, stem = place.suffix or ".png", place.stem or "output"
    names = [f"{stem}{suffix}"] if len(pictures) == 1 else [f"{stem}_{i}{suffix}" for i in range(len(pictures))]
    files = [place.with_name(name) for name in names]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file, format=FORMATS.get(suffix.lower().lstrip("."), "PNG"))
    return [str(file) for file in files]
