"""Read conversations: the forms of messages that users write, and the turns. The next step is `chat_template.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from janusflow.arguments import quoted
from janusflow.processing.images import listed

Message: TypeAlias = "Mapping[str, Any]"

ROLES = {"user": 0, "<|user|>": 0, "human": 0, "assistant": 1, "<|assistant|>": 1}


def read_turns(messages: Sequence[Message], image_tag: str, *, system: str) -> tuple[str, list[tuple[int, str]]]:
    """Return the system prompt, and the turns as pairs of role (0 for the user, 1 for the assistant) and content.

    Args:
        messages: mappings with `role` (user, assistant, or system at the start) and `content`. If the last message is
            the user's, an empty turn of the assistant is added.
        image_tag: see `flatten`.
        system: system prompt of a conversation that has none.

    Raises:
        ValueError: if user and assistant do not alternate, a user message is empty, or there is no message.

    Example:
        >>> read_turns([{"role": "user", "content": "hi"}], "<image_placeholder>", system="")
        ('', [(0, 'hi'), (1, '')])
    """
    plain = [flatten(message, image_tag) for message in messages]
    if plain and plain[0]["role"].lower() == "system":
        system = plain.pop(0)["content"].strip()
    turns: list[tuple[int, str]] = []
    for message in plain:
        role = ROLES.get(message["role"].lower())
        if role is None:
            raise ValueError(f"role is {quoted(message['role'])}; expected user, assistant, and system at the start")
        if role != len(turns) % 2:
            raise ValueError("user and assistant must take turns, the user first")
        content = message["content"].strip()
        if not content and role == 0:
            raise ValueError(f"message {len(turns) + 1} of the conversation is empty")
        turns.append((role, content))
    if not turns:
        raise ValueError("the conversation has no message")
    return system, turns if turns[-1][0] == 1 else [*turns, (1, "")]


def ends_begun(messages: Sequence[Message]) -> bool:
    """Return whether a flattened conversation ends with a non-empty message of the assistant."""
    return bool(messages) and ROLES.get(messages[-1]["role"].lower()) == 1 and bool(messages[-1]["content"].strip())


def flatten(message: Message, image_tag: str, *, pictures_elsewhere: bool = False) -> dict[str, Any]:
    """Return a message with `content` as a string and `images` as a list, from our, the official or OpenAI's form.

    Args:
        message: `role`, `content` (a string, or parts of type text, image and image_url), and optionally `images`.
        image_tag: placeholder that replaces a picture in the text.
        pictures_elsewhere: the caller has the pictures, as rows of data sets do; parts of type image may lack them.

    Raises:
        ValueError: if it has none of these forms. Parts of type image may lack the picture if `images` has it.

    Example:
        >>> parts = [{"type": "image", "path": "scene.png"}, {"type": "text", "text": "what is it?"}]
        >>> flatten({"role": "user", "content": parts}, "<image_placeholder>")
        {'role': 'user', 'content': '<image_placeholder>\\nwhat is it?', 'images': ['scene.png']}
    """
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ValueError(f"a message is {message!r:.80}; expected a mapping with role and content")
    content, images = message.get("content"), listed(message.get("images"))
    if isinstance(content, str):
        return {"role": message["role"], "content": content, "images": images}
    if not isinstance(content, Sequence):
        raise ValueError(f"a message's content is {quoted(content)}; expected a string or a list of parts")
    text, found = "", [*images]
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise ValueError(f"the text of a part of a message is {quoted(part.get('text'))}; expected a string")
            text += part["text"]
        elif kind in ("image", "image_url"):
            named = ("image", "url", "path") if kind == "image" else ("image_url",)
            value = next((part[name] for name in named if part.get(name) is not None), None)
            if value is None and not images and not pictures_elsewhere:
                raise ValueError(f"a part of type {kind} has no picture; expected {' or '.join(named)}, or images")
            if value is not None:
                found.append(value.get("url", value) if isinstance(value, Mapping) else value)
            text += f"{image_tag}\n"
        else:
            raise ValueError(
                f"a part of a message's content has type {quoted(kind)}; expected text, image and image_url"
            )
    return {"role": message["role"], "content": text, "images": found}
