"""Screenshots of `ltbench report site` for the documents, from the committed records: docs/site-*.png."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from ltrobust_bench.report.site import build

DOCS = Path(__file__).resolve().parent
CHROMIUM = os.environ.get("LTBENCH_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SHOTS = {
    "light": ("index.html", (1360, 960), "light"),
    "dark": ("index.html", (1360, 960), "dark"),
    "method": ("methods/robal.html", (1280, 960), "light"),
    "phone": ("index.html#digits-v0-digits-lt-ir20-small-fixed", (360, 780), "light"),
}
"""Page, width and height in pixels, colour scheme."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        site = build([DOCS.parent / "results" / "records"], Path(folder) / "site").index.parent
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, (page, (width, height), scheme) in SHOTS.items():
            tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            tab.goto(f"{site.as_uri()}/{page}")
            tab.screenshot(path=DOCS / f"site-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
