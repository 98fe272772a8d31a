#!/usr/bin/env bash
# transformers 5.23.0 and 5.24.0, torch 2.13.0: from 5.24 on, `generate` gives other tokens for a model whose own
# `forward` takes `past_key_values` and `**kwargs`, as models written for earlier versions do.
#
# Behaviour: 5.24 renames the cache. `generate` passes it to `forward` as `cache` and reads it back as `outputs.cache`.
# Such a `forward` swallows `cache` among its other arguments: each step then reads only the newest token, at the right
# position, without anything before it. Nothing is raised; a deprecation is logged for the old name, which is what the
# model passes on, not for the argument that is lost. With `use_cache=False` the answer is right.
# Output seen:
#   5.23.0 equal with and without a cache
#   5.24.0 other tokens with a cache
# What to do: take both names in `forward` and return the cache under the name that `CausalLMOutputWithPast` has
# (`CACHE` in janusflow's `model/prefix.py`).
#
# Exits 0 while this is so, 1 if it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/run.py" <<'PYTHON'
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast


class WithOwnForward(LlamaForCausalLM):
    def forward(self, input_ids=None, past_key_values=None, use_cache=None, position_ids=None, **kwargs):
        states = self.model(
            input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache, position_ids=position_ids
        )
        logits = self.lm_head(states.last_hidden_state)
        return CausalLMOutputWithPast(logits=logits, past_key_values=states.past_key_values)


torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
model = WithOwnForward(LlamaConfig(vocab_size=64, bos_token_id=1, eos_token_id=None, **small)).eval()
for parameter in model.parameters():
    if parameter.ndim == 2:
        torch.nn.init.normal_(parameter, std=0.3)
prompt = torch.tensor([[1, 5, 9, 13]])
cached, plain = (
    model.generate(prompt, max_new_tokens=8, do_sample=False, use_cache=used, pad_token_id=0) for used in (True, False)
)
same = torch.equal(cached, plain)
print(transformers.__version__, "equal with and without a cache" if same else "other tokens with a cache")
PYTHON
for version in 5.23.0 5.24.0; do
  "${PYTHON:-python3}" -m venv "$place/$version"
  "$place/$version/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 "transformers==$version" 2>/dev/null
  "$place/$version/bin/python" "$place/run.py" 2>/dev/null | tee -a "$place/seen"
done
printf '5.23.0 equal with and without a cache\n5.24.0 other tokens with a cache\n' | diff - "$place/seen" > /dev/null || exit 1
