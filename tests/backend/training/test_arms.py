from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import from_parts
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.arms import (
    ArmScheme,
    _donors,
    arm_label_map,
    arm_scheme,
    blob,
    missing_sets,
    missing_supports,
    source_digest,
    stretch,
    transplant,
    what_enters,
)
from napari_backsplit.backend.training.spec import Arm, arm_name
from napari_backsplit.backend.volume import Volume, write_volume

LPS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
RAS = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))


def test_left_stays_left_in_another_cases_supports() -> None:
    there = from_parts((4, 6, 8), (1, 1, 1), (0, 0, 0), LPS)
    here = from_parts((8, 6, 4), (1, 1, 2), (7, 5, 0), RAS)
    organ = np.zeros(there.shape, bool)
    organ[:, :, 6:] = True  # toward the patient's left

    moved = transplant(organ, there, here)

    assert moved.shape == here.shape
    left = here.to_lps(np.argwhere(moved))[:, 0]
    others = here.to_lps(np.argwhere(~moved))[:, 0]
    assert left.min() > others.max()
    assert moved.mean() == organ.mean()


@given(st.integers(0, 2**16), st.floats(0, 1))
def test_a_blob_has_exactly_the_volume_of_its_mask(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((5, 6, 7)) < share
    region = blob(mask, [seed])
    assert region.sum() == mask.sum()
    assert np.array_equal(region, blob(mask, [seed]))


@given(st.integers(2, 40), st.integers(0, 2**16))
def test_no_case_gets_its_own_supports(count: int, seed: int) -> None:
    cases = [f"case_{index:03d}" for index in range(count)]
    donors = _donors(cases, seed)
    assert sorted(donors) == sorted(donors.values()) == cases
    assert all(case != donor for case, donor in donors.items())


def test_stretching_to_the_same_shape_changes_nothing() -> None:
    mask = np.random.default_rng(0).random((4, 5, 6)) < 0.5
    assert np.array_equal(stretch(mask, mask.shape), mask)


def test_arms_have_names_of_their_own() -> None:
    assert arm_name("binary", ("kidney",)) == "binary"
    names = {arm_name("backsplit", supports) for supports in (("a",), ("b",), ("a", "b"))}
    assert len(names) == 3
    with pytest.raises(InputError, match="at least one support"):
        arm_name("backsplit", ())


# ---------------------------------------------------------------- which masks enter

SHAPE = (2, 3, 4)
GRID = from_parts(SHAPE, (1, 1, 1), (0, 0, 0), LPS)
ROWS = {"lesion": 0, "left": 1, "right": 2}
CASES = ("case_001", "case_002", "case_003")


def row(name: str) -> np.ndarray:
    """Return a mask that is one row of the second slice; the first slice is nobody's."""
    mask = np.zeros(SHAPE, bool)
    mask[1, ROWS[name]] = True
    return mask


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """Three cases with a lesion and two supports, all of them accepted."""
    with Project.create(tmp_path / "p", "p", ["CT"], ["lesion"], ["left", "right"]) as project:
        for number in range(3):
            image = tmp_path / f"{number}.nii.gz"
            write_volume(Volume(np.full(SHAPE, number, np.int16), GRID), image)
            case = project.add_case({"CT": image}).id
            for name in ROWS:
                project.set_mask(case, name, Volume(row(name), GRID), {})
                project.judge(case, "accepted", name)
        assert project.case_ids() == CASES
        yield project


def scheme_of(project: Project, arm: Arm = "backsplit", **options: Any) -> ArmScheme:
    return arm_scheme(project, arm, (), CASES, **options)


def label_map_of(project: Project, scheme: ArmScheme, case: str = CASES[0]) -> Any:
    return arm_label_map(project, scheme, case, missing_sets(project, scheme, CASES))


def digest_of(project: Project, scheme: ArmScheme, case: str = CASES[0]) -> str:
    return source_digest(project, scheme, case, missing_sets(project, scheme, CASES))


def draw_anew(project: Project, name: str, case: str = CASES[0]) -> None:
    """Replace an accepted mask by another, which nobody has accepted."""
    mask = np.roll(row(name), 1, axis=0)
    project.set_mask(case, name, Volume(mask, GRID), {}, replace=True)


def test_accepted_masks_enter_whole(project: Project) -> None:
    scheme = scheme_of(project)
    assert what_enters(project, scheme, CASES) == []
    assert missing_sets(project, scheme, CASES).codes == ()
    assert label_map_of(project, scheme).tolist()[1] == [[1] * 4, [2] * 4, [3] * 4]
    assert not label_map_of(project, scheme)[0].any()


@pytest.mark.parametrize("judgement", ["unreviewed", "needs_work", "rejected"])
def test_a_mask_that_is_not_accepted_makes_its_case_partial(
    project: Project, judgement: Any
) -> None:
    if judgement == "unreviewed":
        draw_anew(project, "right")
    else:
        project.judge(CASES[0], judgement, "right")
    scheme = scheme_of(project)
    assert missing_supports(project, scheme, CASES[0]) == ("right",)
    told = label_map_of(project, scheme)
    assert told.tolist()[1] == [[1] * 4, [2] * 4, [4] * 4]  # 4: background or right
    assert (told[0] == 4).all()
    assert not (label_map_of(project, scheme, CASES[1]) == 4).any()
    (sentence,) = what_enters(project, scheme, CASES)
    assert sentence.startswith("right is not known in 1 of 3 cases")
    assert "background or right" in sentence


def test_masks_that_nobody_reviewed_enter_where_that_is_asked_for(project: Project) -> None:
    project.judge(CASES[0], "needs_work", "left")
    draw_anew(project, "right")
    project.judge(CASES[1], "rejected", "right")
    scheme = scheme_of(project, admit="unreviewed")
    assert missing_supports(project, scheme, CASES[0]) == ()
    assert missing_supports(project, scheme, CASES[1]) == ("right",)  # never a rejected one
    told = label_map_of(project, scheme)
    assert told.tolist() == [[[0] * 4, [0] * 4, [3] * 4], [[1] * 4, [2] * 4, [0] * 4]]
    assert not (label_map_of(project, scheme, CASES[1]) == 3).any()


def test_a_mask_replaced_by_hand_does_not_enter(project: Project) -> None:
    path, other = project.mask_path(CASES[0], "right"), project.mask_path(CASES[0], "left")
    assert path
    assert other
    path.unlink()
    path.write_bytes(other.read_bytes())
    assert missing_supports(project, scheme_of(project), CASES[0]) == ("right",)
    unreviewed = scheme_of(project, admit="unreviewed")
    assert missing_supports(project, unreviewed, CASES[0]) == ()


@pytest.mark.parametrize("admit", ["accepted", "unreviewed"])
def test_a_support_that_is_nowhere_known_is_refused(project: Project, admit: Any) -> None:
    for case in CASES:
        project.judge(case, "rejected", "right")
    with pytest.raises(InputError, match=f"right: none of 3 .*masks: {admit}.*--structure right"):
        what_enters(project, scheme_of(project, admit=admit), CASES)
    without = arm_scheme(project, "backsplit", ["left"], CASES, admit)
    assert what_enters(project, without, CASES) == []


def test_a_target_that_needs_work_is_trained_on(project: Project) -> None:
    project.judge(CASES[0], "needs_work", "lesion")
    assert (label_map_of(project, scheme_of(project)) == 1).sum() == 4


def test_an_arm_without_supports_needs_no_verdict(project: Project) -> None:
    for name in ("left", "right"):
        draw_anew(project, name)
    scheme = scheme_of(project, "binary")
    assert what_enters(project, scheme, CASES) == []
    assert missing_supports(project, scheme, CASES[0]) == ()


def test_what_is_missing_of_another_case_is_missing_where_its_supports_go(
    project: Project,
) -> None:
    project.judge(CASES[0], "rejected", "right")
    scheme = scheme_of(project, "permuted")
    (receiver,) = [case for case, donor in scheme.donors.items() if donor == CASES[0]]
    assert {c: missing_supports(project, scheme, c) for c in CASES} == {
        case: ("right",) if case == receiver else () for case in CASES
    }


def test_a_union_of_which_a_part_is_known_keeps_its_voxels(project: Project) -> None:
    project.judge(CASES[0], "rejected", "right")
    project.add_recipe("merge", "kidney", ["left", "right"])
    scheme = scheme_of(project)
    assert scheme.supports == ("kidney",)
    told = label_map_of(project, scheme)
    assert told.tolist()[1] == [[1] * 4, [2] * 4, [3] * 4]  # 3: background or kidney
    assert label_map_of(project, scheme, CASES[1]).tolist()[1] == [[1] * 4, [2] * 4, [2] * 4]


def test_what_an_unknown_mask_was_taken_from_is_nowhere_in_the_case(project: Project) -> None:
    project.judge(CASES[0], "rejected", "right")
    project.add_recipe("subtract", "left", ["right"])
    scheme = scheme_of(project)
    assert missing_supports(project, scheme, CASES[0]) == ("left", "right")
    assert set(np.unique(label_map_of(project, scheme))) == {1, 4}


# ---------------------------------------------------------------- what a label map is made from


@pytest.mark.parametrize("name", list(ROWS))
def test_another_mask_is_another_source(project: Project, name: str) -> None:
    scheme = scheme_of(project)
    before = digest_of(project, scheme)
    draw_anew(project, name)
    assert digest_of(project, scheme) != before


def test_a_verdict_is_a_source_only_where_it_changes_what_enters(project: Project) -> None:
    scheme = scheme_of(project)
    before = digest_of(project, scheme)
    project.judge(CASES[0], "accepted", "right", comment="seen again")
    project.judge(CASES[0], "needs_work", "lesion")
    assert digest_of(project, scheme) == before
    project.judge(CASES[0], "needs_work", "right")
    assert digest_of(project, scheme) != before
    project.judge(CASES[0], "accepted", "right")
    assert digest_of(project, scheme) == before


def test_recipes_are_a_source_of_arms_with_supports_alone(project: Project) -> None:
    binary, ours = scheme_of(project, "binary"), scheme_of(project)
    before = digest_of(project, binary), digest_of(project, ours)
    project.add_recipe("subtract", "left", ["right"])
    assert digest_of(project, binary) == before[0]
    assert digest_of(project, ours) != before[1]
    project.remove_recipe(0)
    assert digest_of(project, ours) == before[1]


def test_a_lesion_that_is_taken_from_another_cases_supports_is_a_source(project: Project) -> None:
    project.add_recipe("subtract", "left", ["lesion"])
    scheme = scheme_of(project, "permuted")
    (receiver,) = [case for case, donor in scheme.donors.items() if donor == CASES[0]]
    before = digest_of(project, scheme, receiver)
    both = Volume(row("lesion") | row("left"), GRID)
    project.set_mask(CASES[0], "lesion", both, {}, replace=True)
    assert not (label_map_of(project, scheme, receiver) == 2).any()
    assert digest_of(project, scheme, receiver) != before


def test_a_structure_named_as_what_is_kept_beside_it_is_a_source_too(tmp_path: Path) -> None:
    with Project.create(tmp_path / "p", "p", ["CT"], ["lesion"], ["recipes"]) as project:
        image = tmp_path / "image.nii.gz"
        write_volume(Volume(np.zeros(SHAPE, np.int16), GRID), image)
        case = project.add_case({"CT": image}).id
        for name, mask in (("lesion", row("lesion")), ("recipes", row("left"))):
            project.set_mask(case, name, Volume(mask, GRID), {})
            project.judge(case, "accepted", name)
        project.add_recipe("grow", "recipes")
        scheme = arm_scheme(project, "backsplit", (), [case])
        codes = missing_sets(project, scheme, [case])
        before = source_digest(project, scheme, case, codes)
        project.set_mask(case, "recipes", Volume(row("right"), GRID), {}, replace=True)
        project.judge(case, "accepted", "recipes")
        assert source_digest(project, scheme, case, codes) != before
