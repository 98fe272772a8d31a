"""A conversation in a terminal: lines in, pieces of text out, pictures shown and generated on the way."""

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
    """The state of one chat.

    Args:
        model: answers and generates.
        out: folder for generated pictures.
        max_new_tokens: longest answer.
    """

    def __init__(self, model: Pipeline, out: Path, max_new_tokens: int) -> None:
        self.model, self.out, self.max_new_tokens = model, out, max_new_tokens
        self.messages: list[dict[str, Any]] = []
        self.shown: list[Image.Image] = []
        self.generated = 0

    def say(self, line: str) -> Iterator[str]:
        """What the model says to a line: an answer, or a note about what a command did.

        Raises:
            ValueError: for an unknown command, an unreadable picture, or a request that the model refuses; the
                conversation is then as before.
        """
        command, _, rest = line.partition(" ")
        if command == "/image":
            self.shown.append(load_image(rest.strip()))
            yield f"(picture {len(self.shown)} will go with your next message)"
        elif command == "/draw":
            yield f"(generated {self._draw(rest.strip())}; it will go with your next message)"
        elif command == "/reset":
            self.messages, self.shown = [], []
            yield "(forgotten)"
        elif command.startswith("/"):
            raise ValueError(f"{command} is unknown; there are /image FILE, /draw PROMPT, /reset and /quit")
        elif line:
            yield from self._answer(line)

    def _draw(self, prompt: str) -> Path:
        seed = random.randrange(2**31)
        picture = self.model.generate(prompt, seed=seed)[0]
        make_folder(self.out)
        self.generated += 1
        while (file := self.out / f"chat-{self.generated:03d}.png").exists():
            self.generated += 1
        file = save_new_png(picture, file, {"prompt": prompt, "seed": seed})
        self.shown.append(picture)
        return file

    def _answer(self, line: str) -> Iterator[str]:
        content = self.model.processor.question(line, len(self.shown))
        asked = {"role": "user", "content": content, "images": self.shown}
        answer = ""
        for piece in self.model.stream([*self.messages, asked], max_new_tokens=self.max_new_tokens):
            answer += piece
            yield piece
        self.messages += [asked, {"role": "assistant", "content": answer.strip() or "..."}]
        self.shown = []
