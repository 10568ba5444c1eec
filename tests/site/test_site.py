"""The web pages without a browser: files, links, escaping, determinism, and what they say."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from pages import HOSTILE, RECORDS, RESULTS, ROOT, Page, hostile_record
from rich.console import Console

from ltrobust_bench.cards import Card, methods, plugins
from ltrobust_bench.cli.following import Follow
from ltrobust_bench.cli.run import command as run
from ltrobust_bench.cli.shared import requests
from ltrobust_bench.errors import LTBenchError, UsageError
from ltrobust_bench.plan.make import make_plan
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.records.io import find_records, read_record
from ltrobust_bench.records.retract import retract
from ltrobust_bench.records.schema import Record
from ltrobust_bench.report import aggregate, columns
from ltrobust_bench.report.aggregate import FLAGS
from ltrobust_bench.report.compare import compare
from ltrobust_bench.report.published import read_published
from ltrobust_bench.report.reproduce import command, obstacles
from ltrobust_bench.report.site import about, build, chart, folder, line, pages, pairs, view, words


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site of the committed records and a hostile one."""
    place = tmp_path_factory.mktemp("site")
    return build([RECORDS, hostile_record(place / "records")], place / "site", [RESULTS])


@pytest.fixture(scope="module")
def site(built):
    return built.index.parent


@pytest.fixture(scope="module")
def html(site):
    """Every page by its path below the site."""
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def test_a_page_for_every_method_and_record(built, html):
    records, _ = find_records([RECORDS])
    assert {f"methods/{slug}.html" for slug in [*methods.names(), *plugins.names()]} <= set(html)
    assert {f"records/{record.id}.html" for record in records} <= set(html)
    assert built.files == sum(path.is_file() for path in built.index.parent.rglob("*"))
    assert not built.damaged


def test_every_link_leads_somewhere(site, html):
    for name, page in html.items():
        assert len(set(page.ids)) == len(page.ids), name
        for attributes in page.named("a"):
            href = attributes["href"]
            if href.startswith("https://"):
                assert "noopener" in attributes["rel"]
                continue
            path, _, anchor = href.partition("#")
            target = (site / name).parent / unquote(path) if path else site / name
            assert target.is_file(), (name, href)
            if anchor:
                assert anchor.partition("?")[0] in html[target.resolve().relative_to(site).as_posix()].ids, (name, href)


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs_inline(site, html):
    for name, page in html.items():
        loaded = [a["src"] for a in page.named("script")] + [a["href"] for a in page.named("link")]
        assert all(u == "data:," or ((site / name).parent / u).is_file() for u in loaded), name
        (policy,) = (a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        for tag, attributes in page.tags:
            assert tag not in ("style", "img", "iframe", "object", "base"), name
            assert not any(key.startswith("on") or key == "style" for key in attributes), (name, tag)
    for asset in ("site.css", "site.js", "board.js", "scatter.js", "compare.js"):
        assert not re.search(r"https?:|//[a-z]|@import|url\(", (site / "assets" / asset).read_text().replace("// ", ""))


def test_contributed_text_is_escaped(html, tmp_path):
    record = read_record(hostile_record(tmp_path))
    page = html[f"records/{record.id}.html"]
    assert page.text.count(HOSTILE) >= 6
    assert f"note={HOSTILE}" in html["index.html"].text and f"note={HOSTILE}" in html["methods/at.html"].text


def test_a_hostile_card_is_escaped_and_links_to_the_web_only(monkeypatch, tmp_path):
    entry = methods.get("robal")
    raw = entry.card.model_dump()
    for part in ("title", "summary", "licence_note", "recipe_source", "claims_note"):
        raw[part] = HOSTILE
    raw |= {"deviations": [HOSTILE], "quirks": [HOSTILE]}
    raw["paper"] |= dict.fromkeys(("title", "authors", "venue", "bibtex"), HOSTILE)
    raw["paper"] |= {"url": "javascript:alert(1)", "code": "javascript://alert(1)", "arxiv": None}
    raw["claims"][0] |= {"source": "javascript:alert(1)", "note": HOSTILE, "metric": HOSTILE}
    raw["options"] = {HOSTILE: {"type": "str", "help": HOSTILE, "fixed": HOSTILE, "paper": HOSTILE}}
    monkeypatch.setattr(entry, "card", Card.model_validate(raw))
    path = tmp_path / "robal.html"
    path.write_text(pages.render(aggregate.boards([read_record(hostile_record(tmp_path))]))["methods/robal.html"])
    page = Page(path)
    assert page.text.count(HOSTILE) > 12
    assert not [a for a in page.named("a") if a["href"].startswith("javascript")]
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "style"})


def test_building_needs_no_torch(tmp_path):
    some = RECORDS / "digits-v0" / "digits-lt-ir20" / "reat"
    code = (
        f"import sys; from ltrobust_bench.report.site import build; heavy = {{'torch', 'matplotlib', 'jinja2'}}\n"
        f"assert not heavy & set(sys.modules)\nbuild([{str(some)!r}], {str(tmp_path / 'site')!r})\n"
        f"assert not {{'torch', 'matplotlib', 'itables'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_same_records_give_the_same_bytes(built, tmp_path):
    site = built.index.parent
    records, _ = find_records([site.parent / "records", RECORDS])
    again = pages.render(aggregate.boards(records[::-1]), read_published(RESULTS / "published")[0])
    assert {p.relative_to(site).as_posix() for p in site.rglob("*") if p.is_file()} == set(again)
    assert all((site / name).read_bytes() == text.encode() for name, text in again.items())


def test_the_default_board_is_the_first_and_lists_every_entry_by_rank(html):
    records, _ = find_records([RECORDS])
    boards = aggregate.boards(records)
    first = next(a for a in html["index.html"].named("section") if a.get("class") == "board")
    assert first["id"] == boards[0].slug
    for board in boards:
        ranks = [one.entry.rank for one in line.lines(board)]
        ranked = [rank for rank in ranks if rank is not None]
        assert ranks == sorted(ranked) + [None] * (len(ranks) - len(ranked))
    assert any(one.entry.rank is None for board in boards for one in line.lines(board))


def test_warnings_and_flags_are_told(html):
    text = html["index.html"].text
    assert "Disposable protocol, not for papers." in text
    for flag in ("needs 5 seeds", "scaled logits", "unranked"):
        assert FLAGS[flag] in text
    assert all(meaning in html["data.html"].text for meaning in FLAGS.values())


def test_every_flag_of_an_entry_is_explained():
    records, _ = find_records([RECORDS])
    assert {f for board in aggregate.boards(records) for e in board.entries for f in e.flags} <= FLAGS.keys()


@pytest.mark.parametrize(
    ("name", "meanings"),
    [("leaderboard", columns.LEADERBOARD), ("groups", columns.GROUP_COLUMNS), ("per_class", columns.PER_CLASS)],
)
def test_every_column_has_one_line(name, meanings, html, site):
    assert all(meaning and "\n" not in meaning for meaning in meanings.values())
    assert all(meaning in html["data.html"].text for meaning in meanings.values())
    with (site / "data" / f"{name}.csv").open(newline="") as handle:
        assert csv.DictReader(handle).fieldnames == list(meanings)


def test_a_pairs_numbers_are_those_of_the_command_line(built):
    """What compare.html reads, against `ltbench report compare`, for the closest and for other entries."""
    board = next(b for b in built.boards if b.slug == "digits-v0-digits-lt-ir20-small-fixed")
    own = line.lines(board)
    (data,) = re.findall(r"ltbenchBoard\((.*)\);\n$", pairs.script(board, own), re.S)
    found = json.loads(data)
    assert [entry["label"] for entry in found["entries"]] == [one.entry.label for one in own]
    assert found["classes"] == board.classes.tolist() and sum(found["groups"].values()) == len(found["classes"])
    order = list(itertools.combinations(range(len(own)), 2))
    for i, j in ((0, 1), (2, 7), (5, 38)):
        for said in compare([(own[k].entry.label, own[k].entry.runs) for k in (i, j)]):
            pair, at = found["pairs"][said.group], order.index((i, j))
            assert pair["difference"][at] == pytest.approx(100 * said.difference, abs=0.006)
            assert pair["half"][at] == pytest.approx(100 * (said.interval[1] - said.difference), abs=0.006)
            assert pair["p"][at] == pytest.approx(said.p_value, rel=1e-5) and pair["seeds"][at] == len(said.seeds)


def test_pairs_without_a_seed_in_common_have_no_numbers():
    records, _ = find_records([RECORDS / "digits-v0" / "digits-lt-ir20"])
    some = [
        r
        for r in records
        if (r.run.method, r.run.seed) in (("at", 0), ("reat", 1))
        and (r.run.profile, r.run.plugins, r.run.extra) == ("exp", [], None)
    ]
    (board,) = aggregate.boards(some)
    (data,) = re.findall(r"ltbenchBoard\((.*)\);\n$", pairs.script(board, line.lines(board)), re.S)
    assert json.loads(data)["pairs"]["all"] == {"difference": [None], "half": [None], "p": [1.0], "seeds": [0]}


def test_names_as_papers_write_them_and_what_a_search_finds(html):
    rows = [a for a in html["index.html"].named("th") if a.get("scope") == "row" and "data-search" in a]
    (words,) = {a["data-search"] for a in rows if a["data-search"].startswith("RoBal robal long")}
    for word in (
        "CVPR",
        "2021",
        "Wu, Liu",
        "Adversarial Robustness under Long-Tailed",
        "long-tailed adversarial training",
    ):
        assert word in words
    assert not any("<" in a["data-search"] + a["data-order"] for a in rows), "the table library reads them as HTML"
    assert "RoBal" in html["index.html"].text and "(variant=N) · CVPR 2021" in html["index.html"].text


def test_a_records_fields_are_in_plain_words(html):
    records, _ = find_records([RECORDS])
    names = [a for a in html[f"records/{records[0].id}.html"].tags if a[0] == "dt"]
    page = html[f"records/{records[0].id}.html"].text
    assert len(names) > 60 and "learning rate" in page and "imbalance ratio" in page and "imbalance_ratio" not in page
    assert (
        words.in_words("options.tail_start") == "options: tail_start"
        and words.in_words("a_new.field") == "a new: field"
    )
    assert words.text(12345) == "12,345" and words.text(True) == "yes" and words.text([]) == "none"


def fields(kind, prefix=""):
    """Names of a model's fields, with those of models inside, as a record's page has them."""
    for inner in get_args(kind):
        yield from fields(inner, prefix)
    for name, field in getattr(kind, "model_fields", {}).items():
        yield from list(fields(field.annotation, f"{prefix}{name}.")) or [f"{prefix}{name}"]


@pytest.mark.parametrize("section", ["run", "cost", "environment", "status", "reliability"])
def test_no_field_of_a_record_is_shown_by_the_name_that_the_file_has(section):
    names = {
        name.removeprefix("recipe.").removeprefix("code.") for name in fields(Record.model_fields[section].annotation)
    }
    assert [n for n in names if "_" in words.in_words(n) or ("_" in n and n not in words.WORDS)] == []


def test_what_a_record_has_several_of_is_in_words():
    said = words.text([{"work": "base", "dirty": None}, {"work": "training", "dirty": False}])
    assert said == "for base, with uncommitted changes none; for training, with uncommitted changes no"


def test_pages_across_boards_and_of_papers_call_methods_as_papers_do(html):
    across, published = html["across.html"].text, html["published.html"].text
    assert "AT-BSL" in across and "PGD adversarial training" in across
    links = {a["href"] for a in html["across.html"].named("a")}
    assert {"methods/at.html", "methods/at-bsl.html"} <= links
    assert "Wu et al., CVPR 2021: teaser figure" in published and "wu2021adversarial" not in published
    assert "PGD-20, tail, mean over classes" in published
    rows = [a["data-search"] for a in html["published.html"].named("tr") if "data-search" in a]
    assert any("wu2021adversarial" in row and "cvpr 2021" in row for row in rows), "both are found"


def test_about_begins_with_protocols_that_hold():
    records, _ = find_records([RECORDS])
    first, *others = [one.protocol for one in about.protocol_views(aggregate.boards(records))]
    assert first.status == "frozen" and others[-1].status == "smoke"


def test_about_has_the_text_of_every_protocol_and_how_to_cite(html):
    page = html["about.html"].text
    for one in about.protocol_views([]):
        assert one.text in page and one.protocol.title in page
    assert about.CITATION in page and "ltbench record submit" in page
    records, _ = find_records([RECORDS / "digits-v0" / "digits-lt-ir20" / "at"])
    assert (
        "https://example.org/r"
        in pages.render(aggregate.boards(records), repository="https://example.org/r")["about.html"]
    )


def test_published_numbers_have_their_page_if_there_are_any(html, tmp_path):
    numbers = [n for n in read_published(RESULTS / "published")[0] if "_class_" not in n.metric]
    assert sum("data-search" in a for a in html["published.html"].named("tr")) == len(numbers) > 100
    assert "Never ranked" in html["published.html"].text
    alone = build([RECORDS / "digits-v0" / "digits-lt-ir20" / "reat"], tmp_path / "site").index
    assert "published.html" not in alone.read_text() and not (alone.parent / "published.html").exists()


def test_the_boards_columns_are_defined_on_the_page(built, html):
    headers = [a for a in html["index.html"].named("th") if a.get("scope") == "col" and "class" in a]
    views = view.board_views(built.boards)
    assert len(headers) == sum(len(heading.columns) for one in views for heading in one.headings)
    assert all(a["title"] in html["index.html"].text for a in headers)


def test_switches_lead_to_one_board_each():
    records, _ = find_records([RECORDS])
    cut = records[0].run.model_copy(update={"limit_test": 100})
    reduced = records[0].model_copy(
        update={"run": cut, "status": records[0].status.model_copy(update={"reduced": True})}
    )
    other = records[0].model_copy(update={"run": records[0].run.model_copy(update={"test_index_sha256": "d" * 64})})
    views = view.board_views(aggregate.boards([*records, reduced, other]))
    stands = [tuple(v.switches.values()) for v in views]
    assert len(set(stands)) == len(stands) == len(aggregate.boards(records)) + 2
    assert any("100 test images" in stand[-1] for stand in stands)


def read_back(text):
    """The run section that `ltbench run` makes of a command."""
    words = shlex.split(text)
    assert words[:2] == ["ltbench", "run"]
    asked = run.make_context("run", words[2:]).params
    where = ("data_dir", "device", "devices", "threads", "runs_dir", "results_dir")
    for name in (*where, "tuned", "dry_run", "fresh", "repeats", *Follow.__dataclass_fields__):
        asked.pop(name)
    (request,) = requests(Console(), torch.device("cpu"), **asked)
    return request.to_plan().run


def test_commands_repeat_the_runs():
    # Only of data that come with the package can a plan be made anywhere.
    records = [record for record in find_records([RECORDS])[0] if record.run.dataset == "digits-lt"]
    for record in records[::5] + [r for r in records if r.run.plugins or r.run.overrides or r.run.profile != "exp"]:
        assert read_back(command([record])).key() == record.run.key(), command([record])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_commands_name_how_it_was_computed(precision):
    folded = Policy(crafting="folded", memory_format="channels_last")
    wanted = make_plan("reat", "digits-lt", precision=precision, policy=folded).run
    first = find_records([RECORDS])[0][0]
    record = first.model_copy(update={"run": wanted})
    assert read_back(command([record])).key() == wanted.key()
    on_a_gpu = first.environment.model_copy(update={"deterministic": True})
    assert "--deterministic" in command([record.model_copy(update={"environment": on_a_gpu})]).split()


def test_commands_name_what_a_reader_must_add():
    record = find_records([RECORDS])[0][0]
    folder_run = record.run.model_copy(
        update={"dataset": "folder-photos-64px", "protocol": "other", "profile": "own", "options": {"a b": "x y"}}
    )
    found = shlex.split(command([record.model_copy(update={"run": folder_run})]))
    for pair in (
        ("--dataset", "folder:photos@64"),
        ("--protocol", "other"),
        ("--profile", "own"),
        ("--set", "a b=x y"),
    ):
        assert pair in list(zip(found, found[1:], strict=False))
    assert "--imbalance-ratio" not in found


def test_what_stands_in_the_way_of_repeating_a_run():
    run_section = find_records([RECORDS])[0][0].run
    assert obstacles(run_section) == []
    for change, said in {
        ("protocol_digest", "f" * 64): "the installed one has",
        ("protocol", "other"): "no such protocol is installed",
        ("method", "mystery"): "no card of mystery",
        ("card_version", 99): "of version 99",
        ("plugins", ("nothing",)): "plug-in nothing",
    }.items():
        (found,) = obstacles(run_section.model_copy(update=dict([change])))
        assert said in found


def test_the_chart_is_drawn_to_scale():
    drawn = chart.per_class([10, 40, 20], np.array([50.0, 100, 80]), np.array([[0.0, 60, 40], [20, 80, 40]]))
    assert [bar.label for bar in drawn.bars] == [1, 2, 0] and [bar.robust for bar in drawn.bars] == [70, 40, 10]
    assert drawn.bars[0].spread == (60, 80)
    assert drawn.y(100) == chart.TOP and drawn.y(0) == chart.HEIGHT - chart.BOTTOM
    assert drawn.y(50) == pytest.approx((drawn.y(0) + drawn.y(100)) / 2)
    assert [name for name, *_ in drawn.groups] == ["head", "medium", "tail"]
    many = chart.per_class([500] * 100, np.full(100, 50.0), np.full((1, 100), 20.0))
    assert sum(bar.labelled for bar in many.bars) <= chart.MOST_LABELS and many.bars[0].spread is None


def test_a_lowered_record_says_that_its_bits_are_not_all(built, html):
    records = [r for board in built.boards for e in board.entries for r in e.runs]
    assert any(record.standing.broken is not None for record in records)
    for record in records:
        text, lowered = html[f"records/{record.id}.html"].text, record.standing.broken is not None
        assert ("Lowered: others broke" in text) == lowered
        assert ("every number here is computed from it." in text) != lowered


def test_retractions_of_the_results_hold_for_records_elsewhere(tmp_path):
    results, (first, second) = (
        tmp_path / "results",
        sorted((RECORDS / "digits-v0/digits-lt-ir20/at").glob("*.json"))[:2],
    )
    retract(read_record(first).id, "wrong", results, {read_record(first).id: "at"})
    shown = build([first, second], tmp_path / "site", [results])
    assert [r.id for e in shown.boards[0].entries for r in e.runs] == [read_record(second).id]


def test_only_a_page_is_replaced(built, tmp_path):
    files = {"index.html": built.index.read_text(), "old.html": ""}
    folder.check(tmp_path / "new")
    folder.replace(tmp_path / "new", files)
    folder.check(tmp_path / "new")
    folder.replace(tmp_path / "new", {"index.html": "", "a/b.html": "x"})
    assert sorted(p.name for p in (tmp_path / "new").rglob("*")) == ["a", "b.html", "index.html"]
    assert [p.name for p in tmp_path.iterdir()] == ["new"], "nothing temporary stays"
    with pytest.raises(UsageError, match="was not made by"):
        folder.check(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="name a new folder"):
        folder.check(tmp_path / "file")


def _luminance(colour):
    """Relative luminance of '#rrggbb', WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(theme):
    css = (Path(pages.__file__).parent / "assets" / "site.css").read_text()
    colours = {n: c.split(", ")[theme] for n, c in re.findall(r"--([a-z]+): light-dark\(([^)]+)\)", css)}

    def contrast(a, b):
        high, low = sorted((_luminance(colours[a]), _luminance(colours[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for ground in ("ground", "raised"):
        assert all(contrast(ink, ground) >= 4.5 for ink in ("ink", "quiet", "link"))
    assert contrast("warning", "warned") >= 4.5
    assert contrast("robust", "clean") >= 2.5 and contrast("robust", "ground") >= 3


def test_the_screenshots_are_there_and_small():
    for name in ("light", "dark", "compare", "classes", "method", "phone"):
        assert 10_000 < (ROOT / "docs" / f"site-{name}.png").stat().st_size < 300_000


def test_another_form_of_the_table_library_is_refused_in_one_line(monkeypatch, tmp_path):
    class Package:
        version = "9"

        def locate_file(self, name):
            (tmp_path / "bundle.js").write_text("export default 1;")
            return tmp_path / "bundle.js"

    monkeypatch.setattr(pages, "distribution", lambda name: Package())
    with pytest.raises(LTBenchError, match="itables 9 ships"):
        build([RECORDS / "digits-v0" / "digits-lt-ir20" / "reat"], tmp_path / "site")
    assert not (tmp_path / "site").exists()
