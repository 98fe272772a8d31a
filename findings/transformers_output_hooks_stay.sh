#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0: one call with `output_hidden_states=True` (or `output_attentions=True`) changes a
# model for good: it can no longer be pickled.
#
# Behaviour: the first such call of a process puts forward hooks, which are functions inside a function, on every decoder
# layer and attention, and they stay when it returns. From then on `pickle.dumps(model)`, `torch.save(model)` and handing
# the model to a spawned process raise AttributeError, far from the call that caused it; before the call they work.
# `copy.deepcopy` works, `state_dict` is unchanged.
# Output seen:
#   before: 0 hooks, pickles
#   after: 8 hooks, AttributeError
# What to do: read hidden states with hooks of your own that you remove, or pickle the state dict.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/run.py" <<'PYTHON'
import pickle

import torch
from transformers import LlamaConfig, LlamaModel

small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2}
model = LlamaModel(LlamaConfig(vocab_size=64, **small)).eval()


def state():
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    try:
        pickle.dumps(model)
    except AttributeError as error:
        return f"{hooks} hooks, {type(error).__name__}"
    return f"{hooks} hooks, pickles"


tokens = torch.arange(8)[None]
with torch.no_grad():
    model(tokens)
    print("before:", state())
    model(tokens, output_hidden_states=True)
    model(tokens)
    print("after:", state())
PYTHON
"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 2>/dev/null
"$place/env/bin/python" "$place/run.py" 2>/dev/null | tee "$place/seen"
printf 'before: 0 hooks, pickles\nafter: 8 hooks, AttributeError\n' | diff - "$place/seen" > /dev/null || exit 1
