"""Whose turn it is, on a clock of the test's own."""

from __future__ import annotations

import pytest

from janusflow.serving.policy import Policy, PolicySettings

STEP, TOKEN = 0.03, 0.01  # seconds of a picture's step and of a turn of texts


def simulate(settings: PolicySettings, *, turns: int, pictures: int = 4, step: float = STEP) -> tuple[float, float]:
    """The share of pictures in the work, and the longest wait of a text, while both wait all the time."""
    policy, spent, waited, longest = Policy(settings), {"text": 0.0, "picture": 0.0}, 0.0, 0.0
    for _ in range(turns):
        kind, jobs = policy.choose(texts=3, pictures=pictures)
        seconds = TOKEN if kind == "text" else jobs * step
        spent[kind] += seconds
        waited = 0.0 if kind == "text" else waited + seconds
        longest = max(longest, waited)
        policy.record(kind, jobs, seconds, both=True)
    return spent["picture"] / sum(spent.values()), longest


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_pictures_get_their_share_of_the_work(share: float) -> None:
    found, _ = simulate(PolicySettings(max_text_wait=1.0, picture_share=share), turns=2000)
    assert found == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("wait", [0.05, 0.1, 0.25])
def test_no_text_waits_longer_than_the_setting(wait: float) -> None:
    _, longest = simulate(PolicySettings(max_text_wait=wait, picture_share=1.0), turns=500)
    assert STEP <= longest <= wait


def test_a_step_that_takes_longer_than_the_wait_still_gets_its_share() -> None:
    found, longest = simulate(PolicySettings(max_text_wait=0.02, picture_share=0.5), turns=2000, step=0.1)
    assert found == pytest.approx(0.5, abs=0.05)
    assert longest == pytest.approx(0.1)


def test_one_kind_that_waits_alone_gets_every_turn() -> None:
    policy = Policy(PolicySettings(picture_share=0.0))
    assert policy.choose(texts=0, pictures=3) == ("picture", 3)
    assert policy.choose(texts=2, pictures=0) == ("text", 2)


def test_work_of_a_time_without_the_other_kind_is_not_held_against_anybody() -> None:
    policy = Policy(PolicySettings(max_text_wait=1.0, picture_share=0.5))
    for _ in range(100):
        policy.record("picture", 1, STEP, both=False)
    policy.record("text", 1, TOKEN, both=True)
    assert policy.choose(texts=1, pictures=1) == ("picture", 1)
