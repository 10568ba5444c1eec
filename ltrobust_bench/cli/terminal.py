"""What is printed, made safe for a terminal."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ltrobust_bench.cli.words import between_words
from ltrobust_bench.errors import printed

WIDEST = 10_000
"""Columns of what is no terminal."""


class Terminal(Console):
    """A console that escapes what does not print, in whatever text it is given: a name in somebody's file cannot
    clear the screen, or make a line look like another."""

    def render_str(self, text: str, **terms: Any) -> Text:  # type: ignore[override]
        """Rich calls it for every text, cells of tables included."""
        return super().render_str(printed(text), **terms)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **terms: Any) -> None:
        """Text is broken between words on a terminal, and not at all in a pipe or a file, where somebody searches
        its lines and a table's rows; with ``soft_wrap`` (a command to copy) it is one line everywhere."""
        if soft_wrap is None and len(objects) == 1 and isinstance(objects[0], str):
            objects, soft_wrap = (self._in_words(objects[0]),), True
        if self.is_terminal or "COLUMNS" in os.environ or not any(isinstance(one, Table) for one in objects):
            super().print(*objects, soft_wrap=soft_wrap, **terms)
            return
        usual, self.width = self.width, WIDEST
        try:
            super().print(*objects, soft_wrap=soft_wrap, **terms)
        finally:
            self.width = usual

    def _in_words(self, text: str) -> str:
        if not self.is_terminal:
            return text
        lines = text.split("\n")
        return "\n".join(between_words(line, self.width, len(line) - len(line.lstrip()) + 2) for line in lines)
