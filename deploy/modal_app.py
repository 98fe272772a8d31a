"""Run evaluations on Modal: build an image from the lock file, mount weights and data, and run `janusflow eval`.

    modal run deploy/modal_app.py --model janus_flow --eval-config geneval
    modal run deploy/modal_app.py --model janus_flow --eval-config modal_geneval_janus_flow --mode generate

`--eval-config` is a recipe of `recipes/eval`, or a name from TorchUMM's page: modal_geneval_janus_flow,
modal_dpg_bench_janus_flow, modal_wise_janus_flow, modal_uni_mmmu_janus_flow (with `_score` at the end to only score).
The volume janusflow-data is the recipes' folder data/eval (`modal volume put janusflow-data geneval/prompts /geneval`);
weights from the hub stay in janusflow-weights, and runs are resumed in janusflow-runs. A judge's key is the Modal
secret that JANUSFLOW_SECRET names; JANUSFLOW_GPU and JANUSFLOW_HOURS are the machine (L40S) and the longest run (24).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import modal

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "eval"
CODE, WEIGHTS = "/code", "/weights"  # in the container
DATA, RUNS = f"{CODE}/data/eval", f"{CODE}/runs"  # where recipes that run in CODE read and write
MODELS = {"janus_flow": "deepseek-ai/JanusFlow-1.3B", "janusflow": "deepseek-ai/JanusFlow-1.3B"}
THEIRS = {"dpg_bench": "dpg"}  # TorchUMM's names of benchmarks that have other names here
SHIPPED = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE")  # in addition to src and recipes


def find_recipe(eval_config: str, model: str = "janus_flow") -> tuple[str, str | None]:
    """Return a recipe's name and the requested mode, if any.

    Args:
        eval_config: "geneval", "modal_geneval_janus_flow" or "modal_geneval_janus_flow_score".
        model: model given to the launcher; a TorchUMM name in `eval_config` must be this model's.

    Raises:
        ValueError: if there is no such recipe.
    """
    name, mode = eval_config.removesuffix(".yaml"), None
    if name.startswith("modal_"):
        name = name.removeprefix("modal_")
        if name.endswith("_score"):
            name, mode = name.removesuffix("_score"), "score"
        if not name.endswith("_janus_flow") or model not in MODELS:
            raise ValueError(f"{eval_config!r} is no config of model {model!r}; expected modal_BENCHMARK_janus_flow")
        name = name.removesuffix("_janus_flow")
        name = THEIRS.get(name, name)
    known = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    if name not in known:
        raise ValueError(f"there is no recipe {name!r} in recipes/eval; known are {', '.join(known)}")
    return name, mode


def command(
    eval_config: str, *, model: str = "janus_flow", mode: str = "", limit: int = 0, more: str = ""
) -> list[str]:
    """Return the command that runs in the container, as words.

    Args:
        eval_config: see `find_recipe`.
        model: a name of `MODELS`, a hub id, or a folder in the volume of weights.
        mode: full, generate or score; "" for the mode of the config.
        limit: number of first items to use; 0 for all.
        more: settings "key=value", separated by spaces.
    """
    recipe, asked = find_recipe(eval_config, model)
    words = ["janusflow", "eval", "--config", f"recipes/eval/{recipe}.yaml", "--model", MODELS.get(model, model)]
    words += ["--out", f"runs/eval/{recipe}/{model.strip('/').replace('/', '--')}"]
    words += ["--mode", mode or asked] if mode or asked else []
    words += ["--limit", str(limit)] if limit else []
    for setting in more.split():
        words += ["--set", setting]
    return words


image = (
    modal.Image.debian_slim(python_version="3.11")
    .pip_install_from_requirements(str(ROOT / "requirements-torch.lock"))
    .pip_install_from_requirements(str(ROOT / "requirements.lock"))
    .env({"HF_HOME": f"{WEIGHTS}/huggingface", "PYTHONUNBUFFERED": "1"})
)
for name in SHIPPED:
    image = image.add_local_file(str(ROOT / name), f"{CODE}/{name}", copy=True)
for name in ("src", "recipes"):
    image = image.add_local_dir(
        str(ROOT / name), f"{CODE}/{name}", copy=True, ignore=["**/__pycache__", "**/*.egg-info"]
    )
image = image.run_commands(f"pip install --no-deps --no-build-isolation {CODE}")

app = modal.App("janusflow-eval")
weights = modal.Volume.from_name("janusflow-weights", create_if_missing=True)
data = modal.Volume.from_name("janusflow-data", create_if_missing=True)
runs = modal.Volume.from_name("janusflow-runs", create_if_missing=True)
secret = os.environ.get("JANUSFLOW_SECRET")


@app.function(
    image=image,
    gpu=os.environ.get("JANUSFLOW_GPU", "L40S"),
    timeout=int(float(os.environ.get("JANUSFLOW_HOURS", "24")) * 3600),
    volumes={WEIGHTS: weights, DATA: data, RUNS: runs},
    secrets=[modal.Secret.from_name(secret)] if secret else [],
)
def evaluate(words: list[str]) -> None:
    """Run a command in the container; what it wrote is kept even if it fails."""
    try:
        subprocess.run(words, cwd=CODE, check=True)
    finally:
        runs.commit()


@app.local_entrypoint()
def main(
    model: str = "janus_flow", eval_config: str = "geneval", mode: str = "", limit: int = 0, settings: str = ""
) -> None:
    """`modal run deploy/modal_app.py --model ... --eval-config ...`."""
    words = command(eval_config, model=model, mode=mode, limit=limit, more=settings)
    print(" ".join(words))
    evaluate.remote(words)
