"""Schemes to forge the board, tried on a copy of it; what validator, bot and board say of each.

    python benchmarks/attack_the_board.py            # all of them, and the table of docs/security.md
    python benchmarks/attack_the_board.py --only twin --only seed

The copy is a clone of this checkout, on whose main branch a maintainer's key is listed. A scheme is a pull request by a
stranger unless it says otherwise. Exit code 1 if one changes a rank, and neither the validator nor the bot says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- attack_the_board: begin -->", "<!-- attack_the_board: end -->"
sys.path[:0] = [str(ROOT), str(ROOT / ".github")]

import submission  # noqa: E402

from ltrobust_bench.plan.run import RunSection  # noqa: E402
from ltrobust_bench.records.io import dumps, find_records, read_record  # noqa: E402
from ltrobust_bench.records.retract import Retraction  # noqa: E402
from ltrobust_bench.records.schema import Record, Result  # noqa: E402
from ltrobust_bench.records.signing import sign, signature_of  # noqa: E402
from ltrobust_bench.records.validate import validate  # noqa: E402
from ltrobust_bench.records.verify import Verification, verification, write_verification  # noqa: E402
from ltrobust_bench.report.aggregate import boards  # noqa: E402
from ltrobust_bench.report.changes import Change, changes, rows_at, rows_of  # noqa: E402
from ltrobust_bench.scores.bits import pack  # noqa: E402

JANE = "jane@example.org"


class Copy:
    """A clone of the project, and ways to forge what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.keys = folder / "clone", folder / "keys"
        self.keys.mkdir(parents=True)
        run("git", "clone", "--quiet", "--no-hardlinks", f"file://{ROOT}", str(self.folder))
        for name in ("jane", "stranger"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.keys / name))
        with (self.results / "signers").open("a") as signers:
            signers.write(self.key_line(JANE, "jane"))
        self.git("switch", "--quiet", "--force-create", "main")
        self.commit(JANE)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def key_line(self, name: str, key: str, options: str = "") -> str:
        return f"{name} {options}{(self.keys / f'{key}.pub').read_text().strip()}\n"

    def git(self, *words: str) -> str:
        return run("git", "-C", str(self.folder), *words)

    def commit(self, who: str = "stranger@example.org") -> None:
        self.git("add", "--all")
        name = ("-c", f"user.name={who}", "-c", f"user.email={who}")
        self.git(*name, "commit", "--quiet", "--allow-empty", "--message", "scheme")

    def again(self) -> None:
        """A new branch from main, with nothing left of the last scheme."""
        self.git("reset", "--quiet", "--hard")
        self.git("clean", "-qfdx")
        self.git("switch", "--quiet", "--force-create", "scheme", "main")

    @cached_property
    def records(self) -> dict[tuple[str, int], Record]:
        """Records of the main digits board by method (without settings) and seed."""
        folder = self.results / "records" / "digits-v0" / "digits-lt-ir20"
        found = {}
        for path in sorted(folder.rglob("*.json")):
            record = read_record(path)
            if record.run.profile == "exp" and not record.run.overrides:
                found.setdefault((path.parent.name, record.run.seed), record)
        return found

    def of(self, method: str, seed: int = 0) -> Record:
        return self.records[method, seed]

    def path_of(self, record: Record) -> Path:
        return self.results / "records" / record.run.record_path()

    def file(self, record: Record) -> Record:
        path = self.path_of(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(record))
        return record

    def state(self, record: Record, kind: str = "re-evaluated", **more: Any) -> Path:
        return write_verification(stated(record, kind, **more), self.results)

    def retract(self, record: Record) -> Path:
        said = Retraction(record=record.id, path=record.run.record_path(), reason="wrong split", date="2026-11-20")
        path = self.results / "retractions" / f"{record.id}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(said.model_dump_json())
        return path

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new, 1))


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def stated(record: Record, kind: str = "re-evaluated", robust: np.ndarray | None = None, **more: Any) -> Verification:
    """A statement about a record that nobody computed; it confirms the record unless told otherwise."""
    robust = record.bits("union") if robust is None else robust
    made = verification(record, kind, None, record.bits("clean"), robust, record.result.weights_sha256,  # type: ignore[arg-type]
                        "an independent laboratory", record.environment)  # fmt: skip
    return made.model_copy(update=more)


def forged(like: Record, *, bits: dict[str, np.ndarray] | Record | None = None, weights: str | None = "f" * 64,
           environment: dict[str, Any] | None = None, **fields: Any) -> Record:  # fmt: skip
    """A record like another, with other bits and fields of the run section; everything derived is made to fit."""
    raw = like.model_dump(mode="json", exclude_defaults=True)
    raw["run"] |= fields
    if isinstance(bits, Record):
        raw["result"] |= {"bits": bits.result.bits, "broken_by": bits.result.broken_by}
    elif bits is not None:
        by = (bits["clean"] & ~bits["autoattack"]).astype(np.uint8)
        raw["result"] |= {"bits": {n: pack(v, 1) for n, v in bits.items()}, "broken_by": pack(by, 3)}
    raw["result"]["digest"] = Result.digest_of(raw["result"]["bits"], raw["result"]["broken_by"])
    raw["result"]["weights_sha256"] = weights or raw["result"]["weights_sha256"]
    raw["environment"] |= environment or {}
    raw["cost"]["evaluation"] |= {"forwards": 10**7, "backwards": 10**7}
    raw["status"]["reduced"] = RunSection.model_validate(raw["run"]).reduced
    return Record.model_validate(raw)


def invented(record: Record, accuracy: float = 0.95, seed: int = 0) -> dict[str, np.ndarray]:
    """Bits that nobody computed: so many images withstand everything."""
    rng = np.random.default_rng(seed)
    clean = rng.random(record.images) < 0.99
    robust = clean & (rng.random(record.images) < accuracy)
    return {"clean": clean, **dict.fromkeys(record.attacks, robust)}


SCHEMES: dict[str, Callable[[Copy], None]] = {}
"""By name: what it is, in words, is the function's first line."""


def scheme(function: Callable[[Copy], None]) -> Callable[[Copy], None]:
    SCHEMES[function.__name__.strip("_").replace("_", "-")] = function
    return function


def new_entry(copy: Copy, **more: Any) -> list[Record]:
    """Five seeds of an entry that was never run: TRADES by another weight, with bits that nobody computed."""
    like = copy.of("trades")
    options = like.run.options | {"beta": 5.5}
    return [
        copy.file(forged(like, bits=invented(like, seed=s), weights=f"{s:064x}", options=options, seed=s, **more))
        for s in range(5)
    ]


# --- schemes that are named in what asked for this program ------------------------------------------------------


@scheme
def copied_bits(copy: Copy) -> None:
    """The best entry's bits under another method and a new seed"""
    copy.file(forged(copy.of("cfa"), bits=copy.of("resample"), seed=3))


@scheme
def copied_weights(copy: Copy) -> None:
    """The same network, bits and digest, under another seed"""
    copy.file(forged(copy.of("at"), weights=None, seed=3))


@scheme
def one_seed_as_five(copy: Copy) -> None:
    """One run filed as seeds 3 to 7, weights renamed"""
    for seed in range(3, 8):
        copy.file(forged(copy.of("at"), weights=f"{seed:064x}", seed=seed))


@scheme
def invented_bits(copy: Copy) -> None:
    """Five seeds of perfect bits, with a made-up reliability"""
    new_entry(copy)


@scheme
def invented_bits_unmeasured(copy: Copy) -> None:
    """The same without the section reliability"""
    for record in new_entry(copy):
        copy.file(record.model_copy(update={"reliability": None}))


@scheme
def self_verified(copy: Copy) -> None:
    """Invented bits, and a statement by the same hand that confirms them"""
    for record in new_entry(copy):
        copy.state(record)


@scheme
def self_verified_and_signed(copy: Copy) -> None:
    """The same, signed with a key that nobody listed"""
    for record in new_entry(copy):
        sign(copy.state(record), copy.keys / "stranger")


@scheme
def forged_retraining(copy: Copy) -> None:
    """Invented bits, and a statement that somebody trained it again"""
    for record in new_entry(copy):
        copy.state(record, "retrained")


@scheme
def invented_commit(copy: Copy) -> None:
    """A new seed whose commit does not exist"""
    record = copy.of("at")
    copy.file(forged(record, bits=invented(record), seed=3, environment={"git_commit": "ab" * 20}))


@scheme
def invented_version(copy: Copy) -> None:
    """A new seed made by a version of the package that never was"""
    record = copy.of("at")
    copy.file(forged(record, bits=invented(record), seed=3, environment={"package_version": "7.7.7"}))


@scheme
def invented_device(copy: Copy) -> None:
    """A new seed made on a device that there is not"""
    record = copy.of("at")
    copy.file(forged(record, bits=invented(record), seed=3, environment={"device": "Quantum 9000"}))


@scheme
def forged_counterexamples(copy: Copy) -> None:
    """Counterexamples against the best entry, without images"""
    for seed in range(3):
        record = copy.of("resample", seed)
        copy.state(record, "counterexamples", robust=np.zeros(record.images, dtype=bool))


@scheme
def counterexamples_of_nothing(copy: Copy) -> None:
    """The same, with a file of noise for images"""
    import hashlib

    for seed in range(3):
        record = copy.of("resample", seed)
        digest = hashlib.sha256(b"noise").hexdigest()
        said = stated(record, "counterexamples", robust=np.zeros(record.images, dtype=bool), examples_sha256=digest)
        write_verification(said, copy.results, b"noise")


@scheme
def forged_dispute(copy: Copy) -> None:
    """A re-evaluation that finds nothing of the best entry's robustness"""
    record = copy.of("resample")
    copy.state(record, robust=np.zeros(record.images, dtype=bool))


@scheme
def rival_retracted(copy: Copy) -> None:
    """The best entry's records retracted by a stranger"""
    for seed in range(3):
        copy.retract(copy.of("resample", seed))


@scheme
def twin_board(copy: Copy) -> None:
    """The same images under imbalance ratio 20.001: a board of one's own"""
    for seed in range(3):
        record = copy.of("cfa", seed)
        copy.file(forged(record, bits=invented(record, seed=seed), weights=f"{seed:064x}", imbalance_ratio=20.001))


@scheme
def protocol_alone(copy: Copy) -> None:
    """A protocol's radius edited: all its records become those of an unknown one"""
    copy.edit("ltrobust_bench/protocol/digits-v0.toml", 'status = "disposable"', 'status = "frozen"')
    copy.edit("ltrobust_bench/protocol/digits-v0.toml", "0.15", "0.14")


@scheme
def known_digests_alone(copy: Copy) -> None:
    """The known digest of a split edited, for records of another one to come"""
    copy.edit("ltrobust_bench/data/known.toml", "d7edcfaf", "00000000")


@scheme
def pins_edited_too(copy: Copy) -> None:
    """The same, and the pinned value in the tests with it"""
    known_digests_alone(copy)
    copy.edit("tests/pinned.json", '"cifar10-lt": "', '"cifar10-lt": "0')


@scheme
def ranked_flipped(copy: Copy) -> None:
    """A reference that is not ranked becomes one that is"""
    copy.edit("baselines/at_balanced/card.toml", "ranked = false", "ranked = true")


@scheme
def evaluator_patched(copy: Copy) -> None:
    """The evaluator edited so that fewer images fall"""
    copy.edit("ltrobust_bench/evaluation/evaluator.py", "from __future__", "# all is well\nfrom __future__")


@scheme
def fewer_test_images(copy: Copy) -> None:
    """A record of half of the test images"""
    record = copy.of("at")
    half = [count // 2 for count in record.run.test_counts]
    kept = np.concatenate([np.arange(n) + start for n, start in zip(half, np.cumsum([0, *record.run.test_counts])[:-1],
                                                                   strict=True)])  # fmt: skip
    bits = {name: record.bits(name)[kept] for name in ("clean", *record.attacks)}
    copy.file(forged(record, bits=bits, seed=3, test_counts=half))


@scheme
def bits_edited(copy: Copy) -> None:
    """A filed record's bits edited in place, digest and all"""
    record = copy.of("cfa")
    copy.path_of(record).write_text(dumps(forged(record, bits=invented(record), weights=None)))


@scheme
def verification_deleted(copy: Copy) -> None:
    """The statements about the best entry deleted"""
    for path in (copy.results / "verifications").glob(f"{copy.of('resample').id}-*"):
        path.unlink()


@scheme
def protocol_with_records(copy: Copy) -> None:
    """A protocol edited together with records that fit it"""
    protocol_alone(copy)
    new_entry(copy, epsilon=0.14)


# --- and others ---------------------------------------------------------------------------------------------------


@scheme
def nearly_copied_bits(copy: Copy) -> None:
    """The best entry's bits with one image in twenty turned over, past the rule of equal bits"""
    victim, thief = copy.of("resample"), copy.of("cfa")
    bits = {name: victim.bits(name).copy() for name in ("clean", *victim.attacks)}
    turned = np.random.default_rng(0).choice(victim.images, victim.images // 20, replace=False)
    for name in bits:
        bits[name][turned] = True
    copy.file(forged(thief, bits=bits, seed=3))


@scheme
def seed_for_a_rival(copy: Copy) -> None:
    """A bad run invented for a rival's entry, to spoil its mean or its verification"""
    record = copy.of("resample")
    copy.file(forged(record, bits=invented(record, 0.0), seed=3))


@scheme
def odd_seed(copy: Copy) -> None:
    """A lucky seed, 1234, added to an entry"""
    record = copy.of("at")
    copy.file(forged(record, bits=invented(record), seed=1234))


@scheme
def twin_by_profile(copy: Copy) -> None:
    """The same images under profile step: no class is cut where the ratio is 1"""
    path = next((copy.results / "records" / "digits-v0" / "digits-lt-ir1" / "at").glob("small-s0-*"))
    record = read_record(path)
    copy.file(forged(record, bits=invented(record), profile="step"))


@scheme
def stranger_lists_himself(copy: Copy) -> None:
    """A stranger's key added to the signers, and a retraction signed with it"""
    with (copy.results / "signers").open("a") as signers:
        signers.write(copy.key_line("stranger@example.org", "stranger"))
    sign(copy.retract(copy.of("resample")), copy.keys / "stranger")


@scheme
def signers_deleted(copy: Copy) -> None:
    """The list of keys deleted: the board would be nobody's, and every statement would count"""
    (copy.results / "signers").unlink()
    new_entry(copy)


@scheme
def signature_moved(copy: Copy) -> None:
    """A maintainer's signature of one retraction put beside another"""
    asked = copy.retract(copy.of("erm"))
    sign(asked, copy.keys / "jane")
    rival = copy.retract(copy.of("resample"))
    signature_of(asked).rename(signature_of(rival))
    asked.unlink()


@scheme
def backdated(copy: Copy) -> None:
    """A retired key signs a statement dated before it was retired"""
    signers = copy.results / "signers"
    signers.write_text(copy.key_line(JANE, "jane", 'valid-before="20261122" '))
    copy.commit(JANE)
    copy.git("branch", "--force", "main")
    sign(copy.retract(copy.of("resample")), copy.keys / "jane")


@scheme
def key_for_everybody(copy: Copy) -> None:
    """A pattern for a name in the list of keys"""
    with (copy.results / "signers").open("a") as signers:
        signers.write(copy.key_line("*", "stranger"))


@scheme
def maintainers_own(copy: Copy) -> None:
    """A maintainer signs a verification of what she proposes in the same pull request"""
    for record in new_entry(copy):
        sign(copy.state(record), copy.keys / "jane")


@scheme
def statement_edited(copy: Copy) -> None:
    """A statement edited in place"""
    path = next((copy.results / "verifications").glob(f"{copy.of('resample').id}-*.json"))
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"robust": pack(np.zeros(raw["images"], dtype=np.uint8), 1)}))


@scheme
def folder_in_a_folder(copy: Copy) -> None:
    """A run filed a second time, in a folder records within records"""
    record = copy.of("resample")
    path = copy.results / "records" / "records" / record.run.record_path()
    path.parent.mkdir(parents=True)
    path.write_text(dumps(forged(record, bits=invented(record))))


@scheme
def link_to_a_record(copy: Copy) -> None:
    """A symbolic link in place of a record"""
    path = copy.path_of(copy.of("cfa"))
    target = copy.path_of(copy.of("resample"))
    path.unlink()
    path.symlink_to(target)


@scheme
def generated_table(copy: Copy) -> None:
    """The generated table edited, records untouched"""
    copy.edit("results/leaderboard.csv", ",1,resample,", ",9,resample,")


@scheme
def commit_aside(copy: Copy) -> None:
    """A new seed made by a commit that exists, on a branch that nobody merged"""
    copy.git("switch", "--quiet", "--create", "aside")
    copy.commit()
    commit = copy.git("rev-parse", "HEAD")
    copy.git("switch", "--quiet", "scheme")
    record = copy.of("at")
    copy.file(forged(record, bits=invented(record), seed=3, environment={"git_commit": commit}))
    copy.git("branch", "--quiet", "--force", "-D", "aside")


@scheme
def earlier_run(copy: Copy) -> None:
    """A filed run again with better bits and an earlier date, so that it would count instead"""
    record = copy.of("cfa")
    made = forged(record, bits=invented(record), environment={"created": "2024-02-01T00:00:00Z"})
    path = copy.path_of(record)
    path.with_name(path.name.replace("-s0-", "-s00-")).write_text(dumps(made))


# --- what is said of them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """What was said of a scheme.

    Attributes:
        validator: the rules that it breaks.
        bot: what the bot says besides, from its first line on.
        board: entries whose rank changes.
        entries: entries that change otherwise.
    """

    name: str
    words: str
    validator: list[str]
    bot: list[str]
    board: list[Change]
    entries: list[Change]

    @property
    def noticed(self) -> bool:
        return bool(self.validator or self.bot)

    @property
    def verdict(self) -> str:
        if not self.board:
            return "changes no rank"
        return "is noticed" if self.noticed else "CHANGES A RANK UNNOTICED"

    def row(self) -> str:
        moved = f"{len(self.board)} ranks" if self.board else "no rank"
        more = f", {len(self.entries)} otherwise" if self.entries else ""
        rules = ", ".join(f"`{rule}`" for rule in self.validator) or "nothing"
        return f"| {self.words} | {rules} | {'; '.join(self.bot) or 'nothing'} | {moved}{more} | {self.verdict} |"


def tried(copy: Copy, name: str) -> Said:
    """A scheme tried on the copy."""
    copy.again()
    SCHEMES[name](copy)
    copy.commit()
    listing = copy.git("diff", "--name-status", "--no-renames", "-z", "main...HEAD") + ("\0" * 0)
    found = submission.parse_changes(listing if listing.endswith("\0") else listing + "\0")
    with chdir(copy.folder):
        ranked = submission.cards_that_change_ranked("main", found)
        task = submission.sort_out(found, ranked, submission.owners_of_statements("main"))
        code = any(not change.path.startswith("results/") for change in found)
        rules, moved = (_by_its_own_code if code else _by_ours)(copy)
    bot = [f"first line: {', '.join(task.decides)}"] if task.decides else []
    bot += [problem.split(": ")[-1].split(";")[0] for problem in task.problems]
    ranks = [change for change in moved if change.rank[0] != change.rank[1] and {*change.rank} != {None, ""}]
    words = (SCHEMES[name].__doc__ or name).strip()
    return Said(name, words, rules, bot, ranks, [change for change in moved if change not in ranks])


def _by_ours(copy: Copy) -> tuple[list[str], list[Change]]:
    records = Path("results/records")
    rules = sorted({problem.rule for problem in validate([records], against="main").problems})
    now = rows_of(boards(find_records([records])[0]))
    return rules, changes(rows_at("main", Path("results")), now)


def _by_its_own_code(copy: Copy) -> tuple[list[str], list[Change]]:
    """By the code of the pull request, as the bot's machine has it."""
    program = (
        "import json, sys; sys.path[:0] = ['.', 'benchmarks']; import attack_the_board as a\n"
        "rules, moved = a._by_ours(None)\n"
        "print(json.dumps([rules, [[c.board, c.method, c.rank, c.accuracy, c.why] for c in moved]]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(copy.folder)},
    )  # fmt: skip
    rules, moved = json.loads(found.stdout.splitlines()[-1])
    return rules, [Change(b, m, tuple(rank), tuple(accuracy), why) for b, m, rank, accuracy, why in moved]


def table(said: list[Said]) -> str:
    head = "| scheme | rules of the validator | the bot | the board | so it |\n| --- | --- | --- | --- | --- |"
    return "\n".join([head, *(one.row() for one in said)])


@click.command()
@click.option("--only", multiple=True, help="Only schemes whose name holds this; the page is left alone.")
def main(only: tuple[str, ...]) -> None:
    """Try to forge the board."""
    names = [name for name in SCHEMES if not only or any(part in name for part in only)]
    with tempfile.TemporaryDirectory(prefix="ltbench-attack-") as folder:
        copy = Copy(Path(folder))
        main_branch = copy.git("rev-parse", "main")
        said = []
        for name in names:
            copy.git("branch", "--quiet", "--force", "main", main_branch) if said else None
            said.append(tried(copy, name))
            click.echo(f"{name}: {said[-1].verdict}: {said[-1].row()}")
            copy.git("switch", "--quiet", "--detach")
    unnoticed = [one.name for one in said if one.board and not one.noticed]
    click.echo(f"{len(said)} schemes, {len(unnoticed)} change a rank unnoticed{': ' if unnoticed else ''}"
               f"{', '.join(unnoticed)}")  # fmt: skip
    if not only:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(said)}\n\n{END}{rest.partition(END)[2]}")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
