from __future__ import annotations

import pytest

from ltrobust_bench.scores.groups import by_size, rank_groups, ranks


@pytest.mark.parametrize(("classes", "sizes"), [(3, (1, 1, 1)), (10, (3, 4, 3)), (11, (3, 5, 3)), (100, (33, 34, 33))])
def test_thirds(classes, sizes):
    groups = rank_groups(list(range(classes, 0, -1)))
    assert list(groups) == ["head", "medium", "tail"]
    assert tuple(len(members) for members in groups.values()) == sizes
    assert sorted(c for members in groups.values() for c in members) == list(range(classes))


def test_groups_follow_the_counts_and_not_the_labels():
    groups = rank_groups([5, 50, 500, 10, 100, 1000])
    assert {name: list(members) for name, members in groups.items()} == {
        "head": [5, 2],
        "medium": [4, 1],
        "tail": [3, 0],
    }


def test_ties_go_by_label():
    assert list(by_size([7, 9, 7, 9])) == [1, 3, 0, 2]
    assert list(ranks([7, 9, 7, 9])) == [2, 0, 3, 1]
    assert list(rank_groups([4, 4, 4])["head"]) == [0]


@pytest.mark.parametrize("counts", [[], [3], [3, 2]])
def test_fewer_than_three_classes_have_no_groups(counts):
    assert rank_groups(counts) == {}
