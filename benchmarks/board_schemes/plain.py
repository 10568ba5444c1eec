"""What somebody who wants a rank tries first."""

from __future__ import annotations

import numpy as np

from board_schemes.tools import Copy, forged, invented, new_entry, scheme, stated
from ltrobust_bench.records.io import dumps
from ltrobust_bench.records.signing import sign
from ltrobust_bench.records.verify import write_verification


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
