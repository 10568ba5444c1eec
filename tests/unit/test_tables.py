"""Tables for papers, on SYNTHETIC records: numbers, marks, what LaTeX must not choke on, references."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.cards import methods, plugins
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.report import find_board
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.latex import BEST, POINTS, ROWS, SECOND, SIZES, Options, escaped, fitted, measured
from ltrobust_bench.report.paper import FORMATS, paper_table, render
from ltrobust_bench.report.paper_rows import GROUPS

OPTIONS = {slug: methods.get(slug).card.resolve_options("fixed", {}) for slug in methods.names()}


def entry(method, seeds=(0, 1, 2), **run):
    return [synthetic_record(method=method, options=OPTIONS[method], seed=s, **run) for s in seeds]


@pytest.fixture(scope="module")
def board():
    made = entry("at", accuracy=0.6) + entry("reat", accuracy=0.9) + entry("trades", accuracy=0.7)
    made += entry("selfdistill", accuracy=0.99)
    return boards(made)[0]


def flat(correct, of=20):
    """Bits of 3 classes: the first ``correct`` images of each are right, and robust."""
    right = ([1] * correct + [0] * (of - correct)) * 3
    return dict.fromkeys(("clean", "pgd-20", "autoattack"), right)


def test_numbers_are_mean_and_standard_deviation_over_seeds(board):
    table = paper_table(board, ["reat"], ["pgd-20"], list(GROUPS))
    runs = next(e.runs for e in board.entries if e.label == "reat")
    for g, metric in enumerate(GROUPS.values()):
        values = [100 * float(getattr(run.metrics("pgd-20"), metric)) for run in runs]
        assert table.means[0, 0, g] == pytest.approx(np.mean(values))
        assert table.stds[0, 0, g] == pytest.approx(np.std(values, ddof=1))
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert row["pgd-20_tail"] == f"{table.means[0, 0, 3]:.1f}"
    assert row["pgd-20_tail_std"] == f"{table.stds[0, 0, 3]:.1f}"


def test_best_and_second_are_marked_among_ranked_entries_and_ties_alike():
    made = [
        synthetic_record(flat(right), train_counts=[40, 20, 10], method=name, options=OPTIONS[name])
        for name, right in {"at": 18, "trades": 18, "mart": 12, "alp": 12, "reat": 5, "selfdistill": 20}.items()
    ]
    table = paper_table(boards(made)[0], columns=["union"], groups=["all"])
    marks = dict(zip((e.label for e in table.entries), table.marks[:, 0, 0].tolist(), strict=True))
    assert marks == {"at": BEST, "trades": BEST, "mart": SECOND, "alp": SECOND, "reat": 0, "selfdistill": 0}
    text = render(table, "latex")
    assert text.count(r"\textbf{90.0}") == 2 and text.count(r"\underline{60.0}") == 2
    assert r"selfdistill \textsuperscript{$\dagger$}" in text and "100.0" in text
    assert render(table, "markdown").count("**90.0**") == 2


def test_marks_follow_what_is_printed():
    made = [
        synthetic_record(flat(right, 1000), train_counts=[40, 20, 10], method=name, options=OPTIONS[name])
        for name, right in {"at": 500, "trades": 499}.items()
    ]
    board = boards(made)[0]
    assert paper_table(board, columns=["clean"], groups=["all"], decimals=0).marks.ravel().tolist() == [BEST, BEST]
    assert paper_table(board, columns=["clean"], groups=["all"]).marks.ravel().tolist() == [BEST, SECOND]


@pytest.mark.parametrize("right", [(1189, 1187), (1187, 1185), (7, 5), (5, 3), (13, 11)])
def test_marks_follow_what_is_printed_of_numbers_between_two_decimals(right):
    """Whether 59.45 prints as 59.4 or 59.5 is up to its binary fraction, and the marks must say the same."""
    made = [
        synthetic_record(flat(r, 2000), train_counts=[40, 20, 10], method=name, options=OPTIONS[name])
        for name, r in zip(("at", "trades"), right, strict=True)
    ]
    table = paper_table(boards(made)[0], columns=["clean"], groups=["all"])
    shown = {e.label: row.split(",")[3] for e, row in zip(table.entries, render(table, "csv").split()[1:], strict=True)}
    marks = dict(zip((e.label for e in table.entries), table.marks.ravel().tolist(), strict=True))
    assert marks == {"at": BEST, "trades": BEST if shown["at"] == shown["trades"] else SECOND}


def test_a_label_is_no_markup_of_its_own():
    options = OPTIONS["at"] | {"<img src=x>": "[a](javascript:b)|`c`*d*"}
    (board,) = boards([synthetic_record(method="at", options=options)])
    assert "at (\\<img src=x>=[a\\](javascript:b)\\|\\`c\\`\\*d\\*)" in render(paper_table(board), "markdown")


def test_one_seed_has_no_deviation():
    (board,) = boards(entry("at", [0]) + entry("reat", [0]))
    for form in ("markdown", "latex"):
        text = render(paper_table(board), form)
        assert "±" not in text and r"\pm" not in text and "one seed each" in text


def test_seeds_that_differ_are_not_called_the_same():
    (board,) = boards(entry("at", [0, 1]) + entry("reat", [0, 1, 2]))
    assert "over the seeds of each entry (2-3)" in render(paper_table(board), "markdown")
    (board,) = boards(entry("at", [0, 1, 2]) + entry("reat", [1, 2, 3]))
    assert "over the seeds of each entry (3)" in render(paper_table(board), "markdown")


@pytest.mark.parametrize("groups", [["all"], ["head", "tail"], ["all", "head", "medium", "tail"]])
def test_latex_is_balanced_and_every_row_has_its_columns(board, groups):
    text = render(paper_table(board, columns=["clean", "union"], groups=groups), "latex")
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", text):
        stack.append(name) if kind == "begin" else stack.remove(stack[-1] if stack[-1] == name else None)
    assert stack == []
    bare = re.sub(r"\\[{}%&#_$]", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    width = 1 + 2 * len(groups)
    assert re.search(r"\\begin\{tabular\}\{@\{\}l(r+)@\{\}\}", text)[1] == "r" * (width - 1)
    spans = re.compile(r"\\multicolumn\{(\d+)\}")
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(board.entries) + (1 if groups == ["all"] else 2)
    for row in rows:
        cells = row.removesuffix(r"\\").split(" & ")
        assert sum(int(span[1]) if (span := spans.match(cell)) else 1 for cell in cells) == width, row
    last = max(int(end) for end in re.findall(r"\\cmidrule\(lr\)\{\d+-(\d+)\}", text)) if len(groups) > 1 else width
    assert last == width
    assert text.count(r"\midrule") == text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert ("table*" in text) == (width > 3)


def test_labels_with_every_special_character_survive():
    odd = 'a&b%c$d#e_f{g}h~i^j\\k<l>m|n"o--p\nq'
    (board,) = boards([synthetic_record(options={"name": odd})])
    text = render(paper_table(board), "latex")
    (row,) = [line for line in text.splitlines() if line.startswith("synthetic (name=")]
    assert row.count(" & ") == 8, "no character became a column"
    bare = re.sub(r"\\text(backslash|asciitilde|asciicircum|less|greater|bar)\{\}|-\{\}-", "", row)
    assert not re.search(r'(?<!\\)[&%#_{}~^<>|"]', bare.split(" & ")[0])
    assert "o-{}-p q" in row
    line = render(paper_table(board), "markdown").splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", line)) == 11


def test_escaping():
    assert escaped("50 % of a_b & {c}") == r"50 \% of a\_b \& \{c\}"
    assert escaped("Linf ± 1") == r"$\ell_\infty$ $\pm$ 1"
    assert escaped("\\") == r"\textbackslash{}"


def test_the_caption_states_the_terms(board):
    text = render(paper_table(board, columns=["clean", "union"], groups=["all", "tail"]), "markdown")
    key = board.key
    for stated in (key.protocol_digest[:12], "track fixed", "Linf radius 0.15", "seeds 0, 1, 2", "imbalance ratio 20"):
        assert stated in text
    assert ", ".join(key.suite) in text and "thirds of the classes" in text and "not for papers" in text
    assert "† Not ranked" in text and "ranks 1 to 3 needs 5 seeds" in text


def test_the_radius_is_written_as_the_protocol_writes_it():
    protocol = load_protocol("ltr-linf-v1")
    terms = {"protocol": protocol.name, "protocol_digest": protocol.digest("cifar10-lt"), "dataset": "cifar10-lt"}
    (board,) = boards([synthetic_record(**terms, epsilon=8 / 255, model="resnet18", imbalance_ratio=50.0)])
    assert "Linf radius 8/255" in render(paper_table(board), "markdown")


def test_flags_are_told():
    recipe = synthetic_record().run.recipe.model_dump()
    recipe["attack"]["epsilon"] = 0.2
    (board,) = boards(entry("at") + entry("reat", recipe=recipe))
    assert "Flags: train-eps>eval-eps (reat)" in render(paper_table(board), "markdown")
    assert r"train-eps\textgreater{}eval-eps (reat)" in render(paper_table(board), "latex")
    assert "train-eps" not in render(paper_table(board, ["at"]), "markdown")


def test_citations_are_the_references_that_come_with_them():
    options = {f"awp.{name}": value for name, value in plugins.get("awp").card.resolve_options("fixed", {}).items()}
    plugged = synthetic_record(method="at", plugins=["awp"], options=OPTIONS["at"] | options)
    (board,) = boards([*entry("crt"), *entry("resample"), plugged])
    table = paper_table(board)
    cited = {k for keys in re.findall(r"\\cite\{([^}]*)\}", render(table, "latex")) for k in keys.split(",")}
    references = render(table, "bibtex")
    assert cited == set(re.findall(r"^@\w+\{([^,]+),", references, flags=re.M))
    assert len(cited) == 3, "crt and resample share a paper; at+awp has two"
    assert references.count("{") == references.count("}")


def test_one_bibtex_key_is_one_paper():
    """In all cards: what is cited by a key does not depend on which of them is shown."""
    found = {}
    for registry in (methods, plugins):
        for slug in registry.names():
            text = registry.get(slug).card.paper.bibtex.strip()
            key = re.match(r"@\w+\{([^,\s]+),", text)[1]
            assert found.setdefault(key, text) == text, slug


def test_a_method_without_a_card_has_no_citation():
    (board,) = boards([synthetic_record(method="gone")])
    assert r"\cite" not in render(paper_table(board), "latex") and render(paper_table(board), "bibtex") == ""


def test_json_holds_what_a_script_needs(board):
    table = paper_table(board, ["reat", "at"], ["union"], ["all", "tail"])
    loaded = json.loads(render(table, "json"))
    assert loaded["protocol_digest"] == board.key.protocol_digest and loaded["epsilon"] == 0.15
    assert [e["method"] for e in loaded["entries"]] == ["reat", "at"]
    first = loaded["entries"][0]
    assert first["percent"]["union"]["tail"]["mean"] == table.means[0, 0, 1] and first["seeds"] == [0, 1, 2]
    assert first["records"] == [run.id for run in table.entries[0].runs]
    (single,) = json.loads(render(paper_table(boards(entry("at", [0]))[0]), "json"))["entries"]
    assert single["percent"]["clean"]["all"]["std"] is None


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_bytes_again_and_one_line_end(board, form):
    first, second = (render(paper_table(board), form) for _ in range(2))
    assert first == second and "\r" not in first and first.endswith("\n")


def test_what_is_shown_unless_asked(board):
    table = paper_table(board)
    assert table.columns == ("clean", "pgd-20", "autoattack", "union") and table.groups == ("all", "tail")
    assert [e.label for e in table.entries] == [e.label for e in board.entries]


def test_two_classes_have_no_thirds():
    bits = {"clean": [1, 1, 1, 0], "pgd-20": [1, 0, 0, 0], "aa-small-c": [1, 0, 0, 0]}
    (board,) = boards([synthetic_record(bits, train_counts=[9, 3])])
    table = paper_table(board)
    assert table.groups == ("all",) and table.columns == ("clean", "pgd-20", "aa-small-c", "union")
    with pytest.raises(UsageError, match="at least 3"):
        paper_table(board, groups=["tail"])


def test_names_that_do_not_exist_are_refused(board):
    for wrong in ({"names": ["raet"]}, {"columns": ["pgd20"]}, {"groups": ["tails"]}):
        with pytest.raises(UnknownNameError, match="did you mean"):
            paper_table(board, **wrong)
    for twice in ({"columns": ["clean", "clean"]}, {"groups": ["all", "all"]}, {"names": ["at", "at"]}):
        with pytest.raises(UsageError, match="twice"):
            paper_table(board, **twice)


def page_of(*tables, article="twocolumn"):
    """A paper with the columns that the estimate counts on."""
    widths = r"\textwidth=487.8pt \columnsep=18pt \columnwidth=234.9pt \hsize=234.9pt"
    return "\n".join(
        [rf"\documentclass[{article}]{{article}}", r"\usepackage{booktabs,longtable}", widths, r"\begin{document}"]
        + [*tables, r"\end{document}"]
    )


def compiled(text, folder):
    """The boxes that TeX found too wide, or what it could not understand."""
    (folder / "paper.tex").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return re.findall(r"Overfull \\hbox \(([0-9.]+)pt", done.stdout)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_tables_fit_where_latex_sets_them(tmp_path):
    """Names and numbers as the committed board has them; the estimate is what TeX finds, up to a few per cent."""
    board = find_board([Path(__file__).parents[2] / "results" / "records"], dataset="digits-lt")[0]
    shown = [entry.label for entry in board.entries[:12]]
    narrow = paper_table(board, shown, ["clean", "union"], ["all"], called="paper")
    wide = paper_table(board, shown, ["clean", "pgd-20", "union"], ["all", "tail"])
    texts = [
        render(narrow, "latex", Options("column", label="tab:a")),
        render(wide, "latex", Options("page", caption="B.")),
    ]
    assert r"\begin{table}" in texts[0] and r"\begin{table*}" in texts[1] and r"\caption{B.}" in texts[1]
    assert not any("too wide" in text for text in texts)
    assert compiled(page_of(*texts), tmp_path) == []


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_the_estimate_is_what_tex_finds_at_every_size(tmp_path):
    """A small font is cut wider than a large one that is made smaller, and deviations keep their size."""
    records = [
        Path(__file__).parents[2] / "results" / "records" / protocol for protocol in ("digits-v0", "ltr-linf-lite-v1")
    ]
    digits, lite = (find_board(records, dataset=name)[0] for name in ("digits-lt", "cifar10-lt"))
    some = ["at", "trades", "reat", "at+awp", "reweight (weights=effective)"]
    tables = [
        paper_table(digits, some, groups=["all", "head", "medium", "tail"], called="paper"),
        paper_table(digits, some, ["union"], ["worst_tenth"], decimals=2),
        paper_table(digits, some, groups=["all"], deviations=False),
        paper_table(lite),
    ]
    boxes, estimates = [], []
    for table in tables:
        body = re.search(r"\\begin\{tabular\}.*\\end\{tabular\}", render(table, "latex"), re.DOTALL)[0]
        body = re.sub(r"\\cite\{([^}]*)\}", lambda keys: f"[{', '.join('42' for _ in keys[1].split(','))}]", body)
        for size, points, gap in SIZES:
            boxes.append(rf"{{\{size}\tabcolsep={gap}pt\setbox0\hbox{{{body}}}\typeout{{WIDE \the\wd0}}}}")
            estimates.append(measured(body.splitlines(), points, gap))
    compiled(page_of(*boxes), tmp_path)
    wide = [
        float(points) for points in re.findall(r"WIDE ([\d.]+)pt", (tmp_path / "paper.log").read_text(errors="replace"))
    ]
    ratios = [estimate / found for estimate, found in zip(estimates, wide, strict=True)]
    assert min(ratios) >= 1 and max(ratios) < 1.06, ratios


def test_deviations_can_be_left_out(board):
    table = paper_table(board, columns=["union"], groups=["all"], deviations=False)
    assert "±" not in render(table, "markdown") and r"\pm" not in render(table, "latex")
    assert "mean over seeds" in render(table, "markdown") and render(table, "csv").splitlines()[1].endswith(",")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_a_long_table_breaks_over_pages_in_latex(tmp_path):
    made = [r for i in range(ROWS + 20) for r in entry("at", overrides={"lr": 0.01 + i / 1000})]
    text = render(paper_table(boards(made)[0], columns=["union"]), "latex")
    assert r"\begin{longtable}" in text and text.count(r"\midrule") == 2
    assert compiled(page_of(text, article="onecolumn"), tmp_path) == []
    assert "Output written on paper.pdf (" in (tmp_path / "paper.log").read_text(errors="replace")


def test_the_estimate_grows_with_the_text_and_the_space():
    rows = [r"Method & Clean \\", r"at & 50.0\,{\scriptsize$\pm$\,1.0} \\"]
    assert measured(rows, 9, 6) < measured(rows, 9, 12) and measured(rows, 7, 6) < measured(rows, 9, 6)
    assert measured([*rows, r"a much longer name & 50.0 \\"], 9, 6) > measured(rows, 9, 6) + 40
    # One line of digits of Computer Modern, each half an em wide, and a little wider at 9 points.
    assert measured([r"0123456789 & 0 \\"], 9, 0) == pytest.approx(1.028 * 5.5 * 9, rel=0.02)


def test_text_becomes_smaller_before_a_table_is_too_wide():
    def row(letters):
        return ["m" * letters + r" & 1.0 \\"]

    assert fitted(row(10))[:2] == ("column", "small") and fitted(row(45))[0] == "page"
    order = ("small", "footnotesize", "scriptsize")
    sizes = [order.index(fitted(row(letters), "column")[1]) for letters in (10, 28, 33, 60)]
    assert sizes == sorted(sizes) and (sizes[0], sizes[-1]) == (0, 2)
    width, _, _, points = fitted(row(200), "page")
    assert width == "page" and points > POINTS["page"]


def test_a_table_that_cannot_fit_says_so(board):
    text = render(paper_table(board, groups=list(GROUPS)), "latex", Options("column"))
    assert "% too wide: show fewer columns" in text


def test_names_as_papers_write_them(board):
    table = paper_table(board, ["reat", "at"], ["clean"], ["all"], called="paper")
    assert "| REAT |" in render(table, "markdown") and "PGD adversarial training~" in render(table, "latex")
    assert render(table, "csv").splitlines()[1].split(",")[1] == "reat", "files keep the names that commands take"
    (gone,) = boards([synthetic_record(method="gone")])
    assert "| gone |" in render(paper_table(gone, called="paper"), "markdown")
