from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microseg.data.manifest import Item, Manifest
from microseg.errors import MicrosegError
from microseg.folds import Fold, given_fold, make_folds, split_holdout


def item(name, group=None, stratum="", split=None):
    return Item(
        name=name,
        images=(Path(f"{name}.png"),),
        mask=Path(f"{name}_mask.png"),
        group=group or name,
        stratum=stratum,
        split=split,
        height=8,
        width=8,
        hashes=(name, name),
    )


def manifest(items):
    return Manifest(name="set", source="here", items=tuple(items), channels=1, mask_kind="binary")


def of_groups(sizes, strata=("",)):
    """One group per size; strata go round."""
    return manifest(
        item(f"g{g:02d}-{i}", group=f"g{g:02d}", stratum=strata[g % len(strata)])
        for g, size in enumerate(sizes)
        for i in range(size)
    )


@st.composite
def data_sets(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=14))
    rows = [(g, draw(st.sampled_from("xyz"))) for g, size in enumerate(sizes) for _ in range(size)]
    items = [item(f"i{n:03d}", group=f"g{g}", stratum=stratum) for n, (g, stratum) in enumerate(rows)]
    tested = [item(f"t{n}", group="tested", split="test") for n in range(draw(st.integers(0, 2)))]
    return manifest(items + tested), len(sizes)


@given(data=data_sets(), seed=st.integers(0, 5), more=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_every_item_validates_once_and_no_group_is_on_both_sides(data, seed, more):
    whole, groups = data
    k = min(2 + more, groups)
    folds = make_folds(whole, k, seed)
    development = {one.name: one.group for one in whole.items if one.split != "test"}
    assert [fold.index for fold in folds] == list(range(k))
    assert sorted(name for fold in folds for name in fold.valid) == sorted(development)
    for fold in folds:
        assert fold.valid
        assert sorted(fold.train + fold.valid) == sorted(development)
        assert not {development[n] for n in fold.train} & {development[n] for n in fold.valid}


@given(data=data_sets(), seed=st.integers(0, 5), shuffle=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_items_does_not_matter(data, seed, shuffle):
    whole, _ = data
    items = list(whole.items)
    shuffle.shuffle(items)
    assert make_folds(manifest(items), 2, seed) == make_folds(whole, 2, seed)


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    size=st.integers(1, 3),
    k=st.integers(2, 5),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_equal_groups_of_a_stratum_are_spread_within_one(counts, size, k, seed):
    items = [
        item(f"{s}-{g}-{i}", group=f"{s}-{g}", stratum=f"s{s}")
        for s, count in enumerate(counts)
        for g in range(count)
        for i in range(size)
    ]
    if sum(counts) < k:
        return
    strata = {one.name: one.stratum for one in items}
    folds = [Counter(strata[name] for name in fold.valid) for fold in make_folds(manifest(items), k, seed)]
    for stratum in set(strata.values()):
        spread = [fold[stratum] // size for fold in folds]
        assert max(spread) - min(spread) <= 1
    totals = [fold.total() // size for fold in folds]
    assert max(totals) - min(totals) <= 1


def test_large_groups_are_balanced_by_small_ones():
    folds = make_folds(of_groups([6, 4, 3, 2, 2, 1]), 3, 0)
    assert sorted(len(fold.valid) for fold in folds) == [6, 6, 6]


def test_the_seed_decides_and_repeats():
    whole = of_groups([1] * 12)
    assert make_folds(whole, 3, 1) == make_folds(whole, 3, 1)
    assert make_folds(whole, 3, 1) != make_folds(whole, 3, 2)


def test_a_single_fold_validates_on_a_fifth():
    (fold,) = make_folds(of_groups([1] * 20), 1, 0)
    assert (len(fold.train), len(fold.valid)) == (16, 4)
    (fold,) = make_folds(of_groups([1] * 2), 1, 0)
    assert (len(fold.train), len(fold.valid)) == (1, 1)


@pytest.mark.parametrize(("groups", "k"), [(3, 4), (1, 2), (1, 1), (5, 0)])
def test_fewer_groups_than_folds(groups, k):
    with pytest.raises(MicrosegError, match=rf"set: {k} folds of {groups} groups; .* ask for fewer folds"):
        make_folds(of_groups([4] * groups), k, 0)


def test_given_splits_are_used_once():
    whole = manifest([item("a", split="train"), item("b", split="valid"), item("c", split="test")])
    assert given_fold(whole) == [Fold(index=0, train=("a",), valid=("b",))]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([item("a", split="train"), item("b")], "item 'b' has no split"),
        ([item("a", split="train"), item("c", split="test")], "no item has the split 'valid'"),
        (
            [item("a", group="g", split="train"), item("b", group="g", split="valid")],
            "group 'g' is in the given valid split and outside it",
        ),
    ],
)
def test_given_splits_that_cannot_be_used(items, message):
    with pytest.raises(MicrosegError, match=message):
        given_fold(manifest(items))


def test_a_given_test_split_is_the_holdout(tmp_path):
    whole = manifest([item("a", split="train"), item("b", split="valid"), item("c", split="test"), item("d")])
    development, holdout = split_holdout(whole, 0.5, 0, tmp_path / "splits.yaml")
    assert [one.name for one in holdout.items] == ["c"]
    assert [one.name for one in development.items] == ["a", "b", "d"]
    assert not (tmp_path / "splits.yaml").exists()


def test_a_given_test_split_that_divides_a_group(tmp_path):
    whole = manifest([item("a", group="g", split="train"), item("b", group="g", split="test")])
    with pytest.raises(MicrosegError, match="group 'g' is in the given test split and outside it"):
        split_holdout(whole, 0.2, 0, tmp_path / "splits.yaml")
    with pytest.raises(MicrosegError, match="every item is in the test split"):
        split_holdout(manifest([item("a", split="test")]), 0.2, 0, tmp_path / "splits.yaml")


@pytest.mark.parametrize(
    ("groups", "fraction", "expected"),
    [
        (3, 0.2, 1),
        (8, 0.2, 2),
        (11, 0.2, 2),
        (12, 0.2, 6),
        (29, 0.1, 6),
        (50, 0.2, 10),
        (50, 0.0, 0),
        (4, 0.5, 2),
    ],
)
def test_how_many_groups_are_set_aside(tmp_path, groups, fraction, expected):
    whole = of_groups([2] * groups)
    development, holdout = split_holdout(whole, fraction, 0, tmp_path / "splits.yaml")
    assert len(holdout.groups) == expected
    assert not set(holdout.groups) & set(development.groups)
    assert len(development.items) + len(holdout.items) == len(whole.items)


def test_the_holdout_has_every_stratum_and_size(tmp_path):
    whole = of_groups([1, 1, 1, 1, 9, 9] * 6, strata=("x", "y"))
    _, holdout = split_holdout(whole, 1 / 3, 0, tmp_path / "splits.yaml")
    groups = {one.group: one.stratum for one in holdout.items}
    assert Counter(groups.values()) == {"x": 6, "y": 6}
    sizes = Counter(Counter(one.group for one in holdout.items).values())
    assert sizes[9] in (3, 4, 5)


def test_the_splits_file_is_written_once_and_kept(tmp_path):
    file = tmp_path / "splits.yaml"
    _, first = split_holdout(of_groups([2] * 14), 0.2, 0, file)
    text = file.read_text()
    larger = of_groups([3] * 20)
    development, holdout = split_holdout(larger, 0.5, 99, file)
    assert holdout.groups == first.groups, "another seed or fraction does not draw anew"
    assert {f"g{index}" for index in range(14, 20)} <= set(development.groups), "new groups train"
    assert len(holdout.items) == 3 * len(holdout.groups), "new images of a group set aside are set aside"
    assert file.read_text() == text


def test_another_seed_draws_another_holdout(tmp_path):
    drawn = {
        split_holdout(of_groups([1] * 30), 0.2, seed, tmp_path / f"{seed}.yaml")[1].groups
        for seed in range(4)
    }
    assert len(drawn) > 1


def test_splits_files_that_do_not_fit(tmp_path):
    file = tmp_path / "splits.yaml"
    split_holdout(of_groups([1] * 12), 0.2, 0, file)
    with pytest.raises(
        MicrosegError, match=r"splits\.yaml: 6 groups are set aside here, but a hold-out of 0"
    ):
        split_holdout(of_groups([1] * 12), 0.0, 0, file)
    other = manifest([item("a"), item("b"), item("c")])
    with pytest.raises(MicrosegError, match=r"none of its groups, 'g.*' among them, is in set"):
        split_holdout(other, 0.2, 0, file)
    file.write_text("holdou: []\n")
    with pytest.raises(MicrosegError, match=r"splits\.yaml: unknown key 'holdou'; did you mean 'holdout'\?"):
        split_holdout(other, 0.2, 0, file)


@pytest.mark.parametrize(("groups", "fraction"), [(2, 0.2), (1, 0.2), (4, 0.8)])
def test_too_few_groups_to_set_any_aside(tmp_path, groups, fraction):
    with pytest.raises(MicrosegError, match=r"leaves fewer than 2 .* \(0 for none\)"):
        split_holdout(of_groups([3] * groups), fraction, 0, tmp_path / "splits.yaml")
    assert not (tmp_path / "splits.yaml").exists()
