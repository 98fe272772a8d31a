#!/usr/bin/env bash
# diffusers 0.42.1 with torch 2.13.0: casting a model with `to(dtype)` always warns that modules "should be kept in
# float32", also for models that have none; the list in the message is then empty.
#
# Behaviour: `ModelMixin.to` replaces a missing list by [] and then asks whether it is None. An `AutoencoderKL`, whose
# class names no such modules, warns once per cast, and so does each model of a pipeline. A cast to float32 warns too.
# `WanTransformer3DModel`, which has such modules, gets the same message with names in the list, so a filter for the
# message would also hide the case that matters.
# Output seen:
#   AutoencoderKL, modules to keep: None, warnings: 1, list: []
#   AutoencoderKL to float32, warnings: 1, list: []
#   WanTransformer3DModel, modules to keep: 6, warnings: 1, list: 6 names
# What to do: cast the parameters one by one, or open the model with `torch_dtype`; believe only a list with names.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/run.py" <<'PYTHON'
import ast
import logging
import re

import torch
from diffusers import AutoencoderKL, WanTransformer3DModel
from diffusers.utils import logging as diffusers_logging

told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
diffusers_logging.add_handler(handler)


def listed(model, dtype):
    told.clear()
    model.to(dtype)
    found = [re.search(r"kept in float32: (\[.*?\])", text) for text in told]
    names = [ast.literal_eval(match.group(1)) for match in found if match]
    return len(names), names[0] if names else None


vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",))
count, names = listed(vae, torch.bfloat16)
print(f"AutoencoderKL, modules to keep: {vae._keep_in_fp32_modules}, warnings: {count}, list: {names}")
count, names = listed(vae, torch.float32)
print(f"AutoencoderKL to float32, warnings: {count}, list: {names}")
video = WanTransformer3DModel(num_attention_heads=2, attention_head_dim=12, text_dim=8, freq_dim=8, ffn_dim=8, num_layers=1)
count, names = listed(video, torch.bfloat16)
kept = len(video._keep_in_fp32_modules)
print(f"WanTransformer3DModel, modules to keep: {kept}, warnings: {count}, list: {len(names)} names")
PYTHON
"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 2>/dev/null
"$place/env/bin/python" "$place/run.py" 2>/dev/null | tee "$place/seen"
diff - "$place/seen" > /dev/null <<'SEEN' || exit 1
AutoencoderKL, modules to keep: None, warnings: 1, list: []
AutoencoderKL to float32, warnings: 1, list: []
WanTransformer3DModel, modules to keep: 6, warnings: 1, list: 6 names
SEEN
