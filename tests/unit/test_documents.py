"""README and CONTRIBUTING do what they say: their commands are run, their example is followed literally."""

from __future__ import annotations

import csv
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import click
import numpy as np
import pytest

from ltrobust_bench.cli.main import ltbench, main
from ltrobust_bench.evaluation.demonstration import DEMONSTRATIONS
from ltrobust_bench.records.io import find_records, read_record
from ltrobust_bench.records.schema import Standing
from ltrobust_bench.records.weights import read_index
from ltrobust_bench.report.aggregate import boards, method_label
from ltrobust_bench.scores.paired import LEVEL, paired
from ltrobust_bench.scores.reliability import MEANINGS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def section(text, heading):
    """What stands below a heading, up to the next of its level."""
    return re.search(rf"^## {heading}.*?\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)[1]


def commands(text, word):
    lines = [line.split("#")[0].strip() for block in blocks(text, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(word)]


def run(command, cwd, timeout=500, **environment):
    program = f"{sys.executable} -c 'from ltrobust_bench.cli.main import main; main()'"
    return subprocess.run(
        ["bash", "-c", f'ltbench() {{ {program} "$@"; }}; {command}'],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment,
    )


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The README's reader's folder, shared by its commands, which build on one another."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "plan.toml").write_text(re.search(r"```toml\n(# plan.toml.*?)```", README, re.S)[1])
    return folder


FIRST = "ltbench run --method reat --dataset digits-lt"
FULL = [c for c in commands(README, "ltbench") if "cifar" not in c]
CIFAR = [c for c in commands(README, "ltbench") if "cifar" in c]


def test_the_readme_has_commands_to_run():
    assert FIRST in FULL
    assert len(FULL) >= 8 and len(CIFAR) >= 2


@pytest.fixture
def typed(capfd, monkeypatch):
    """A command of the README, done in this process; the shell's part, patterns of file names, by hand."""

    def done(command, folder):
        monkeypatch.chdir(folder)
        words = [sorted(map(str, folder.glob(w))) if "*" in w else [w] for w in shlex.split(command)[1:]]
        code = main([word for found in words for word in found])
        assert code == 0, "\n".join(capfd.readouterr())

    return done


@pytest.mark.parametrize("command", FULL)
def test_readme_command(command, workplace, typed):
    """The first in the protocol for smoke tests; as it stands it is a slow check."""
    typed(f"{command} --protocol smoke" if command == FIRST else command, workplace)


@pytest.mark.slow
def test_the_readmes_first_command_as_it_stands(tmp_path):
    done = run(FIRST, tmp_path, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("results/records/digits-v0/**/*.json")) or "not filed" in done.stdout


@pytest.mark.parametrize("command", CIFAR)
def test_readme_command_on_real_cifar10(command, workplace, cifar10_folder, typed):
    """``data`` is the folder that the README's `data prepare` fills; here it is there already."""
    if not (workplace / "data").exists():
        (workplace / "data").symlink_to(cifar10_folder)
    typed(command, workplace)


def test_readme_python(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    (code,) = blocks(README, "python")
    (workplace / "readme.py").write_text(code, encoding="utf-8")
    run_path(str(workplace / "readme.py"), run_name="__main__")


def test_the_example_of_a_model_of_ones_own(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    run_path(str(ROOT / "examples" / "evaluate_your_model.py"), run_name="__main__")
    assert "union" in capsys.readouterr().out


def test_the_example_of_extra_training_data_makes_the_boards(tmp_path, monkeypatch):
    """The same images, as their digests say."""
    script = ROOT / "examples" / "extra_training_data.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    run_path(str(script), run_name="__main__")
    kept = sorted((ROOT / "results" / "extra").glob("*.toml"))
    assert [path.stem for path in kept] == ["averages", "left-out"]
    assert [(tmp_path / path.name).read_text() for path in kept] == [path.read_text() for path in kept]


def test_readme_table_is_what_the_command_below_it_prints():
    """From the committed records, byte for byte."""
    shown, command = re.search(
        r"<!-- table -->\n(.*?)<!-- end -->\n\n```sh\n(.*?)```", README, flags=re.DOTALL
    ).groups()
    done = run(command, ROOT)
    assert done.returncode == 0 and done.stdout == shown, done.stderr
    sections = (ROOT / "results" / "leaderboard.md").read_text().split("\n## ")
    (board,) = [
        s.splitlines() for s in sections if s.startswith("digits-lt, imbalance ratio 20, small: protocol digits-v0")
    ]
    entries = len([line for line in board if line.startswith("| ")]) - 2
    lines = len([line for line in shown.splitlines() if line.startswith("| ")]) - 2
    assert f"{lines} of the {entries} entries" in README


def test_the_ablation_of_our_own_defense_is_what_the_commands_below_it_print():
    """From the committed records, byte for byte."""
    page = (ROOT / "docs" / "tailguard.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- printed -->\n(.*?)<!-- end -->\n\n```sh\n(.*?)```", page, flags=re.DOTALL)
    assert len(shown) == 2
    for text, command in shown:
        done = run(command, ROOT)
        printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
        assert done.returncode == 0 and printed == text.removeprefix("```text\n").removesuffix("```\n"), done.stderr


def test_the_demonstrations_table_is_the_measured_one():
    """docs/evaluation.md shows what benchmarks/demonstration.py measured; every flag is explained and was seen."""
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    with (ROOT / "docs" / "demonstration.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = list(rows[0])
    columns = names[: names.index("code") + 1]  # behind them: what each attack of the adaptive suite took
    assert all(f"| {' | '.join(row[name] for name in columns)} |\n" in page for row in rows)
    raised = {row["model"]: row["flags"].split(", ") for row in rows}
    assert raised.pop("honest") == ["none"]
    assert raised.keys() <= DEMONSTRATIONS.keys() and len(raised) >= len(DEMONSTRATIONS) - 1
    for name, found in raised.items():  # on 100 images; tests/unit/test_reliability.py sees every flag raised
        assert set(found) & set(DEMONSTRATIONS[name][1]), name
    assert all(f"\n| {flag} | " in page and meaning in page for flag, meaning in MEANINGS.items())


def test_the_bounds_in_the_text_are_of_filed_records():
    """Of each row of docs/evaluation.md's table what the record says, and sums that hold."""
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = page.split("<!-- bound -->\n")[1].split("<!-- end -->")[0]
    board_of = run_path(str(ROOT / "benchmarks" / "bound.py"))["board_of"]
    records = find_records([ROOT / "results" / "records"])[0]
    filed = {(board_of(r.run), method_label(r.run), r.run.seed): r for r in records}
    board, seen = "", 0
    for line in table.splitlines():
        if found := re.match(r"(.*), \d+ networks?: gap", line):
            board = found[1]
        if not line.startswith("| ") or line.startswith(("| entry", "| ---")):
            continue
        label, seed = line.strip("| ").split(" | ")[0].rsplit(", ", 1)
        the_bound_is_of(filed[board, label, int(seed)], line)
        seen += 1
    assert seen >= 2


def test_the_lite_networks_in_the_text_are_those_that_come_with_the_package():
    """docs/evaluation.md has a command that names them, and a row of each in its order."""
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    command, rest = page.split("on all 1,000 test images (`python benchmarks/bound.py ")[1].split("--data-dir", 1)
    rows = [line for line in rest.split("\n\n")[1].splitlines() if "\u2264" in line]
    shipped = read_index(ROOT / "results" / "weights")
    assert set(command.split()) == {name for name in shipped if name.startswith("lite:")}
    for name, row in zip(command.split(), rows, strict=True):
        the_bound_is_of(read_record(ROOT / "results" / "records" / shipped[name].record), row)


def the_bound_is_of(record, row):
    """What a row says of a record is so, and its sums hold."""
    _, bound, auto, union, gap, alone = row.strip("| ").split(" | ")
    record = record.judged(Standing())  # what its suite left, whatever others broke since
    assert (auto, union) == tuple(f"{100 * float(record.metrics(a).balanced):.1f}" for a in ("autoattack", "union"))
    own, theirs, images = map(int, re.findall(r"\d+", alone))
    assert images == record.images and len(set(record.run.test_counts)) == 1
    assert float(gap) == pytest.approx(100 * (theirs - own) / images, abs=0.051)
    assert float(bound.removeprefix("\u2264 ")) - float(auto) == pytest.approx(float(gap), abs=0.11)


@pytest.mark.board
def test_how_often_two_seeds_of_one_method_differ_in_the_text_is_of_the_records():
    """Of docs/mistakes.md: a test of single runs takes a seed for a method."""
    pairs = differing = 0
    for entry in boards(find_records([ROOT / "results" / "records" / "digits-v0" / "digits-lt-ir20"])[0])[0].entries:
        for first, second in itertools.combinations(entry.runs, 2):
            bits = np.stack([first.bits("union"), second.bits("union")])
            found = paired([bits], [[0, 1]], first.labels(), [0], [1])
            pairs += 1
            differing += int(found.p_value[0] < LEVEL and found.sign[0] != 0)
    page = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
    assert f"two seeds of the *same* one differ by it in {differing} of {pairs} cases" in page


def test_make_targets_and_files_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for text in (README, CONTRIBUTING):
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE))
        assert named <= targets
        for path in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (ROOT / path).exists(), path
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_contributing_example_is_followed_literally(tmp_path):
    """Only what CONTRIBUTING shows is written; then its command passes, and the method runs."""
    for name in ("ltrobust_bench", "baselines"):
        shutil.copytree(ROOT / name, tmp_path / name)
    written, text = 0, section(CONTRIBUTING, "A new defense")
    for language in ("toml", "python"):
        for block in blocks(text, language):
            place = re.match(r"# (baselines/\S+)\n", block)
            assert place is not None
            path = tmp_path / place[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block, encoding="utf-8")
            written += 1
    assert written == 2
    (check,) = commands(text, "ltbench check")
    done = run(check, tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0 and "passes all" in done.stdout, done.stdout + done.stderr
    (command,) = commands(text, "ltbench run")
    reduced = f"{command} --protocol smoke"
    assert run(reduced, tmp_path, PYTHONPATH=str(tmp_path)).returncode == 0
    assert list(tmp_path.glob("runs/sqrt-balanced-digits-lt-*/record.json"))


@pytest.mark.parametrize("line", commands(CONTRIBUTING, "ltbench") + re.findall(r"`(ltbench [^`]+)`", CONTRIBUTING))
def test_contributing_names_commands_that_exist(line):
    """Verbs, arguments and options, as far as they can be told without doing what they say."""
    arguments, command, context = shlex.split(" ".join(line.split()))[1:], ltbench, click.Context(ltbench)
    while isinstance(command, click.Group):
        _, command, arguments = command.resolve_command(context, arguments)
    if arguments:
        command.make_context("ltbench", arguments)


def test_contributings_package_is_the_tested_one():
    (shown,) = blocks(section(CONTRIBUTING, "A method, data set or network in a package"), "toml")
    assert shown in (ROOT / "tests" / "third_party" / "pyproject.toml").read_text(encoding="utf-8")


def test_contributing_names_templates_and_forms_that_exist():
    for name in re.findall(r"template `(\S+\.md)`", CONTRIBUTING):
        assert (ROOT / ".github" / "PULL_REQUEST_TEMPLATE" / name).is_file()
    forms = "".join(path.read_text() for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())
    assert "name: A result looks wrong\n" in forms and "*A result looks wrong*" in " ".join(CONTRIBUTING.split())
