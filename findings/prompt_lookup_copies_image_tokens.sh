#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0: prompt lookup decoding fails for vision-language models on ordinary requests.
#
# Behaviour: `generate(..., prompt_lookup_num_tokens=N)` copies candidates from the prompt. If the tokens at the prompt's
# end also stand right before a picture ("USER: <image> ... USER:"), the candidates are the picture's placeholder tokens.
# The first pass reads the prompt and the candidates together, counts those placeholders as pictures, and raises, although
# candidates are only proposals that greedy decoding would discard. Without prompt lookup the same request works.
# Output seen:
#   greedy [7, 62, 60, 9, 35, 59]
#   prompt lookup ValueError Image features and image tokens do not match, tokens: 7, features: 128
# What to do: embed the prompt before candidates are appended (janusflow.model.picture_prompts).
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 pillow 2>/dev/null
"$place/env/bin/python" - <<'PYTHON'
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
config = LlavaConfig(
    vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **small),
    text_config=LlamaConfig(vocab_size=64, num_key_value_heads=2, **small),
    image_token_index=63,
)
model = LlavaForConditionalGeneration(config).eval()
ids = torch.tensor([[1, 5, 63, 63, 63, 63, 7, 8, 5]])  # 5 stands before the picture and at the end
request = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 16, 16), "max_new_tokens": 6, "do_sample": False}
print("greedy", model.generate(**request)[0, ids.shape[1] :].tolist())
try:
    model.generate(**request, prompt_lookup_num_tokens=3, max_matching_ngram_size=1)
except ValueError as error:
    print("prompt lookup ValueError", error)
    assert "tokens: 7, features: 128" in str(error), "another error"
else:
    raise SystemExit("prompt lookup works now")
PYTHON
