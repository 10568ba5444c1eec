"""The site under test, and what stands in its HTML."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
RECORDS = RESULTS / "records"
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&"
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Tags with their attributes, and the text, of one page; fails where a tag is not closed."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.pieces = [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == [], path

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.pieces.append(data)

    @property
    def text(self):
        return "".join(self.pieces)

    @property
    def ids(self):
        return [a["id"] for _, a in self.tags if "id" in a]

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def hostile_record(folder):
    """A committed record of `at` with hostile text wherever the schema takes free text; its path in ``folder``."""
    path = next(p for p in sorted((RECORDS / "digits-v0" / "digits-lt-ir20" / "at").glob("*.json")))
    raw = json.loads(path.read_text())
    raw["run"]["options"] = {"note": HOSTILE}
    raw["run"]["overrides"] = {HOSTILE: HOSTILE}
    raw["status"]["off_recipe"] = True
    raw["environment"] |= dict.fromkeys(("package_version", "git_commit", "python", "torch", "device"), HOSTILE)
    folder.mkdir(exist_ok=True)
    (folder / "hostile.json").write_text(json.dumps(raw))
    return folder / "hostile.json"
