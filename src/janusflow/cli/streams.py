"""Prepare the three standard streams for closed files and for terminals that lack characters."""

from __future__ import annotations

import io
import os
import sys


def open_streams() -> None:
    """Open closed streams on `os.devnull`, and replace characters that a terminal cannot show.

    Otherwise the next file that is opened, such as a picture, would get the number of a closed stdout (`>&-`), and an
    ASCII terminal would raise an error after the picture was generated.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
            setattr(sys, f"__{name}__", getattr(sys, name))
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # not what a test or a notebook puts there
            stream.reconfigure(errors=errors)
