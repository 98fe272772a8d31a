"""All kinds of valid input: how each is made and used, and what is done to its files.

A subject makes its folder once; each case gets a copy in which one file is mutated, and `use` returns what a user would
see of it: two uses of the same input return the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fault_injection.checkpoints import adapted, golden, ours, pickled, transformers_janus, use_converted, use_model
from fault_injection.documents import Mutator, any_bytes, index_file, json_file, json_line, protected, yaml_file
from fault_injection.media import picture_file, tar_file, text_file
from fault_injection.records import (
    FORMATS,
    captions,
    conversations,
    metadata,
    read_records,
    shards,
    table,
    use_array,
    use_picture,
    use_recipes,
    write_picture,
    write_recipe,
)
from fault_injection.runs import (
    STEPS,
    begun_preparation,
    begun_reflow,
    begun_run,
    continued_evaluation,
    continued_preparation,
    continued_reflow,
    finished_evaluation,
    judge_files,
    resumed_run,
    use_judge,
)
from fault_injection.weights import metadata_file, paddle_file, safetensors_file, torch_file


@dataclass(frozen=True)
class Subject:
    """A kind of input.

    Attributes:
        make: writes it into a new folder.
        use: takes a folder and a place for what it writes; returns what the input says, as JSON.
        files: by path in the folder, what is done to each.
        named: whether an error must name the file or its folder; not where the user has just given the only file.
        lossy: whether damage may cost a record, which is counted and does not end the run.
    """

    make: Callable[[Path], None]
    use: Callable[[Path, Path], Any]
    files: Mapping[str, Mutator]
    named: bool = True
    lossy: bool = False


MODEL_FILES: dict[str, Mutator] = {
    "small-model/config.json": json_file,
    "small-model/processor_config.json": json_file,
    "small-model/preprocessor_config.json": json_file,
    "small-model/tokenizer_config.json": json_file,
    "small-model/tokenizer.json": json_file,
    "small-model/special_tokens_map.json": json_file,
    "small-model/model.safetensors": safetensors_file,
}
SOME_FILES = ("small-model/config.json", "small-model/model.safetensors")
STEP = f"small-run/checkpoints/step-{STEPS:07d}"
SUBJECTS: dict[str, Subject] = {
    "official": Subject(partial(golden, "janusflow-small-a"), use_model, MODEL_FILES),
    "convert": Subject(
        partial(golden, "janusflow-small-a"), use_converted, {name: MODEL_FILES[name] for name in SOME_FILES}
    ),
    "ours": Subject(
        ours,
        use_model,
        {
            "small-model/config.json": json_file,
            "small-model/generation_config.json": json_file,
            "small-model/processor_config.json": json_file,
            "small-model/model.safetensors.index.json": index_file,
            "small-model/model-00002-of-00002.safetensors": safetensors_file,
            "small-model/vae/config.json": json_file,
            "small-model/vae/diffusion_pytorch_model.safetensors": safetensors_file,
        },
    ),
    "janus": Subject(partial(golden, "janus-small-a"), use_model, {name: MODEL_FILES[name] for name in SOME_FILES}),
    "transformers": Subject(
        transformers_janus,
        use_model,
        {"small-model/config.json": json_file, "small-model/processor_config.json": json_file},
    ),
    "paddle": Subject(
        partial(golden, "janusflow-small-a-paddle"),
        use_model,
        {"small-model/model_state.pdparams": paddle_file, "small-model/image_preprocessor_config.json": json_file},
    ),
    "bin": Subject(pickled, use_model, {"small-model/pytorch_model.bin": torch_file}),
    "adapter": Subject(
        adapted,
        use_model,
        {"small-adapter/adapter_config.json": json_file, "small-adapter/adapter_model.safetensors": safetensors_file},
    ),
    "training": Subject(
        begun_run,
        resumed_run,
        {
            "small-run/settings.json": json_file,
            "small-run/log.jsonl": json_line,
            f"{STEP}/progress.json": json_file,
            f"{STEP}/streams-0.json": json_file,
            f"{STEP}/checksums.json": json_file,
            f"{STEP}/.metadata": metadata_file,
            f"{STEP}/__0_0.distcp": protected,
        },
    ),
    "preparation": Subject(
        begun_preparation, continued_preparation, {"small-out/state.json": json_file, "raw/3.png": picture_file}
    ),
    "reflow": Subject(begun_reflow, continued_reflow, {"prompts.jsonl": json_line, "small-out/reflow.json": json_file}),
    "judge": Subject(judge_files, use_judge, {"reply.json": json_file, "small-out/spent.json": json_file}, named=False),
    "evaluation": Subject(
        finished_evaluation,
        continued_evaluation,
        {
            "small-run/run.json": json_file,
            "small-run/outputs-00000.jsonl": json_line,
            "small-run/verdicts-*.jsonl": json_line,
            "small-run/report.json": json_file,
        },
    ),
    "recipes": Subject(
        write_recipe,
        use_recipes,
        {f"{name}.yaml": yaml_file for name in ("paper", "finetune", "eval", "umm")},
        named=False,
    ),
    "array": Subject(partial(conversations, lines=False), use_array, {"data/rows.json": json_file}, lossy=True),
    "lines": Subject(partial(conversations, lines=True), read_records, {"data/rows.jsonl": json_line}, lossy=True),
    "webdataset": Subject(shards, read_records, {"data/shard-1.tar": tar_file}, lossy=True),
    "parquet": Subject(table, read_records, {"data/rows.parquet": any_bytes}, lossy=True),
    "captions": Subject(captions, read_records, {"data/3.txt": text_file, "data/3.png": picture_file}, lossy=True),
    "metadata": Subject(partial(metadata, kind="jsonl"), read_records, {"data/metadata.jsonl": json_line}, lossy=True),
    "csv": Subject(partial(metadata, kind="csv"), read_records, {"data/metadata.csv": text_file}, lossy=True),
    **{
        f"picture-{name}": Subject(partial(write_picture, name), partial(use_picture, name), {name: picture_file})
        for name in FORMATS
    },
}
