#!/usr/bin/env bash
# transformers: Janus' image generation returns one step's scores and calls hidden states logits; guidance 1 fails.
#
# Versions: transformers 5.23.0, torch 2.13.0 (2026-11-29).
# Input: a random Janus that generates 4 codes out of 32 with a width of 16, one prompt; `generate(...,
#   generation_mode="image", return_dict_in_generate=True, output_scores=True, output_logits=True)`.
# Expected: as from `generate` elsewhere, `scores` and `logits` are tuples with one tensor per code, (1, 32) each; with
#   guidance_scale=1, codes of the prompt's row alone.
# Seen: `scores` is one tensor of (2, 32), the last step's before guidance, for both rows; `logits` has one tensor of
#   (2, 16), the last step's hidden states; guidance_scale=1 raises a RuntimeError about sizes 1 and 2.
# Why: both are collected after the loop over the codes, `scores` is then returned as the loop left it, and what is
#   collected as logits is the input of the generation head; without the guidance processor both rows choose codes, but
#   only one has a place.
# What it means: log-probabilities of generated codes, as policy gradients (T2I-R1, Janus-Pro-R1) or likelihoods need
#   them, are wrong or cannot be computed from the result, and nothing warns.
# What to do: run the model once more on prompt and codes; for no guidance, pass a scale slightly above 1.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet transformers==5.23.0 torch==2.13.0 2>/dev/null
cat > scores.py <<'PY'
import torch
from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration

WIDTH, CODES, SIDE = 16, 32, 2
small = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
config = JanusConfig(
    text_config={
        **small, "model_type": "llama", "intermediate_size": 32, "num_key_value_heads": 2, "vocab_size": 64,
        "max_position_embeddings": 128, "pad_token_id": 2,
    },
    vision_config={
        **small, "image_size": 16 * SIDE, "patch_size": 16, "mlp_ratio": 2.0, "projection_dim": WIDTH, "depth": 2,
        "num_image_tokens": SIDE * SIDE,
    },
    vq_config={
        "embed_dim": 8, "num_embeddings": CODES, "latent_channels": 32, "num_patches": SIDE, "base_channels": 32,
        "channel_multiplier": [1, 1], "num_res_blocks": 1, "projection_dim": WIDTH, "image_token_embed_dim": WIDTH,
    },
    image_token_id=3,
)
torch.manual_seed(0)
model = JanusForConditionalGeneration(config).eval()
model.generation_config = GenerationConfig(
    bos_token_id=0, eos_token_id=1, pad_token_id=2, guidance_scale=5.0, generation_kwargs={"boi_token_id": 4}
)
ids = torch.tensor([[0, 7, 9, 4]])
asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "generation_mode": "image", "do_sample": False}
found = model.generate(**asked, return_dict_in_generate=True, output_scores=True, output_logits=True)
print("codes", tuple(found.sequences.shape))
print("scores", type(found.scores).__name__, tuple(found.scores.shape))
print("logits", len(found.logits), tuple(found.logits[0].shape))
with torch.inference_mode():
    rows = model.model.generation_head(found.logits[-1])
same = torch.allclose(rows, found.scores, atol=1e-5)
guided = rows[1] + 5.0 * (rows[0] - rows[1])
chosen = int(guided.argmax()) == int(found.sequences[0, -1])
print("head of the last logits equals scores:", same, "| its guided choice is the code:", chosen)
try:
    model.generate(**asked, guidance_scale=1.0)
    failed = False
except RuntimeError as error:
    failed = "must match the existing size (2)" in str(error)
    print("guidance 1:", str(error)[:80])
as_seen = isinstance(found.scores, torch.Tensor) and tuple(found.scores.shape) == (2, CODES)
as_seen = as_seen and len(found.logits) == 1 and tuple(found.logits[0].shape) == (2, WIDTH)
raise SystemExit(0 if as_seen and same and failed else 1)
PY
env/bin/python scores.py
