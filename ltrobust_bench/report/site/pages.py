"""Every file of the static page, from boards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ltrobust_bench._version import __version__
from ltrobust_bench.errors import LTBenchError
from ltrobust_bench.records.io import dumps
from ltrobust_bench.report import columns, published_tables, tables
from ltrobust_bench.report.across import LEGEND
from ltrobust_bench.report.aggregate import FLAGS, Board
from ltrobust_bench.report.board import ALWAYS
from ltrobust_bench.report.published import PublishedNumber, counterparts
from ltrobust_bench.report.published_tables import Block, about_ours, blocks, metric_in_words
from ltrobust_bench.report.site import about, chart, folder, headings, line, pairs, record, together, view, words
from ltrobust_bench.scores.priors import PRIORS

POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self' file:" for kind in ("script", "style")),
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""Content security policy of every page: its own files only, nothing inline, no request to anywhere else."""


NAVIGATION = {
    "index": "Leaderboard",
    "compare": "Compare",
    "methods": "Methods",
    "across": "Across data sets",
    "published": "Published",
    "data": "Data",
    "about": "About",
}
"""Pages that every page leads to, by file name."""


def render(
    boards: Sequence[Board], published: Sequence[PublishedNumber] = (), repository: str | None = None
) -> dict[str, str]:
    """The files of the page, path below its folder to text. The same boards give the same text.

    Args:
        published: what papers report; without any there is no page of it.
        repository: address of the repository that holds the records, for the page About.

    Raises:
        LTBenchError: if the installed itables does not ship the table library as expected.
    """
    views = view.board_views(boards)
    lines = [line for view in views for line in view.lines]
    methods, records = view.method_views(views), record.record_views(lines)
    page = _Pages(records, bool(published))
    files = {
        "index.html": page("index", boards=views, kinds=sorted({line.group for line in lines})),
        "compare.html": page("compare", boards=views),
        "methods.html": page("methods", methods=methods),
        "data.html": page("data", boards=views),
        "about.html": page("about", protocols=about.protocol_views(boards), repository=repository),
        "across.html": page("across", **_together(views)),
        "assets/datatables.js": _table_library(),
        "data/leaderboard.csv": tables.leaderboard_csv(boards),
        "data/groups.csv": tables.groups_csv(boards),
        "data/per_class.csv": tables.per_class_csv(boards),
        "data/references.bib": view.bibtex(method.slug for method in methods if method.lines),
    }
    if published:
        files["published.html"] = _published(page, published, boards, {method.slug for method in methods})
    for asset in (resources.files(__package__) / "assets").iterdir():
        files[f"assets/{asset.name}"] = asset.read_text(encoding="utf-8")
    for board in views:
        slug = board.board.slug
        files[f"data/{slug}.csv"] = tables.leaderboard_csv([board.board])
        files[f"data/{slug}.bib"] = view.bibtex(s for own in board.lines for s in (own.run.method, *own.run.plugins))
        files[f"data/{slug}.js"] = pairs.script(board.board, board.lines)
    for method in methods:
        files[f"methods/{method.slug}.html"] = page("method", method=method)
        if method.card is not None:
            files[f"methods/{method.slug}.bib"] = view.bibtex([method.slug])
    for one in records:
        files[f"records/{one.record.id}.html"] = page("record", view=one)
        files[f"records/{one.record.id}.json"] = dumps(one.record)
    return files


def _published(page: _Pages, numbers: Sequence[PublishedNumber], boards: Sequence[Board], known: set[str]) -> str:
    """The page of what papers report. Numbers of single classes are left to ``ltbench report published``."""
    shown = [number for number in numbers if not number.of_one_class]
    found = blocks(shown, counterparts(shown, boards))
    settings: dict[str, list[Block]] = {}
    for block in found:
        settings.setdefault(block.setting, []).append(block)
    parts = [(name, sum(len(block.lines) for block in own), own) for name, own in settings.items()]
    terms = {"published": parts, "pages": known, "ours": about_ours(found), "legend": published_tables.LEGEND}
    return page("published", **terms, papers=line.papers())


def _together(views: Sequence[view.BoardView]) -> dict[str, Any]:
    """What the page across boards is given."""
    boards = [view.board for view in views]
    entries = {line.entry.label: line for view in views for line in view.lines}
    found, rows, reason = together.pooled(boards)
    mixes = [together.mixes(board) for board in boards if board.status != "smoke" and not board.key.reduced]
    terms = {"across": found, "rows": rows, "reason": reason, "mixes": mixes, "entries": entries}
    return terms | {"headings": together.COLUMNS, "legend": LEGEND, "priors": PRIORS}


class _Pages:
    """Renders templates; everything but the templates' own text is escaped."""

    def __init__(self, records: Sequence[record.RecordView], published: bool) -> None:
        self.environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters |= {
            "percent": _percent,
            "text": words.text,
            "repositories": line.repositories,
            "titles": line.titles,
            "short": line.short,
            "metric": metric_in_words,
            "zip": zip,
        }
        self.environment.tests["web"] = line.is_web
        self.environment.globals |= {
            "policy": POLICY,
            "generator": folder.GENERATOR,
            "version": __version__,
            "total": len(records),
            "newest": max(one.record.environment.created for one in records)[:10],
            "navigation": [(name, title) for name, title in NAVIGATION.items() if published or name != "published"],
            "headings": headings.PAGE,
            "folded": headings.FOLDED,
            "texts": headings.TEXTS,
            "columns": columns.COLUMNS,
            "files": {
                "leaderboard.csv": ("one line per entry", columns.LEADERBOARD),
                "groups.csv": ("one line per entry and attack", columns.GROUP_COLUMNS),
                "per_class.csv": ("one line per entry and class", columns.PER_CLASS),
            },
            "flags": FLAGS,
            "always": ALWAYS,
            "levels": record.LEVELS,
            "switches": view.SWITCHES,
            "size": chart,
            "has_published": published,
            "citation": about.CITATION,
        }

    def __call__(self, template: str, **context: Any) -> str:
        root = "../" if template in ("method", "record") else ""
        return self.environment.get_template(f"{template}.html").render(root=root, here=template, **context) + "\n"


def _percent(value: float | None) -> str:
    return "–" if value is None or value != value else f"{round(value, 1) + 0.0:.1f}"


def _table_library() -> str:
    """DataTables (MIT licence), as the package itables ships it.

    That is an ES module, which browsers do not load from disk; as a plain script it defines ``DataTable``.
    """
    package = distribution("itables")
    source = Path(str(package.locate_file("itables/html/dt_bundle.js"))).read_text(encoding="utf-8")
    script, found = re.subn(r"export\{[^}]*?([\w$]+) as default\b[^}]*\};?", r"globalThis.DataTable=\1;", source)
    if found != 1:
        raise LTBenchError(f"itables {package.version} ships DataTables in another form; install itables 2.9.")
    return f"(() => {{\n{script}\n}})();\n"
