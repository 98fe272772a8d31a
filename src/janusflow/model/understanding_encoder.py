"""f_enc and its aligner: turn pictures into the LLM's input embeddings.

Shapes: N pictures, S side in pixels, T_img understanding tokens, W width of the tower, D width of the LLM, (C, h, w) a
latent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import SiglipVisionModel

from janusflow.config import JanusFlowConfig
from janusflow.model.generation_encoder import GenerationEncoder


class UnderstandingEncoder(nn.Module):
    """SigLIP features after its final LayerNorm, one linear map, and the begin-of-understanding embedding before them.

    The official forward detaches the begin-of-understanding embedding, so that it never learns; here it is trained.

    If `config.understanding_encoder` is not "siglip", an encoder like g_enc reads the VAE's latent at t = 1, and the
    tower only provides features for REPA.
    """

    def __init__(self, config: JanusFlowConfig) -> None:
        super().__init__()
        llm_width = config.text_config.hidden_size
        self.tower = SiglipVisionModel(config.vision_config)
        if config.understanding_encoder == "siglip":
            self.aligner = nn.Linear(config.vision_config.hidden_size, llm_width)
        elif config.understanding_encoder == "vae":
            self.latent_encoder = GenerationEncoder(config)
        self.begin_embedding = nn.Parameter(torch.zeros(1, llm_width))

    def features(self, pixel_values: Tensor) -> Tensor:
        """f_enc(x). pixel_values: (N, 3, S, S) normalized to [-1, 1] -> (N, T_img, W).

        The attention-pool head, which only official checkpoints contain, is not run.
        """
        x = self.tower.embeddings(pixel_values)
        return self.tower.post_layernorm(self.tower.encoder(inputs_embeds=x).last_hidden_state)

    def forward(self, pictures: Tensor, shared: GenerationEncoder | None = None) -> Tensor:
        """Return the embeddings at `<begin_of_image>` and the image tokens, (N, 1 + T_img, D).

        Args:
            pictures: pixels (N, 3, S, S), which the tower reads; or latents (N, C, h, w).
            shared: the network's g_enc, if it reads the latents.
        """
        encoder = shared or getattr(self, "latent_encoder", None)
        if encoder is None:
            tokens = self.aligner(self.features(pictures))
        else:
            tokens = encoder(pictures, pictures.new_ones(len(pictures))).tokens
        begin = self.begin_embedding.expand(tokens.shape[0], 1, -1)
        return torch.cat([begin, tokens], dim=1)
