"""What people are used to: completion, any case, JSON, words that stay whole, foreign settings that break nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from command_line import call, refused
from rich.table import Table

from ltrobust_bench.cli.main import VERBS, ltbench
from ltrobust_bench.cli.terminal import Terminal
from ltrobust_bench.cli.words import in_words

REAT = "results/records/digits-v0/digits-lt-ir20/reat"


def completed(typed):
    """What a shell offers for the last word."""
    from click.shell_completion import BashComplete

    *words, last = typed.split(" ")
    complete = BashComplete(ltbench, {}, "ltbench", "_LTBENCH_COMPLETE")
    return [item.value for item in complete.get_completions(words, last)]


@pytest.mark.parametrize(
    ("typed", "among"),
    [
        ("r", {"run", "record", "report"}),
        ("run --method RE", {"reat", "resample", "reweight"}),
        ("run -m at --plugin a", {"awp"}),
        ("run -m at -d digits", {"digits-lt"}),
        ("data info fol", {"folder:"}),
        ("train -m at --model res", {"resnet8", "resnet18"}),
        ("train -m at --protocol sm", {"smoke"}),
        ("eval x --attack pgd-1", {"pgd-100"}),
        ("eval x --attack apgd", {"apgd-t", "apgd-ce"}),
        ("show at", {"at", "at-bsl"}),
        ("check tr", {"trades"}),
        ("report leaderboard --js", {"--json"}),
    ],
)
def test_a_shell_completes_names(typed, among):
    found = completed(typed)
    assert among <= set(found) and all(name.startswith(typed.split(" ")[-1].lower()) for name in found)


def test_the_program_completes_as_bash_asks():
    asked = {"_LTBENCH_COMPLETE": "bash_complete", "COMP_WORDS": "ltbench show rea", "COMP_CWORD": "2"}
    program = [sys.executable, "-c", "from ltrobust_bench.cli.main import main; main()"]
    done = subprocess.run(program, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,reat"] and not done.stderr


@pytest.mark.parametrize("kind", ["methods", "datasets", "models", "attacks", "protocols", "weights"])
def test_listings_for_programs(capsys, kind):
    code, out, _ = call(capsys, "list", kind, "--json")
    plain = call(capsys, "list", kind)[1]
    assert code == 0 and all(set(entry) == {"name", "group", "help"} for entry in json.loads(out))
    assert all(entry["name"] in plain for entry in json.loads(out))


def test_a_board_and_a_data_set_for_programs(capsys, tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "report", "leaderboard", "--records", root / REAT, "--json")
    (entry,) = json.loads(out)
    assert code == 0 and entry["method"] == "reat" and not (tmp_path / "results").exists()
    code, out, _ = call(capsys, "data", "info", "digits-lt", "--json")
    assert json.loads(out)["train_counts"][0] == 124 and len(json.loads(out)["train_sha256"]) == 64


def test_names_are_typed_in_any_case(capsys):
    assert call(capsys, "show", "REAT")[1] == call(capsys, "show", "reat")[1]
    assert call(capsys, "data", "info", "Digits-LT")[1] == call(capsys, "data", "info", "digits-lt")[1]


def test_a_setting_is_given_once(capsys):
    twice = ["run", "-m", "at-bsl", "-d", "digits-lt", "--set", "tau=1", "--set", "tau=2", "--dry-run"]
    assert "--set tau is given twice, 1 and 2" in refused(capsys, *twice)


@pytest.mark.parametrize("verb", VERBS)
def test_h_is_help(capsys, verb):
    code, out, _ = call(capsys, verb, "-h")
    assert code == 0 and out.startswith("Usage: ltbench")


def test_words_stay_whole_on_a_terminal_and_lines_in_a_pipe(monkeypatch):
    line = "name               " + "seldom-broken " * 12
    assert in_words(line) == line
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    shown = in_words(line, indent=21).splitlines()
    assert len(shown) > 1 and max(map(len, shown)) <= 80
    assert all(word in ("name", "seldom-broken") for part in shown for word in part.split())


def test_whatever_is_printed_is_whole_in_a_pipe_and_in_words_on_a_terminal():
    """A plan that a program searches has its lines; a terminal breaks none inside a word."""
    text = "  images of " + "several seldom-broken " * 9 + "/a/path" * 20 + " end\n\nlast"
    command, shown = " ".join(["ltbench run"] * 9), {}
    for terminal in (False, True):
        out = Terminal(file=io.StringIO(), force_terminal=terminal, width=60, color_system=None, markup=False)
        out.print(text, style="bold")
        out.print(command, soft_wrap=True)
        shown[terminal] = out.file.getvalue()
    assert shown[False] == f"{text}\n{command}\n"
    lines = shown[True].removesuffix(f"{command}\n").splitlines()
    assert " ".join(" ".join(lines).split()) == " ".join(text.split()) and lines[-2:] == ["", "last"]
    assert [line for line in lines if len(line) > 60] == ["    " + "/a/path" * 20], "a path is copied whole"
    assert all(line.startswith("    ") for line in lines[1:-2]), "what goes on is set in"


def test_a_row_of_a_table_is_a_line_in_a_pipe(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table, cells = (
        Table(box=None, show_header=False, pad_edge=False),
        [f"{number} of some words" for number in range(20)],
    )
    table.add_row(*cells)
    out = Terminal(file=io.StringIO())
    out.print(table)
    assert out.file.getvalue().split("  ") == [*cells[:-1], cells[-1] + "\n"]


def test_a_console_of_windows_and_a_home_that_cannot_be_written(tmp_path, root):
    other = {"PYTHONIOENCODING": "cp1252", "HOME": "/proc/none", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": ""}
    environment = {k: v for k, v in os.environ.items() if k != "LTBENCH_CACHE"} | other
    for typed in (
        ["data", "info", "digits-lt"],
        ["report", "leaderboard", "--records", str(root / REAT), "--no-figures"],
    ):
        program = [
            sys.executable,
            "-m",
            "ltrobust_bench",
            *typed,
            *(["--results-dir", str(tmp_path / "r")] * (len(typed) > 3)),
        ]
        done = subprocess.run(program, env=environment, capture_output=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr.decode("cp1252")
        done.stdout.decode("cp1252")


@pytest.mark.parametrize("typed", ["show reat", "list methods --json", "-h", "report leaderboard --help"])
def test_a_reader_that_has_read_enough_is_no_error(typed):
    """`ltbench show reat | head -1`: rich and click each leave in their own way when the pipe is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "ltrobust_bench", *typed.split()]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
