"""The web pages in a real browser: Debian's chromium (or LTBENCH_CHROMIUM), opened from disk.

Without playwright or chromium the tests say that they skipped; with LTBENCH_REQUIRE_BROWSER=1 they fail.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pages import HOSTILE, RECORDS, RESULTS, hostile_record

from ltrobust_bench.records.io import find_records, read_record, write_record
from ltrobust_bench.report import aggregate
from ltrobust_bench.report.aggregate import entries_called
from ltrobust_bench.report.compare import compare
from ltrobust_bench.report.site import build

CHROMIUM = os.environ.get("LTBENCH_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What a page does "at once" it often does in a timer of zero milliseconds, as the table does when it is sorted. On a
# busy machine a test may read before that; here every timer is late, so that such a test fails each time.
LATE = "const soon = setTimeout; globalThis.setTimeout = (what, wait = 0, ...rest) => soon(what, wait + 200, ...rest);"
BOARD = "section.board.shown"
NAMED = ("index.html", "compare.html", "methods.html", "across.html", "published.html", "data.html", "about.html")
SLUG = "digits-v0-digits-lt-ir20-small-fixed"


def absent(what):
    reason = f"the pages are tested in a browser where {what}"
    if os.environ.get("LTBENCH_REQUIRE_BROWSER") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is installed")
    if not Path(CHROMIUM).exists():
        absent(f"{CHROMIUM} is, or what LTBENCH_CHROMIUM names")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("browser")
    return build([RECORDS, hostile_record(place / "records")], place / "site", [RESULTS]).index.parent


@pytest.fixture
def opened(browser, site):
    """Opens a page; at the end there was no message on the console, no error, and no request out of the folder."""
    contexts, wrong = [], []

    def open_page(name=f"index.html#{SLUG}", site=site, **settings):
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **settings})
        context.set_default_timeout(120_000)  # milliseconds, for machines that do other work
        contexts.append(context)
        context.add_init_script(LATE)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        inside = (site.as_uri() + "/", "data:")
        page.on("request", lambda r: None if r.url.startswith(inside) else wrong.append(f"request: {r.url}"))
        page.goto(f"{site.as_uri()}/{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def until(page, read, holds):
    """What ``read`` says as soon as ``holds`` is true of it: a page answers later than a click comes back."""
    for _ in range(300):
        value = read()
        if holds(value):
            return value
        page.wait_for_timeout(100)
    raise AssertionError(f"after 30 s: {value}")


def becomes(page, read, wanted):
    return until(page, read, lambda value: value == wanted)


def address(page):
    """The address now; ``page.url`` learns of a change behind # later."""
    return page.evaluate("location.href")


def column(page, title):
    """The numbers in a column of the board that is shown, by the header's accessible name."""
    name = page.locator(f"{BOARD} thead th[aria-label='{title}']").get_attribute("class").split()[0]
    return [float(value) for value in page.locator(f"{BOARD} .results tbody td.{name}").all_inner_texts()]


def switch(page, name):
    return page.get_by_role("combobox", name=name)


def rows(page):
    return page.evaluate(
        "rows => [...document.querySelectorAll(rows)].map(r => [...r.cells].map(c => c.innerText))",
        f"{BOARD} .results tbody tr",
    )


def test_every_kind_of_page_opens_without_a_message(opened, site):
    record = next((site / "records").glob("*.html")).name
    for name in (*NAMED, "methods/robal.html", "methods/awp.html"):
        assert opened(name).locator("h1").count() == 1
    assert opened(f"records/{record}").locator("h2", has_text="Result").count() == 1


def test_it_opens_by_rank_and_the_unranked_stand_last(opened):
    ranks = [row[0] for row in rows(opened())]
    ranked = [int(rank) for rank in ranks if rank != "–"]
    assert len(ranks) >= 40 and ranked == sorted(ranked) and ranks[len(ranked) :] == ["–"] * (len(ranks) - len(ranked))


def test_sorting_by_click_and_by_keyboard(opened):
    page = opened()
    page.locator(f"{BOARD} th[aria-label='Robust Tail']").click()
    tail = until(page, lambda: column(page, "Robust Tail"), lambda tail: tail == sorted(tail, reverse=True))
    assert len(set(tail)) > 10
    order = page.get_by_role("button", name="Clean All: Activate to sort")
    order.focus()
    page.keyboard.press("Enter")
    clean = until(page, lambda: column(page, "Clean All"), lambda clean: clean == sorted(clean, reverse=True))
    page.keyboard.press("Enter")
    becomes(page, lambda: column(page, "Clean All"), clean[::-1])
    assert page.locator(f"{BOARD} th[aria-label='Clean All']").get_attribute("aria-sort") == "ascending"


def test_filtering_by_text_and_by_kind(opened):
    page = opened()
    everything = len(rows(page))
    page.get_by_label("Find").fill("robal")
    assert [row[1].split("\n")[0] for row in rows(page)] == ["RoBal", "RoBal"]
    assert f"2 of {everything} entries" in page.locator(f"{BOARD} .count").inner_text()
    page.get_by_label("Find").fill("")
    page.get_by_label("Kind of defense").select_option("general adversarial training")
    names = {row[1].split("\n")[0] for row in rows(page)}
    assert {"PGD adversarial training", "TRADES", "MART"} <= names and "REAT" not in names
    page.get_by_label("Find").fill("no such thing")
    assert page.locator(f"{BOARD} .results tbody").inner_text() == "No entry fits."


def test_switching_boards(opened):
    page = opened()
    first = page.locator(f"{BOARD} h2").inner_text()
    switch(page, "Imbalance ratio").select_option("1")
    assert "imbalance ratio 1," in page.locator(f"{BOARD} h2").inner_text()
    assert page.locator("section.board:visible").count() == 1 and len(rows(page)) == 1
    assert address(page).endswith("#digits-v0-digits-lt-ir1-small-fixed")
    page.go_back()
    becomes(page, page.locator(f"{BOARD} h2").inner_text, first)
    page.go_forward()
    page.reload()
    assert switch(page, "Imbalance ratio").input_value() == "1"
    page.get_by_role("link", name="Skip to content").press("Enter")
    assert switch(page, "Imbalance ratio").input_value() == "1", "a link to another part of the page changes no choice"
    page.get_by_label("Find").fill("reat")
    switch(page, "Imbalance ratio").select_option("20")
    assert len(rows(page)) == 1, "the filter holds on the other board"
    page.get_by_label("Find").fill("")
    assert page.locator(f"{BOARD} h2").inner_text() == first


def test_light_and_dark_and_the_choice_is_remembered(opened):
    ground = "getComputedStyle(document.body).backgroundColor"
    page = opened(color_scheme="dark")
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Light theme").click()
    light = page.evaluate(ground)
    assert light == "rgb(255, 255, 255)" != dark
    page.reload()
    assert page.evaluate(ground) == light and page.locator("#theme").inner_text() == "Dark theme"
    assert opened(color_scheme="light").evaluate(ground) == light


def test_a_hostile_name_is_text(opened, site):
    page = opened()
    page.get_by_label("Find").fill("onerror")
    (row,) = rows(page)
    assert f"note={HOSTILE}" in row[1] and page.locator("img").count() == 0
    page.locator(f"{BOARD} .results tbody a").first.click()
    page.wait_for_url("**/methods/at.html#*")
    assert page.get_by_text(f"note={HOSTILE}").count() > 0
    record = opened(f"records/{read_record(site.parent / 'records' / 'hostile.json').id}.html")
    assert record.get_by_text(HOSTILE, exact=True).count() >= 5 and record.locator("img").count() == 0


def test_copying_a_command(opened):
    page = opened("methods/reat.html", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy command").first.click()
    page.get_by_role("button", name="Copied command").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("ltbench run --method reat --dataset ")


@pytest.mark.parametrize("name", [*NAMED, f"compare.html#{SLUG}?with=reat&with=at", "methods/robal.html", "record"])
def test_a_phone_scrolls_the_table_not_the_page(opened, site, name):
    if name == "record":
        name = f"records/{min(path.name for path in (site / 'records').glob('*.html'))}"
    page = opened(name, viewport={"width": 360, "height": 760})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    if name == "index.html":
        method = page.locator(f"{BOARD} .results tbody th").first
        assert method.bounding_box()["y"] < 600, "the table begins on the first screen"
        page.locator(f"{BOARD} .table .scroll").evaluate("box => (box.scrollLeft = 300)")
        assert method.bounding_box()["x"] == pytest.approx(16, abs=1), "the method stays in sight"


@pytest.mark.parametrize("width", [360, 1280])
def test_a_name_without_spaces_does_not_widen_the_page(opened, tmp_path, width):
    record = read_record(next((RECORDS / "digits-v0" / "digits-lt-ir20" / "at").glob("*.json")))
    named = record.run.model_copy(update={"method": "m" * 100, "options": {"o" * 200: "v" * 200}})
    write_record(record.model_copy(update={"run": named}), tmp_path / "records" / "long.json")
    index = build([tmp_path / "records"], tmp_path / "site").index
    for path in (index, *index.parent.glob("records/*.html"), index.parent / "methods" / f"{'m' * 100}.html"):
        page = opened(path.relative_to(index.parent), viewport={"width": width, "height": 760}, site=index.parent)
        assert page.evaluate("document.documentElement.scrollWidth") == width, path


def test_the_first_stop_of_the_keyboard_skips_to_the_content_and_focus_is_seen(opened):
    page = opened("index.html")
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.inner_text() == "Skip to content" and focused.bounding_box()["x"] > 0
    assert focused.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_without_scripts_every_board_is_there(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("section.board:visible").count() == page.locator("section.board").count() > 1
    assert page.locator("form:visible").count() == 0 and page.locator("button:visible").count() == 0
    assert page.locator(".heat:visible").count() == page.locator(".heat").count() > 1
    assert (
        "ltbench report compare" in opened("compare.html", java_script_enabled=False).locator("noscript").inner_text()
    )


def test_search_finds_paper_venue_year_and_kind(opened):
    page = opened()
    for words, title in (
        ("robal cvpr 2021", "RoBal"),
        ("under long-tailed distributions", "AT-BSL"),
        ("2307.10205", "REAT"),
    ):
        page.get_by_label("Find").fill(words)
        assert {row[1].split("\n")[0].split(" + ")[0] for row in rows(page)} == {title}


def test_what_was_chosen_stands_in_the_address_and_is_there_after_back(opened):
    page = opened()
    page.get_by_label("Find").fill("2021 adversarial")
    page.locator(f"{BOARD} th[aria-label='Robust Tail']").click()
    page.locator("#columns-form summary").click()
    page.get_by_role("checkbox", name="Open Licence").check()
    page.get_by_role("checkbox", name="Training Seeds").uncheck()
    before = until(page, lambda: address(page), lambda said: "sort=union_tail.desc" in said)
    kept = rows(page)
    assert 2 < len(kept) < 20
    licences = {row[2]: row[-2] for row in kept}
    assert set(licences.values()) == {"none stated", "–", "MIT"}
    page.locator(f"{BOARD} .results tbody a").first.click()
    page.wait_for_url("**/methods/*")
    page.go_back()
    becomes(page, lambda: rows(page), kept)
    assert address(page) == before
    again = opened(f"index.html#{before.split('#')[1]}")
    again.locator("#columns-form summary").click()
    assert rows(again) == kept and again.get_by_role("checkbox", name="Open Licence").is_checked()


def test_points_and_classes(opened):
    page = opened(f"index.html#{SLUG}?view=points&pick=reat&find=arxiv")
    shown = len(rows_of(page))
    points = page.locator(f"{BOARD} .plot a")
    assert points.count() == 71 and page.locator(f"{BOARD} .plot a:not(.dim)").count() == shown < 71
    (picked,) = page.locator(f"{BOARD} .plot a.picked").all()
    assert picked.get_attribute("aria-label") == "REAT: Clean All (%) 95.3, Robust All (%) 54.5"
    before = picked.locator("circle").get_attribute("cx")
    page.get_by_label("Across").select_option(label="Robust Tail (%)")
    assert page.locator(f"{BOARD} .plot a.picked circle").get_attribute("cx") != before
    assert "x=union_tail" in address(page)
    page.get_by_role("radio", name="Classes").check(force=True)
    assert page.locator(f"{BOARD} .heat tbody tr:visible").count() == shown and not points.first.is_visible()


def test_the_plot_names_what_papers_compare_with_and_as_many_as_have_room(opened):
    page = opened(f"index.html#{SLUG}?view=points&pick=mart")
    named = page.locator(f"{BOARD} .plot text.label:not(.hover)").all_text_contents()
    assert {"PGD adversarial training", "TRADES", "MART", "Re-sampling"} <= set(named) and len(named) > 8
    boxes = [box.bounding_box() for box in page.locator(f"{BOARD} .plot text.label:not(.hover)").all()]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"] or abs(a["y"] - b["y"]) > 10
            assert apart, (named, a, b)
    phone = opened(f"index.html#{SLUG}?view=points", viewport={"width": 390, "height": 800})
    assert phone.locator(f"{BOARD} .points .scroll").evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.parametrize("width", [390, 1360])
def test_a_link_to_a_board_shows_where_one_is(opened, width):
    """Not the table alone, without the pages' names and the controls above it."""
    page = opened(viewport={"width": width, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("scrollY") == 0 and page.locator(f"{BOARD} h2").inner_text().startswith("digits-lt")


def rows_of(page):
    return page.locator(f"{BOARD} .results tbody tr").all()


def test_comparing_ticked_entries_says_what_the_command_line_says(opened, site):
    page = opened()
    for label in ("at", "reat", "robal"):
        page.get_by_role("checkbox", name=f"Compare {label}", exact=True).check()
    page.get_by_role("link", name="Compare", exact=True).last.click()
    page.get_by_text("Differences").wait_for()
    order = page.locator("#entries a").all_inner_texts()
    board = next(b for b in aggregate.boards(find_records([RECORDS], [RESULTS])[0]) if b.slug == SLUG)
    labels = {"PGD adversarial training (at)": "at", "REAT": "reat", "RoBal": "robal"}
    found = compare([(e.label, e.runs) for e in entries_called(board, [labels[name] for name in order], "union")])
    shown = page.evaluate(
        "[...document.querySelectorAll('#comparison h2 + .both tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    assert len(shown) == len(found) == 8
    for cells, said in zip(shown, found, strict=True):
        low, high = (float(end.replace("\N{MINUS SIGN}", "-")) for end in cells[2].split(" to "))
        assert cells[0] == said.group and float(cells[1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
            100 * said.difference, abs=0.06
        )
        assert (low, high) == pytest.approx([100 * end for end in said.interval], abs=0.06)
        assert float(cells[3]) == pytest.approx(said.p_value, rel=0.06) and float(cells[4]) == pytest.approx(
            said.p_holm, rel=0.06
        )
        assert cells[5] == str(len(said.seeds))
        assert cells[6] == (("better" if said.difference > 0 else "worse") if said.resolved else "not resolved")
    assert page.locator("#bars rect").count() == 30
    assert opened(address(page).removeprefix(site.as_uri() + "/")).locator("#entries a").all_inner_texts() == order
    page.get_by_role("button", name="Leave out robal").click()
    assert page.locator("#entries a").count() == 2
    page.go_back()
    becomes(page, page.locator("#entries a").all_inner_texts, order)
    assert opened(f"compare.html#{SLUG}?with=nobody").get_by_text("nobody is not on this board").count() == 1


def test_published_numbers_are_found(opened):
    page = opened("published.html")
    page.get_by_label("Find").fill("taet pgd20")
    assert 0 < page.locator("tr[data-search]:visible").count() < 60
    assert page.locator("#count").inner_text().split()[0] == str(page.locator("tr[data-search]:visible").count())


def test_paper_has_the_table_and_no_controls(opened):
    page = opened()
    page.emulate_media(media="print")
    assert page.locator("form:visible, button:visible, nav:visible").count() == 0
    assert page.locator(f"{BOARD} .results").is_visible()


SHOWN = [f"index.html#{SLUG}?view={view}&find=robal&pick=robal" for view in ("table", "points", "classes")]
COMPARED = f"compare.html#{SLUG}?with=reat&with=at"
DETAILS = ["methods/robal.html", "records"]


@pytest.mark.parametrize(
    ("scheme", "names"),
    [
        ("light", [SHOWN[0], COMPARED, *DETAILS]),
        pytest.param("dark", SHOWN[1:], marks=pytest.mark.slow),
        pytest.param("light", [*SHOWN[1:], "methods.html", *NAMED[3:]], marks=pytest.mark.slow),
        pytest.param("dark", [SHOWN[0], COMPARED, *NAMED[2:], *DETAILS], marks=pytest.mark.slow),
    ],
    ids=["light", "dark", "other-light", "other-dark"],
)
def test_axe_finds_nothing(opened, site, scheme, names):
    """Deque's axe-core: every kind of page, and the board in each of its three forms."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        absent("axe-playwright-python is installed")
    found = []
    for name in names:
        path = f"records/{min(p.name for p in (site / 'records').glob('*.html'))}" if name == "records" else name
        # Axe would fetch style sheets again, which the pages forbid.
        answer = Axe().run(opened(path, color_scheme=scheme), options={"preload": False}).response
        found += [(name, one["id"], one["nodes"][0]["html"]) for one in answer["violations"]]
    assert not found
