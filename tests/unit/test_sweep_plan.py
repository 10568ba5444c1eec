"""Plans of sweeps: what a file states is what is asked for, and a mistake in it is named."""

from __future__ import annotations

from collections import Counter

import pytest

from ltrobust_bench.errors import UnknownNameError, UsageError
from ltrobust_bench.plan.request import Request
from ltrobust_bench.plan.run import Policy
from ltrobust_bench.records.io import read_record, record_files
from ltrobust_bench.sweeps.plan import read_plan

ONE = '[[runs]]\nmethod = "at"\ndataset = "digits-lt"\n'


def requests_of(tmp_path, text):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return read_plan(path).requests()


def test_every_list_is_an_axis_and_tables_add_up(tmp_path):
    found = requests_of(
        tmp_path,
        """
        [defaults]
        dataset = "digits-lt"
        seed = [0, 1]
        settings.lr = 0.1

        [[runs]]
        method = ["at", "trades"]
        plugins = ["none", "awp", "awp+robustlt"]
        settings.attack.steps = [5, 10]

        [[runs]]
        method = "reat"
        seed = 7
        settings = { lr = 0.2, tail = "off" }

        [[runs]]
        method = ["reat"]
        seed = [7, 8]
        settings = { tail = "off", lr = 0.2 }
        """,
    )
    assert len(found) == len(set(found)) == 2 * 2 * 3 * 2 + 2  # the second table's run is also the third's
    assert Counter(request.method for request in found) == {"at": 12, "trades": 12, "reat": 2}
    assert {request.plugins for request in found} == {(), ("awp",), ("awp", "robustlt")}
    assert {dict(r.settings)["attack.steps"] for r in found if r.method == "at"} == {5, 10}
    last = Request("reat", "digits-lt", seed=8, settings={"tail": "off", "lr": 0.2})
    assert found[-1] == last


def test_what_is_computed_otherwise_is_asked_for_as_on_the_command_line(tmp_path):
    (plain, folded) = requests_of(tmp_path, ONE + 'crafting = ["network", "folded"]')
    assert plain.policy == Policy()
    assert folded.policy == Policy(crafting="folded", memory_format="channels_last")


def test_exclusions_leave_out_what_matches_all_of_them(tmp_path):
    grid = '[[runs]]\ndataset = "digits-lt"\nmethod = ["at", "trades"]\nplugins = ["none", "awp"]\nseed = [0, 1, 2]\n'
    cut = '[[exclude]]\nmethod = "trades"\nplugins = "awp"\nseed = [1, 2]\n[[exclude]]\nplugins = "none"\nmethod = "at"'
    found = {(r.method, r.plugins, r.seed) for r in requests_of(tmp_path, grid + cut)}
    everything = {(r.method, r.plugins, r.seed) for r in requests_of(tmp_path, grid)}
    gone = {("trades", ("awp",), 1), ("trades", ("awp",), 2), *(("at", (), seed) for seed in range(3))}
    assert everything - found == gone and found < everything


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[[run]]\nmethod = "at"', r"unknown table of .* 'run': did you mean 'runs'"),
        (ONE + "limit_trian = 5", r"unknown key of \[runs\] in .* 'limit_trian': did you mean 'limit_train'"),
        ("[defaults]\nsede = 1\n" + ONE, r"unknown key of \[defaults\] in .* 'sede': did you mean 'seed'"),
        (ONE + "[[exclude]]\nmethods = 'at'", r"unknown key of \[exclude\] in .* did you mean 'method'"),
        (ONE + 'seed = "0"', r"\[\[runs\]\] 1: seed\.0: .*integer \(got '0'\)"),
        (ONE + "seed = []", r"\[\[runs\]\] 1: seed: .*at least 1 item"),
        (ONE + 'track = "papre"', r"\[\[runs\]\] 1: track\.0: Input should be 'fixed' or 'paper' \(got 'papre'\)"),
        ('[[runs]]\nmethod = "at"', r"\[\[runs\]\] 1: there is no dataset"),
        ('[[runs]]\ndataset = "digits-lt"', r"\[\[runs\]\] 1: there is no method"),
        (ONE + "epochs = 0", r"\[\[runs\]\] 1: a budget of 0 epochs trains nothing"),
        (ONE + '[[exclude]]\nmethod = "trades"', r"\[\[exclude\]\] 1 matches none"),
        (ONE + "[[exclude]]\n", r"\[\[exclude\]\] 1 matches none"),
        (ONE + '[[exclude]]\nmethod = "at"', "all runs are excluded"),
        ("[defaults]\nstage = 2\n" + ONE, r"\[defaults\]: stage is stated by \[\[runs\]\] only"),
        (ONE + '[[exclude]]\nmethod = "at"\nstage = 1', r"\[exclude\]: stage is stated by \[\[runs\]\] only"),
        ("runs = 3", "is no plan: runs"),
        ("", "is no plan: runs: Field required"),
        ("= 3", "is no plan: Invalid"),
    ],
)
def test_mistakes_are_named(tmp_path, text, line):
    with pytest.raises(UsageError, match=line) as caught:
        requests_of(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_there_is_no_plan(tmp_path):
    with pytest.raises(UsageError, match="no plan at"):
        read_plan(tmp_path / "nothing.toml")


def test_unknown_names_inside_are_met_when_the_runs_are_planned(tmp_path):
    (request,) = requests_of(tmp_path, '[[runs]]\nmethod = "reet"\ndataset = "digits-lt"')
    with pytest.raises(UnknownNameError, match="'reat'"):
        request.to_plan()


@pytest.mark.board
def test_the_plan_of_the_board_has_the_keys_of_the_committed_records(root):
    """`make results` makes these records, and no others."""
    planned = [request.to_plan().run.key() for request in read_plan(root / "results/plan.toml").requests()]
    records = [read_record(path).run for path in record_files(root / "results/records")]
    filed = {run.key() for run in records if run.protocol in ("digits-v0", "digits-l2-v0")}
    assert len(planned) == len(set(planned)) and set(planned) == filed


def test_each_run_is_done_once_before_any_is_done_twice_and_stages_follow_each_other(tmp_path):
    text = """
        [[runs]]
        stage = 2
        method = "reat"
        seed = [0, 1]
        [[runs]]
        method = ["at", "trades"]
        seed = [3, 0]
        [[runs]]
        method = "mart"
        [[runs]]
        stage = 2
        method = ["at", "cosine"]
        seed = [0, 2]
        [defaults]
        dataset = "digits-lt"
        """
    order = [(request.method, request.seed) for request in requests_of(tmp_path, text)]
    first = [("at", 3), ("trades", 3), ("mart", 0), ("at", 0), ("trades", 0)]
    assert order == [*first, ("reat", 0), ("cosine", 0), ("reat", 1), ("at", 2), ("cosine", 2)]


def test_a_run_of_several_stages_is_done_in_the_first(tmp_path):
    late = '[[runs]]\nstage = 2\nmethod = ["at", "reat"]\ndataset = "digits-lt"\n'
    early = '[[runs]]\nmethod = ["trades", "at"]\ndataset = "digits-lt"\n'
    assert [request.method for request in requests_of(tmp_path, late + early)] == ["at", "trades", "reat"]


def test_a_stage_is_a_number_from_one(tmp_path):
    with pytest.raises(UsageError, match=r"\[\[runs\]\] 1: stage: .*greater than or equal to 1"):
        requests_of(tmp_path, ONE + "stage = 0")


def test_the_campaign_does_every_method_of_a_stage_once_before_any_twice(root):
    """What the lite board rests on: fourteen entries with three seeds (first those that the claims compare), our
    own defense and the later ones, six more, then the claims' options, more seeds, other orders, other classes."""
    plan = read_plan(root / "campaigns/cifar10-lite.toml")
    requests = plan.requests()
    entries = (10, 4, 11, 6, 8)  # of the stages with three seeds
    assert len(requests) == len(set(requests)) == 3 * sum(entries) + 10 + 18 + 6 + 27
    assert {request.protocol for request in requests} == {"ltr-linf-lite-v1"}
    rest = iter(requests)
    for count in entries:
        first, *again = ([next(rest) for _ in range(count)] for _ in range(3))
        assert {request.seed for request in first} == {0}
        for seed, same in enumerate(again, start=1):
            assert same == [request.replace(seed=seed) for request in first]
    assert {request.method for request in requests[:6]} == {"at", "at-bsl", "reat", "robal", "trades", "erm"}
    assert {(r.dataset, r.seed) for r in requests[117:127]} == {("cifar10-lt", 3), ("cifar10-lt", 4)}
    assert {r.dataset for r in requests[127:145]} == {"cifar10-lt-perm"}
    assert {(r.dataset, r.seed) for r in requests[145:151]} == {("cifar100-lt", 0)}


def test_every_entry_of_the_campaign_can_be_planned_and_has_a_key_of_its_own(root):
    """Names and options exist, which else would be met after days; on digits, which are there and small."""
    requests = read_plan(root / "campaigns/cifar10-lite.toml").requests()
    digits = dict.fromkeys(r.replace(seed=0, dataset="digits-lt", protocol="digits-v0") for r in requests)
    assert len({request.to_plan().run.key() for request in digits}) == len(digits) == 31 + 8 + 27


def test_the_campaign_is_of_the_lite_protocol_on_real_images(root, cifar10_folder):
    run = read_plan(root / "campaigns/cifar10-lite.toml").requests()[0].to_plan(cifar10_folder).run
    assert (run.protocol, sum(run.train_counts), sum(run.test_counts)) == ("ltr-linf-lite-v1", 13_996, 1_000)
