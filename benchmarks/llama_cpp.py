"""Janus understanding in llama.cpp: `convert --to transformers`, llama.cpp's own converter, and its runtime.

pip install gguf xllamacpp
pip download --no-deps --no-binary :all: llama-cpp-python && tar xzf llama_cpp_python-*.tar.gz
python benchmarks/llama_cpp.py --llama-cpp llama_cpp_python-0.3.36/vendor/llama.cpp

By default, the model is the golden Janus of the tests, which is small and has random weights. transformers and
llama.cpp answer greedily from the same text and picture. The deviation is that of the log-probabilities of all tokens,
at each position up to which both have written the same.

llama.cpp's server reports no log-probabilities for a token that ends inside a character of several bytes
(`findings/llama_cpp_logprobs_skip_tokens.sh`), so the positions of such tokens are not compared.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from transformers.convert_slow_tokenizer import bytes_to_unicode

from janusflow.checkpoint.convert import convert

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "janus-small-a"
TOKENS = 24
BYTES = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
LEADS = [0] * 12 + [2, 2, 3, 4]  # bytes of a character by the first four bits of its first byte; 0 if it has only one
# The golden tokenizer splits text as GPT-2's does, and the converter knows tokenizers by a digest of their ids.
CONVERTER = """
import runpy, sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
from conversion.base import ModelBase, TextModel
known = TextModel.get_vocab_base_pre
def pre(self, tokenizer):
    try:
        return known(self, tokenizer)
    except NotImplementedError:
        return "gpt-2"
TextModel.get_vocab_base_pre = pre
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0] + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def to_gguf(llama_cpp: Path, folder: Path, file: Path, *options: str) -> None:
    """Run llama.cpp's converter in float32."""
    command = [sys.executable, "-c", CONVERTER, str(llama_cpp), str(folder), "--outtype", "f32", "--outfile", str(file)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


class Reference:
    """transformers' own model.

    Args:
        folder: folder in transformers' layout.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import JanusForConditionalGeneration, JanusProcessor

        self.processor = JanusProcessor.from_pretrained(folder)
        self.model = JanusForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def inputs(self, question: str, picture: Image.Image | None) -> Any:
        """Return ids, pixels and mask of a question, with the family's system prompt."""
        parts = [] if picture is None else [{"type": "image"}]
        talk = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
        text = self.processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        return self.processor(text=text, images=picture, return_tensors="pt", generation_mode="text")

    @torch.no_grad()
    def answer(self, inputs: Any) -> tuple[list[int], np.ndarray]:
        """Return greedy tokens, and the log-probabilities at each, (TOKENS, V)."""
        ids, pixels, scores = inputs["input_ids"], inputs.get("pixel_values"), []
        for _ in range(TOKENS):
            logits = self.model(input_ids=ids, pixel_values=pixels).logits[:, -1]
            scores.append(logits.log_softmax(-1))
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        return ids[0, -TOKENS:].tolist(), torch.cat(scores).numpy()

    def inside_character(self, ids: list[int]) -> bool:
        """Return whether the text ends inside a multi-byte character, judged by its last three bytes like llama.cpp."""
        written = bytes(
            BYTES[symbol] for token in self.processor.tokenizer.convert_ids_to_tokens(ids) for symbol in token
        )
        return any(LEADS[written[-back] >> 4] > back for back in range(1, min(3, len(written)) + 1))

    def around_picture(self, inputs: Any) -> list[str]:
        """Return the prompt's text before and after the image tokens, or the whole text if there are none."""
        tokenizer, image = self.processor.tokenizer, self.model.config.image_token_id
        ids = inputs["input_ids"][0].tolist()[1:]  # llama.cpp adds the first one
        if image not in ids:
            return [tokenizer.decode(ids)]
        return [tokenizer.decode(ids[: ids.index(image)]), tokenizer.decode(ids[len(ids) - ids[::-1].index(image) :])]


class LlamaCpp:
    """llama.cpp's server in this process.

    Args:
        model, mmproj: GGUF files of the LLM, and of the vision tower with its aligner.
        vocabulary: number of tokens.
    """

    def __init__(self, model: Path, mmproj: Path, vocabulary: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path, params.mmproj.path = str(model), str(mmproj)
        params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 512, 1, False, 0
        params.chat_template = "{{ messages[0]['content'] }}"  # prompts are already complete
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # float16 by default
        # With flash attention, the default, it would read the cache as float16.
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        self._server, self._vocabulary = xllamacpp.Server(params), vocabulary

    def answer(self, texts: list[str], picture: Image.Image | None) -> tuple[list[int], np.ndarray]:
        """Return greedy tokens that end a character, and the log-probabilities at each, (N, V).

        Args:
            texts: text before and after the picture, with the tokens that llama.cpp does not add for this family.
            picture: picture of the model's size.
        """
        parts: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
        if picture is not None:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            data = base64.b64encode(buffer.getvalue()).decode()
            parts.insert(1, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
        request = {"messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS, "temperature": 0.0}
        request |= {"logprobs": True, "top_logprobs": self._vocabulary, "ignore_eos": True}
        said = self._server.handle_chat_completions(request)
        said = json.loads(said) if isinstance(said, str) else said
        if "choices" not in said:
            sys.exit(f"llama.cpp answered {json.dumps(said)[:500]}")
        steps = said["choices"][0]["logprobs"]["content"]
        scores = np.full((len(steps), self._vocabulary), np.nan, dtype=np.float32)
        for place, step in enumerate(steps):
            for one in step["top_logprobs"]:
                scores[place, one["id"]] = one["logprob"]
        return [step["id"] for step in steps], scores


def compare(reference: Reference, runtime: LlamaCpp, question: str, picture: Image.Image | None) -> str:
    """Return one line of the report."""
    inputs = reference.inputs(question, picture)
    written, expected = reference.answer(inputs)
    whole = [place for place in range(TOKENS) if not reference.inside_character(written[: place + 1])]
    wanted, expected = [written[place] for place in whole], expected[whole]
    found, scores = runtime.answer(reference.around_picture(inputs), picture)
    same = next(
        (i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), min(len(wanted), len(found))
    )
    seen = np.s_[: same + 1]  # up to here nothing has differed
    both = min(len(scores[seen]), len(expected[seen]))
    deviation = np.nanmax(np.abs(scores[:both] - expected[:both])[expected[:both] > -20])
    return f"{same} of {len(wanted)} greedy tokens equal, log-probabilities within {deviation:.1e}"


def main(
    llama_cpp: Annotated[Path, typer.Option(help="Folder with llama.cpp's sources.")],
    model: Annotated[str, typer.Option(help="A Janus or Janus-Pro: folder or hub id, in any layout.")] = str(GOLDEN),
    picture: Annotated[Path, typer.Option()] = GOLDEN / "image_0.png",
    question: Annotated[str, typer.Option()] = "what is it?",
) -> None:
    """Convert the model, run both, and print how closely they agree."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = convert(model, Path(scratch) / "transformers", to="transformers", dtype="float32", progress=False)
        text, vision = Path(scratch) / "text.gguf", Path(scratch) / "mmproj.gguf"
        to_gguf(llama_cpp, folder, text)
        to_gguf(llama_cpp, folder, vision, "--mmproj")
        reference = Reference(folder)
        config = reference.model.config
        runtime = LlamaCpp(text, vision, config.text_config.vocab_size)
        side = config.vision_config.image_size
        image = Image.open(picture).convert("RGB").resize((side, side))  # neither resizes it: they round differently
        print("text:", compare(reference, runtime, question, None))
        print("picture:", compare(reference, runtime, question, image))


if __name__ == "__main__":
    typer.run(main)
