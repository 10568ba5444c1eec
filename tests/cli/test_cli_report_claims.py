"""``ltbench report claims`` and ``ltbench report campaign`` on the committed records."""

from __future__ import annotations

from pathlib import Path

from command_line import call, refused

ROOT = Path(__file__).parents[2]
RECORDS = ["--records", ROOT / "results" / "records"]


def test_verdicts_are_printed_and_the_page_is_written(capsys, tmp_path):
    page = tmp_path / "claims.md"
    board = ["--protocol", "digits-v0", "--dataset", "digits-lt"]
    code, out, _ = call(capsys, "report", "claims", *RECORDS, *board, "-o", page)
    assert code == 0 and f"wrote {page}" in out and "robal-fake" in out and "confirmed" in out
    assert "entries that claims wait for:" in out and "taet (stage1=adv)" in out
    assert page.read_text().startswith("# What the papers claimed")


def test_by_default_it_is_written_where_results_are(capsys, tmp_path):
    code, out, _ = call(capsys, "report", "claims", "--results-dir", tmp_path)
    assert code == 0 and (tmp_path / "claims.md").exists() and "not measured yet" in out


def test_a_board_that_cannot_be_is_refused_and_no_page_is_written_over(capsys, tmp_path):
    page = tmp_path / "claims.md"
    for typed, line in (
        (["--protocol", "ltr-linf-lite"], "did you mean 'ltr-linf-lite-v1'"),
        (["--dataset", "cifar10-ltt"], "says nothing about cifar10-ltt: it covers"),
    ):
        assert line in refused(capsys, "report", "claims", *RECORDS, *typed, "-o", page) and not page.exists()


def test_a_damaged_record_is_told(capsys, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "a.json").write_text("{")
    for verb in (["claims"], ["campaign", ROOT / "campaigns" / "cifar10-lite.toml"]):
        code, _, err = call(capsys, "report", *verb, "--results-dir", tmp_path)
        assert code == 1 and "a.json is no record" in err


def test_a_campaign_is_told_from_its_plan(capsys, tmp_path):
    page = tmp_path / "CAMPAIGN.md"
    code, out, _ = call(capsys, "report", "campaign", ROOT / "results" / "plan.toml", *RECORDS, "-o", page)
    assert code == 0 and "234 of 234 runs are done" in out and "Nothing remains" in page.read_text()
    assert "no plan at" in refused(capsys, "report", "campaign", tmp_path / "none.toml")
