"""README's part about the lite board is written from the records, however few there are."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest
from record_factory import synthetic_record

from ltrobust_bench.protocol import load_protocol
from ltrobust_bench.records.io import write_record
from ltrobust_bench.report.aggregate import usual_policy

COUNTS = [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]
PLACE = np.tile(np.arange(100), 10)


@pytest.fixture(scope="module")
def readme(request):
    path = request.config.rootpath / "docs" / "readme.py"
    spec = importlib.util.spec_from_file_location("readme", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def file_lite(results, method, seed, robust, **run):
    """A record as the campaign's would be; of each class's 100 images 80 are right, and so many of the head, the rest
    and the tail withstand every attack."""
    protocol = load_protocol("ltr-linf-lite-v1")
    right, head, rest, tail = (np.less(PLACE, images) for images in (80, *robust))
    labels = np.repeat(np.arange(10), 100)
    kept = np.select([labels < 3, labels < 7], [head, rest], tail)
    names = ("fgsm", "pgd-20", "pgd-100", "mim-20", "cw-20", "scaled-pgd-20", "autoattack")
    terms = {
        "protocol": protocol.name, "protocol_digest": protocol.digest("cifar10-lt"), "dataset": "cifar10-lt",
        "imbalance_ratio": 50.0, "model": protocol.terms("cifar10-lt").model, "epsilon": 8 / 255,
        "train_counts": COUNTS, "policy": usual_policy(protocol.name).model_dump(),
    }  # fmt: skip
    record = synthetic_record({"clean": right} | dict.fromkeys(names, kept), method=method, seed=seed, **terms | run)
    write_record(record, results / "records" / record.run.record_path())


def test_without_any_run(readme, tmp_path):
    block = readme.lite_block(tmp_path)
    assert block.startswith("No run on real images is finished yet: 0 of the ") and "|" not in block


def test_with_one_run(readme, tmp_path):
    file_lite(tmp_path, "trades", 0, (50, 30, 5))
    block = readme.lite_block(tmp_path)
    assert "| 1 | trades | 28.5 | 5.0 | 28.5 | 5.0 | 80.0 | 80.0 |" in block and "one seed each" in block
    assert "1 of the " in block and "1 entry on this board, 0 with three seeds or more." in block
    assert "Plain adversarial training" not in block


def test_with_seeds_a_reference_and_a_lesson(readme, tmp_path):
    for seed in range(3):
        file_lite(tmp_path, "at", seed, (60, 30, 4))
        file_lite(tmp_path, "resample", seed, (40, 30, 24))
        balanced = {"profile": "balanced", "train_counts": [1399] * 10, "train_index_sha256": "e" * 64}
        file_lite(tmp_path, "at", seed, (50, 40, 45), **balanced)
    block = readme.lite_block(tmp_path)
    assert "9 of the " in block and "2 entries on this board, 2 with three seeds or more." in block
    assert (
        "Plain adversarial training withstands every attack on 60.0 % of the head's images and on 4.0 % of the tail's; "
        "the best on the tail, resample, on 24.0 % of them, and on as many images in equal classes it would be 45.0 %."
    ) in block


def test_a_run_that_nobody_verified_is_not_called_the_best(readme, tmp_path):
    file_lite(tmp_path, "at", 0, (60, 30, 4))
    file_lite(tmp_path, "resample", 0, (40, 30, 24))
    balanced = {"profile": "balanced", "train_counts": [1399] * 10, "train_index_sha256": "e" * 64}
    file_lite(tmp_path, "at", 0, (50, 40, 45), **balanced)
    block = readme.lite_block(tmp_path)
    assert "the best on the tail, resample" in block and "in equal classes it would be 45.0 %" in block
    (tmp_path / "signers").touch()
    block = readme.lite_block(tmp_path)
    assert "| resample † |" in block and "on 4.0 % of the tail's." in block and "the best" not in block
    assert "equal classes" not in block


def test_a_long_board_is_cut_and_keeps_its_references(readme, tmp_path):
    methods = [
        "at",
        "erm",
        "trades",
        "mart",
        "alp",
        "cfa",
        "dafa",
        "robal",
        "reat",
        "at-bsl",
        "taet",
        "reweight",
        "focal",
    ]
    methods += ["cb-focal", "ldam", "logit-adjust", "cdt", "cosine", "tde", "resample", "crt", "lws", "rw-fine"]
    for place, method in enumerate(methods):
        file_lite(tmp_path, method, 0, (40, 30, place))
    block = readme.lite_block(tmp_path)
    rows = re.findall(r"^\| \d+ \| ([a-z-]+) \|", block, flags=re.MULTILINE)
    assert len(rows) == readme.MOST and {"at", "erm", *methods[-18:]} == set(rows)


def test_only_its_own_part_is_replaced(readme):
    text = f"before\n{readme.START}old\n{readme.END}after\n"
    assert readme.with_block(text, "new \\1\n") == f"before\n{readme.START}new \\1\n{readme.END}after\n"
    with pytest.raises(SystemExit, match="no part between"):
        readme.with_block("nothing", "new")


@pytest.mark.board
def test_the_readme_says_what_the_committed_records_say(readme, root):
    text = (root / "README.md").read_text(encoding="utf-8")
    assert text == readme.with_block(text, readme.lite_block())
    assert text.index(readme.START) < text.index("<!-- table -->"), "it opens with real images"
