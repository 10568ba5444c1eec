"""Lines as a terminal shows them. Light: listings are to start at once."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from ltrobust_bench.errors import printed


def in_words(line: str, indent: int = 0) -> str:
    """A line as a terminal shows it, broken between words; elsewhere (a file, a pipe) as it is.

    Args:
        indent: of what follows the first line.
    """
    return between_words(line, max(40, shutil.get_terminal_size().columns), indent) if sys.stdout.isatty() else line


def between_words(line: str, width: int, indent: int = 0) -> str:
    """A line in lines of at most ``width`` characters; a longer word (a path) is one of its own."""
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def echo(text: str, err: bool = False, nl: bool = True) -> None:
    """Print lines, with what does not print escaped: a name that somebody chose cannot clear the screen, or make a
    line look like another."""
    click.echo(printed(text), err=err, nl=nl)


def counted(number: int, what: str) -> str:
    """``1 record``, ``2 records``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
