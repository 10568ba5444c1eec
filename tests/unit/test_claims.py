"""Verdicts on papers' claims: on synthetic records whose answers are known, and on the committed ones."""

from __future__ import annotations

import numpy as np
import pytest
from record_factory import TRAIN_COUNTS, synthetic_record

from ltrobust_bench.errors import UsageError
from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import write_record
from ltrobust_bench.report.aggregate import boards, request_label, usual_policy
from ltrobust_bench.report.claims.build import claims
from ltrobust_bench.report.claims.measure import finding_of, together
from ltrobust_bench.report.claims.page import decomposition, ranking
from ltrobust_bench.report.claims.size import size_effects, slope_of
from ltrobust_bench.report.claims.stated import Claim, stated_claims
from ltrobust_bench.scores.paired import contrast, paired
from ltrobust_bench.sweeps.plan import read_plan

CLASSES, PER_CLASS = 10, 40
LABELS = np.repeat(np.arange(CLASSES), PER_CLASS)
YES, NO, OPEN, NOTHING = "confirmed", "refuted", "not resolved at this scale", "not measured yet"


def record(method, seed, clean, robust, **run):
    """Of a run in which so many of each class's first images are right, and so many withstand every attack."""
    place = np.tile(np.arange(PER_CLASS), CLASSES)
    bits = {"clean": place < clean, "pgd-20": place < robust, "autoattack": place < robust}
    return synthetic_record(bits, method=method, seed=seed, **run)


def board_of(*records):
    (board,) = boards(records)
    return board


def claim(terms, **more):
    return Claim(id="a-claim", method="reat", says="", quantity="", terms=terms, **more)


def verdict(stated, *records):
    return finding_of(stated, board_of(*records)).verdicts


MORE = claim([[1, "union", "reat"], [-1, "union", "at"]], groups=["all", "tail"])
SAME = claim([[1, "union", "reat"], [-1, "union", "at"]], direction="within", margin=3.0)
GAP = claim([[1, "clean", "reat"], [-1, "clean", "at"], [-1, "union", "reat"], [1, "union", "at"]])


@pytest.mark.parametrize(
    ("reat", "at", "found"),
    [((30, 20), (30, 10), YES), ((30, 10), (30, 20), NO), ((30, 20), (30, 20), OPEN), ((36, 20), (30, 20), OPEN)],
)
def test_more_robust(reat, at, found):
    runs = [record(m, s, *own) for m, own in (("reat", reat), ("at", at)) for s in range(3)]
    assert verdict(MORE, *runs) == {"all": found, "tail": found}


def test_two_seeds_resolve_nothing_and_a_missing_entry_is_not_measured():
    runs = [record(m, s, 30, robust) for m, robust in (("reat", 30), ("at", 5)) for s in range(2)]
    (one, _) = finding_of(MORE, board_of(*runs)).comparisons
    assert one.verdict == OPEN and one.figure == pytest.approx(100 * 25 / 40) and one.seeds == (0, 1)
    alone = finding_of(MORE, board_of(*(record("at", s, 30, 5) for s in range(3))))
    assert alone.verdicts == {"all": NOTHING, "tail": NOTHING} and alone.comparisons[0].missing == ("reat",)
    assert finding_of(MORE, None).verdicts == {"all": NOTHING, "tail": NOTHING}


def test_other_seeds_are_not_compared():
    runs = [record("reat", s, 30, 30) for s in (0, 1, 2)] + [record("at", s, 30, 5) for s in (3, 4, 5)]
    (one, _) = finding_of(MORE, board_of(*runs)).comparisons
    assert one.verdict == NOTHING and one.seeds == () and one.missing == ()


def test_a_seed_that_shows_the_contrary_leaves_it_open():
    runs = [record("at", s, 30, 15) for s in range(3)] + [record("reat", s, 30, r) for s, r in enumerate((25, 25, 14))]
    assert verdict(MORE, *runs)["all"] == OPEN


@pytest.mark.parametrize(("robust", "found"), [(15, YES), (16, OPEN), (25, NO)])
def test_no_effect_is_confirmed_only_by_an_interval_within_the_margin(robust, found):
    runs = [record(m, s, 30, r) for m, r in (("reat", robust), ("at", 15)) for s in range(3)]
    assert verdict(SAME, *runs) == {"all": found}  # one image of 40 is 2.5 points, and its interval passes 3


def test_gains_on_clean_images_that_robustness_does_not_follow():
    at = [record("at", s, 20, 10) for s in range(3)]
    follows, lags = ([record("reat", s, 30, r) for s in range(3)] for r in (20, 12))
    assert verdict(GAP, *at, *follows) == {"all": OPEN}
    found = finding_of(GAP, board_of(*at, *lags))
    assert found.verdicts == {"all": YES} and found.comparisons[0].figure == pytest.approx(100 * (10 - 2) / 40)


def test_boundary_less_natural_error_by_hand():
    stated = claim([[2, "clean", "reat"], [-1, "union", "reat"]], constant=-1, groups=["tail"])
    found = finding_of(stated, board_of(*(record("reat", s, 30, 5) for s in range(3))))
    assert found.comparisons[0].figure == pytest.approx(100 * (25 - 10) / 40) and found.verdicts == {"tail": YES}


def test_half_of_a_gain():
    stated = claim([[1, "union", "at-bsl"], [-0.5, "union", "at"], [-0.5, "union", "robal"]])
    runs = [record(m, s, 39, r) for m, r in (("at", 5), ("robal", 25), ("at-bsl", 23)) for s in range(3)]
    found = finding_of(stated, board_of(*runs))
    assert found.comparisons[0].figure == pytest.approx(100 * (23 - 5 - 10) / 40) and found.verdicts == {"all": YES}


FAKE = [[1, "pgd-20", "reat"], [-1, "union", "reat"], [-1, "pgd-20", "at"], [1, "union", "at"]]
GAIN = {"quantity": "", "terms": [[1, "pgd-20", "reat"], [-1, "pgd-20", "at"]]}


@pytest.mark.parametrize(("pgd", "found"), [(30, YES), (20, OPEN), (16, OPEN)])
def test_who_gains_nothing_has_no_fake_gain(pgd, found):
    """PGD-20 overstates it all the same; without the gain being asked for, each of these would confirm the claim."""
    place = np.tile(np.arange(PER_CLASS), CLASSES)
    bits = {"clean": place < 35, "pgd-20": place < pgd, "autoattack": place < 5}
    runs = [record("at", s, 35, 20) for s in range(3)] + [
        synthetic_record(bits, method="reat", seed=s) for s in range(3)
    ]
    assert verdict(claim(FAKE), *runs) == {"all": YES}
    (one,) = finding_of(claim(FAKE, given=GAIN), board_of(*runs)).comparisons
    assert one.verdict == found and one.figure == pytest.approx(100 * (pgd - 5) / 40)
    assert one.given.figure == pytest.approx(100 * (pgd - 20) / 40)


def test_of_two_sums_the_larger_p_value_counts():
    """One image in each class more under PGD-20 is a gain of 10 images: 2 / 2^10, far more than that of the figure."""
    place = np.tile(np.arange(PER_CLASS), CLASSES)
    bits = {"clean": place < 35, "pgd-20": place < 21, "autoattack": place < 5}
    runs = [record("at", s, 35, 20) for s in range(3)] + [
        synthetic_record(bits, method="reat", seed=s) for s in range(3)
    ]
    (one,) = finding_of(claim(FAKE, given=GAIN), board_of(*runs)).comparisons
    assert one.p_value == pytest.approx(2.0**-9)


def test_an_entry_that_only_the_supposed_gain_names_is_waited_for():
    stated = claim(
        [[1, "union", "reat"], [-1, "union", "at"]], given={"quantity": "", "terms": [[1, "union", "robal"]]}
    )
    assert stated.entries() == ["reat", "at", "robal"]
    (one,) = finding_of(stated, board_of(*(record(m, 0, 30, 5) for m in ("reat", "at")))).comparisons
    assert one.verdict == NOTHING and one.missing == ("robal",)


def test_cases_are_corrected_together_and_stand_for_x_and_y():
    robust = {"at": 15, "reat": 25, "mart": 15, "trades": 17}
    runs = [record(m, s, 39, r) for m, r in robust.items() for s in range(3)]
    stated = claim([[1, "union", "X"], [-1, "union", "Y"]], cases=[["reat", "at"], ["trades", "mart"]], holds="some")
    first, second = finding_of(stated, board_of(*runs)).comparisons
    assert first.verdict == YES and first.case == ("reat", "at")
    alone = finding_of(claim([[1, "union", "trades"], [-1, "union", "mart"]]), board_of(*runs)).comparisons[0]
    assert second.figure == alone.figure and first.p_value == pytest.approx(2 * 2.0**-99 * 2.0**-300, rel=1e-6)
    assert second.p_value == alone.p_value  # the larger of two is not multiplied


def test_every_entry_stands_for_x_but_those_named_and_references():
    runs = [record(m, s, 39, 15) for m in ("at", "reat", "mart", "selfdistill") for s in range(3)]
    found = finding_of(claim([[1, "union", "X"], [-1, "union", "at"]], cases=["*"]), board_of(*runs))
    assert {one.case for one in found.comparisons} == {("reat",), ("mart",)}  # selfdistill's card asks for no rank


@pytest.mark.parametrize(
    ("verdicts", "every", "some"),
    [
        ([YES, YES], YES, YES), ([YES, OPEN], OPEN, YES), ([YES, NO], NO, YES), ([NO, NO], NO, NO),
        ([OPEN, NO], NO, OPEN), ([YES, NOTHING], OPEN, YES), ([NOTHING, NOTHING], NOTHING, NOTHING),
        ([NO, NOTHING], NO, OPEN), ([], NOTHING, NOTHING),
    ],
)  # fmt: skip
def test_cases_together(verdicts, every, some):
    assert together(verdicts, "every") == every and together(verdicts, "some") == some


def test_a_contrast_of_two_methods_is_their_paired_difference():
    generator = np.random.default_rng(0)
    counts = [30, 20, 50]
    labels = np.repeat(np.arange(3), counts)
    for _ in range(20):
        bits = [generator.random((2, len(labels))) < generator.random((2, 1)) for _ in range(3)]
        expected = paired(bits, [[0, 1]] * 3, labels, [0], [1])
        found = contrast([b[0].astype(float) - b[1] for b in bits], labels)
        for name in ("seeds", "difference", "half", "p_value"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-12), name


def test_intervals_of_contrasts_cover():
    """Of a sum of four accuracies, two networks on clean images and under attack."""
    generator, covered, rounds, labels = np.random.default_rng(1), 0, 1000, np.repeat(np.arange(4), 60)
    clean, kept = np.asarray([0.8, 0.6]), np.asarray([0.5, 0.7])
    truth = (clean[0] - clean[1]) - (clean * kept) @ [1, -1]
    for _ in range(rounds):
        right = generator.random((2, len(labels))) < clean[:, None]
        robust = right & (generator.random((2, len(labels))) < kept[:, None])
        found = contrast([(right[0] * 1.0 - right[1]) - (robust[0] * 1.0 - robust[1])], labels)
        covered += abs(float(found.difference[0]) - truth) <= float(found.half[0])
    assert 0.93 < covered / rounds < 0.97


ORDER = [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
PERMUTED = [TRAIN_COUNTS[ORDER.index(c)] for c in range(CLASSES)]


def two_orders(accuracy):
    """Boards in label order and permuted; ``accuracy(label, images)`` of 40 test images are right."""
    found = []
    place = np.tile(np.arange(PER_CLASS), CLASSES)
    for counts, digest in ((TRAIN_COUNTS, "a"), (PERMUTED, "d")):
        right = place < np.repeat([accuracy(c, n) for c, n in enumerate(counts)], PER_CLASS)
        bits = {"clean": right, "pgd-20": right, "autoattack": right}
        more = {"train_counts": counts, "train_index_sha256": digest * 64}
        found.append(board_of(*(synthetic_record(bits, method="at", seed=s, **more) for s in range(3))))
    return found


def test_size_and_difficulty_are_told_apart():
    (size,) = size_effects(*two_orders(lambda label, images: 4 * np.log2(images)))
    assert size.slope == pytest.approx(10.0, rel=0.05) and size.half < 2  # 4 of 40 images are 10 points
    assert size.gaps[0] == pytest.approx(size.gaps[1], abs=3) and size.gaps[0] > 25
    (difficulty,) = size_effects(*two_orders(lambda label, images: 35 - 3 * label))
    assert (size.verdict, difficulty.verdict) == (YES, OPEN)
    assert difficulty.slope == 0 and difficulty.gaps[0] > 40 > 30 > difficulty.gaps[1]
    assert (difficulty.label_order == difficulty.permuted).all()


def test_runs_of_both_orders_and_the_reference_are_named_and_no_other_board_has_two(tmp_path):
    place, made = np.tile(np.arange(PER_CLASS), CLASSES), {}
    bits = dict.fromkeys(("clean", "pgd-20", "autoattack"), place < 20)
    lite = {"protocol": "ltr-linf-lite-v1", "model": "resnet8", "imbalance_ratio": 50.0}
    lite["policy"] = usual_policy(lite["protocol"])
    equal = {"profile": "balanced", "train_counts": [sum(TRAIN_COUNTS) // CLASSES] * CLASSES}
    for title, dataset, more in (
        ("at", "cifar10-lt", {}),
        ("at, permuted", "cifar10-lt-perm", {"train_counts": PERMUTED, "train_index_sha256": "d" * 64}),
        ("at, balanced", "cifar10-lt", equal),
    ):
        digest = load_protocol(lite["protocol"]).digest(dataset)
        made[title] = synthetic_record(bits, method="at", dataset=dataset, protocol_digest=digest, **lite | more)
        write_record(made[title], tmp_path / f"{len(made)}.json")
    text = claims([tmp_path]).text
    for title, one in made.items():
        assert f"| {title} | s0 `{one.run.key()[:8]}` |" in text
    assert "permuted |" not in claims([tmp_path], dataset="cifar10-lt-perm").text


def test_what_all_classes_share_is_no_effect_of_size():
    change = np.log2(PERMUTED) - np.log2(TRAIN_COUNTS)
    assert change.sum() == pytest.approx(0)
    slope, half = slope_of(7 + 2 * change[None], change)
    assert slope == pytest.approx(2) and half == pytest.approx(0, abs=1e-9)


def test_the_slopes_interval_covers():
    change, generator, covered = np.log2(PERMUTED) - np.log2(TRAIN_COUNTS), np.random.default_rng(2), 0
    for _ in range(1000):
        slope, half = slope_of((3 * change + generator.normal(0, 5, CLASSES))[None], change)
        covered += abs(slope - 3) <= half
    assert 0.93 < covered / 1000 < 0.97


def test_errors_add_up_and_places_move():
    place = np.tile(np.arange(PER_CLASS), CLASSES)
    bits = {"clean": place < 30, "pgd-20": place < 25, "autoattack": place < 5}
    board = board_of(synthetic_record(bits, method="taet"), record("at", 0, 35, 20))
    assert "| taet | 1 | 25.0 + 62.5 = 87.5 | 25.0 + 62.5 = 87.5 | 25.0 + 62.5 = 87.5 |" in decomposition(board)
    assert "| taet | 1 | 62.5 | 12.5 | 50.0 | 1 | 2 | -1 |" in ranking(board)
    assert "| at | 1 | 50.0 | 50.0 | 0.0 | 2 | 1 | +1 |" in ranking(board)


def test_equal_means_share_a_place_in_whatever_order_their_seeds_add_up():
    seeds = {"at": (1, 2, 3), "reat": (2, 2, 2), "taet": (3, 2, 1)}
    board = board_of(*(record(m, s, 30, robust) for m, own in seeds.items() for s, robust in enumerate(own)))
    means = {float(entry.percent("union", "balanced")) for entry in board.entries}
    assert len(means) > 1 and max(means) - min(means) < 1e-9
    assert ranking(board).count("| 5.0 | 5.0 | 0.0 | 1 | 1 | +0 |") == 3


def test_every_entry_that_a_claim_names_is_in_the_campaign(root):
    stated = stated_claims()
    requests = read_plan(root / "campaigns/cifar10-lite.toml").requests()
    runs = {}
    for request in requests:
        if (request.dataset, request.profile, request.protocol) == (stated.dataset, None, stated.protocol):
            runs.setdefault(request_label(request), set()).add(request.seed)
    for one in stated.claims:
        for entry in one.entries():
            assert runs[entry] >= {0, 1, 2}, f"{one.id}: {entry}"
    assert len({one.id for one in stated.claims}) == len(stated.claims)
    assert any(request.dataset == stated.permuted for request in requests)


def test_the_page_of_an_empty_and_of_a_partly_filled_board(tmp_path):
    nothing = claims([tmp_path])
    assert "| [size](#size-against-difficulty) | all of them |" in nothing.text and nothing.text.count(NOTHING) > 20
    assert "No run of this board is finished yet" in nothing.text and "Entries used" not in nothing.text
    assert {v for one in nothing.findings for v in one.verdicts.values()} == {NOTHING}
    for seed in range(3):
        for method, robust in (("at", 10), ("at-bsl", 20), ("robal", 22)):
            write_record(record(method, seed, 30, robust), tmp_path / f"{method}-{seed}.json")
    some = claims([tmp_path], protocol="digits-v0", dataset="digits-lt")
    found = {one.claim.id: one.verdicts for one in some.findings}
    assert found["at-bsl-explains"] == {"all": YES, "tail": YES}
    assert found["robal-robust"]["all"] == OPEN  # of two variants one is there
    assert found["reat-robal"]["all"] == NOTHING and some.waiting["reat-robal"] == ["reat"]
    key = record("at-bsl", 0, 30, 20).run.key()[:8]
    assert f"| at-bsl | s0 `{key}`" in some.text
    assert claims([tmp_path], protocol="digits-v0", dataset="digits-lt").text == some.text


def test_runs_that_nobody_verified_decide_nothing_on_a_public_board(tmp_path):
    for seed in range(3):
        for method, robust in (("at", 10), ("reat", 20), ("robal", 5)):
            write_record(record(method, seed, 30, robust), tmp_path / "records" / f"{method}-{seed}.json")

    def found():
        return claims([tmp_path / "records"], protocol="digits-v0", dataset="digits-lt")

    assert {one.claim.id: one for one in found().findings}["reat-robal"].verdicts["all"] == YES
    (tmp_path / "signers").touch()
    public = found()
    assert {v for one in public.findings for v in one.verdicts.values()} == {NOTHING}
    assert public.waiting["reat-robal"] == ["reat", "robal"] and "| reat | 3 |" not in public.text


def own_board(folder, classes, attacks):
    """Three methods on a folder of images, three seeds each."""
    protocol, place = load_protocol("ltr-linf-v1"), np.tile(np.arange(PER_CLASS), classes)
    terms = {"protocol": protocol.name, "protocol_digest": protocol.digest("folder"), "dataset": "folder-photos-32px"}
    terms |= {"model": protocol.terms("folder").model, "policy": usual_policy(protocol.name).model_dump()}
    terms |= {"profile": "own", "train_counts": [90, 60, 30][:classes], "source_sha256": "e" * 64}
    for method in ("at", "reat", "robal"):
        for seed in range(3):
            bits = {"clean": place < 30} | dict.fromkeys(attacks, place < 12)
            write_record(synthetic_record(bits, method=method, seed=seed, **terms), folder / f"{method}-{seed}.json")
    return claims([folder], protocol=protocol.name, dataset="folder-photos-32px")


def test_two_classes_have_no_thirds_and_an_attack_that_was_not_run_is_waited_for(tmp_path):
    assert "| at | 3 | 25.0 + 45.0 = 70.0 |" in own_board(tmp_path / "3", 3, ["pgd-20", "aa-small-c"]).text
    assert "No run of this board is finished yet." in own_board(tmp_path / "less", 3, ["aa-small-c"]).text
    with pytest.raises(UsageError, match="photos-32px has 2 classes; claims are about thirds"):
        own_board(tmp_path / "2", 2, ["pgd-20", "aa-small-c"])


@pytest.mark.board
def test_the_committed_page_is_what_the_records_say(root):
    assert (root / "results/claims.md").read_text(encoding="utf-8") == claims([root / "results/records"]).text
