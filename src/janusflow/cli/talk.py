"""The state of `janusflow chat`: lines in, pieces of text out, pictures shown and generated in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from janusflow.pipelines.base import Pipeline
from janusflow.pipelines.sheet import make_folder, save_new_png
from janusflow.processing.images import load_image


class Talk:
    """The state of one chat."""

    def __init__(self, model: Pipeline, out: Path, max_new_tokens: int) -> None:
        self.model, self.out, self.max_new_tokens = model, out, max_new_tokens
        self.messages: list[dict[str, Any]] = []
        self.shown: list[Image.Image] = []
        self.generated = 0

    def say(self, line: str) -> Iterator[str]:
        """Yield the model's answer to a line, or a note about what a command did.

        Raises:
            ValueError: for an unknown command, an unreadable picture, or a request that is not allowed; the
                conversation is then unchanged.
        """
        command, _, rest = line.partition(" ")
        if command == "/image":
            self.shown.append(load_image(rest.strip()))
            yield f"(picture {len(self.shown)} will be sent with your next message)"
        elif command in ("/generate", "/draw"):  # "/draw": its name up to version 0.1
            yield f"(generated {self._generate(rest.strip())}; it will be sent with your next message)"
        elif command == "/reset":
            self.messages, self.shown = [], []
            yield "(the conversation starts over)"
        elif command.startswith("/"):
            raise ValueError(f"{command} is unknown; expected /image FILE, /generate PROMPT, /reset and /quit")
        elif line:
            yield from self._answer(line)

    def _generate(self, prompt: str) -> Path:
        seed = random.randrange(2**31)
        picture = self.model.generate(prompt, seed=seed)[0]
        make_folder(self.out)
        self.generated += 1
        file = save_new_png(picture, self.out / f"chat-{self.generated:03d}.png", {"prompt": prompt, "seed": seed})
        self.shown.append(picture)
        return file

    def _answer(self, line: str) -> Iterator[str]:
        content = self.model.processor.question(line, len(self.shown))
        asked = {"role": "user", "content": content, "images": self.shown}
        answer = ""
        for piece in self.model.stream([*self.messages, asked], max_new_tokens=self.max_new_tokens):
            answer += piece
            yield piece
        self.messages += [asked, {"role": "assistant", "content": answer.strip()}]
        self.shown = []
