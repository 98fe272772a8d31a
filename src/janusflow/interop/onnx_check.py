"""Compare ONNX graphs with the network: each runs in ONNX Runtime on inputs of other sizes than it was traced with.

The expected outputs come from the network's own paths (`encode_prompts`, `velocity`, `forward`, ...), which the graphs
do not share, so errors in `onnx_graphs.py` show here as well as those of the exporter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from janusflow.device import CPU
from janusflow.interop.onnx_graphs import cache_shape
from janusflow.model import JanusFlowForConditionalGeneration
from janusflow.vae import LatentCodec

ROWS = (1, 3)  # rows of the cases; graphs are traced with two
TEXT = 7  # a case has this many tokens plus its number of rows


class Session:
    """A graph in ONNX Runtime on the CPU.

    Args:
        file: file of the graph.
    """

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: Tensor) -> list[Tensor]:
        """Run the graph on named inputs and return its outputs."""
        arrays = {name: value.numpy() for name, value in inputs.items()}
        return [torch.from_numpy(np.asarray(output)) for output in self._session.run(None, arrays)]


@dataclass
class Case:
    """Inputs of R rows.

    Attributes:
        ids: (R, T) tokens.
        mask: (R, T) 1 at tokens; in cases of several rows, all but the first row are padded.
        pixels: (R, 3, S, S) in [-1, 1].
        latents: (R, C, H, W) and t: (R,).
        keys, values: those of the tokens padded on the right, as the graph of the language model returned them.
    """

    ids: Tensor
    mask: Tensor
    pixels: Tensor
    latents: Tensor
    t: Tensor
    keys: Tensor = field(default_factory=lambda: torch.empty(0))
    values: Tensor = field(default_factory=lambda: torch.empty(0))

    @classmethod
    def of(cls, network: JanusFlowForConditionalGeneration, rows: int) -> Case:
        """Return random inputs, the same each time."""
        config, generator = network.config, torch.Generator(CPU).manual_seed(rows)
        tokens, side = TEXT + rows, config.vision_config.image_size
        mask = torch.ones(rows, tokens, dtype=torch.int64)
        for row in range(1, rows):
            mask[row, -row:] = 0
        latent = (rows, config.latent_channels, config.latent_size, config.latent_size)
        return cls(
            torch.randint(config.text_config.vocab_size, (rows, tokens), generator=generator),
            mask,
            torch.rand(rows, 3, side, side, generator=generator) * 2 - 1,
            torch.randn(latent, generator=generator),
            torch.rand(rows, generator=generator),
        )


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return max |found - expected| / max |expected|."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def relative_errors(
    network: JanusFlowForConditionalGeneration, codec: LatentCodec | None, files: Mapping[str, Path]
) -> dict[str, float]:
    """Return the largest relative error of each graph.

    Args:
        network: the network, in float32 on the CPU.
        codec: its VAE, if `files` has a `vae_decoder`.
        files: files of the graphs, by name.
    """
    cases = [Case.of(network, rows) for rows in ROWS]
    checks = {
        "token_embeddings": lambda run, case: [(run(input_ids=case.ids)[0], network.get_input_embeddings()(case.ids))],
        "picture_encoder": lambda run, case: [(run(pixel_values=case.pixels)[0], network.see(case.pixels))],
        "language_model": lambda run, case: _language_model(network, run, case),
        "velocity": lambda run, case: _velocity(network, run, case),
    }
    if codec is not None:
        checks["vae_decoder"] = lambda run, case: [(run(latents=case.latents)[0], codec.decode(case.latents))]
    errors = {}
    for name, check in checks.items():
        session = Session(files[name])  # one at a time: each has its weights in memory
        found = [relative_error(*pair) for case in cases for pair in check(session, case)]
        errors[name] = float(np.max(found))  # NaN if one is
        del session
    return errors


def _language_model(
    network: JanusFlowForConditionalGeneration, run: Session, case: Case
) -> list[tuple[Tensor, Tensor]]:
    """Compare on a left-padded prompt with a picture in it and on a token after it; read a prompt for `_velocity`."""
    rows, none = len(case.ids), torch.zeros(cache_shape(network.config, len(case.ids), 0))
    words, features = network.get_input_embeddings()(case.ids), network.see(case.pixels)
    embeds = torch.cat([words[:, :2], features, words[:, 2:]], dim=1)
    mask = torch.cat([case.mask.flip(1)[:, :2], case.mask.new_ones(features.shape[:2]), case.mask.flip(1)[:, 2:]], 1)
    mask = mask.sort(dim=1).values  # padding on the left
    logits, keys, values = run(inputs_embeds=embeds, attention_mask=mask, past_keys=none, past_values=none)
    pairs = [(logits, _logits(network, embeds, mask))]
    longer, seen = torch.cat([embeds, words[:, :1]], dim=1), torch.cat([mask, mask.new_ones(rows, 1)], dim=1)
    logits = run(inputs_embeds=words[:, :1], attention_mask=seen, past_keys=keys, past_values=values)[0]
    pairs.append((logits, _logits(network, longer, seen)))
    _, case.keys, case.values = run(inputs_embeds=words, attention_mask=case.mask, past_keys=none, past_values=none)
    return pairs


def _logits(network: JanusFlowForConditionalGeneration, embeds: Tensor, mask: Tensor) -> Tensor:
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    output = network(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
    last: Tensor = output.logits[:, -1]
    return last


def _velocity(network: JanusFlowForConditionalGeneration, run: Session, case: Case) -> list[tuple[Tensor, Tensor]]:
    """Compare the conditional and the unconditional velocity."""
    prefix = network.encode_prompts(case.ids, case.mask)
    only_first = torch.zeros_like(case.mask)
    only_first[:, 0] = 1
    pairs = []
    for visible, read in ((case.mask, prefix), (only_first, prefix.unconditional())):
        found = run(
            latents=case.latents,
            t=case.t,
            keys=case.keys,
            values=case.values,
            visible=visible,
            lengths=prefix.lengths,
        )[0]
        pairs.append((found, network.velocity(case.latents, case.t, read)))
    return pairs
