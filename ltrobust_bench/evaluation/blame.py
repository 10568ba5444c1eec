"""Errors that somebody else's network raises, as one line about it: what, and at which line of its code."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch

from ltrobust_bench.compute.memory import Splitting, out_of_memory
from ltrobust_bench.errors import CheckFailed, LTBenchError

LONGEST = 200
"""Characters of an error's own message that are repeated."""
_OWN, _TORCH = Path(__file__).resolve().parents[1], Path(torch.__file__).resolve().parent
_LIBRARY = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = ("site-packages", "dist-packages")


def in_one_line(error: BaseException) -> str:
    """An error's type and message, in one line of bounded length."""
    said = " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def innermost(error: BaseException) -> str:
    """The last line of code that is neither ours nor torch's nor Python's, which an error went through; else empty.

    Example: ``my_nets.py:12: assert x.shape[1] == 3``
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        inside = any(path.is_relative_to(folder) for folder in (_OWN, _TORCH))
        library = path.is_relative_to(_LIBRARY) and not any(part in path.parts for part in _INSTALLED)
        if not (inside or library or frame.filename.startswith("<frozen")):
            line = " ".join((frame.line or "").split())[:LONGEST]
            return f"{path.name}:{frame.lineno}{f': {line}' if line else ''}"
    return ""


@contextmanager
def blamed(doing: str, *, only: bool = False) -> Iterator[None]:
    """What a model raises in here becomes a :class:`CheckFailed` that blames it.

    Errors of ours pass as they are, and those that say that memory did not suffice.

    Args:
        doing: what the model was at, such as ``on images of shape (8, 1, 8, 8)``.
        only: nothing but the model runs in here; else an error must have gone through its forward, or through
            autograd's backward.
    """
    try:
        yield
    except Exception as error:  # somebody's code may raise anything
        if isinstance(error, LTBenchError) or out_of_memory(error) or not (only or _of_model(error.__traceback__)):
            raise
        place = innermost(error)
        raise CheckFailed(f"the model failed {doing}: {in_one_line(error)}{f' ({place})' if place else ''}") from None


def _of_model(trace: TracebackType | None) -> bool:
    last = ""
    while trace is not None:
        if trace.tb_frame.f_code is Splitting.forward.__code__:
            return True
        last, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return Path(last).is_relative_to(_TORCH / "autograd")
