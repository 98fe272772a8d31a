#!/usr/bin/env bash
# llama.cpp: with flash attention, which "auto" turns on for a CPU too, a cache of float32 is read as float16.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp's server as a wheel), gguf 0.19.0, numpy 2.4.6 (2026-11-29).
# Input: a Llama of two layers with random float32 weights, 50 tokens of a prompt, log-probabilities of the next
#   token on a CPU; caches of float32 and float16, flash attention "auto" and off.
# Expected: a cache of float32 (`--cache-type-k f32 --cache-type-v f32`) gives float32 attention.
# Seen: with "auto" both caches give the same numbers, up to 0.014 from those without flash attention; the memory of the
#   cache is twice as large for nothing. Without it, caches of float32 and float16 differ by up to 0.009.
# Why: before flash attention the graph casts keys and values to float16 (`build_attn_mha` in src/llama-graph.cpp).
# What it means: comparing a converted model with PyTorch shows deviations of about 1e-3 that look like a mistake of the
#   conversion. A picture tower in tools/mtmd casts the same way.
# What to do: turn flash attention off (`--flash-attn off`) where numbers are compared; a small Janus then agrees to 5e-6.
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 2>/dev/null
cat > compare.py <<'PY'
import json

import gguf
import numpy as np
import xllamacpp as llama

WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY = 64, 128, 2, 2, 96


def write(file):
    """A random model whose tokens are the printable characters of ASCII."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = ["<end>", *map(chr, range(33, 127)), "Ġ"]
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def matrix(name, *shape):
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH)
    matrix("output.weight", VOCABULARY, WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        matrix(f"blk.{layer}.ffn_gate.weight", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_up.weight", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def first_token(flash, cache):
    params = llama.CommonParams()
    params.model.path = "model.gguf"
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 128, 1, False, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.chat_template = "{{ messages[0]['content'] }}"
    params.flash_attn_type, params.cache_type_k, params.cache_type_v = flash, cache, cache
    request = {"messages": [{"role": "user", "content": "the quick brown fox jumps over the lazy dog and on"}]}
    request |= {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": VOCABULARY}
    said = llama.Server(params).handle_chat_completions(request)
    said = json.loads(said) if isinstance(said, str) else said
    values = {one["id"]: one["logprob"] for one in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
    return np.array([values[token] for token in sorted(values)])


write("model.gguf")
auto, off = (getattr(llama.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{name}") for name in ("AUTO", "DISABLED"))
f32, f16 = llama.ggml_type.GGML_TYPE_F32, llama.ggml_type.GGML_TYPE_F16
found = {(flash, cache): first_token(flash, cache) for flash in (auto, off) for cache in (f32, f16)}


def apart(one, other):
    return float(np.abs(found[one] - found[other]).max())


print("auto: caches of float32 and float16 differ by", apart((auto, f32), (auto, f16)))
print("off: caches of float32 and float16 differ by", apart((off, f32), (off, f16)))
print("cache of float32: auto and off differ by", apart((auto, f32), (off, f32)))
same, other, wrong = apart((auto, f32), (auto, f16)), apart((off, f32), (off, f16)), apart((auto, f32), (off, f32))
raise SystemExit(not (same == 0 and other > 1e-4 and 1e-4 < wrong < 0.1))
PY
env/bin/python compare.py 2>/dev/null
