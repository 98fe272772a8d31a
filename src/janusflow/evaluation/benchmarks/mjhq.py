"""MJHQ-30k (arXiv 2402.17245): pictures from 30,000 prompts against chosen ones: FID and CLIP similarity.

There are ten categories of 3,000 prompts. The paper reports the FID of all at guidance 2 and 30 steps. Its ablation has
1,000 prompts per category (`per_category=1000`), guidance 7.5, and also the similarity of CLIP ViT-L/14.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval
from PIL import Image

from janusflow.evaluation.data import find_file
from janusflow.evaluation.protocol import Benchmark, Item, Output, Row
from janusflow.evaluation.score_sample import ScoreSample, over
from janusflow.evaluation.vision.clip import Clip
from janusflow.evaluation.vision.frechet import EVAL_SIZE, Features, frechet_distance
from janusflow.files import loads, temporary_path
from janusflow.processing.images import load_image

DRAWN, CHOSEN = 0, 1  # rows of a picture's feature file
WANTED = "a JSON object of each picture's prompt and category"


@dataclass(frozen=True)
class MjhqSettings:
    """Settings of MJHQ-30k.

    Attributes:
        inception: Inception-v3 as a TorchScript file; "" leaves the FID out.
        clip: CLIP model, as a folder or a name on the hub; "" leaves the similarity out.
        clip_prefix: text before each prompt for CLIP (some add "A photo depicts").
        per_category: number of prompts of each category, the first ones; 0 for all.
        eval_size: side in pixels to which both sets are resized before Inception's own size.
        seed: seed of the first picture; the next pictures have the next seeds.
        device: device of both models.
    """

    inception: str = ""
    clip: str = "openai/clip-vit-large-patch14"
    clip_prefix: str = ""
    per_category: Annotated[int, Interval(ge=0, le=100_000)] = 0
    eval_size: Annotated[int, Interval(ge=1, le=65_536)] = EVAL_SIZE
    seed: Annotated[int, Interval(ge=0, lt=2**63)] = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.inception and not self.clip:
            raise ValueError("neither inception nor clip is given; MJHQ-30k needs one, FID with --set inception=FILE")


class Mjhq(Benchmark):
    """MJHQ-30k: FID and CLIP similarity over the judged prompts.

    The FID between generated and chosen pictures is the main score (lower is better). The similarity is 100 times the
    mean cosine between CLIP's embeddings of picture and prompt (higher is better). Both sets are those of the judged
    items, so a partial run compares like with like, but its FID is higher than that of all items.
    """

    name = "mjhq"
    title = "MJHQ-30k"
    draws = True
    Settings = MjhqSettings
    judging = (*Benchmark.judging, "inception", "clip", "clip_prefix", "eval_size")
    judging_models = ("clip",)
    main = "fid"
    bootstrap = False
    lower_is_better = True
    source = "meta_data.json and pictures CATEGORY/ID.jpg of the data set playgroundai/MJHQ-30K"
    published: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "JanusFlow 384 (paper)": {"fid": 9.51},
        "JanusFlow 256 (paper)": {"fid": 12.70},
        "Janus (paper)": {"fid": 10.10},
        "Show-o (paper)": {"fid": 15.18},
        "JanusFlow, ablation F (paper; 10k pictures, w=7.5)": {"fid": 17.61, "clip": 26.40},
    }

    def items(self) -> list[Item]:
        """Return the items in the file's order."""
        found, counts = [], Counter[str]()
        for index, (name, record) in enumerate(self._records().items()):
            category = record["category"]
            counts[category] += 1
            if 0 < self.settings.per_category < counts[category]:
                continue
            if self.settings.inception and not self.limited:
                self._chosen(category, name)
            seed, data = self.settings.seed + index, {"id": name, "category": category}
            found.append(Item(f"{category}/{name}", record["prompt"], seed=seed, data=data))
        return found

    def files(self) -> list[Path]:
        return [self._file]

    def references(self, item: Item) -> list[Path]:
        assert self.data is not None
        return [self.data / item.data["category"] / f"{item.data['id']}.jpg"] if self.settings.inception else []

    def check_models(self) -> None:
        super().check_models()
        if self.settings.inception and not Path(self.settings.inception).expanduser().is_file():
            raise ValueError(
                f"inception is {self.settings.inception!r}, which is not a file; expected an Inception as TorchScript"
            )

    def judge(self, item: Item, output: Output) -> dict[str, Any]:
        """Return 100 times the cosine (0 without CLIP), and the file under `self.out` with both pictures' features."""
        assert isinstance(output, Image.Image)
        known: dict[str, Any] = {}
        if self.settings.inception:
            chosen = load_image(self._chosen(item.data["category"], item.data["id"]))
            name = self._features_of(item, (output, chosen))
            file = self.out / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary_path(file, tidy=False) as temporary:
                with temporary.open("wb") as stream:
                    np.save(stream, self.features([output, chosen]))
                temporary.replace(file)
            known["features"] = name
        if not self.settings.clip:
            return {"score": 0.0, **known}
        vectors = self.clip.pictures([output]), self.clip.texts([f"{self.settings.clip_prefix} {item.prompt}".strip()])
        likeness = 100 * float((vectors[0] * vectors[1]).sum())
        return {"score": likeness, "clip": likeness, **known}

    def scores(self, rows: Sequence[Row]) -> dict[str, float]:
        found = {}
        if self.settings.inception and len(rows) > 1:
            features = np.stack([self._load_features(row) for row in rows])  # (N, 2, D)
            found["fid"] = frechet_distance(features[:, DRAWN], features[:, CHOSEN])
        likeness = [float(row.verdict["clip"]) for row in rows if "clip" in row.verdict]
        return {**found, "clip": sum(likeness) / len(likeness)} if likeness else found

    def samples(self, rows: Sequence[Row]) -> dict[str, ScoreSample]:
        return {"fid": over(rows), "clip": over(row for row in rows if "clip" in row.verdict)}

    @cached_property
    def features(self) -> Features:
        """The Inception model, opened on first use."""
        path = Path(self.settings.inception).expanduser()
        return Features.open(path, device=self.settings.device, eval_size=self.settings.eval_size)

    @cached_property
    def clip(self) -> Clip:
        """The CLIP model, opened on first use."""
        return Clip.open(self.settings.clip, device=self.settings.device)

    @property
    def _file(self) -> Path:
        return find_file(self, "meta_data.json")

    def _records(self) -> Mapping[str, Mapping[str, str]]:
        try:
            found = loads(self._file.read_text(encoding="utf-8"), finite=False)
            odd = next(
                (k for k, v in found.items() if not all(isinstance(v[n], str) for n in ("prompt", "category"))), None
            )
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{self._file} is damaged or not MJHQ-30k's ({error!r}); expected {WANTED}") from error
        if odd is not None:
            raise ValueError(f"{self._file}: prompt or category of {odd} is not text; expected {WANTED}")
        records: Mapping[str, Mapping[str, str]] = found
        return records

    def _chosen(self, category: str, name: str) -> Path:
        assert self.data is not None
        file = self.data / category / f"{name}.jpg"
        if not file.is_file():
            raise ValueError(f"{file} does not exist; expected {self.source}, unpacked next to meta_data.json")
        return file

    def _features_of(self, item: Item, pictures: Sequence[Image.Image]) -> str:
        """Return the file of two pictures' features, which is another one if a picture has changed."""
        content = hashlib.sha256(f"{self.settings.inception} {self.settings.eval_size}".encode())
        for picture in pictures:
            content.update(f"{picture.mode}{picture.size}".encode() + picture.tobytes())
        return f"features/{item.key}-{content.hexdigest()[:16]}.npy"

    def _load_features(self, row: Row) -> np.ndarray:
        file = self.out / row.verdict.get("features", f"features/{row.item.key}.npy")  # older verdicts do not name it
        try:
            found: np.ndarray = np.load(file)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(
                f"{file} is missing or damaged; delete the run's verdicts to judge its picture again"
            ) from error
        return found
