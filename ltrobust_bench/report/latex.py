"""A paper's table as LaTeX that fits its column: its width is measured in Computer Modern before it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ltrobust_bench.attacks.ball import BALLS
from ltrobust_bench.report.paper_rows import DAGGER, attack_title, group_title, plain

if TYPE_CHECKING:
    from ltrobust_bench.report.paper import PaperTable

Width = Literal["column", "page"]
POINTS: dict[Width, float] = {"column": 234.9, "page": 487.8}
"""3.25 and 6.75 inches: one column of the usual two-column papers, and both."""
SIZES = (("small", 9.0, 6.0), ("small", 9.0, 3.0), ("footnotesize", 8.0, 3.0), ("scriptsize", 7.0, 2.0))
"""Size of the text, its points, and half the space between columns, the first that fits is taken."""
SCRIPT = 7.0
CUT = {9.0: 1.028, 8.0: 1.063, SCRIPT: 1.139}
"""How much wider letters are in the fonts of 9, 8 and 7 points (cmr9, cmr8, cmr7) than in cmr10, for their size."""
BOLD = 1.15
"""Of digits, which are what is bold."""
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
        lines.append("% too wide: show fewer columns, groups or methods, --decimals 0 or --no-std")
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

    Without a width asked for: one column if the table fits in text of a usual size, else both.
    """
    choices: list[tuple[Width, tuple[tuple[str, float, float], ...]]]
    choices = [(asked, SIZES)] if asked else [("column", SIZES[:3]), ("page", SIZES)]
    for width, sizes in choices:
        for size, points, gap in sizes:
            wide = measured(lines, points, gap)
            if wide <= POINTS[width]:
                return width, size, gap, wide
    return width, size, gap, wide


def measured(lines: Sequence[str], size: float, gap: float) -> float:
    """How wide rows of a table are in points, text of ``size`` points (9, 8 or 7) in Computer Modern, up to 6 %
    too wide rather than too narrow: cells as they are printed, the space between columns, and ``[00]`` for a citation.

    Args:
        gap: ``\\tabcolsep``, half the space between columns; outer columns have none outside.
    """
    split = [line.removesuffix(r"\\").split(" & ") for line in lines if " & " in line]
    rows = [cells for cells in split if not any(r"\multicolumn" in cell for cell in cells)]
    widths = [max(_cell(row[i], size) for row in rows) for i in range(len(rows[0]))]
    for cells in split:
        start = 0
        for cell in cells:
            span = re.match(r"\\multicolumn\{(\d+)\}\{c\}\{(.*)\}", cell.strip())
            end = start + (int(span[1]) if span else 1)
            if span:  # What a heading needs more than its columns have, the last of them gets.
                room = sum(widths[start:end]) + 2 * gap * (end - start - 1)
                widths[end - 1] += max(0.0, _letters(_printed(span[2]), size) - room)
            start = end
    return 1.01 * (sum(widths) + 2 * gap * (len(widths) - 1))


def _cell(text: str, size: float) -> float:
    """The width of a cell in points."""
    main, _, small = text.partition(r"{\scriptsize")
    small, _, behind = small.partition("}")
    deviation = _letters("+0" + re.sub(r"[^0-9.]", "", small), SCRIPT) if small else 0.0  # +0: the sign and two spaces
    return _letters(_printed(main), size, bold=r"\textbf" in main) + deviation + _letters(_printed(behind), size)


def _printed(text: str) -> str:
    """What stands on the paper, about: macros are gone, a citation is a number in brackets."""
    text = re.sub(r"~?\\cite\{([^}]*)\}", lambda found: f" [{', '.join('00' for _ in found[1].split(','))}]", text)
    text = re.sub(r"\\(textbf|underline|textsuperscript)\b|\\,", "", text)
    text = re.sub(r"\\text(less|greater|bar|backslash)\{\}|\$\\dagger\$|\$\\pm\$", "+", text)
    return re.sub(r"[{}\\$]", "", text).strip()


def _letters(text: str, size: float, bold: bool = False) -> float:
    """The width of a line in points: its letters' in the font of 10 points, those of smaller fonts being cut wider."""
    widths = _widths()
    ems = sum(widths.get(letter, widths["0"]) for letter in text)
    return ems * size * CUT[size] * (BOLD if bold else 1.0)


@cache
def _widths() -> dict[str, float]:
    """The width of each letter of Computer Modern, in ems."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "cmr10.ttf"))
    font.set_size(100, 72)
    found = {chr(code): font.load_char(code).linearHoriAdvance / 65536 / 100 for code in range(33, 127)}
    return found | {" ": 1 / 3}


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
