"""API keys and their rates."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from janusflow.serving.keys import VARIABLE, ApiKeys, RateLimit

FIRST, SECOND = "the-first-key-1234567", "the-second-key-1234567"


def test_keys_are_accepted_plain_or_hashed_and_kept_only_as_hashes() -> None:
    keys = ApiKeys(["# of the tests", "", FIRST, f"sha256:{hashlib.sha256(SECOND.encode()).hexdigest()}"])
    assert (keys.find(FIRST), keys.find(SECOND)) == (0, 1)
    assert [keys.find(wrong) for wrong in ("", FIRST[:-1], FIRST.upper(), f"sha256:{keys.hashes[1].hex()}")] == [
        None
    ] * 4
    assert FIRST not in repr(vars(keys))


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{FIRST}\n{SECOND}\n")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert ApiKeys.read(None) is None
    monkeypatch.setenv(VARIABLE, f"{FIRST},{SECOND}")
    for source in (file, None):
        keys = ApiKeys.read(source)
        assert keys is not None and keys.find(SECOND) == 1


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{FIRST}\n", encoding="utf-8-sig")
    keys = ApiKeys.read(file)
    assert keys is not None and keys.find(FIRST) == 0


def test_an_empty_file_and_a_short_key_are_errors_without_the_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none\n")
    with pytest.raises(ValueError, match="holds no API key"):
        ApiKeys.read(file)
    with pytest.raises(ValueError, match="at least 16") as refused:
        ApiKeys(["secret"])
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="begins with sha256: and continues with other than 64 hex digits"):
        ApiKeys(["sha256:zz"])
    file.write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match="keys is not a text file; expected one API key a line"):
        ApiKeys.read(file)


def test_each_client_has_its_rate_and_gets_it_back_in_time() -> None:
    now = [0.0]
    rate = RateLimit(60, clock=lambda: now[0])
    assert [rate.take(0) for _ in range(60)] == [0.0] * 60
    assert rate.take(0) == pytest.approx(1.0)
    assert rate.take(1) == 0.0
    now[0] = 2.0
    assert [rate.take(0) for _ in range(2)] == [0.0, 0.0]
    assert rate.take(0) > 0
