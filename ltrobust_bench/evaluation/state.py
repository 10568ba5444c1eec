"""How far an evaluation is, kept between its batches so that it can go on."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust_bench.compute import ranks
from ltrobust_bench.files import write_bytes
from ltrobust_bench.plan.code import Code
from ltrobust_bench.reading import read_arrays, read_bytes
from ltrobust_bench.terms import canonical_digest

LARGEST = 500_000_000
"""Bytes of a state; one byte for each attack and test image."""
DIGEST = hashlib.sha256().digest_size
"""Bytes at the end of a state's file: the SHA-256 of all before them."""


@dataclass
class State:
    """Everything needed to go on.

    Attributes:
        of: identity of what is evaluated.
        clean: correct on the image itself, bool, shape [T].
        broken: per attack and image 0 (standing) or 1 + the stage that broke it, uint8, shape [T].
        attack, stage, batch: what comes next.
        forwards, backwards, seconds: what all sessions cost.
        confirmed, unconfirmed, broken_again: how a search on a copy went, see :class:`.records.schema.Searched`.
        measured: of the model's reliability.
        changed: whether a session found buffers or weights of the model changed.
        noticed: name, what was seen and meaning of the flags that a look at the model raised, once all is done.
        code: of all sessions.
    """

    of: str
    clean: np.ndarray | None = None
    broken: dict[str, np.ndarray] = field(default_factory=dict)
    attack: int = 0
    stage: int = 0
    batch: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    confirmed: int = 0
    unconfirmed: int = 0
    broken_again: int = 0
    measured: dict[str, Any] = field(default_factory=dict)
    changed: bool = False
    noticed: list[list[str]] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)

    def save(self, path: Path | None) -> None:
        """Write it, where there is a place to write to; of several ranks the first does."""
        if path is None or not ranks.first():
            return
        plain = {k: value for k, value in vars(self).items() if k not in ("clean", "broken", "code")}
        plain["code"] = [session.model_dump() for session in self.code]
        arrays: dict[str, Any] = {f"broken/{name}": value for name, value in self.broken.items()}
        if self.clean is not None:
            arrays["clean"] = self.clean
        buffer = io.BytesIO()
        np.savez(buffer, meta=np.array(json.dumps(plain)), **arrays)
        content = buffer.getvalue()
        write_bytes(path, content + hashlib.sha256(content).digest())

    @classmethod
    def load(cls, path: Path | None, of: str) -> State:
        """The state in ``path`` if it belongs to this model and suite, else a fresh one."""
        state = ranks.from_first(lambda: cls.kept(path)) if path is not None else None
        return state if state is not None and state.of == of else cls(of)

    @classmethod
    def kept(cls, path: Path) -> State | None:
        """The state in ``path``; None if there is none, or not what was written there."""
        try:
            stored = read_bytes(path, LARGEST)
        except (OSError, ValueError):
            return None
        content, digest = stored[:-DIGEST], stored[-DIGEST:]
        if hashlib.sha256(content).digest() != digest:  # before it is read: a damaged zip file may raise anything
            return None
        try:
            arrays = read_arrays(content, None, LARGEST)
            plain: dict[str, Any] = json.loads(str(arrays["meta"]))
            plain["code"] = [Code.model_validate(session) for session in plain["code"]]
            broken = {k.removeprefix("broken/"): v for k, v in arrays.items() if k.startswith("broken/")}
            clean = arrays.get("clean")
            return cls(clean=clean, broken=broken, **plain)
        except (ValueError, KeyError, TypeError, RecursionError):  # another version's
            return None


def state_name(kind: str, **terms: Any) -> str:
    """The name of the file of an evaluation's state: each kind of evaluation under each of its terms has its own, so
    that none takes another's for its own and begins it again. ``evaluation.npz`` in a run folder is the run's.

    Args:
        terms: whatever was asked for, as JSON knows it; what is None or empty was not.

    Example: ``state_name("suite", limit_test=100)``
    """
    asked = {name: value for name, value in terms.items() if value not in (None, (), [], "")}
    return f"{kind}-{canonical_digest(asked)[:8]}.npz"


def kept_identity(path: Path) -> str:
    """The identity of what was evaluated when the state in ``path`` was kept; empty if there is none to go on with."""
    state = State.kept(path)
    return "" if state is None else state.of
