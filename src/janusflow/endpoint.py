"""A model behind an OpenAI-compatible address: one question with pictures in, one answer out, retried with patience."""

from __future__ import annotations

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 60.0  # seconds between two tries


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers.

    Attributes:
        url: base address, up to and without `/chat/completions`.
        model: its name there.
        key_variable: environment variable that holds the key; an unset one sends none.
        tries: of one question.
        patience: seconds before the second try; doubled for every further one.
        timeout: seconds for one answer.
        max_tokens, temperature: of the answer.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    tries: int = 5
    patience: float = 1.0
    timeout: float = 120.0
    max_tokens: int = 256
    temperature: float = 0.0

    def ask(self, question: str, pictures: Sequence[Image.Image] = ()) -> str:
        """The answer to a question about pictures.

        Raises:
            ValueError: if the endpoint refuses the request, answers nonsense, or fails at every try.
        """
        content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(p)}} for p in pictures]
        content.append({"type": "text", "text": question})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        problem = ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(self.patience * 2 ** (attempt - 1), LONGEST_WAIT))
            try:
                answer = self._post(body)["choices"][0]["message"]["content"]
                if not isinstance(answer, str):
                    raise TypeError(f"its content is {type(answer).__name__}")
                return answer
            except urllib.error.HTTPError as error:
                problem = f"status {error.code}"
                if error.code not in RETRIED:
                    raise ValueError(f"{self.url} refused the request: {problem} {error.reason}") from error
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{self.url} gave no answer in {self.tries} tries; the last: {problem}")

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"{self.url} is no http address")
        request = urllib.request.Request(address, data=json.dumps(body).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            return json.loads(response.read())


def data_url(picture: Image.Image) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
