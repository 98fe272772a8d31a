"""Read a user's own questions from a JSON or JSON Lines file as items, and report errors by line.

A record is a question with its accepted answers, or a conversation in LLaVA's or OpenAI's format, in which the model is
asked for every answer of the assistant. docs/evaluation.md lists the fields.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janusflow.data.records import IMAGE_TAG, LLAVA_TAG, ROLES
from janusflow.evaluation.data import DataFolder, read_text
from janusflow.evaluation.protocol import Item
from janusflow.processing.images import ImageSource
from janusflow.processing.messages import flatten

QUESTION, ANSWER = ("question", "text", "prompt"), ("answers", "answer")
CONVERSATION, PICTURES, NAMES = ("conversations", "messages"), ("images", "image"), ("id", "question_id")


@dataclass(frozen=True)
class Turn:
    """A question of a record; `answers` is empty if the record has none."""

    asked: str
    answers: tuple[str, ...]


class QuestionFile:
    """The questions in a file.

    Args:
        file: JSON (a list of records, or {"rule": ..., "questions": [records]}) or JSON Lines (one record per line).
        source: description of the expected file, for error messages.
        rules: allowed names of rules; "judge" needs no answer.
        rule: rule for records without one, in place of the file's.

    Attributes:
        folder: folder of the file; it lists the file and the pictures that were read.

    Raises:
        ValueError: if the file does not exist.
    """

    def __init__(self, file: Path | None, source: str, *, rules: Sequence[str], rule: str | None = None) -> None:
        if file is None:
            raise ValueError(f"no questions were given; give {source}")
        if not file.is_file():
            problem = "is a folder" if file.is_dir() else "does not exist"
            raise ValueError(f"{file} {problem}; expected {source}")
        self.file, self.rules, self.rule = file, rules, rule
        self.folder = DataFolder(file.parent, source)

    def items(self) -> list[Item]:
        """Return an item for each question, in the order of the file.

        Raises:
            ValueError: for an invalid line or record; the message names it, the problem, and what is expected.
        """
        items: list[Item] = []
        used: Counter[str] = Counter()
        for where, number, record in self._records():
            for item in self._of_record(where, number, record):
                used[item.key] += 1
                again = f"{item.key}#{used[item.key]}" if used[item.key] > 1 else item.key
                items.append(Item(**{**vars(item), "key": again}))
        return items

    # --- records ----------------------------------------------------------------------------------------------------

    def _records(self) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
        """Yield each record with its location, for error messages, and its number from 1."""
        self.folder.read.append(self.file)
        text = read_text(self.file)
        unit, found = "record", self._whole(text)
        if found is None:
            unit, found = "line", self._lines(text)
        for number, record in found:
            where = f"{self.file}, {unit} {number}"
            if not isinstance(record, Mapping):
                raise ValueError(f"{where} is {_kind(record)}; expected an object with a question")
            yield where, number, record

    def _whole(self, text: str) -> list[tuple[int, Any]] | None:
        """Return the records of a file that is one JSON value; None for JSON Lines."""
        try:
            content = json.loads(text)
        except ValueError as error:
            if text.lstrip()[:1] == "{" and self.file.suffix.lower() != ".json":
                return None
            try:  # JSON Lines in a .json file
                json.loads(text.strip().partition("\n")[0])
                return None
            except ValueError:
                raise ValueError(f"{self.file} is not valid JSON: {error}") from error
        except RecursionError as error:
            raise ValueError(f"{self.file} is nested too deeply") from error
        if isinstance(content, dict) and isinstance(content.get("questions"), list):
            self.rule = self.rule or self._checked_rule(str(self.file), content.get("rule"))
            content = content["questions"]
        elif isinstance(content, dict):
            content = [content]
        if not isinstance(content, list):
            raise ValueError(f"{self.file} contains {_kind(content)}; expected a list of questions")
        return list(enumerate(content, start=1))

    def _lines(self, text: str) -> list[tuple[int, Any]]:
        found = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    found.append((number, json.loads(line)))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{self.file}, line {number} is not valid JSON: {error}") from error
        return found

    # --- one record -------------------------------------------------------------------------------------------------

    def _of_record(self, where: str, number: int, record: Mapping[str, Any]) -> Iterator[Item]:
        answers, system, messages = _answers(where, record), record.get("system"), _first(record, CONVERSATION)
        pictures = _pictures(record)
        if messages is None:
            question = _first(record, QUESTION)
            if not isinstance(question, str) or not question.strip():
                raise ValueError(f"{where} has no question; expected text in 'question', or 'conversations'")
            turns = [Turn(_placed(question), answers)]
        else:
            turns, system, more = _conversation(where, messages, system)
            pictures += more
            if answers:
                turns = [*turns[:-1], Turn(turns[-1].asked, answers)]
        paths = [self._picture(where, value) for value in pictures]
        if system is not None and not isinstance(system, str):
            raise ValueError(f"{where} has {_kind(system)} as its system prompt; expected text")
        placed = sum(turn.asked.count(IMAGE_TAG) for turn in turns)
        if placed and placed != len(paths):
            raise ValueError(f"{where} places {placed} pictures in its text, but {len(paths)} were given")
        rule, name = self._checked_rule(where, record.get("rule")), _first(record, NAMES)
        category = "" if record.get("category") is None else str(record["category"])
        key = _plain_name(str(number) if name is None else str(name))
        group = "|".join(map(_picture_name, pictures)) or (key if len(turns) > 1 else "")
        last_only = bool(answers) or messages is None
        for place, turn in enumerate(turns):
            if place < len(turns) - 1 and last_only:
                continue
            data: dict[str, Any] = {
                "question": turn.asked.replace(IMAGE_TAG, "").strip(),
                "answers": list(turn.answers),
            }
            data |= {"rule": self._rule_for(where, rule, turn.answers), "category": category}
            if place:
                data["earlier"] = [[before.asked, before.answers[0]] for before in turns[:place]]
            shown = sum(before.asked.count(IMAGE_TAG) for before in turns[: place + 1]) if placed else len(paths)
            yield Item(
                key=(f"{_plain_name(category)}/" if category else "")
                + key
                + (f"-{place + 1}" if len(turns) > 1 else ""),
                prompt=turn.asked,
                images=tuple(paths[:shown]),
                group=group,
                system=system,
                data=data,
            )

    def _checked_rule(self, where: str, rule: Any) -> str | None:
        if rule is not None and rule not in self.rules:
            raise ValueError(f"{where} has the rule {rule!r}; expected {', '.join(self.rules)}")
        return rule

    def _rule_for(self, where: str, rule: str | None, answers: Sequence[str]) -> str:
        rule = rule or self.rule or ("any-of" if len(answers) > 1 else "exact")
        if not answers and rule != "judge":
            raise ValueError(
                f"{where} has no answer; expected text or a list in 'answer' (only the rule judge needs none)"
            )
        return "any-of" if rule == "exact" and len(answers) > 1 else rule

    def _picture(self, where: str, value: Any) -> ImageSource:
        """Check a picture, given as a path relative to the file's folder or as a data URL, and return it."""
        if not isinstance(value, str):
            raise ValueError(f"{where} has {_kind(value)} as a picture; expected a path")
        try:
            if value.startswith("data:"):
                self.folder.held_picture(value.partition(",")[2], "its data URL")
                return value
            if value.startswith(("http://", "https://")):
                raise ValueError(f"picture {value!r} is an address; download it and give the file")
            return self.folder.picture(value)
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}: {str(error).partition('; expected')[0]}") from error


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return a record's first value under one of these names that is not null or empty."""
    return next((record[name] for name in names if record.get(name) not in (None, "", [])), None)


def _answers(where: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    given = _first(record, ANSWER)
    values = [] if given is None else given if isinstance(given, list) else [given]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise ValueError(f"{where} has {_kind(value)} as an answer; expected text or a number, or a list of them")
    return tuple(str(value) for value in values)


def _pictures(record: Mapping[str, Any]) -> list[Any]:
    given = _first(record, PICTURES)
    values = given if isinstance(given, list) else [given]
    return [value for value in values if value not in (None, "")]


def _conversation(where: str, messages: Any, system: Any) -> tuple[list[Turn], Any, list[Any]]:
    """Return the turns of a conversation, its system prompt, and the pictures in its parts."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise ValueError(f"{where} has {_kind(messages)} as its conversation; expected a list of messages")
    plain, pictures = [], []
    for message in messages:
        said = message.get("from", message.get("role"))
        role = ROLES.get(str(said))
        if role is None:
            raise ValueError(f"{where} has a message from {said!r}; expected {', '.join(ROLES)}")
        try:
            plain_message = {"role": role, "content": message.get("value", message.get("content"))}
            flat = flatten(plain_message, IMAGE_TAG, pictures_elsewhere=True)  # in a field of the record
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where} has a message without text: {error}") from error
        pictures += flat["images"]
        plain.append((role, _placed(flat["content"])))
    if plain and plain[0][0] == "system":
        system = plain.pop(0)[1]
    for place, (role, content) in enumerate(plain):
        if role != ("user", "assistant")[place % 2] or not content:
            raise ValueError(f"{where}: message {place + 1} is not the {('user', 'assistant')[place % 2]}'s with text")
    if not plain:
        raise ValueError(f"{where} has a conversation without messages")
    replies = [(content,) for _, content in plain[1::2]] + [()] * (len(plain) % 2)
    return [Turn(content, reply) for (_, content), reply in zip(plain[::2], replies, strict=True)], system, pictures


def _placed(text: str) -> str:
    """Replace LLaVA's image placeholders in a text with the model's."""
    return text.replace(LLAVA_TAG, IMAGE_TAG).strip()


def _plain_name(name: str) -> str:
    """Return a name with only characters that a file name may have."""
    return re.sub(r"[^\w.-]+", "_", name)[:100] or "_"


def _picture_name(given: str) -> str:
    """Return a picture's name in the file; for a data URL, a digest."""
    return f"data:{hashlib.sha256(given.encode()).hexdigest()[:16]}" if given.startswith("data:") else given


def _kind(value: Any) -> str:
    """Describe a value for error messages, never with the value itself, which may be long."""
    names = {"dict": "an object", "list": "a list", "str": "a text", "NoneType": "null", "bool": "true or false"}
    if value == "":
        return "an empty text"
    return names.get(type(value).__name__, "a number")
