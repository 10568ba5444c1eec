"""How far a record has been verified: statements by others about it, in files beside the records. No torch here.

A record alone is *claimed*. It is *re-evaluated* if somebody attacked its weights again and found what it says, and
*retrained* if somebody trained it again. Adversarial examples that anyone finds lower it. Nothing of this changes the
record's file; statements are appended, and whoever reads them draws the same conclusions (:func:`standing`). Which of
them count is told by :mod:`ltrobust_bench.records.trust`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from ltrobust_bench.errors import RecordError
from ltrobust_bench.evaluation.adaptive import adaptive_suite
from ltrobust_bench.files import write_bytes, write_text
from ltrobust_bench.plan.run import Sha256, Text
from ltrobust_bench.records.numbers import flags_of
from ltrobust_bench.records.schema import Environment, Level, Record, Said, Standing
from ltrobust_bench.records.strict import finding, findings_of, read_json
from ltrobust_bench.scores.bits import pack, unpack
from ltrobust_bench.scores.metrics import metrics_from_bits
from ltrobust_bench.scores.reliability import MASKING, Reliability
from ltrobust_bench.terms import Strict, canonical_digest, printable

VERIFICATIONS = "verifications"
"""Beside ``records``."""
Kind = Literal["re-evaluated", "retrained", "counterexamples", "thorough"]
BEYOND = ("counterexamples", "thorough")
"""Kinds of statements about what the suite left standing: they can lower a record, and raise no level."""
LEVELS: tuple[Level, ...] = get_args(Level)
"""From the lowest to the highest."""
DIFFERING, CHANCE = 0.005, 0.001
"""Share of images that come out otherwise by themselves, since attacks have random starts and a sample is put into
other batches (tests/unit/test_committed_results.py counts what the committed verifications found); and how seldom an
honest record may be disputed for it."""
TRANSFER, STUDENT, BASE = "transfer-", "student", "base"
"""How attacks are called that were crafted on another network, the one that everybody can train from the model, and the
honest one that the model is made of."""
FEWEST = 50
"""Images of the smallest sample that confirms a record; of a single one, chance explains anything."""
RETRAINED_POINTS = 5.0
"""By how many points another training of the same run may differ, clean and worst case: seeds spread about as much."""


class Verification(Strict):
    """What somebody found who looked at a record's weights again, or trained it again."""

    schema_version: Literal[1]
    record: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] = Field(description="id of the record")
    path: str = Field(max_length=400, description="its place below ``records``")
    kind: Kind
    places: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1_000_000)] | None = Field(
        description="places of the images looked at, in the order of the record's bits, increasing; none: all"
    )
    images: int = Field(ge=1, le=1_000_000, description="how many images were looked at")
    clean: str = Field(description="base64 of one bit per image looked at: correct as it is")
    robust: str = Field(description="base64 of one bit per image looked at: withstood everything that was tried")
    weights_sha256: Sha256 = Field(description="of the weights that were attacked")
    by: str = Field(min_length=1, max_length=200, description="who did it")
    environment: Environment
    examples_sha256: Sha256 | None = Field(
        default=None, description="of the file of adversarial images, which lies beside a statement of counterexamples"
    )
    graph_sha256: Sha256 | None = Field(
        default=None,
        description="of the graph of tensor operations that was attacked, in a process that ran none of the method's "
        "code; none: the method's own module was",
    )
    attacks: dict[Text, Annotated[int, Field(ge=0)]] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="of a thorough evaluation: attacks beside the suite, and how many images each broke",
    )
    not_run: Annotated[dict[Text, Text], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="of a thorough evaluation: attacks that could not be run on what was attacked, and why",
    )
    reliability: Reliability | None = Field(
        default=None,
        description="what was measured of the graph; none: it was made before that, or is one of counterexamples",
    )

    @field_validator("by")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not value.isprintable() or not value.strip():
            raise ValueError("must be one line of text")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Verification:
        if self.examples_sha256 is not None and self.kind != "counterexamples":
            raise ValueError("examples_sha256: belongs to counterexamples")
        if (self.attacks is not None) != (self.kind == "thorough"):
            raise ValueError("attacks: belongs to a thorough evaluation: both or neither")
        if self.not_run is not None and (self.attacks is None or self.not_run.keys() & self.attacks.keys()):
            raise ValueError("not_run: belongs to a thorough evaluation, and is about other attacks than were run")
        if self.reliability is not None and self.kind == "counterexamples":
            raise ValueError("reliability: belongs to what attacks a network, not to counterexamples")
        if self.places is not None and (
            len(self.places) != self.images or any(a >= b for a, b in zip(self.places, self.places[1:], strict=False))
        ):
            raise ValueError("places: must be as many as images, and increasing")
        try:
            clean, robust = (unpack(text, self.images, 1) for text in (self.clean, self.robust))
        except RecordError as error:
            raise ValueError(f"robust: {error}") from None
        if (robust > clean).any():
            raise ValueError("robust: an image withstands attacks that is misclassified when clean")
        if self.attacks is not None and sum(self.attacks.values()) != int((clean > robust).sum()):
            raise ValueError("attacks: must have broken as many images as do not withstand them")
        return self

    @property
    def bits(self) -> tuple[np.ndarray, np.ndarray]:
        """Which of the images looked at are correct as they are, and which withstood everything; bool."""
        clean, robust = (unpack(text, self.images, 1).astype(bool) for text in (self.clean, self.robust))
        return clean, robust

    @property
    def unmeasured(self) -> bool:
        """Whether it judged a graph and does not say what it measured of it: then it confirms nothing."""
        return self.kind != "counterexamples" and self.graph_sha256 is not None and self.reliability is None

    @property
    def others(self) -> list[str]:
        """Of a thorough evaluation: the networks on which attacks were crafted and that are not the model's student."""
        named = (name.removeprefix(TRANSFER) for name in self.attacks or {} if name.startswith(TRANSFER))
        return [name for name in named if name != STUDENT]

    @property
    def file_name(self) -> str:
        """``<record>-<kind>-<digest>.json``: the same statement has the same name."""
        digest = canonical_digest(self.model_dump(mode="json", exclude_defaults=True))
        return f"{self.record}-{self.kind}-{digest[:8]}.json"


def verification(
    record: Record,
    kind: Kind,
    places: np.ndarray | None,
    clean: np.ndarray,
    robust: np.ndarray,
    weights_sha256: str,
    by: str,
    environment: Environment,
    examples_sha256: str | None = None,
    graph_sha256: str | None = None,
    attacks: dict[str, int] | None = None,
    not_run: dict[str, str] | None = None,
    reliability: Reliability | None = None,
) -> Verification:
    """A statement from bits, bool, one per place.

    Raises:
        RecordError: if ``by`` is no line of text.
    """
    try:
        return Verification(
            schema_version=1,
            record=record.id,
            path=record.run.record_path(),
            kind=kind,
            places=None if places is None else [int(p) for p in places],
            images=len(clean),
            clean=pack(clean, 1),
            robust=pack(clean & robust, 1),
            weights_sha256=weights_sha256,
            by=by,
            environment=environment,
            examples_sha256=examples_sha256,
            graph_sha256=graph_sha256,
            attacks=attacks,
            not_run=not_run,
            reliability=reliability,
        )
    except ValidationError as error:
        raise RecordError(f"this is no verification: {findings_of(error)[0]}") from None


def write_verification(statement: Verification, results_dir: Path, examples: bytes | None = None) -> Path:
    """Append a statement; returns its file.

    Args:
        examples: of counterexamples, the ``.npz`` that holds them; it comes to lie beside the statement.
    """
    path = results_dir / VERIFICATIONS / statement.file_name
    if examples is not None:
        write_bytes(examples_of(path), examples)
    absent = {n for n, field in Verification.model_fields.items() if not field.is_required()}
    absent = {name for name in absent if getattr(statement, name) is None}
    write_text(path, statement.model_dump_json(exclude=absent) + "\n")
    return path


def examples_of(path: Path) -> Path:
    """The file of adversarial images beside a statement of counterexamples."""
    return path.with_suffix(".npz")


def read_verification(path: Path) -> Verification:
    """The statement in a file.

    Raises:
        RecordError: naming the file, the field and what is wrong.
    """
    name = printable(str(path), 300)
    try:
        found = Verification.model_validate(read_json(path))
    except RecordError as error:
        raise RecordError(f"{name} is no verification: {error}") from None
    except ValidationError as error:
        raise RecordError(f"{name} is no verification: {findings_of(error)[0]}") from None
    if path.name != found.file_name:
        wrong = finding("file", f"must be called {found.file_name}, after what it says; was it edited?", path.name)
        raise RecordError(f"{name} is no verification: {wrong}")
    return found


def objections(record: Record, statement: Verification) -> list[str]:
    """Why a statement does not confirm its record; empty if it does. Counterexamples and thorough evaluations, which
    confirm nothing, only have to be about it."""
    total = sum(record.run.test_counts)
    places = np.arange(total) if statement.places is None else np.asarray(statement.places)
    if len(places) != statement.images or places.max() >= total:
        return [f"it is about {statement.images} images of another test set"]
    if statement.kind == "retrained":
        return _objections_to_training(record, statement, places)
    if statement.weights_sha256 != record.result.weights_sha256:
        return ["it is about other weights"]
    if statement.kind in BEYOND:
        return []
    allowed = tolerated(len(places))
    clean, robust = statement.bits
    wrong = int((clean != record.bits("clean")[places]).sum())
    broken = int((record.bits("union")[places] & ~robust).sum())
    found = []
    if wrong > allowed:
        found.append(f"{wrong} of {len(places)} images are classified otherwise (allowed: {allowed})")
    if broken > allowed:
        found.append(f"{broken} of {len(places)} images that count as robust were broken (allowed: {allowed})")
    return found


def too_few(record: Record, statement: Verification) -> bool:
    """Whether a statement looked at fewer images than confirm its record: ``FEWEST``, or all there are."""
    return statement.images < min(FEWEST, sum(record.run.test_counts))


def tolerated(images: int) -> int:
    """How many of the images looked at may come out otherwise: more would happen by chance less than once in a thousand
    times, if each does with probability ``DIFFERING``."""
    from scipy.special import bdtrc

    return int(np.argmax(bdtrc(np.arange(images + 1), images, DIFFERING) < CHANCE))


def _objections_to_training(record: Record, statement: Verification, places: np.ndarray) -> list[str]:
    labels, counts = record.labels()[places], record.run.train_counts
    found = []
    for name, theirs in zip(("clean", "union"), statement.bits, strict=True):
        ours = metrics_from_bits(record.bits(name)[places], labels, counts).balanced
        difference = 100 * float(metrics_from_bits(theirs, labels, counts).balanced - ours)
        if abs(difference) > RETRAINED_POINTS:
            found.append(f"trained again, {name} accuracy is {difference:+.1f} points (allowed: {RETRAINED_POINTS:g})")
    return found


def lowered(record: Record, statement: Verification) -> int:
    """How many images that count as robust in a record a statement says to be broken."""
    broken = _broken(record, statement)
    return 0 if broken is None else int((broken & record.bits("union")).sum())


def _broken(record: Record, statement: Verification) -> np.ndarray | None:
    """Images that a statement says to be broken, bool, shape [T]; None: it speaks of other weights or images."""
    if statement.kind == "retrained" or statement.weights_sha256 != record.result.weights_sha256:
        return None
    broken = np.zeros(sum(record.run.test_counts), dtype=bool)
    places = np.arange(len(broken)) if statement.places is None else np.asarray(statement.places)
    if len(places) != statement.images or places.max() >= len(broken):
        return None
    broken[places] = ~statement.bits[1]
    return broken


def standing(record: Record, statements: Sequence[Verification], said: Sequence[Said] = ()) -> Standing:
    """What follows for a record from statements about it that count.

    Args:
        said: all that was said, counting or not, for readers.
    """
    level, disputed, thorough, external = 0, [], False, False
    measured = [s.reliability for s in statements if s.reliability is not None and not objections(record, s)]
    broken = np.zeros(sum(record.run.test_counts), dtype=bool)
    for statement in statements:
        against = objections(record, statement)
        disputed += [f"{statement.kind} by {statement.by}: {reason}" for reason in against]
        if statement.kind in BEYOND:
            external |= not against
            thorough |= not against and is_thorough(record, statement, measured)
        elif not against and not too_few(record, statement) and not statement.unmeasured:
            level = max(level, LEVELS.index(statement.kind))
        theirs = _broken(record, statement)
        if theirs is not None:
            broken |= theirs
    broken &= record.bits("union")
    known = tuple(said)
    return Standing(
        "claimed" if disputed else LEVELS[level],
        broken if broken.any() else None,
        tuple(disputed),
        known,
        thorough=thorough,
        external=external,
        confirmed=level > 0,
        measured=tuple(measured),
    )


def is_thorough(record: Record, statement: Verification, measured: Sequence[Reliability]) -> bool:
    """Whether a statement is that of a thorough evaluation of everything that the record's suite left standing, with
    every attack that the network's flags ask for.

    Args:
        measured: of its network, by other statements.
    """
    if statement.kind != "thorough" or statement.weights_sha256 != record.result.weights_sha256:
        return False
    return not statement.unmeasured and not lacking(record, statement, measured)


def lacking(record: Record, statement: Verification, measured: Sequence[Reliability] = ()) -> str:
    """What a thorough evaluation leaves out, in words; empty: nothing."""
    known = (*measured, *([statement.reliability] if statement.reliability else []))
    missing = [n for n in demanded(record.judged(Standing(measured=known))) if n not in (statement.attacks or {})]
    if missing:
        return f"without {', '.join(missing)}, which its flags ask for"
    standing = record.judged(Standing()).bits("union")
    if statement.places is None or set(np.flatnonzero(standing)) <= set(statement.places):
        return ""
    return "not all that counted as robust were attacked"


def demanded(record: Record) -> list[str]:
    """Names of the attacks that a thorough evaluation of a record must have run: the adaptive suite for its flags.
    Where one masks gradients, those crafted on the model's student, too, and on the run that it is built on."""
    flags = {flag.name for flag in flags_of(record)}
    seconds = [] if flags.isdisjoint(MASKING) else [*[BASE] * (record.run.base_key is not None), STUDENT]
    return [attack.name for attack in adaptive_suite(flags, len(record.run.train_counts), seconds=seconds)]
