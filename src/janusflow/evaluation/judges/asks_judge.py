"""The part of a benchmark that names, checks and asks the models that judge its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from PIL import Image

from janusflow.evaluation.judges.judge import Judge, NotJudgedError, WithoutThoughts
from janusflow.offline import cached_if_unreachable

TRIES = 3  # if a judge's reply cannot be read
WARMER = 0.5  # temperature added by each further try
T = TypeVar("T")


class AsksJudge:
    """The part of a `Benchmark` that concerns judges; its attributes are described there."""

    title: ClassVar[str]
    judged_by: ClassVar[str] = ""
    judging_models: ClassVar[tuple[str, ...]] = ()
    settings: Any
    out: Path
    _judge: Judge | None = None

    @property
    def judge_model(self) -> Judge:
        """The model that `Settings.judge` names, opened on first use; replies are kept in `self.out`.

        Any object with the methods of `Judge` may be assigned. Replies never contain a model's thoughts.
        """
        from janusflow.evaluation.judges.open_judge import open_judge  # needs torch

        if self._judge is None:
            self.check_judge()
            self.judge_model = open_judge(self.settings.judge, cache=self.out / "replies")
        assert self._judge is not None
        return self._judge

    @judge_model.setter
    def judge_model(self, judge: Judge) -> None:
        self._judge = WithoutThoughts(judge)

    def stop_judging(self) -> None:
        """Tell the judge that the run was interrupted."""
        if self._judge is not None:
            self._judge.stop()

    def ask_judge(
        self,
        prompt: str,
        images: Sequence[Image.Image] = (),
        *,
        read: Callable[[str], T | None],
        system: str = "",
        tries: int = TRIES,
        again: str = "",
    ) -> tuple[T | None, str]:
        """Return what is read from the judge's reply (None if no reply can be read), and the reply.

        Each further try samples at a higher temperature.

        Args:
            read: function that reads a reply, or returns None if it cannot.
            tries: number of times to ask the judge, at most.
            again: text added to the prompt from the second try on.

        Raises:
            NotJudgedError: if the last reply is empty.
        """
        reply = ""
        for attempt in range(tries):
            asked = prompt + again if attempt else prompt
            reply = self.judge_model.reply(asked, images, system=system, temperature=WARMER * attempt, attempt=attempt)
            found = read(reply)
            if found is not None:
                return found, reply
        if not reply.strip():
            raise NotJudgedError(
                f"judge {self.judge_model.name} said nothing in {tries} tries: its reply is empty, or is cut off "
                "before its thoughts end; give it more tokens with --set judge=...?max_tokens=4096"
            )
        return None, reply

    def no_verdict(self, reply: str) -> NotJudgedError:
        """Return the error for a judge whose replies cannot be read; `reply` is the last one."""
        return NotJudgedError(
            f"judge {self.judge_model.name} gave no score in {TRIES} tries; its last: {reply[:200]!r}"
        )

    def check_judge(self) -> None:
        """Check that the judge is named.

        Raises:
            ValueError: if a judge is needed and none is named.
        """
        if self.judged_by and not self.settings.judge:
            raise ValueError(f"{self.title} needs {self.judged_by}; name one with --set judge=...")

    def check_models(self) -> None:
        """Check that the models that judge can be opened, before hours of generating.

        Weights are not read or fetched.

        Raises:
            ValueError: if one cannot be opened, or a device is unknown; the message names the setting.
        """
        from transformers import AutoConfig

        from janusflow.device import named_device

        if (device := getattr(self.settings, "device", "auto")) != "auto":  # a worker may have what this machine lacks
            named_device(device)
        if getattr(self.settings, "judge", ""):
            _ = self.judge_model  # opens it, without its weights
        for setting in self.judging_models:
            name = getattr(self.settings, setting)
            if not name:
                continue
            why = ""
            try:
                with cached_if_unreachable(name) as why:
                    AutoConfig.from_pretrained(name)
            except (OSError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{setting} {name!r}, which judges {self.title}, cannot be opened{why and f' ({why})'}; give its "
                    f"folder with --set {setting}=FOLDER, or only generate, with --mode generate"
                ) from error
