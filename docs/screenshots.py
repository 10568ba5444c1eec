"""Pictures for the documents, from the committed records: docs/site-*.png and docs/figure-*.png.

The first are pages of `ltbench report site` in Debian's chromium, the others what `ltbench report figures` draws.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from ltrobust_bench.report.figures.kinds import BOARD_FIGURES, draw_kinds
from ltrobust_bench.report.site import build

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "results"
CHROMIUM = os.environ.get("LTBENCH_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
BOARD = "digits-v0-digits-lt-ir20-small-fixed"
SHOTS = {
    "light": (f"index.html#{BOARD}", (1360, 960), "light"),
    "dark": (f"index.html#{BOARD}", (1360, 960), "dark"),
    "compare": (f"compare.html#{BOARD}?with=reat&with=at-bsl&with=at", (1360, 1100), "light"),
    "classes": (f"index.html#{BOARD}?view=classes", (1360, 960), "light"),
    "method": ("methods/robal.html", (1280, 960), "light"),
    "phone": (f"index.html#{BOARD}", (360, 780), "light"),
}
"""Page, width and height in pixels, colour scheme."""


def shoot_pages(folder: Path) -> None:
    with sync_playwright() as playwright:
        site = build([RESULTS / "records"], folder / "site", [RESULTS]).index.parent
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, (page, (width, height), scheme) in SHOTS.items():
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(f"{site.as_uri()}/{page}")
            tab.screenshot(path=DOCS / f"site-{name}.png")
        browser.close()


def draw_figures(folder: Path) -> None:
    drawn = draw_kinds(list(BOARD_FIGURES), RESULTS, folder / "runs", output=folder, dataset="digits-lt")
    for stem in drawn.written:
        shutil.copyfile(stem.with_suffix(".png"), DOCS / f"figure-{stem.name}.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        draw_figures(Path(name))
        shoot_pages(Path(name))
