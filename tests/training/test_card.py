"""The card of an export: what was trained, from what, for how long, and how to use it."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import ModelCard
from PIL import Image

from janusflow import JanusFlow
from tests.training.conftest import TINYWORLD, curve, quietly, settings


def test_an_export_and_its_adapters_describe_their_training(start: Path, tmp_path: Path) -> None:
    data = {"understanding": [{"kind": "tinyworld", "anchor": True}], "generation": TINYWORLD, "workers": 0}
    options = {"data": data, "parts": ["aligner", "generation", "llm"], "lora": {"rank": 2}, "ema_warmup": True}
    data["ratios"] = [{"understanding": 1, "generation": 3, "text": 0}]
    folder = quietly(settings(start, tmp_path / "mine", steps=3, **options))
    rows = curve(tmp_path / "mine")
    card, adapter = (ModelCard.load(place / "README.md") for place in (folder, folder / "adapter"))
    assert card.data.library_name == "janusflow" and adapter.data.library_name == "peft"
    assert adapter.data.tags == ["janusflow", "text-to-image", "lora"]
    for text in (card.text, adapter.text):
        for line in (
            "| trained parts | aligner, generation, llm |",
            "| steps | 3 |",
            "| batch size | 6 |",
            "| optimizer | adamw |",
            "| adapters | rank 2, alpha 32 |",
            "| weights | average over the run, decay 0.99 with warm-up |",
            "| share of the starting weights in the average | 0.455 % |",
            "| understanding | 25% | tinyworld, weight 1, anchored |",
            "| generation | 75% | tinyworld, weight 1 |",
            "18 records were taken, 0 of them broken.",
            f"| L_RF | {rows[0]['flow']:.4f} | {rows[-1]['flow']:.4f} |",
        ):
            assert line in text, line
        assert f"`{start}`" in text and "[More Information Needed]" not in text
    assert "# mine adapters" in adapter.text and f'adapter="{tmp_path}/mine/export/adapter")' in adapter.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert f'JanusFlow.from_pretrained("{tmp_path}/mine/export")' in code, "from the folder the run was started in"
    compile(code, "card", "exec")
    assert JanusFlow.from_pretrained(folder, device="cpu").network is not None


def test_a_card_says_how_much_of_the_data_is_the_users_own(start: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (16, 16), "red").save(pictures / "a.png")
    (pictures / "a.txt").write_text("a red square", encoding="utf-8")
    ratios = [{"understanding": 0, "generation": 1, "text": 0}]
    data = {"own": str(pictures), "own_share": 0.4, "workers": 0, "ratios": ratios}
    said = {"alone": "makes up all of the samples of each task", "mixed": "makes up 40 % of the samples of each task"}
    for name, others in (("alone", {}), ("mixed", {"generation": TINYWORLD})):
        folder = quietly(settings(start, tmp_path / name, steps=1, data=data | others))
        assert said[name] in (folder / "README.md").read_text(encoding="utf-8")
