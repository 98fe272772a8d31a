"""The words that name a judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.judges.open_judge import Cached, open_judge
from tests.evaluation.judges.server import Server


def test_options_may_stand_in_the_word(server: Server, judge: Callable[..., Any], tmp_path: Path) -> None:
    asked = open_judge(f"openai:org/m@{server.url}?max_requests=1&timeout=2.5&cache={tmp_path}")
    assert isinstance(asked, Cached) and asked.folder == tmp_path and asked.name == f"org/m at {server.url}"
    assert (asked.judge.options.max_requests, asked.judge.options.timeout) == (1, 2.5)  # type: ignore[attr-defined]
    assert open_judge(server.url, model="m").name == open_judge(f"{server.url}?model=m").name == f"m at {server.url}"
    assert open_judge("openai:gpt-4o").name == "gpt-4o at https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "no judge is named"),
        ("http://localhost/v1", "does not name an endpoint; write openai:MODEL@https://HOST/v1"),
        ("openai:", "does not name an endpoint"),
        ("openai:m@ftp://host", "does not name an endpoint"),
        ("openai:m@https://user:word@host/v1", "with the key in an environment variable"),
        ("openai:m?colour=1", "has no option 'colour'; it has key_variable, "),
        ("openai:m?tries=many", "option tries: "),
        ("tiny?max_tokens=0", "option max_tokens: .*greater than or equal to 1"),
        ("tiny?dtype=float8", "option dtype: "),
        ("tiny?device=gpu", "device is 'gpu'; expected auto"),
        ("/no/such/folder", "is not a model that can be opened here"),
    ],
)
def test_other_words_are_refused_in_one_sentence(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        open_judge(spec)
    assert "\n" not in str(caught.value)
