#!/usr/bin/env bash
# llama.cpp's server: `logprobs` has no entry for a token that ends inside a character of several bytes.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server as a wheel), gguf 0.19.0, numpy 2.4.6 (2026-11-29).
# Input: a model that writes "é" as two tokens and then "a", again and again; twelve greedy tokens with `logprobs`.
# Expected: as in OpenAI's interface one entry a token, so twelve.
# Seen: `usage.completion_tokens` is 12 and `logprobs.content` has 8 entries. The entry of the second token of a
#   character has the text of both, and the first one's probability is nowhere.
# Why: a token after which the text ends inside a character is not added to the list (`process_token` in
#   tools/server/server-context.cpp adds it only with the text that can be sent).
# What it means: sums of log-probabilities, perplexities and calibration from the server leave out terms for every
#   character outside ASCII that a tokenizer splits; comparing token by token slips out of step, and looks like another
#   answer.
# What to do: compare `len(logprobs.content)` with `usage.completion_tokens`, and put the entries in their places by the
#   bytes of the tokens.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 2>/dev/null
cat > count.py <<'PY'
import json

import gguf
import numpy as np
import xllamacpp as llama

WIDTH, HEADS = 64, 2
TOKENS = ["<end>", "a", "Ã", "©"]  # the last two stand for the bytes of "é", C3 and A9, as in GPT-2's vocabulary
NEXT = {1: 2, 2: 3, 3: 1}

writer = gguf.GGUFWriter("model.gguf", "llama")
writer.add_context_length(128)
writer.add_embedding_length(WIDTH)
writer.add_block_count(1)
writer.add_feed_forward_length(WIDTH)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_rope_dimension_count(WIDTH // HEADS)
writer.add_file_type(gguf.LlamaFileType.ALL_F32)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(TOKENS)
writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * 3)
writer.add_token_merges(["a b"])
writer.add_bos_token_id(0)
writer.add_eos_token_id(0)
# The only block adds nothing, so the next token depends on the last one alone.
embedding, output = np.zeros((len(TOKENS), WIDTH), np.float32), np.zeros((len(TOKENS), WIDTH), np.float32)
for token in range(len(TOKENS)):
    embedding[token, token] = 1
    output[NEXT.get(token, 1), token] = 1
writer.add_tensor("token_embd.weight", embedding)
writer.add_tensor("output.weight", output)
for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
    writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

params = llama.CommonParams()
params.model.path = "model.gguf"
params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 128, 1, False, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.chat_template = "{{ messages[0]['content'] }}"
request = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 12, "temperature": 0.0}
said = llama.Server(params).handle_chat_completions(request | {"logprobs": True, "top_logprobs": 1})
said = json.loads(said) if isinstance(said, str) else said
steps = said["choices"][0]["logprobs"]["content"]
print("text:", said["choices"][0]["message"]["content"])
print("completion_tokens:", said["usage"]["completion_tokens"])
print("entries of logprobs:", [(step["id"], step["token"]) for step in steps])
told = sum(step["id"] == 2 for step in steps)
raise SystemExit(not (said["usage"]["completion_tokens"] == 12 and len(steps) == 8 and told == 0))
PY
env/bin/python count.py 2>/dev/null
