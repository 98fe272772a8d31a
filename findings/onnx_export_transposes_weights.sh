#!/usr/bin/env bash
# torch.onnx: by default an exported graph does not contain the weights of linear maps, but transposed copies of them.
#
# Versions: torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2 (2026-11-29).
# Input: `torch.nn.Linear(1024, 1024)` on a tensor (batch, tokens, 1024), exported with `dynamo=True`.
# Expected: an initializer "weight" that is the parameter: constant folding has limits (by default, inputs of 8,192
#   values and outputs of 262,144), and this Transpose has 1,048,576. With optimize=False it is so.
# Seen: an initializer of another name, in new memory, transposed. `input_size_limit` and `output_size_limit` do not
#   change that.
# Why: the optimizer always folds the operation Transpose, whatever its size.
# What it means: exporting takes the memory of all linear weights twice; names of parameters are lost; two graphs of one
#   network cannot share a file of weights, and no graph can refer to the checkpoint's own files.
# What to do: export with optimize=False, then call onnxscript.optimizer.optimize_ir(program.model, should_fold=...)
#   with a function that returns False for nodes of the type Transpose, and None for others.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 numpy 2>/dev/null
cat > export.py <<'PY'
import torch
from onnxscript.optimizer import optimize_ir

linear = torch.nn.Linear(1024, 1024).eval()


def kept(program):
    found = program.model.graph.initializers.get("weight")
    raw = None if found is None else getattr(found.const_value, "raw", None)
    return raw is not None and raw.data_ptr() == linear.weight.data_ptr()


def export(optimize):
    x = torch.zeros(2, 3, 1024)
    return torch.onnx.export(linear, (x,), dynamo=True, optimize=optimize, verbose=False)


print("by default:", kept(export(True)))
limited = export(False)
optimize_ir(limited.model, input_size_limit=8, output_size_limit=8)
print("with limits of 8 values:", kept(limited))
spared = export(False)
optimize_ir(spared.model, should_fold=lambda node: False if node.op_type == "Transpose" else None)
print("without Transpose:", kept(spared))
PY
env/bin/python export.py 2>/dev/null | tee seen
printf '%s\n' "by default: False" "with limits of 8 values: False" "without Transpose: True" > wanted
diff wanted seen > /dev/null || exit 1
