"""Rules about several records, each with the attack that it is there for; and what git knows of commits."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.plan.code import Code
from ltrobust_bench.plan.code import _digest as digest_of
from ltrobust_bench.records import together
from ltrobust_bench.records.origin import repository_of, wrong_origin
from ltrobust_bench.records.schema import Result
from ltrobust_bench.records.validate import Document
from ltrobust_bench.records.verify import tolerated
from ltrobust_bench.report.aggregate import boards
from ltrobust_bench.report.changes import changes
from ltrobust_bench.scores.bits import pack
from ltrobust_bench.terms import canonical_digest


def filed(tmp_path, *records):
    return [Document(tmp_path / "records" / f"{i}.json", tmp_path / "records", r) for i, r in enumerate(records)]


def with_bits_of(record, other, flipped=0, weights=None):
    """A record that bears another's bits, after the clean verdict of some images was turned over."""
    bits = {name: other.bits(name).copy() for name in ("clean", *other.attacks)}
    wrong = np.flatnonzero(~bits["clean"])[:flipped]
    bits["clean"][wrong] = True
    packed = {name: pack(values, 1) for name, values in bits.items()}
    by = pack((bits["clean"] & ~bits["autoattack"]).astype(np.uint8), 3)
    found = {"bits": packed, "broken_by": by, "digest": Result.digest_of(packed, by)}
    found["weights_sha256"] = weights or record.result.weights_sha256
    return record.model_copy(update={"result": Result(**found)})


def copies(tmp_path, *records):
    return [(d.path.name, f.seen) for d, f in together.equal_bits(filed(tmp_path, *records))]


def test_bits_copied_to_another_method_or_seed_are_found(tmp_path):
    victim = synthetic_record(method="at")
    for thief in (synthetic_record(method="trades", seed=1), synthetic_record(method="at", seed=1)):
        assert copies(tmp_path, victim, with_bits_of(thief, victim, weights="d" * 64)) == [("1.json", "'0 images'")]
    thief = synthetic_record(method="trades", seed=3)
    allowed = tolerated(victim.images)
    assert copies(tmp_path, victim, with_bits_of(thief, victim, allowed, "d" * 64)) != []
    assert copies(tmp_path, victim, with_bits_of(thief, victim, allowed + 1, "d" * 64)) == []


def test_a_post_hoc_form_of_the_same_network_may_have_its_bits(tmp_path):
    base = synthetic_record(method="at")
    assert copies(tmp_path, base, with_bits_of(synthetic_record(method="tau-norm"), base)) == []
    assert copies(tmp_path, base, with_bits_of(synthetic_record(method="tau-norm", seed=1), base)) != []


def test_two_networks_that_answer_with_one_class_are_no_copies(tmp_path):
    """What collapsed in training says the same of every image, whoever trained it; the same weights are a copy."""

    def collapsed(seed, exception=0):
        plain = synthetic_record(method="calfat", seed=seed)
        right = plain.labels() == 3
        attacked = right.copy()
        attacked[np.flatnonzero(right)[:exception]] = False
        bits = {"clean": right} | dict.fromkeys(plain.attacks, attacked)
        record = synthetic_record(bits, method="calfat", seed=seed)
        weights = f"{seed}" * 64
        return record.model_copy(update={"result": record.result.model_copy(update={"weights_sha256": weights})})

    assert copies(tmp_path, collapsed(1), collapsed(2)) == []
    assert copies(tmp_path, collapsed(1), with_bits_of(collapsed(2), collapsed(1), weights="1" * 64)) != []
    assert copies(tmp_path, collapsed(1, exception=1), collapsed(2, exception=1)) != [], "it does look at its images"


def odd_names(tmp_path, *records):
    return [(d.path.name, f.field, f.allowed.split(",")[0]) for d, f in
            together.one_name_a_split(filed(tmp_path, *records))]  # fmt: skip


def test_a_split_has_one_ratio_and_one_profile(tmp_path):
    usual = synthetic_record(method="at")
    twin = synthetic_record(method="trades", imbalance_ratio=20.001)
    assert odd_names(tmp_path, twin, usual) == [("0.json", "run.imbalance_ratio", "must be 20.0")]
    steps = synthetic_record(method="trades", profile="step")
    assert odd_names(tmp_path, usual, steps) == [("1.json", "run.profile", "must be exp")]
    other = synthetic_record(method="trades", imbalance_ratio=50.0, train_index_sha256="e" * 64)
    assert odd_names(tmp_path, usual, other) == []
    first, second = (synthetic_record(method="at", imbalance_ratio=r) for r in (33.3333, 33.3))
    assert odd_names(tmp_path, first, second) == [("0.json", "run.imbalance_ratio", "must be 33.3")]


def test_a_twin_makes_no_board_of_its_own_and_moves_no_address():
    usual = [synthetic_record(method="at", seed=s) for s in range(3)]
    twin = synthetic_record(method="trades", imbalance_ratio=20.001, robustness=0.9)
    (before,), (after,) = boards(usual), boards([twin, *usual])
    assert before.slug == after.slug and {e.label for e in after.entries} == {"at", "trades"}


def test_a_board_of_the_same_name_with_fewer_images_moves_no_address():
    usual = [synthetic_record(method="at", seed=s) for s in range(3)]
    fewer = synthetic_record(method="trades", tests_per_class=10, test_index_sha256="d" * 64)
    other = synthetic_record(method="trades", train_index_sha256="e" * 64)
    (before,) = boards(usual)
    for intruder in (fewer, other):
        after = boards([intruder, *usual])
        assert len(after) == 2 and [b.slug for b in after if b.key == before.key] == [before.slug]


def test_seeds_are_taken_as_they_come(tmp_path):
    def odd(*seeds):
        documents = filed(tmp_path, *(synthetic_record(method="at", seed=s) for s in seeds))
        return [(d.record.run.seed, f.allowed) for d, f in together.seeds_from_zero(documents)]

    assert odd(0, 1, 2) == odd(2, 0, 1) == []
    assert odd(0, 1, 7) == [(7, "must come after seed 2, which is not there")]
    assert odd(3) == [(3, "must come after seed 0, which is not there")]


# --- commits --------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A checkout that looks like the project's: version 0.1.0 with one method, then another version with two."""

    def git(*words):
        done = subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@x", *words],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch", "main")
    commits = []
    for version, method in (("0.1.0", "at"), ("0.2.0", "at_bsl")):
        for place, text in (
            ("ltrobust_bench/_version.py", f'__version__ = "{version}"\n'),
            ("ltrobust_bench/plan/code.py", 'AROUND = ("baselines", "cli")\n'),
            ("ltrobust_bench/cli/run.py", f"# {version}\n"),
            (f"baselines/{method}/card.toml", f"# {version}\n"),
        ):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--message", version)
        commits.append(git("rev-parse", "HEAD"))
    git("switch", "--quiet", "--create", "aside", commits[0])
    git("commit", "--quiet", "--allow-empty", "--message", "elsewhere")
    commits.append(git("rev-parse", "HEAD"))
    git("switch", "--quiet", "main")
    return tmp_path, commits


def made_at(commit, version, method="at", code=()):
    record = synthetic_record(method=method)
    said = {"git_commit": commit, "package_version": version, "code": list(code)}
    return record.model_copy(update={"environment": record.environment.model_copy(update=said)})


def test_commits_exist_hold_the_method_and_are_of_that_version(project):
    root, (first, second, aside) = project
    assert repository_of(root / "ltrobust_bench") == (root, "")

    def wrong(*words, **more):
        return [(f.field, f.allowed) for f in wrong_origin(root, made_at(*words, **more))]

    assert wrong(first, "0.1.0") == wrong(second, "0.2.0", "at-bsl") == []
    history = "must be a commit of this branch's history"
    assert wrong("f" * 40, "0.1.0") == wrong(aside, "0.1.0") == [("environment.git_commit", history)]
    assert wrong(first, "0.1.0", "at-bsl") == [
        ("environment.git_commit", "must be a commit that holds baselines/at_bsl")
    ]
    version = f"must be 0.2.0, the version at commit {second[:7]}"
    assert wrong(second, "0.9.9") == [("environment.package_version", version)]
    digests = {"method_sha256": "a" * 64, "package_sha256": "b" * 64}
    session = Code(work="training", package_version="0.1.0", commit="e" * 40, dirty=False, **digests)
    assert wrong(first, "0.1.0", code=[session]) == [("environment.code.0.commit", history)]


def test_what_is_new_says_what_code_it_was_made_with_and_what_states_digests_is_of_a_commit_that_takes_them(project):
    root, (first, *_) = project
    (root / "ltrobust_bench" / "plan" / "code.py").unlink()  # as it was before there were digests
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@x"]
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "x"], check=True)
    early = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    session = Code(work="training", package_version="0.2.0", commit=early, dirty=False, method_sha256="a" * 64,
                   package_sha256="b" * 64)  # fmt: skip

    def wrong(record, **more):
        return [f.field for f in wrong_origin(root, record, **more)]

    assert wrong(made_at(first, "0.1.0")) == [] and wrong(made_at(first, "0.1.0"), new=True) == ["environment.code"]
    assert "environment.code.0.commit" in wrong(made_at(early, "0.2.0", code=[session]))


def test_digests_of_code_are_those_of_the_files_at_the_commit(project):
    """As the package takes them of a checkout; what is left out is what that commit left out."""
    root, commits = project

    def checked_out(commit):
        subprocess.run(["git", "-C", str(root), "checkout", "--quiet", commit], check=True)

    for commit, version, method in zip(commits, ("0.1.0", "0.2.0"), ("at", "at-bsl"), strict=False):
        checked_out(commit)
        folder = root / "baselines" / method.replace("-", "_")
        own = canonical_digest([digest_of.__wrapped__(folder, ("card.toml", "*.py"))])
        package = digest_of.__wrapped__(
            root / "ltrobust_bench", ("*.py",), frozenset(("baselines", "cli", "evaluation"))
        )
        checked_out("main")
        sound = Code(work="training", package_version=version, commit=commit, dirty=False,
                     method_sha256=own, package_sha256=package)  # fmt: skip

        def wrong(at=(commit, version, method), sound=sound, **update):
            record = made_at(*at, code=[sound.model_copy(update=update)])
            return [f.field for f in wrong_origin(root, record)]

        assert wrong() == wrong(dirty=True, package_sha256="b" * 64) == wrong(work="base", method_sha256="b" * 64) == []
        for name in ("method_sha256", "package_sha256"):
            assert wrong(**{name: "b" * 64}) == [f"environment.code.0.{name}"]


def test_where_git_cannot_tell_it_is_said(project, tmp_path_factory):
    root, _ = project
    clone, folder = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("installed")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{root}", str(clone)], check=True)
    assert repository_of(clone) == (None, "commits not looked up: a shallow clone; git fetch --unshallow")
    assert repository_of(folder) == (None, "")


# --- what the board would look like -----------------------------------------------------------------------------


def row(method, rank, accuracy="50.00", **more):
    return {"board": "b", "method": method, "rank": rank, "union_balanced": accuracy, **more}


def test_changes_say_which_ranks_move_by_how_much_and_why():
    before = [row("at", "1"), row("mart", "2", records="r1 r2"), row("cfa", "3", flags=""), row("alp", "4")]
    after = [
        row("new", "1", "90.00"), row("at", "2"), row("mart", "2", "48.00", records="r1", flags="lowered; 1 seed"),
        row("cfa", "", flags="claimed", verification="claimed"),
    ]  # fmt: skip
    assert [str(change) for change in changes(before, after)] == [
        "b: new: absent -> rank 1 (90.00 %): new",
        "b: at: rank 1 -> rank 2 (50.00 %): others moved",
        "b: cfa: rank 3 -> not ranked (50.00 %): flag claimed added, verification none -> claimed",
        "b: alp: rank 4 -> absent (50.00 %): gone",
        "b: mart: rank 2 -> rank 2 (50.00 -> 48.00 %): record r2 gone, flag lowered added, flag 1 seed added, "
        "worst case 50.00 -> 48.00",
    ]
    assert changes(before, before) == []
