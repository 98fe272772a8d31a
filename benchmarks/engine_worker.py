"""One process of `benchmarks/engine.py` and `curves.py`: builds a network with random weights, then runs one task per
line of input, such as "step" or "picture batch=2 steps=3".

It runs with the interpreter and the sources that it is started with: ours, an older build of ours, or the official
code, which needs transformers 4. So each builds its own network, and the official code imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROMPT, READ, SAID = 24, 600, 16  # tokens: of a prompt, of a conversation, decoded
LENGTHS = (12, 24, 48, 96)  # tokens of the prompts in one batch
STEPS = 30  # per picture of the official code
Tasks = dict[str, Callable[..., float]]  # each returns the number that its time is divided by


def ids(count: int) -> torch.Tensor:
    """Return ids of shape (1, count)."""
    return torch.arange(count)[None] + 5


def official(size: dict[str, int], grid: int, checkout: Path) -> Tasks:
    """Return tasks of the official demo's loop, which rereads the prompt in each step, and of transformers' cache."""
    import diffusers.models.embeddings  # noqa: F401 (before the stand-ins below, for which it would look)
    from transformers import LlamaConfig, LlamaForCausalLM, SiglipVisionConfig, SiglipVisionModel
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    for name in ("torchvision", "torchvision.utils"):  # imported by the official file, but not used
        sys.modules.setdefault(name, types.ModuleType(name))
    found = importlib.util.spec_from_file_location("uvit", checkout / "janus" / "janusflow" / "models" / "uvit.py")
    assert found is not None and found.loader is not None
    uvit: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(uvit)
    width = size["hidden_size"]
    llm = LlamaForCausalLM(LlamaConfig(**size, rms_norm_eps=1e-6)).eval()
    options = {"block_out_channels": [768], "layers_in_middle": 2, "hidden_size": width, "use_bias": False}
    encoder = uvit.ShallowUViTEncoder(input_channels=4, stride=2, kernel_size=2, padding=0, **options).eval()
    decoder = uvit.ShallowUViTDecoder(in_channels=768, out_channels=4, upsamples=1, **options).eval()
    into, norm, out = torch.nn.Linear(768, width), LlamaRMSNorm(width), torch.nn.Linear(width, 768)

    def picture(batch: int = 1, prompt: int = PROMPT, side: int = grid, steps: int = 1) -> float:
        z, tokens = torch.randn(batch, 4, 2 * side, 2 * side), ids(prompt).repeat(2 * batch, 1)
        mask = torch.ones(2 * batch, prompt + 1 + side**2, dtype=torch.int)
        mask[batch:, 1:prompt] = 0
        for _ in range(steps):
            z_emb, t_emb, skip = encoder(torch.cat([z, z]), torch.full((2 * batch,), 300.0, dtype=z.dtype))
            z_emb = into(z_emb.flatten(2).transpose(1, 2))
            embeds = torch.cat([llm.model.embed_tokens(tokens), t_emb[:, None], z_emb], dim=1)
            states = llm.model(inputs_embeds=embeds, use_cache=True, attention_mask=mask).last_hidden_state
            states = out(norm(states[:, -(side**2) :])).reshape(2 * batch, side, side, 768).permute(0, 3, 1, 2)
            conditional, empty = decoder(states, skip, t_emb).chunk(2)
            z = z + (2 * conditional - empty) / STEPS
        return 1

    def prefill(count: int = READ) -> Any:
        outputs = llm.model(inputs_embeds=llm.model.embed_tokens(ids(count)), use_cache=True)
        return llm.lm_head(outputs.last_hidden_state[:, -1:]).argmax(-1), outputs.past_key_values

    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    tower = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=384, patch_size=16))
    picture.holds = tower  # type: ignore[attr-defined]  # it does not run, but its weights count, as ours do
    read: list[Any] = []

    def say(token: torch.Tensor, cache: Any, count: int) -> None:
        for _ in range(count):
            outputs = llm.model(input_ids=token, past_key_values=cache, use_cache=True)
            token = llm.lm_head(outputs.last_hidden_state).argmax(-1)

    def decode() -> float:
        say(*read.pop(), SAID)
        return SAID

    def answer(prompt: int = READ, tokens: int = SAID) -> float:
        say(*prefill(prompt), tokens)
        return 1

    decode.prepare = lambda: read.append(prefill())  # type: ignore[attr-defined]
    return {
        "step": picture,
        "picture": picture,
        "thirty": lambda: picture() / STEPS,  # the time of one step, 30x
        "prefill": lambda: prefill() and 1,
        "decode": decode,
        "answer": answer,
    }


def ours(size: dict[str, int], grid: int, quantize: str | None, compiled: str) -> Tasks:
    """Return tasks of the engine behind `generate` and `chat`; a build without it runs its network directly."""
    from janusflow.config import janusflow_1b
    from janusflow.engine.generation import Sampling
    from janusflow.model import JanusFlowForConditionalGeneration

    config = janusflow_1b()
    for name, value in {**size, "head_dim": size["hidden_size"] // size["num_attention_heads"]}.items():
        setattr(config.text_config, name, value)
    network = JanusFlowForConditionalGeneration(config).eval()
    if compiled != "off":
        from janusflow.model.kernels import compile_network

        compile_network(network, compiled)
    if quantize:
        from janusflow.checkpoint import quantization

        quantization.quantize(network, quantize)
    llm = network.language_model
    noise = torch.randn(1, 4, 2 * grid, 2 * grid, dtype=torch.float32)
    prefixes = [network.encode_prompts(ids(count), torch.ones_like(ids(count))) for count in (PROMPT, *LENGTHS)]
    try:
        from janusflow.engine.jobs import Engine, Job
        from janusflow.engine.text import Slots
    except ImportError:
        return older(network, prefixes[0], noise)
    engine = Engine(network)
    try:
        from janusflow.model.kernels import product
    except ImportError:  # an older build

        def product(layer: Any, x: torch.Tensor) -> Any:
            return layer(x)

    def picture(batch: int = 1, prompt: int = PROMPT, side: int = grid, steps: int = 1, preset: str = "") -> float:
        sampling = Sampling(steps)
        if preset:
            from janusflow.presets import PRESETS

            chosen = {name: value for name, value in vars(PRESETS[preset]).items() if name != "decoder"}
            sampling = Sampling(**chosen)
        prompts = ids(prompt).repeat(batch, 1)
        read = network.encode_prompts(prompts, torch.ones_like(prompts))
        job = Job(read, torch.randn(batch, 4, 2 * side, 2 * side, dtype=torch.float32), sampling)
        making = Engine(network)
        while job.result is None:
            making.advance([job])
        return 1

    def advance(count: int) -> Callable[[], int]:
        chosen = prefixes[:1] if count == 1 else prefixes[1:]
        jobs = [Job(prefix, noise, Sampling(10_000)) for prefix in chosen]

        def run() -> int:
            engine.advance(jobs)
            return count

        return run

    def slots(rows: int) -> Any:
        return Slots(llm, rows, READ + SAID + 1), [llm.embed_tokens(ids(READ)[0])] * rows

    def prefill() -> int:
        row, embeds = slots(1)
        network.lm_head(row.read(embeds)).argmax(-1)
        return 1

    def decode(rows: int) -> Callable[[], int]:
        held: list[Any] = []

        def prepare() -> None:
            row, embeds = slots(rows)
            held[:] = [row, row.read(embeds)]

        def run() -> int:
            row, states = held
            for _ in range(SAID):
                states = row.step(llm.embed_tokens(product(network.lm_head, states).argmax(-1)))
            return SAID * rows

        run.prepare = prepare  # type: ignore[attr-defined]
        return run

    def answer(prompt: int = READ, tokens: int = SAID) -> float:
        row = Slots(llm, 1, prompt + tokens + 1)
        states = row.read([llm.embed_tokens(ids(prompt)[0])])
        for _ in range(tokens):
            states = row.step(llm.embed_tokens(product(network.lm_head, states).argmax(-1)))
        return 1

    x = torch.randn(2 * (1 + grid**2), size["hidden_size"])
    wide = torch.randn(len(x), size["intermediate_size"])

    def linear() -> int:
        for layer in llm.layers:
            for part in (layer.self_attn, layer.mlp):
                for name, module in part.named_children():
                    if name.endswith("_proj"):
                        module(wide if name == "down_proj" else x)
        return 1

    tasks: Tasks = {"step": advance(1), "batch": advance(len(LENGTHS)), "linear": linear, "picture": picture}
    tasks |= {"fast": lambda: picture(preset="fast"), "answer": answer}
    return {**tasks, "prefill": prefill, "decode": decode(1), "decode8": decode(8)}


def older(network: Any, prefix: Any, noise: torch.Tensor) -> Tasks:
    """Return the tasks of a build before the engine."""
    both = type(prefix).concatenate(prefix, prefix.unconditional())

    def step() -> int:
        network.velocity(torch.cat([noise, noise]), torch.full((2,), 0.3, dtype=torch.float32), both)
        return 1

    def prefill() -> int:
        network(input_ids=ids(READ), use_cache=True, logits_to_keep=1)
        return 1

    return {"step": step, "prefill": prefill}


def peak(reset: bool) -> int:
    """Return the largest resident memory since the last reset, in bytes (Linux)."""
    if reset:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that the last task freed would count as in use
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    """Print a JSON line when ready and after each task.

    The argument is JSON: kind, size, grid (image tokens per side), dtype, threads, checkout; quantize and compile for
    our network; and the device if it is not cpu.
    """
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    torch.set_default_dtype(getattr(torch, given["dtype"]))
    device = torch.device(given.get("device", "cpu"))
    torch.set_default_device(device)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    answers, sys.stdout = sys.stdout, sys.stderr
    shape = given["size"], given["grid"]
    if given["kind"] == "official":
        tasks = official(*shape, Path(given["checkout"]))
    else:
        tasks = ours(*shape, given.get("quantize"), given.get("compile", "off"))
    print(json.dumps({"tasks": list(tasks), "torch": torch.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        name, *options = line.split()
        task, numbers = tasks[name], {key: int(value) for key, value in (option.split("=") for option in options)}
        getattr(task, "prepare", lambda: None)()
        before = peak(reset=True)
        synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        synchronize()
        started, computed = time.perf_counter(), time.process_time()
        count = task(**numbers)
        synchronize()
        seconds, cpu = (time.perf_counter() - started) / count, (time.process_time() - computed) / count
        found = {"seconds": seconds, "cpu": cpu, "memory": peak(reset=False) - before, "total": peak(reset=False)}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
