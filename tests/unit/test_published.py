"""Published numbers: the committed files are clean and agree with the cards; whatever is wrong in a file is named."""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from pathlib import Path

import pytest
from record_factory import synthetic_record

from ltrobust_bench.cards import Claim, methods, plugins
from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.records.io import write_record
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.published import (
    COLUMNS,
    METRIC,
    PublishedNumber,
    beside,
    read_published,
    select,
)
from ltrobust_bench.report.published_tables import about_ours, blocks, markdown, to_csv

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
CARDS = [e.load().card for e in (*methods, *plugins)]
CLAIMS = [(card, claim) for card in CARDS for claim in card.claims]
GOOD = {
    "dataset": "digits-lt",
    "imbalance_ratio": "20",
    "model": "small",
    "method": "reat",
    "name": "REAT",
    "metric": "balanced_pgd20",
    "value": "31.80",
    "kind": "printed",
    "where": "Table 1",
    "source": "https://example.org/paper",
}


@pytest.fixture(scope="module")
def committed():
    return read_published(PUBLISHED)[0]


def write(folder, *rows, name="doe2026paper", columns=COLUMNS):
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(c, "") for c in columns] for row in rows)
    return folder


def number(**changes):
    return PublishedNumber(paper="doe2026paper", **{k: v for k, v in (GOOD | changes).items() if v})


def test_the_committed_files_are_clean(committed):
    assert read_published(PUBLISHED)[1] == []
    assert len(committed) > 300 and {n.kind for n in committed} == {"printed", "digitized", "second-hand"}


def test_every_committed_file_is_explained():
    page = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z]+[0-9]{4}[a-z]+)` \|", page, flags=re.M)) == {
        path.stem for path in PUBLISHED.glob("*.csv")
    }
    described = page.split("## Papers")[0]
    assert all(f"`{column}`" in described for column in COLUMNS)


def test_papers_of_our_cards_have_their_citation_keys(committed):
    """The file about a method's own paper is called as the card's BibTeX calls it."""
    keys = {card.slug: re.search(r"{(.+?),", card.paper.bibtex)[1] for card in CARDS}
    own = ("robal", "at-bsl", "taet", "robustlt", "selfdistill")
    assert {keys[slug] for slug in own} <= {n.paper for n in committed}


def test_a_number_says_what_a_claim_says():
    assert Claim.model_fields.keys() <= PublishedNumber.model_fields.keys()


def counterparts(numbers, card, claim):
    """The rows that say what a card claims: of the same method in the same form, on the same terms."""

    def same_method(n):
        if card.kind == "method":
            return n.method == card.slug and n.of == claim.of
        around = (n.method or "").split("+")  # a plug-in's claim names what it is with: "with AT"
        return card.slug in around and [p for p in around if p != card.slug][-1] == claim.of.split()[-1].lower()

    terms = ("dataset", "imbalance_ratio", "model", "metric", "source")
    return [n for n in numbers if same_method(n) and all(getattr(n, t) == getattr(claim, t) for t in terms)]


def test_claims_on_cards_say_what_the_rows_say(committed):
    for card, claim in CLAIMS:
        for n in counterparts(committed, card, claim):
            assert (float(n.value), n.kind) == (claim.value, claim.kind), f"{card.slug}, {claim.metric}"


@pytest.mark.board
def test_every_claim_on_a_card_is_a_row(committed):
    assert (
        CLAIMS
        and [f"{card.slug}: {claim.metric}" for card, claim in CLAIMS if len(counterparts(committed, card, claim)) != 1]
        == []
    )


WRONG = {
    "dataset": ("cifar-10", "must be a data set of the benchmark"),
    "imbalance_ratio": ("0.02", "greater than or equal to 1"),
    "model": ("WRN-34-10", "match pattern"),
    "method": ("raet", "'raet' is none"),
    "metric": ("accuracy", "robust_unspecified"),
    "value": ("101", "between 0 and 100 per cent"),
    "std": ("-1", "greater than or equal to 0"),
    "kind": ("heard", "'printed', 'digitized' or 'second-hand'"),
    "where": (" Table 1", "without spaces around"),
    "source": ("the paper", "a link that a reader can follow"),
    "note": ("a\x1bb", "one line of text"),
    "of": ("x" * 401, "at most 400"),
}


@pytest.mark.parametrize(("column", "value", "allowed"), [(c, *rest) for c, rest in WRONG.items()], ids=WRONG)
def test_a_wrong_cell_is_named_with_line_column_and_what_is_allowed(tmp_path, column, value, allowed):
    (problem,) = read_published(write(tmp_path, GOOD, GOOD | {column: value, "name": "REAT again"}))[1]
    assert problem.path.endswith("doe2026paper.csv") and problem.field == f"line 3, {column}"
    assert allowed in problem.allowed and str(problem).isprintable()
    assert problem.seen.strip("'")[:5] in ascii(value)


def test_all_problems_are_listed_and_the_rest_is_read(tmp_path):
    wrong = GOOD | {"value": "many", "kind": "", "method": "reat+reat"}
    write(tmp_path, wrong, GOOD)
    write(tmp_path, GOOD | {"value": "12.5"}, name="roe2026other")
    numbers, problems = read_published(tmp_path)
    assert [(n.paper, n.value) for n in numbers] == [
        ("doe2026paper", Decimal("31.80")),
        ("roe2026other", Decimal("12.5")),
    ]
    assert {p.field for p in problems} == {"line 2, value", "line 2, kind", "line 2, method"}


def test_plugins_stand_in_the_order_in_which_they_apply(tmp_path):
    (problem,) = read_published(write(tmp_path, GOOD | {"method": "at+awp+robustlt"}))[1]
    assert "must be at+robustlt+awp" in problem.allowed


def test_a_difference_may_be_negative_and_an_accuracy_may_not(tmp_path):
    write(tmp_path, GOOD | {"value": "-3.5", "metric": "aa_gain_over_robal"}, GOOD | {"value": "-3.5"})
    (problem,) = read_published(tmp_path)[1]
    assert problem.field == "line 3, value"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "31,8", "31.8 %"])
def test_a_value_is_a_plain_number(tmp_path, value):
    (problem,) = read_published(write(tmp_path, GOOD | {"value": value}))[1]
    assert problem.field == "line 2, value"


def test_wrong_columns_are_named(tmp_path):
    columns = [c for c in COLUMNS if c != "kind"] + ["evidence", "note"]
    (problem,) = read_published(write(tmp_path, GOOD, columns=columns))[1]
    assert problem.field == "line 1" and "without kind, with evidence, with note twice" in problem.seen


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "without dataset"),
        (b"\xff\xfe", "decode"),
        (",".join(COLUMNS).encode() + b"\nonly,three,cells\n", "got 3"),
        (",".join(COLUMNS).encode() + b"\n" + b"x," * 20 + b"\n", "got 21"),
        (",".join(COLUMNS).encode() + b'\n"open', "end of data"),
        (b"x" * 1_000_001, "at most 1,000,000 bytes"),
    ],
    ids=["empty", "no text", "few cells", "many cells", "open quote", "large"],
)
def test_what_is_no_table_is_a_problem_and_no_traceback(tmp_path, content, found):
    (tmp_path / "doe2026paper.csv").write_bytes(content)
    (problem,) = read_published(tmp_path)[1]
    assert found in str(problem)


def test_files_are_called_by_citation_keys(tmp_path):
    (problem,) = read_published(write(tmp_path, GOOD, name="Table 3"))[1]
    assert "citation key" in problem.allowed


def test_a_number_stands_once(tmp_path):
    (problem,) = read_published(write(tmp_path, GOOD, GOOD | {"value": "30"}))[1]
    assert problem.field == "line 3" and "line 2" in problem.allowed


def test_nothing_to_read_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no published numbers in"):
        read_published(tmp_path)


def test_selection(committed):
    assert {n.method for n in select(committed, method="robustlt")} == {
        *("at+robustlt", "at+robustlt+awp", "robal+robustlt", "at-bsl+robustlt")
    }
    assert {n.name for n in select(committed, method="adt")} == {"ADT"}, "a name of the paper's, in any case of letters"
    assert {n.metric for n in select(committed, metric="tail_*aa")} == {"tail_aa"}
    assert select(committed, dataset="tiny-imagenet-lt", metric="cw20") == []
    with pytest.raises(UnknownNameError, match="'reat'"):
        select(committed, method="raet")


def test_metric_names():
    assert METRIC.fullmatch("tail_balanced_pgd20")["attack"] == "pgd20", "not pgd"
    assert METRIC.fullmatch("robust_unspecified_class_12")["label"] == "12"
    assert METRIC.fullmatch("pgd20x") is None and METRIC.fullmatch("_clean") is None


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A board with `reat` and `at+awp` (two seeds of the first), and its folder of records."""
    folder = tmp_path_factory.mktemp("results") / "records"
    made = [
        synthetic_record(method="reat", seed=0, accuracy=0.9),
        synthetic_record(method="reat", seed=1, accuracy=0.8),
        synthetic_record(method="at", plugins=["awp"], accuracy=0.7),
    ]
    for i, record in enumerate(made):
        write_record(record, folder / f"{i}.json")
    (board,) = boards(made)
    return folder, {entry.label: entry for entry in board.entries}


@pytest.mark.parametrize(
    ("metric", "attack", "name"),
    [("clean", "clean", "overall"), ("balanced_pgd20", "pgd-20", "balanced"), ("cw20", "cw-20", "overall")],
)
def test_ours_is_the_same_metric_of_the_same_method(ours, metric, attack, name):
    folder, entries = ours
    for method in ("reat", "at+awp"):
        (found,), problems = beside([number(metric=metric, method=method)], folder)
        assert problems == [] and found.value == pytest.approx(float(entries[method].percent(attack, name)))


def test_ours_of_one_class(ours):
    folder, entries = ours
    (third, none), _ = beside([number(metric="clean_class_3"), number(metric="clean_class_10")], folder)
    assert third.value == pytest.approx(entries["reat"].percent("clean", "per_class")[3]) and none is None


@pytest.mark.parametrize(
    "other",
    [
        {"method": "trades"},
        {"method": ""},
        {"method": "at"},
        {"of": "with more data"},
        {"imbalance_ratio": "50"},
        {"imbalance_ratio": ""},
        {"dataset": "cifar10-lt"},
        {"metric": "tail_pgd20"},
        {"metric": "clean_gain"},
        {"metric": "robust_unspecified"},
    ],
    ids=str,
)
def test_nothing_stands_beside_what_is_something_else(ours, other):
    (found, plain), _ = beside([number(**other), number()], ours[0])
    assert found is None and plain is not None


def test_reduced_runs_do_not_stand_beside_papers(tmp_path):
    write_record(synthetic_record(method="reat", epochs=1), tmp_path / "records" / "x.json")
    assert beside([number()], tmp_path / "records")[0] == [None]


def test_the_papers_network_is_preferred_and_another_is_named(tmp_path):
    for model, accuracy in (("small", 0.5), ("resnet18", 0.9)):
        write_record(synthetic_record(method="reat", model=model, accuracy=accuracy), tmp_path / f"{model}.json")
    numbers = [number(metric="clean", model=model) for model in ("resnet18", "small", "wrn-28-10")]
    found, _ = beside(numbers, tmp_path)
    assert [o.board.key.model for o in found[:2]] == ["resnet18", "small"] and found[0].value > found[1].value
    shown = [block.rows()[0][-1] for block in blocks(numbers, found)]
    assert [("(" in text) for text in shown] == [False, False, True]


def test_our_terms_are_those_of_the_track(tmp_path):
    for track, words in (
        ("fixed", "; 60 epochs, 10 steps of"),
        ("paper", "; each method trained by its authors"),
    ):
        write_record(synthetic_record(method="reat", track=track), tmp_path / track / "x.json")
        (line,) = about_ours(blocks([number()], beside([number()], tmp_path / track)[0]))
        assert words in line and ("epochs" in line) == (track == "fixed")


def test_digits_stay_as_reported(ours):
    numbers = [number(), number(std="0.60", metric="aa", value="9.0")]
    found, _ = beside(numbers, ours[0])
    text = markdown(blocks(numbers, found))
    assert "| 31.80 |" in text and "| 9.0 ± 0.60 |" in text and "## digits-lt, imbalance ratio 20, small" in text
    rows = list(csv.DictReader(to_csv(numbers, found).splitlines()))
    assert [row["value"] for row in rows] == ["31.80", "9.0"] and rows[0]["ours"] == f"{found[0].value:.2f}"
    assert {k: v for k, v in rows[0].items() if k in GOOD} == GOOD


def test_no_cell_of_the_csv_is_a_formula():
    assert "'=1+1" in to_csv([number(name="=1+1")], [None])


def test_kinds_are_never_in_one_table():
    numbers = [number(kind=kind) for kind in ("second-hand", "printed", "digitized")]
    assert [block.kind for block in blocks(numbers, [None] * 3)] == ["printed", "digitized", "second-hand"]
