"""Pull requests: what is examined and refused, and that workflows cannot be turned against the repository."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ltrobust_bench.records.io import read_record, write_record

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((GITHUB / "workflows").glob("*.yml"))}
AT = ROOT / "results" / "records" / "digits-v0" / "digits-lt-ir1" / "at"
RECORD, NEXT_SEED = (next(AT.glob(f"small-s{seed}-*.json")).relative_to(ROOT).as_posix() for seed in (0, 1))


def load():
    spec = importlib.util.spec_from_file_location("submission", GITHUB / "submission.py")
    module = sys.modules["submission"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


submission = load()


def sorted_out(*paths):
    return submission.sort_out([submission.Change("A", path) for path in paths])


# --- what is run, and what is refused -------------------------------------------------------------------------


def test_records_alone_are_validated_and_nothing_else():
    task = sorted_out(RECORD, "results/records/digits-v0/x/y/z.json", "results/published/mine.csv")
    assert task.records == ["results/records", RECORD, "results/records/digits-v0/x/y/z.json"]
    assert task.methods == [] and task.problems == [] and task.published


def test_methods_are_checked_by_their_slug_once():
    task = sorted_out("baselines/my_loss/card.toml", "baselines/my_loss/method.py", "tests/maths/x.py", "baselines/b/m")
    assert (task.records, task.methods, task.problems) == ([], ["my-loss", "b"], [])


@pytest.mark.parametrize("kind", ["retractions", "verifications"])
def test_statements_about_records_are_examined_with_the_whole_folder(kind):
    task = sorted_out(f"results/{kind}/0123456789ab.json", RECORD)
    assert task.records == ["results/records", RECORD] and task.problems == []


def test_statements_are_not_a_contributors_to_make():
    changes = [submission.Change("A", path) for path in ("results/retractions/0123456789ab.json", "results/signers")]
    (problem,) = submission.sort_out(changes, owners="o/maintainers").problems
    assert "and 1 more: statements about records and keys are made by o/maintainers; open an issue" in problem
    assert submission.sort_out(changes).problems == []
    assert submission.owners_of_statements("no-such-commit") == "maintainers"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("ltrobust_bench/protocol/digits-v0.toml", "protocol"),
        ("ltrobust_bench/judge/examine.py", "who judges"),
        ("ltrobust_bench/verbs/rechecking.py", "who judges"),
        ("ltrobust_bench/reading.py", "how files are read"),
        ("ltrobust_bench/data/split.py", "networks, data and plans"),
        ("tests/pinned.json", "known digests"),
        ("results/signers", "signers"),
        (".github/workflows/ci.yml", "workflows"),
        (".github/CODEOWNERS", "workflows"),
        ("results/verifications/x.json", "rules and statements"),
        ("ltrobust_bench/records/verify.py", "rules and statements"),
        ("ltrobust_bench/report/aggregate.py", "how boards are made"),
        ("ltrobust_bench/evaluation/evaluator.py", "attacks and evaluation"),
    ],
)
def test_the_first_line_names_what_decides_over_all_records(path, name):
    task = sorted_out(path, "README.md")
    assert task.decides == [name]
    first = submission.summary([], [], task.decides).splitlines()[0]
    assert first == f"CHANGES WHAT DECIDES OVER ALL RECORDS: {name}. A maintainer must want that."
    assert submission.summary([], []).startswith("# Submission")


DECIDING = [path for _, begins in submission.DECIDES for path in begins]


def test_what_decides_has_owners_and_is_there():
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if not line.startswith("#")]
    owned = {line[0].removeprefix("/"): line[1:] for line in lines if line}
    within = {"ltrobust_bench/data/known"}  # of a folder that is owned
    assert set(owned) == {*DECIDING, *submission.SHIPPED} - within and all(owned.values())
    for path in (*owned, *within):
        assert list(ROOT.glob(f"{path.rstrip('/')}*")) or path == "results/retractions/", path


JUDGES = ("verbs/verification.py", "verbs/rechecking.py", "records/validate.py", "report/changes.py", "report/site")
"""What comes to a verdict."""
AROUND = {
    "ltrobust_bench/__init__.py": "names",
    "ltrobust_bench/_version.py": "a number",
    "ltrobust_bench/errors.py": "how errors are said",
    "ltrobust_bench/machine.py": "a device's name",
    "ltrobust_bench/notebook.py": "what notebooks show",
    "ltrobust_bench/progress.py": "what is said meanwhile",
    "ltrobust_bench/tracking/": "what is said meanwhile",
    "ltrobust_bench/sweeps/": "which runs are done, not what comes out of them",
    "ltrobust_bench/baselines/": "methods, whose cards are looked at line by line",
}
"""What those import and that decides nothing."""


def test_every_module_that_decides_a_verdict_is_in_the_list():
    """Of whatever is imported on the way to one, at whatever depth."""
    found, left = set(), [ROOT / "ltrobust_bench" / name for name in JUDGES]
    while left:
        path = left.pop()
        if path.is_dir():
            left += path.glob("*.py")
        elif path.is_file() and path not in found:
            found.add(path)
            left += [
                ROOT / f"{name.replace('.', '/')}{end}" for name in imported(path) for end in (".py", "/__init__.py")
            ]
    names = {path.relative_to(ROOT).as_posix() for path in found}
    assert len(names) > 100
    unlisted = sorted(name for name in names if not name.startswith((*DECIDING, *AROUND)))
    assert not unlisted, f"add them to DECIDES in .github/submission.py and to CODEOWNERS: {unlisted}"


def imported(path):
    """Names of this package that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("ltrobust_bench"))


def test_other_changes_need_nothing():
    task = sorted_out("README.md", "ltrobust_bench/plan.py")
    assert (task.records, task.methods, task.problems) == ([], [], [])


@pytest.mark.parametrize(
    "generated",
    ["results/leaderboard.csv", "results/groups.csv", "results/leaderboard.md", "results/figures/a/per_class.png"],
)
def test_generated_files_are_refused(generated):
    (problem,) = sorted_out(RECORD, generated).problems
    assert problem == f"{generated} is generated on main; leave it out of the pull request"


def test_what_runs_were_trained_with_comes_along():
    assert sorted_out(RECORD, "results/extra/more.npz", "results/extra/more.toml").problems == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("results/records/digits-v0/notes.txt", "only JSON files"),
        ("baselines/My-Loss/card.toml", "slug with underscores"),
        ("baselines/--help/card.toml", "slug with underscores"),
        ("baselines/a\nb/card.toml", "slug with underscores"),
        ("baselines/README.md", "slug with underscores"),
    ],
)
def test_odd_files_are_refused(path, says):
    task = sorted_out(path)
    assert [says in problem for problem in task.problems] == [True] and task.methods == []


def test_records_and_code_in_one_pull_request_are_refused():
    (problem,) = sorted_out(RECORD, "ltrobust_bench/records/rules.py", "baselines/at/card.toml").problems
    assert "a pull request of their own" in problem and "ltrobust_bench/records/rules.py and 1 more" in problem


def test_changes_are_read_from_git_with_any_name():
    listing = "A\0results/records/a b.json\0D\0baselines/x/\ny\0"
    found = [(c.status, c.path) for c in submission.parse_changes(listing)]
    assert found == [("A", "results/records/a b.json"), ("D", "baselines/x/\ny")]
    assert submission.parse_changes("") == []


# --- the summary ----------------------------------------------------------------------------------------------


def test_what_a_pull_request_says_is_quoted_harmlessly():
    outcome = submission.Outcome("Records: 1 examined", ["a`b\n# @everyone ~~~ \x1b[31m" + "x" * 999], "~~~\n`out`")
    text = submission.summary([], [outcome])
    assert "1 problem." in text and "- `a'b # (at)everyone --- " in text and "    ---\n    'out'\n" in text
    assert not re.search(r"[^\x20-\x7e\n]|@|~~~", text) and max(map(len, text.splitlines())) < 400


def test_a_long_list_is_cut_and_counted():
    text = submission.summary(["x"] * 100, [])
    assert text.count("- `x`") == submission.SHOWN and "- and 60 more" in text and "100 problems." in text
    many = [submission.Outcome("t", ["y" * 300] * 100, "z" * 300)] * 100
    assert len(submission.summary([], many)) < 60_000


def test_nothing_wrong_and_nothing_there_read_differently():
    assert "Nothing wrong was found." in submission.summary([], [submission.Outcome("Records: 1 examined", [])])
    assert "No record, no method and no published number was changed." in submission.summary([], [])


# --- from a branch to exit code and summary -------------------------------------------------------------------


@pytest.fixture
def branch(tmp_path, monkeypatch):
    """A checkout with one record on ``main``, on a branch of its own; ``ltbench`` is the real one."""
    place = tmp_path / "checkout"
    (place / RECORD).parent.mkdir(parents=True)
    shutil.copy(ROOT / RECORD, place / RECORD)
    real = f"exec {sys.executable} -c 'from ltrobust_bench.cli.main import main; main()'"
    program(tmp_path / "bin" / "ltbench", f'{real} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(place)
    git("init", "--quiet", "--initial-branch", "main")
    commit("start")
    git("switch", "--quiet", "--create", "mine")
    return place


def program(path, script):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def commit(message):
    git("add", "--all")
    git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", message)


def examine(capsys):
    place = Path("../out/summary.md")
    code = submission.main(["--base", "main", "--summary", str(place)])
    assert place.read_text() in capsys.readouterr().out
    return code, place.read_text()


def test_a_sound_record_passes_and_an_edited_one_does_not(branch, capsys):
    shutil.copy(ROOT / NEXT_SEED, branch / NEXT_SEED)
    commit("record")
    code, text = examine(capsys)
    assert code == 0 and "## Records: 2 examined\n\n- nothing wrong" in text

    path = branch / RECORD
    path.write_text(path.read_text().replace('"trials": 0', '"trials": 1'))
    commit("edit")
    code, text = examine(capsys)
    assert code == 1 and "1 problem." in text and "edited; add a retraction" in text


def test_a_record_of_main_under_another_seed_is_found_out(branch, capsys):
    record = read_record(branch / RECORD)
    copied = record.model_copy(update={"run": record.run.model_copy(update={"seed": 7})})
    write_record(copied, branch / "results" / "records" / copied.run.record_path())
    commit("record")
    code, text = examine(capsys)
    assert (
        code == 1 and "result.weights_sha256: must differ from" in text and f"a run of seed {record.run.seed}" in text
    )


def test_a_card_that_changes_ranked_is_named_and_so_is_what_the_board_would_be(branch, capsys):
    card = branch / "baselines" / "selfdistill" / "card.toml"
    card.parent.mkdir(parents=True)
    card.write_text('slug = "x"\nranked = false\n')
    (branch / "results" / "leaderboard.csv").write_text("board,method,rank,union_balanced\nb,gone,1,50\n")
    git("switch", "--quiet", "main")
    commit("a board")
    git("switch", "--quiet", "--create", "flip")
    card.write_text('slug = "x"\n')
    commit("flip")
    code, text = examine(capsys)
    assert text.startswith("CHANGES WHAT DECIDES OVER ALL RECORDS: ranked.")
    assert "## What the board would look like" in text and "b: gone: rank 1 -> absent (50 %): gone" in text


def test_a_statement_of_a_contributor_is_refused(branch, capsys):
    statement = next((ROOT / "results" / "verifications").glob(f"{read_record(branch / RECORD).id}-*"))
    (branch / "results" / "verifications").mkdir()
    shutil.copy(statement, branch / "results" / "verifications")
    commit("I verified it")
    code, text = examine(capsys)
    assert code == 1 and "statements about records and keys are made by maintainers; open an issue" in text


def test_published_numbers_are_read(branch, capsys):
    source = ROOT / "results" / "published" / "cho2025longtailed.csv"
    shutil.copytree(source.parent, branch / "results" / "published")
    commit("numbers")
    code, text = examine(capsys)
    rows = sum(len(path.read_text().splitlines()) - 1 for path in source.parent.glob("*.csv"))
    assert code == 0 and f"## Published numbers: {rows} read\n\n- nothing wrong" in text

    path = branch / "results" / "published" / source.name
    path.write_text(path.read_text().replace(",20.3,", ",203,"))
    commit("a typing error")
    code, text = examine(capsys)
    assert code == 1 and "1 problem." in text and f"{source.name}: line 2" in text


def test_a_method_is_checked_and_its_card_is_read(branch, capsys, tmp_path):
    verdict = '[ "$2" = sound ] || { echo "$2: 1 of 7 failed."; exit 1; }'
    program(tmp_path / "bin" / "ltbench", f'echo "ok   card of $2"; {verdict}')
    for slug, card in (("sound", "title"), ("faulty", "# TODO\n# TODO")):
        (branch / "baselines" / slug).mkdir(parents=True)
        (branch / "baselines" / slug / "card.toml").write_text(card)
    commit("methods")
    code, text = examine(capsys)
    assert code == 1 and "2 problems." in text
    assert "## Method sound\n\n- nothing wrong\n\n    ok   card of sound" in text
    assert "- `baselines/faulty/card.toml still says TODO in 2 lines`\n- `faulty: 1 of 7 failed.`" in text
    git("switch", "--quiet", "main")
    git("merge", "--quiet", "mine")
    git("switch", "--quiet", "--create", "removal")
    shutil.rmtree(branch / "baselines" / "sound")
    commit("remove")
    code, text = examine(capsys)
    assert code == 1 and "baselines/sound/card.toml is missing" in text


def test_a_program_that_breaks_or_never_ends_is_a_problem(branch, capsys, tmp_path, monkeypatch):
    shutil.copy(branch / RECORD, branch / "results/records/copy.json")
    commit("record")
    program(tmp_path / "bin" / "ltbench", "echo 'Error: no such commit' >&2; exit 2")
    assert "- `Error: no such commit`" in examine(capsys)[1]
    program(tmp_path / "bin" / "ltbench", "exit 1")
    code, text = examine(capsys)
    assert code == 1 and "`ltbench record validate` ended with code 1".replace("`", "'") in text
    monkeypatch.setattr(submission, "PATIENCE", 0.1)
    assert submission.run(["sleep", "60"]) == (124, "", "it was stopped after 0.1 seconds")


def test_an_unknown_base_is_one_line(branch, capsys):
    assert submission.main(["--base", "nowhere", "--summary", "out/summary.md"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("git diff failed: ")


# --- workflows ------------------------------------------------------------------------------------------------


def triggers(workflow):
    return workflow[True]  # YAML 1.1 reads the key `on` as a truth value


def jobs():
    return [(f"{name}/{job}", body) for name, workflow in WORKFLOWS.items() for job, body in workflow["jobs"].items()]


def steps():
    return [(where, step) for where, body in jobs() for step in body["steps"]]


def test_there_are_the_workflows():
    assert set(WORKFLOWS) == {"ci", "submission", "submission-comment", "site", "release", "recheck", "supply"}
    assert all(workflow["name"] == name for name, workflow in WORKFLOWS.items())


def test_nothing_runs_contributed_code_with_the_repositorys_rights():
    for name, workflow in WORKFLOWS.items():
        assert "pull_request_target" not in triggers(workflow), name
        if "pull_request" in triggers(workflow):
            assert workflow["permissions"] == {"contents": "read"}, name
            assert all("permissions" not in job for job in workflow["jobs"].values()), name
            assert "secrets." not in (GITHUB / "workflows" / f"{name}.yml").read_text()


def test_rights_are_stated_and_few():
    writing = set()
    for name, workflow in WORKFLOWS.items():
        assert isinstance(workflow["permissions"], dict), name
        for where, granted in [(name, workflow["permissions"])] + [
            (f"{name}/{job}", body.get("permissions", {})) for job, body in workflow["jobs"].items()
        ]:
            writing |= {(where, right) for right, level in granted.items() if level == "write"}
    assert writing == {
        ("submission-comment", "pull-requests"),
        ("site/build", "contents"),
        ("site/deploy", "pages"),
        ("site/deploy", "id-token"),
        ("release/publish", "id-token"),
        ("release/page", "contents"),
    }


def test_no_text_from_outside_is_pasted_into_a_script():
    """An expression in a script is replaced before the shell reads it; in the environment it stays a value."""
    for where, step in steps():
        assert "${{" not in step.get("run", ""), where
        assert "script" not in step.get("with", {}), where


def test_actions_are_pinned_by_commit_and_keep_no_credentials():
    for path in (GITHUB / "workflows").glob("*.yml"):
        for line in re.findall(r"uses: (.*)", path.read_text()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", line), line
    pins = {step["uses"].partition("@")[::2] for _, step in steps() if "uses" in step}
    assert len(pins) == len(dict(pins)), "one version of each action"
    for where, step in steps():
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False, where


def test_every_job_ends():
    """An hour is enough, but for runs that are done again; GitHub itself ends a job after six."""
    allowed = {name: 350 if name == "recheck/recheck" else 60 for name, _ in jobs()}
    assert all(0 < body["timeout-minutes"] <= allowed[name] for name, body in jobs())


def test_the_suite_runs_on_every_supported_python():
    (job,) = WORKFLOWS["ci"]["jobs"].values()
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"] == classifiers
    assert job["steps"][-1]["run"] == "bash .ci/run" and (ROOT / ".ci" / "run").is_file()
    markers = re.findall(r'^  "(\w+):', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"not (\w+)", job["env"]["PYTEST_ADDOPTS"])) == {"slow", "board"} <= set(markers)


def test_the_summary_goes_from_the_one_workflow_to_the_other():
    (job,) = WORKFLOWS["submission"]["jobs"].values()
    (upload,) = [step["with"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert (upload["name"], upload["path"]) == ("submission", "submission/summary.md")
    assert any("--summary submission/summary.md" in step.get("run", "") for step in job["steps"])
    assert triggers(WORKFLOWS["submission-comment"])["workflow_run"]["workflows"] == ["submission"]


# --- the comment ----------------------------------------------------------------------------------------------

GH = """
echo "$*" >> "$LOG"
case "$*" in
  *artifacts*) echo "$SIZE" ;;
  "run download"*) mkdir in && cp -P "$ARTIFACT"/* in/ ;;
  *pulls*) echo "$NUMBER" ;;
  *"--paginate"*) printf '%s' "$OLD" ;;
  *PATCH*|*POST*) cp body.md "$LOG.body" ;;
esac
"""


@pytest.fixture
def comment(tmp_path):
    """Runs the script of submission-comment with a pretended GitHub; gives exit code, calls and the comment."""
    (job,) = WORKFLOWS["submission-comment"]["jobs"].values()
    (step,) = job["steps"]
    program(tmp_path / "bin" / "gh", GH)
    artifact, log = tmp_path / "artifact", tmp_path / "log"
    artifact.mkdir()

    def post(summary=b"# Submission\n", size="100", number="7", old=""):
        if summary is not None:
            (artifact / "summary.md").write_bytes(summary)
        given = {"SIZE": size, "NUMBER": number, "OLD": old, "ARTIFACT": artifact, "LOG": log, "TMPDIR": tmp_path}
        known = {"REPO": "o/r", "RUN": "1", "COMMIT": "c0ffee", "HEAD": "x:$(touch hacked)", "PAGE": "https://p"}
        assert set(known) | {"GH_TOKEN"} == set(job["env"])
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **known, **{k: str(v) for k, v in given.items()}, "PATH": path}
        done = subprocess.run(["bash", "-c", step["run"]], env=environment, capture_output=True, text=True, check=False)
        body = Path(f"{log}.body")
        return done.returncode, log.read_text(), body.read_text() if body.exists() else ""

    return post


def test_the_comment_quotes_the_summary_in_a_fence(comment):
    code, calls, body = comment("# Submission\n\n- é nothing wrong\n".encode())
    assert code == 0 and "--method POST repos/o/r/issues/7/comments" in calls
    assert "head=x:$(touch hacked)" in calls
    assert body.startswith("<!-- submission -->\n") and "[the examination](https://p) of c0ffee" in body
    assert body.endswith("~~~text\n# Submission\n\n- é nothing wrong\n\n~~~\n")


def test_the_comment_is_written_once_and_then_kept_up_to_date(comment):
    code, calls, body = comment(old="42\n43\n")
    assert code == 0 and "--method PATCH repos/o/r/issues/comments/42" in calls and "POST" not in calls and body


@pytest.mark.parametrize(
    "case",
    [
        {"size": "100001"},
        {"summary": b"x" * 60_001},
        {"summary": b"a\x00b"},
        {"summary": b"a\x1b[31mb"},
        {"summary": b"a\r\n"},
        {"summary": b"\xff\xfe"},
        {"summary": b"~~~\n@everyone"},
        {"summary": None},
    ],
    ids=str,
)
def test_what_is_no_short_plain_text_is_not_posted(comment, case):
    code, calls, body = comment(**case)
    assert code == 1 and body == "" and "--method P" not in calls


def test_a_link_to_something_else_is_not_posted(comment, tmp_path):
    (tmp_path / "secret").write_text("token")
    (tmp_path / "artifact" / "summary.md").symlink_to(tmp_path / "secret")
    code, _, body = comment(summary=None)
    assert code == 1 and body == ""


@pytest.mark.parametrize("case", [{"size": ""}, {"number": ""}])
def test_without_summary_or_pull_request_there_is_nothing_to_post(comment, case):
    code, _, body = comment(**case)
    assert code == 0 and body == ""


# --- forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bug", "method", "disputed"])
def test_issue_forms(form):
    content = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / f"{form}.yml").read_text())
    assert content["name"] and content["description"]
    assert any(field.get("validations", {}).get("required") for field in content["body"])
    for entry in content["body"]:
        assert entry["type"] in ("input", "textarea", "checkboxes") and entry["attributes"]["label"]


def test_the_other_files_parse():
    assert yaml.safe_load((GITHUB / "dependabot.yml").read_text())["version"] == 2
    assert yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "config.yml").read_text())
    from ltrobust_bench import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__ and citation["cff-version"] == "1.2.0" and citation["authors"]
