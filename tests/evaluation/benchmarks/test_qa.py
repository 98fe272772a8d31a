"""A user's own questions: the forms of the file, rules, categories, several pictures and conversations."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from janusflow.evaluation.benchmarks.qa import Qa, QaSettings, contains, equal, normalized
from janusflow.evaluation.judges import open_judge as judges
from janusflow.evaluation.protocol import NotJudgedError
from janusflow.evaluation.request import EvalRequest
from janusflow.evaluation.run.evaluate import evaluate
from tests.evaluation.benchmarks.questions import Answering, cut, judges_anything, run, save_picture

RECORDS: list[dict[str, Any]] = [
    {"id": "cat 1", "image": "pictures/a.png", "question": "What is it?", "answer": "A cat.", "category": "animals"},
    {"image": "pictures/a.png", "text": "Is it big?", "answer": "no", "category": "size/shape", "rule": "contains"},
    {"question": "What is 2 + 1?", "answers": ["three", "drei"]},
    {"images": ["pictures/a.png", "b.png"], "question": "<image> or <image>?", "answer": "the first", "rule": "exact"},
]


def qa_file(folder: Path, records: list[dict[str, Any]] | None = None, name: str = "questions.jsonl") -> Path:
    """Questions and their pictures; JSON Lines, or a list for another name."""
    for picture in ("pictures/a.png", "b.png"):
        save_picture(folder / picture)
    lines = [json.dumps(record) for record in (RECORDS if records is None else records)]
    (folder / name).write_text("\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]")
    return folder / name


def opened(file: Path, **settings: Any) -> Qa:
    return Qa(file, QaSettings(**settings))


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.json"])
def test_from_a_file_to_scores(tmp_path: Path, name: str) -> None:
    says = {"What is it": "cat", "big": "No, it is small.", "2 + 1": "3!", " or ": "second"}
    benchmark = opened(qa_file(tmp_path, name=name))
    rows, scores, model = run(
        benchmark, lambda text: next(said for part, said in says.items() if part in text), tmp_path / "run"
    )
    assert [row.score for row in rows] == [1, 1, 1, 0]
    assert [row.item.data["rule"] for row in rows] == ["exact", "contains", "any-of", "exact"]
    assert scores == {"overall": 75, "category/animals": 100, "category/size/shape": 100}
    assert [row.item.key for row in rows] == ["animals/cat_1", "size_shape/2", "3", "4"]
    assert rows[0].item.group == rows[1].item.group != rows[2].item.group == ""
    assert [talk[-1]["content"] for talk in model.talks] == [
        "<image_placeholder>\nWhat is it?",
        "<image_placeholder>\nIs it big?",
        "What is 2 + 1?",
        "<image_placeholder> or <image_placeholder>?",
    ]
    assert [len(talk[-1]["images"]) for talk in model.talks] == [1, 1, 0, 2]
    assert benchmark.files() == [tmp_path / name] and len(benchmark.pictures()) == 2


def test_the_command_runs_on_a_file(tmp_path: Path) -> None:
    class Model(Answering):
        def chat_batch(self, talks: Any, **options: Any) -> list[str]:
            return super().chat_batch(talks)

    report = evaluate(EvalRequest("qa", tmp_path / "run", data=qa_file(tmp_path)), model=Model(lambda text: "cat"))
    assert report["judged"] == 4 and report["score"] == 25 and report["title"] == "Questions of questions.jsonl"
    assert set(report["data_sha256"]) == {"questions.jsonl", "2 pictures"}


def test_llava_conversations_ask_for_each_answer_after_the_turns_before(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "a cat"},
        {"from": "human", "value": "Its color?"},
        {"from": "gpt", "value": "black"},
    ]
    benchmark = opened(qa_file(tmp_path, [{"id": 7, "image": "b.png", "conversations": talk}], "llava.json"))
    rows, _, model = run(benchmark, lambda text: "black", tmp_path / "run")
    assert [(row.item.key, row.score) for row in rows] == [("7-1", 0), ("7-2", 1)]
    assert rows[0].item.group == rows[1].item.group == "b.png"
    assert [(one["role"], one["content"]) for one in model.talks[1]] == [
        ("user", "<image_placeholder>\nWhat is it?"),
        ("assistant", "a cat"),
        ("user", "Its color?"),
    ]
    assert [len(one.get("images", ())) for one in model.talks[1]] == [1, 0, 0]


def test_a_picture_of_a_later_turn_is_shown_there(tmp_path: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(save_picture(tmp_path / "c.png")).decode()
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "It?"}],
        },
    ]
    benchmark = opened(qa_file(tmp_path, [{"messages": talk, "answer": "dog"}]))
    rows, _, model = run(benchmark, lambda text: "dog", tmp_path / "run")
    assert [row.item.key for row in rows] == ["1-2"] and rows[0].score == 1
    assert [one["role"] for one in model.talks[0]] == ["system", "user", "assistant", "user"]
    assert model.talks[0][1]["images"] == [] and model.talks[0][3]["images"] == [url]


def test_a_rule_is_the_questions_own_then_the_options_then_the_files(tmp_path: Path) -> None:
    records = [{"question": "?", "answer": "a cat"}, {"question": "?", "answer": "a cat", "rule": "exact"}]
    file = tmp_path / "questions.json"
    file.write_text(json.dumps({"rule": "contains", "questions": records}))
    assert [item.data["rule"] for item in opened(file).items()] == ["contains", "exact"]
    assert [item.data["rule"] for item in opened(file, rule="any-of").items()] == ["any-of", "exact"]
    several = qa_file(tmp_path, [{"question": "?", "answer": ["a cat", "a dog"], "rule": "exact"}])
    assert opened(several).items()[0].data["rule"] == "any-of", "the same rule for several answers"


@pytest.mark.parametrize(
    ("said", "answer", "right", "contained"),
    [
        ("The Cat.", "cat", True, True),
        ("It is a cat!", "cat", False, True),
        ("category", "cat", False, False),
        ("two", "2", True, True),
        ("1,000", "1000", True, True),
        ("5", "-5", False, False),
        ("-5", "5", False, False),
        ("1/2", "12", False, False),
        ("A", "A", True, True),
        ("(a)", "A", True, False),
        ("B", "A", False, False),
        ("a dog, so B", "A", False, False),
        ("The answer is A.", "A", False, True),
        ("", "A", False, False),
        ("", "the", False, False),
        ("dont know", "don't know", True, True),
        ("**Cat**", "cat", True, True),
        ("'cat'", "cat", True, True),
        ("‘Cat’", "cat", True, True),
        ("Cat: it sleeps", "cat", False, True),
        ("Answer:cat", "cat", False, True),
        ("a dog,cat, bird", "cat", False, True),
        ("It is a cat.The other is a dog", "cat", False, True),
        ("1,000 cats", "000", False, False),
        ("at 10:30", "10:30", False, True),
        ("10.5", "5", False, False),
        (".5", "5", False, False),
        ("U.S.", "US", True, True),
        ("It's 3.The rest is 4", "3", False, True),
    ],
)
def test_how_answers_are_compared(said: str, answer: str, right: bool, contained: bool) -> None:
    assert equal(said, [answer, "another"]) is right and contains(said, [answer, "another"]) is contained


def test_empty_fields_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    record = {
        "question": "",
        "text": "What?",
        "conversations": [],
        "images": [],
        "image": "b.png",
        "answers": [],
        "answer": 4,
    }
    save_picture(tmp_path / "b.png")
    (item,) = opened(qa_file(tmp_path, [record])).items()
    assert item.prompt == "What?" and len(item.images) == 1 and item.data["answers"] == ["4"]


def test_normalized_text() -> None:
    assert normalized("The  big\nDog's house.") == "big dog's house" and normalized("a") == "a"


def test_a_judge_decides_with_the_answer_or_with_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    replies = iter(["Yes.", "hm", "**No**, it is not", "hm", "hm", "hm"])

    class Judge:
        name = "judge"

        def reply(self, prompt: str, images: Any = (), **options: Any) -> str:
            asked.append((prompt, len(images)))
            return next(replies)

    monkeypatch.setattr(judges, "open_judge", lambda spec, **options: Judge())
    records = [
        {"question": "What?", "answers": ["cat", "kitten"], "image": "b.png", "rule": "judge"},
        {"question": "Describe it.", "image": "b.png", "rule": "judge"},
        {"question": "Why?", "rule": "judge"},
    ]
    file = qa_file(tmp_path, records)
    with pytest.raises(
        ValueError, match="has questions with the rule 'judge'; name a model that judges with --set jud"
    ):
        opened(file).check_judge()
    benchmark = opened(file, judge="any")
    benchmark.check_judge()
    benchmark.out = tmp_path
    first, second, third = benchmark.items()
    assert benchmark.judge(first, "a kitty")["score"] == 1 and benchmark.judge(second, "blue")["score"] == 0
    assert "Correct answer: cat or kitten" in asked[0][0] and "a kitty" in asked[0][0] and asked[0][1] == 0
    assert "Correct answer" not in asked[1][0] and "about the pictures shown" in asked[1][0] and asked[1][1] == 1
    with pytest.raises(NotJudgedError, match="gave no score in 3 tries"):
        benchmark.judge(third, "so")
    assert opened(qa_file(tmp_path)).check_judge() is None, "no question needs one"


def test_ids_that_stand_twice_become_two_keys(tmp_path: Path) -> None:
    records = [{"id": "x", "question": "?", "answer": "y"}] * 2
    assert [item.key for item in opened(qa_file(tmp_path, records)).items()] == ["x", "x#2"]


def test_it_judges_anything(tmp_path: Path) -> None:
    judges_anything(opened(qa_file(tmp_path)))
    judges_anything(opened(qa_file(tmp_path, [{"question": "?", "answer": "a"}]), rule="contains"))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"answer": "x"}, "has no question; expected text in 'question', or 'conversations'"),
        ({"question": " ", "answer": "x"}, "has no question"),
        ({"question": "?"}, "has no answer; expected text or a list in 'answer'"),
        ({"question": "?", "answer": []}, "has no answer"),
        ({"question": "?", "answer": True}, "has true or false as an answer; expected text or a number"),
        ({"question": "?", "answer": ["x", {}]}, "has an object as an answer"),
        (
            {"question": "?", "answer": "x", "rule": "same"},
            "has the rule 'same'; expected exact, any-of, contains, ju",
        ),
        ({"question": "?", "answer": "x", "image": "none.png"}, r"none\.png is missing$"),
        ({"question": "?", "answer": "x", "image": {"path": 1}}, "has an object as a picture; expected a path"),
        ({"question": "?", "answer": "x", "image": "https://a/b.png"}, "is an address; download it and give the file"),
        ({"question": "?", "answer": "x", "image": "data:image/png;base64,AAAA"}, "its data URL: "),
        ({"question": "<image> <image>", "answer": "x", "image": "b.png"}, "places 2 pictures in its text, but 1 were"),
        ({"question": "<image>\nWhat?", "answer": "x"}, "places 1 pictures in its text, but 0 were given"),
        ({"conversations": "hello"}, "has a text as its conversation; expected a list of messages"),
        ({"conversations": []}, "has no question; expected text in 'question', or 'conversations'"),
        ({"conversations": [{"from": "system", "value": "x"}]}, "has a conversation without messages"),
        ({"conversations": [{"from": "bot", "value": "x"}]}, "has a message from 'bot'; expected human,"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "message 1 is not the user's with text"),
        ({"conversations": [{"from": "human"}]}, "has a message without text"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "has no answer"),
        ([], "is a list; expected an object with a question"),
    ],
)
def test_what_is_wrong_is_named_by_line_or_record(tmp_path: Path, record: Any, said: str) -> None:
    good = {"question": "?", "answer": "x"}
    with pytest.raises(ValueError, match=rf"questions\.jsonl, line 2:? .*{said}"):
        opened(qa_file(tmp_path, [good, record])).items()
    with pytest.raises(ValueError, match=rf"questions\.json, record 2:? .*{said}"):
        opened(qa_file(tmp_path, [good, record], "questions.json")).items()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("q.jsonl", '{"question": "?", "answer": "x"}\n\n{"question": ', r"q\.jsonl, line 3 is not valid JSON"),
        ("q.jsonl", "question,answer", r"q\.jsonl is not valid JSON"),
        ("q.json", '[{"question": ', r"q\.json is not valid JSON: .*line 1"),
        ("q.json", "3", "contains a number; expected a list of questions"),
        ("q.json", '{"rule": "best", "questions": []}', "has the rule 'best'; expected exact"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        opened(tmp_path / name).items()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for file, said in (
        (None, "no questions were given"),
        (tmp_path, "is a folder"),
        (tmp_path / "x", "does not exist"),
    ):
        with pytest.raises(ValueError, match=f"{said}.*JSON Lines file"):
            Qa(file, QaSettings()).items()
    file = qa_file(tmp_path)
    cut(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"line 4: .*b\.png' is damaged"):
        opened(file).items()


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    file = qa_file(tmp_path)
    assert len(opened(file.rename(tmp_path / "questions.json")).items()) == 4


def test_a_corrected_answer_is_judged_again_and_an_earlier_turn_asked_again(tmp_path: Path) -> None:
    """The answers of earlier turns are shown to the model."""
    file, model = tmp_path / "talk.jsonl", Answering(lambda text: "two")
    asked = []
    for answers in (("cat", "three"), ("cat", "two"), ("dog", "two")):
        turns = [
            {"from": role, "value": text}
            for role, text in zip(("human", "gpt") * 2, ("a?", answers[0], "b?", answers[1]), strict=True)
        ]
        file.write_text(json.dumps({"conversations": turns}) + "\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = evaluate(EvalRequest("qa", tmp_path / "run", data=file), model=model)
        asked.append((len(model.talks), report["score"]))
    assert asked == [(2, 0), (2, 50), (3, 50)]
