"""What is printed, made safe for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from ltrobust_bench.errors import printed


class Terminal(Console):
    """A console that escapes what does not print, in whatever text it is given: a name in somebody's file cannot
    clear the screen, or make a line look like another."""

    def render_str(self, text: str, **terms: Any) -> Text:  # type: ignore[override]
        """Rich calls it for every text, cells of tables included."""
        return super().render_str(printed(text), **terms)
