"""How the documentation site is built: `make docs`. Everything stays on this machine; any warning is an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ltrobust_bench._version import __version__  # noqa: E402

project = "ltrobust-bench"
author = copyright = "The ltrobust-bench developers"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "ltrobust-bench"
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # CHANGELOG begins below its title

autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's top that are pages of the site."""


def _links(text: str) -> str:
    """Links as files of the repository have them, for the site: to its own page, or in words to a file beside it."""

    def there(found: re.Match[str]) -> str:
        words, path = found[1], found[2].removeprefix("../")
        return f"[{words}]({PAGES[path]})" if path in PAGES else f"{words} (`{path}`)"

    return re.sub(r"\[([^\]]+)\]\((\.\./[^)]+\.md)\)", there, text)


def setup(app: Sphinx) -> None:
    """Rewrite links while pages are read."""

    def change(app: Sphinx, name: object, *rest: list[str]) -> None:
        rest[-1][0] = _links(rest[-1][0])

    app.connect("source-read", change)
    app.connect("include-read", change)
