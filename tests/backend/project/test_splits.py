from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.project.splits import as_splits, assign_folds, draw_patients

patients = st.dictionaries(st.text("abcdef", min_size=1), st.booleans(), min_size=5, max_size=40)


@given(patients, st.integers(2, 5), st.integers(0, 99))
def test_every_patient_is_in_one_fold_and_folds_are_even(kinds, folds, seed):
    fold_of = assign_folds(kinds, folds, seed)
    assert fold_of.keys() == kinds.keys()
    for chosen in (kinds, [p for p in kinds if kinds[p]], [p for p in kinds if not kinds[p]]):
        sizes = [sum(fold_of[p] == fold for p in chosen) for fold in range(folds)]
        assert max(sizes) - min(sizes) <= (1 if chosen is not kinds else 2)
        if chosen is kinds:
            assert min(sizes) > 0


@given(patients, st.integers(2, 5), st.integers(0, 99), st.randoms())
def test_the_order_of_the_patients_changes_nothing(kinds, folds, seed, random):
    shuffled = list(kinds.items())
    random.shuffle(shuffled)
    assert assign_folds(dict(shuffled), folds, seed) == assign_folds(kinds, folds, seed)


@given(patients, patients, st.integers(2, 5))
def test_kept_folds_never_move(first, more, folds):
    kept = assign_folds(first, folds, 0)
    grown = assign_folds({**more, **first}, folds, 0, kept)
    assert {patient: grown[patient] for patient in kept} == kept


@given(patients, st.data())
def test_the_test_set_has_both_kinds_in_proportion(kinds, data):
    count = data.draw(st.integers(1, len(kinds) - 1))
    chosen = draw_patients(kinds, count, 0)
    assert len(chosen) == count
    share = count * sum(kinds.values()) / len(kinds)
    assert abs(sum(kinds[patient] for patient in chosen) - share) <= 1


@given(st.lists(st.integers(0, 9), min_size=5, max_size=30).filter(lambda x: len(set(x)) > 4))
def test_splits_hold_every_case_once_and_never_part_a_patient(numbers):
    cases = [(f"case_{i}", f"patient_{number}") for i, number in enumerate(numbers)]
    fold_of = assign_folds({patient: True for _, patient in cases}, 5, 0)
    splits = as_splits(fold_of, cases, 5)
    patient = dict(cases)
    assert sorted(case for split in splits for case in split["val"]) == sorted(patient)
    for split in splits:
        assert sorted(split["train"] + split["val"]) == sorted(patient)
        assert not {patient[c] for c in split["train"]} & {patient[c] for c in split["val"]}


@pytest.mark.parametrize("folds", [0, 1, 4])
def test_too_few_patients_or_folds_are_refused(folds):
    with pytest.raises(ProjectError, match=f"3 patients .* {folds} folds"):
        assign_folds({"a": True, "b": True, "c": False}, folds, 0)


@pytest.mark.parametrize("count", [0, 2])
def test_something_is_reserved_and_something_is_left(count):
    with pytest.raises(ProjectError, match=f"{count} of 2 patients"):
        draw_patients({"a": True, "b": True}, count, 0)
