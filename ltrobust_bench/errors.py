"""Errors a user can act on: what happened, where, and what to type instead.

The command line prints the message on one line and leaves with ``exit_code``: 2 for wrong usage or bad
input, 1 for a problem found in something that was otherwise read correctly.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST = 50
"""Names that a message lists; there may be thousands of records."""
LONGEST = 4000
"""Characters of a message; of a longer one the middle is left out."""


def one_line(text: str) -> str:
    """``text`` on one line, as a terminal may be given it: what does not print is escaped, line ends and control
    characters, marks that turn the direction of writing around, halves of characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printed(text: str) -> str:
    """Lines as a terminal may be given them: each as :func:`one_line` makes it."""
    return "\n".join(map(one_line, text.split("\n")))


def message(text: str) -> str:
    """:func:`one_line`, of at most ``LONGEST`` characters."""
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 300]} [...] {line[-200:]}"


class LTBenchError(Exception):
    """Base of every error this package raises on purpose. Its text is one line, whatever was put in."""

    exit_code = 1

    def __str__(self) -> str:
        return message(super().__str__())


class UsageError(LTBenchError):
    """The request cannot be carried out as it was typed."""

    exit_code = 2


class DataError(UsageError):
    """The images asked for are not where they were looked for, or are not what they should be."""


class CheckpointError(UsageError):
    """A checkpoint is damaged, or belongs to something else than what was asked for."""


class BusyError(UsageError):
    """Another process works in the run folder."""


class RecordError(UsageError):
    """A record cannot be read: damaged, of another schema, or edited."""


class StorageError(LTBenchError):
    """A file could not be written whole, on a full disk for example; what lay there before is as it was."""


class CheckFailed(LTBenchError):
    """A method, a record or a model was examined and found wanting."""


class ContractError(LTBenchError, AttributeError):
    """A method reaches for something that its contract does not give it."""


class UnknownNameError(UsageError):
    """A name that no registry entry has; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.choices = kind, name, sorted(choices)
        near = get_close_matches(str(name).lower().replace("_", "-"), self.choices, n=3, cutoff=0.5)
        if near:
            offer = f"did you mean {' or '.join(repr(n) for n in near)}?"
        else:
            more = f", and {len(self.choices) - MOST} more" if len(self.choices) > MOST else ""
            offer = f"known: {', '.join(self.choices[:MOST]) or 'none'}{more}."
        super().__init__(f"unknown {kind} {name!r}: {offer}{' ' + hint if hint else ''}")
