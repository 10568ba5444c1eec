"""A paper's table as LaTeX that fits its column: its width is measured in Computer Modern before it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.report.paper_rows import DAGGER, attack_title, group_title, plain

if TYPE_CHECKING:
    from ltrobust_bench.report.paper import PaperTable

Width = Literal["column", "page"]
POINTS: dict[Width, float] = {"column": 234.9, "page": 487.8}
"""3.25 and 6.75 inches: one column of the usual two-column papers, and both."""
SIZES = (("small", 9.0, 6.0), ("small", 9.0, 3.0), ("footnotesize", 8.0, 3.0), ("scriptsize", 7.0, 2.0))
"""Size of the text, its points, and half the space between columns, the first that fits is taken."""
ROWS = 45
"""Entries that a page has room for; more become a longtable, which breaks over pages."""
BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Options:
    """What is asked of a LaTeX table.

    Attributes:
        width: what it must fit; None: one column if it can, else both.
        label: of the table; None: ``tab:`` and the board.
        caption: instead of the one that states the terms.
    """

    width: Width | None = None
    label: str | None = None
    caption: str | None = None


def latex(table: PaperTable, caption: str, cites: Sequence[str], options: Options) -> str:
    """LaTeX for ``\\usepackage{booktabs}`` (and ``longtable`` above ``ROWS`` entries): best in bold, second best
    underlined, methods with ``\\cite``.

    Args:
        caption: that states the terms.
        cites: citation keys of each entry, separated by commas; empty: none.
    """
    rows = [_row(table, i, keys) for i, keys in enumerate(cites)]
    head = _head(table)
    width, size, gap, points = fitted([*head, *rows], options.width)
    stated = escaped(caption) if options.caption is None else options.caption
    label = options.label or f"tab:{table.board.slug}"
    columns = len(table.columns) * len(table.groups)
    lines = [f"% about {points:.0f} pt wide; a {width} is taken to have {POINTS[width]:.0f} pt"]
    if points > POINTS[width]:
        lines.append("% too wide: show fewer columns or groups, or --decimals 0")
    body = [r"\toprule", *head, r"\midrule"]
    if len(rows) > ROWS:
        lines += [r"% needs \usepackage{longtable} and, in a two-column paper, \onecolumn", r"{" + f"\\{size}"]
        lines += [rf"\setlength{{\tabcolsep}}{{{gap:g}pt}}", rf"\begin{{longtable}}{{l{'r' * columns}}}"]
        lines += [rf"\caption{{{stated}}}\label{{{label}}}\\", *body, r"\endfirsthead", *body, r"\endhead"]
        lines += [r"\bottomrule", r"\endfoot", *rows, r"\end{longtable}", "}", ""]
        return "\n".join(lines)
    kind = "table" if width == "column" else "table*"
    lines += [rf"\begin{{{kind}}}[t]", rf"\centering\{size}", rf"\setlength{{\tabcolsep}}{{{gap:g}pt}}"]
    lines += [rf"\caption{{{stated}}}", rf"\label{{{label}}}", rf"\begin{{tabular}}{{@{{}}l{'r' * columns}@{{}}}}"]
    return "\n".join([*lines, *body, *rows, r"\bottomrule", r"\end{tabular}", rf"\end{{{kind}}}", ""])


def fitted(lines: Sequence[str], asked: Width | None = None) -> tuple[Width, str, float, float]:
    """Which width a table is made for, the size of its text, half the space between columns, and its points.

    Without a width asked for: one column if the table fits in usual text, else both.
    """
    choices: list[tuple[Width, tuple[tuple[str, float, float], ...]]]
    choices = [(asked, SIZES)] if asked else [("column", SIZES[:2]), ("page", SIZES)]
    for width, sizes in choices:
        for size, points, gap in sizes:
            wide = measured(lines, points, gap)
            if wide <= POINTS[width]:
                return width, size, gap, wide
    return width, size, gap, wide


def measured(lines: Sequence[str], size: float, gap: float) -> float:
    """How wide rows of a table are in points, text of ``size`` points in Computer Modern, about 3 % too much rather
    than too little: cells as they are printed, the space between columns, and ``[00]`` for a citation.

    Args:
        gap: ``\\tabcolsep``, half the space between columns; outer columns have none outside.
    """
    rows = [line.removesuffix(r"\\").split(" & ") for line in lines if " & " in line and r"\multicolumn" not in line]
    widths = [max(_cell(row[i]) for row in rows) for i in range(len(rows[0]))]
    # A heading over several columns may be wider than they are.
    spans = [re.findall(r"\\multicolumn\{(\d+)\}\{c\}\{(.*?)\}(?= &| \\\\)", line) for line in lines]
    for count, text in (span for found in spans for span in found):
        room = _letters(_printed(text), "cmr10") / int(count)
        widths[1:] = [max(width, room) for width in widths[1:]]
    return 1.03 * (sum(widths) * size + 2 * gap * (len(widths) - 1))


def _cell(text: str) -> float:
    """The width of a cell at one point."""
    main, _, small = text.partition(r"{\scriptsize")
    bold = r"\textbf" in main
    small, _, behind = small.partition("}")
    deviation = _letters(re.sub(r"[^0-9.]", "", small), "cmr10") * 0.78 + 1.0 if small else 0.0
    return _letters(_printed(main), "cmb10" if bold else "cmr10") + deviation + _letters(_printed(behind), "cmr10")


def _printed(text: str) -> str:
    """What stands on the paper, about: macros are gone, a citation is a number in brackets."""
    text = re.sub(r"~?\\cite\{[^}]*\}", " [00]", text)
    text = re.sub(r"\\(textbf|underline|textsuperscript)\b|\\,", "", text)
    text = re.sub(r"\\text(less|greater|bar|backslash)\{\}|\$\\dagger\$|\$\\pm\$", "+", text)
    return re.sub(r"[{}\\$]", "", text).strip()


def _letters(text: str, font: str) -> float:
    loaded = _font(font)
    loaded.set_text(text.encode("ascii", "replace").decode())
    return float(loaded.get_width_height()[0]) / 64 / 100


@cache
def _font(name: str) -> Any:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"))
    font.set_size(100, 72)
    return font


def _row(table: PaperTable, i: int, cites: str) -> str:
    parts = zip(table.pairs(i), table.marks[i].ravel(), table.intervals(i), strict=True)
    cells = [_number(*pair, mark) + interval for pair, mark, interval in parts]
    cite = rf"~\cite{{{cites}}}" if cites else ""
    return " & ".join([escaped(table.label(i)) + cite, *cells]) + r" \\"


def _number(mean: str, std: str, mark: int) -> str:
    marked = {BEST: rf"\textbf{{{mean}}}", SECOND: rf"\underline{{{mean}}}"}.get(mark, mean)
    return marked + (rf"\,{{\scriptsize$\pm$\,{std}}}" if std else "")


def _head(table: PaperTable) -> list[str]:
    names = [escaped(attack_title(column)) for column in table.columns]
    if table.groups == ("all",):
        return [" & ".join(["Method", *names]) + r" \\"]
    count = len(table.groups)
    spans = [rf"\multicolumn{{{count}}}{{c}}{{{name}}}" for name in names]
    rules = "".join(rf"\cmidrule(lr){{{2 + i * count}-{1 + (i + 1) * count}}}" for i in range(len(names)))
    groups = [escaped(group_title(group)) for group in table.groups] * len(names)
    return [" & ".join(["", *spans]) + r" \\", rules, " & ".join(["Method", *groups]) + r" \\"]


_SPECIAL = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
        "±": r"$\pm$",
        DAGGER: r"\textsuperscript{$\dagger$}",
    }
)


def escaped(text: str) -> str:
    """``text`` for LaTeX: what is special to it is written out, and the names of norms become mathematics."""
    written = plain(text).translate(_SPECIAL).replace("--", "-{}-")
    for name, ball in BALLS.items():
        written = re.sub(rf"\b{name}\b", lambda _, tex=ball.tex: tex, written)  # type: ignore[misc]
    return written
