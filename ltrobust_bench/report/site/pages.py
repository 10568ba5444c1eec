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
from ltrobust_bench.report import columns, tables
from ltrobust_bench.report.aggregate import FLAGS, Board
from ltrobust_bench.report.site import chart, folder, view
from ltrobust_bench.report.site.headings import PAGE

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


def render(boards: Sequence[Board]) -> dict[str, str]:
    """The files of the page, path below its folder to text. The same boards give the same text.

    Raises:
        LTBenchError: if the installed itables does not ship the table library as expected.
    """
    views = view.board_views(boards)
    methods, records = view.method_views(views), view.record_views(views)
    page = _Pages(records)
    files = {
        "index.html": page("index", boards=views, kinds=sorted({line.group for v in views for line in v.lines})),
        "methods.html": page("methods", methods=methods),
        "data.html": page("data", boards=views),
        "assets/datatables.js": _table_library(),
        "data/leaderboard.csv": tables.leaderboard_csv(boards),
        "data/groups.csv": tables.groups_csv(boards),
        "data/per_class.csv": tables.per_class_csv(boards),
        "data/references.bib": view.bibtex(method.slug for method in methods if method.lines),
    }
    for asset in (resources.files(__package__) / "assets").iterdir():
        files[f"assets/{asset.name}"] = asset.read_text(encoding="utf-8")
    for board in views:
        files[f"data/{board.board.slug}.csv"] = tables.leaderboard_csv([board.board])
        slugs = (slug for line in board.lines for slug in (line.run.method, *line.run.plugins))
        files[f"data/{board.board.slug}.bib"] = view.bibtex(slugs)
    for method in methods:
        files[f"methods/{method.slug}.html"] = page("method", method=method)
        if method.card is not None:
            files[f"methods/{method.slug}.bib"] = view.bibtex([method.slug])
    for record in records:
        files[f"records/{record.record.id}.html"] = page("record", view=record)
        files[f"records/{record.record.id}.json"] = dumps(record.record)
    return files


class _Pages:
    """Renders templates; everything but the templates' own text is escaped."""

    def __init__(self, records: Sequence[view.RecordView]) -> None:
        self.environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters |= {"percent": _percent, "text": view.text}
        self.environment.tests["web"] = view.is_web
        self.environment.globals |= {
            "policy": POLICY,
            "generator": folder.GENERATOR,
            "version": __version__,
            "total": len(records),
            "newest": max(record.record.environment.created for record in records)[:10],
            "headings": PAGE,
            "columns": columns.COLUMNS,
            "files": {
                "leaderboard.csv": ("one line per entry", columns.LEADERBOARD),
                "groups.csv": ("one line per entry and attack", columns.GROUP_COLUMNS),
                "per_class.csv": ("one line per entry and class", columns.PER_CLASS),
            },
            "flags": FLAGS,
            "levels": view.LEVELS,
            "switches": view.SWITCHES,
            "size": chart,
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
