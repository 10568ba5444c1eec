"""What gets around a rule that stands alone."""

from __future__ import annotations

import json

import numpy as np

from board_schemes.tools import JANE, Copy, forged, invented, new_entry, scheme
from ltrobust_bench.records.io import dumps, read_record
from ltrobust_bench.records.signing import sign, signature_of
from ltrobust_bench.scores.bits import pack


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
