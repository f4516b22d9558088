from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import ref

import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion import places as placing
from napari_backsplit.backend.fusion.advice import Advice
from napari_backsplit.backend.fusion.advisor import advise
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project import masks as maskery
from napari_backsplit.backend.volume import Geometry, Volume, read_mask
from tests.backend.fusion.placing import (
    BOTH,
    IN_KIDNEY,
    IN_LIVER,
    KIDNEY,
    LIVER,
    NOTHING,
    OUTSIDE,
    Make,
    Mask,
    Seen,
    box,
    grid,
    maker,
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    yield from maker(tmp_path)


def look(project: Project, predicted: Mapping[str, Mask] | None = None) -> Advice:
    """Look at every case."""
    baseline = None if predicted is None else {c: Seen(mask) for c, mask in predicted.items()}
    return advise(project, project.case_ids(), baseline)


def found(
    project: Project, predicted: Mapping[str, Mask] | None = None
) -> dict[str, tuple[float, float, int]]:
    """Return what is found in every case: support -> held, touched, false positives."""
    every = [each for each in look(project, predicted).supports if each.usable]
    return {each.support: (each.holds, each.touches, each.false_positives) for each in every}


# ---------------------------------------------------------------------- what holds a lesion


@pytest.mark.parametrize("kidney", [KIDNEY, KIDNEY & ~IN_KIDNEY], ids=["contains", "leaves out"])
def test_an_organ_holds_its_lesion_whether_its_mask_contains_it(make: Make, kidney: Mask) -> None:
    project = make({"lesion": IN_KIDNEY, "kidney": kidney, "liver": LIVER})
    assert found(project) == {"kidney": (1, 1, 0), "liver": (0, 0, 0)}
    inside = float((kidney & IN_KIDNEY).any())
    assert look(project).of("kidney").inside == inside, "the shell has no part in it"


@pytest.mark.parametrize("radius", [2, 6, 16])
def test_an_organ_that_leaves_its_lesion_out_holds_it_whatever_its_size(
    make: Make, radius: int
) -> None:
    """Of a large lesion and its shell together the shell is but a small part."""
    size = 2 * radius + 9
    zyx = np.indices((size, size, size)) - size // 2
    distance = np.sqrt(np.square(zyx).sum(axis=0))
    lesion = distance <= radius
    organ = (distance <= radius + 4) & ~lesion
    organ[:, :, : size // 2] = False  # the other half bulges out of the organ
    project = make({"lesion": lesion, "kidney": organ, "liver": np.zeros_like(lesion)})
    assert found(project)["kidney"] == (1, 1, 0)


def test_a_lesion_outside_every_organ_is_held_by_none(make: Make) -> None:
    project = make({"lesion": OUTSIDE, "kidney": KIDNEY, "liver": LIVER})
    assert found(project) == {"kidney": (0, 0, 0), "liver": (0, 0, 0)}


def test_a_lesion_at_an_organs_edge_touches_it_and_is_not_held(make: Make) -> None:
    lesion = box(slice(3, 5), slice(10, 12), slice(10, 12))  # the kidney has 4 of its shell's 56
    project = make({"lesion": lesion, "kidney": KIDNEY})
    assert found(project) == {"kidney": (0, 1, 0)}


def test_of_two_organs_the_one_with_most_of_the_lesion_holds_it(make: Make) -> None:
    lesion = box(slice(3, 5), slice(4, 6), slice(8, 13))  # two columns in the kidney, one in the
    project = make({"lesion": lesion, "kidney": KIDNEY, "liver": LIVER})  # liver, two in neither
    assert found(project) == {"kidney": (1, 1, 0), "liver": (0, 1, 0)}


@pytest.mark.parametrize("supports", [("kidney", "liver"), ("liver", "kidney")])
def test_the_projects_first_support_wins_a_tie(make: Make, supports: tuple[str, ...]) -> None:
    both = {"kidney": KIDNEY, "liver": KIDNEY}
    project = make({"lesion": IN_KIDNEY, **both}, supports=supports)
    first, second = supports
    assert found(project) == {first: (1, 1, 0), second: (0, 1, 0)}
    assert list(found(project)) == list(supports)
    project.close()


def test_two_supports_hold_lesions_and_the_one_with_more_comes_first(make: Make) -> None:
    project = make(
        {"lesion": IN_KIDNEY | IN_LIVER, "kidney": KIDNEY, "liver": LIVER},
        {"lesion": IN_LIVER | OUTSIDE, "kidney": KIDNEY, "liver": LIVER},
    )
    assert found(project) == {"liver": (0.5, 0.5, 0), "kidney": (0.25, 0.25, 0)}
    assert list(found(project)) == ["liver", "kidney"]
    assert advise(project).proposed == ("liver", "kidney")


def test_the_lesions_of_all_targets_count(make: Make) -> None:
    masks = {"lesion": IN_KIDNEY, "cyst": IN_LIVER, "kidney": KIDNEY, "liver": LIVER}
    project = make(masks, targets=("lesion", "cyst"))
    assert found(project) == {"kidney": (0.5, 0.5, 0), "liver": (0.5, 0.5, 0)}


def test_a_lesion_that_fills_the_image(make: Make) -> None:
    project = make({"lesion": ~NOTHING, "kidney": KIDNEY, "liver": ~NOTHING})
    assert found(project) == {"liver": (1, 1, 0), "kidney": (0, 1, 0)}


# ---------------------------------------------------------------------- what a case lacks


def test_a_case_without_a_supports_mask_says_nothing_of_it(make: Make) -> None:
    project = make(
        {"lesion": IN_KIDNEY, "kidney": KIDNEY, "liver": LIVER},
        {"lesion": IN_KIDNEY, "liver": LIVER},
    )
    assert found(project) == {"kidney": (0.5, 0.5, 0), "liver": (0, 0, 0)}


def test_a_support_that_no_case_has_a_mask_of_is_left_out(make: Make) -> None:
    project = make({"lesion": OUTSIDE, "liver": LIVER})
    assert list(found(project)) == ["liver"]


def test_cases_without_lesion_change_no_share(make: Make) -> None:
    project = make(
        {"lesion": NOTHING, "kidney": KIDNEY, "liver": LIVER},
        {"lesion": IN_KIDNEY, "kidney": KIDNEY, "liver": LIVER},
        {"kidney": KIDNEY, "liver": LIVER},  # no mask of the target at all
    )
    assert found(project) == {"kidney": (1, 1, 0), "liver": (0, 0, 0)}


def test_without_any_lesion_the_first_supports_are_chosen(make: Make) -> None:
    project = make({"lesion": NOTHING, "kidney": KIDNEY, "liver": LIVER})
    assert found(project) == {"kidney": (0, 0, 0), "liver": (0, 0, 0)}
    advice = advise(project)
    assert advice.proposed == ("kidney", "liver")
    assert "None of the 1 cases has a lesion" in advice.notes[0]


# ---------------------------------------------------------------------- false positives


def test_false_positives_are_placed_and_found_lesions_are_not(make: Make) -> None:
    kidney, liver = KIDNEY & ~IN_KIDNEY, LIVER
    project = make(
        {"lesion": IN_KIDNEY, "kidney": kidney, "liver": liver},
        {"lesion": NOTHING, "kidney": kidney, "liver": liver},
        {"kidney": kidney, "liver": liver},
    )
    wide = box(slice(3, 5), slice(4, 9), slice(4, 6))  # meets the lesion, and more beside it
    other = box(6, 8, slice(4, 7))
    first, second, third = project.case_ids()
    predicted = {first: wide | other | IN_LIVER | OUTSIDE, second: IN_LIVER, third: IN_LIVER}
    assert found(project, predicted) == {"kidney": (1, 1, 1), "liver": (0, 0, 3)}
    assert found(project, {first: IN_KIDNEY}) == {"kidney": (1, 1, 0), "liver": (0, 0, 0)}


def test_the_volume_of_false_positives_is_shared_out(make: Make) -> None:
    """Eight voxels in the liver, eight in neither; the predicted lesion is no false positive."""
    project = make({"lesion": IN_KIDNEY, **BOTH})
    advice = look(project, {project.case_ids()[0]: IN_KIDNEY | IN_LIVER | OUTSIDE})
    liver, kidney = advice.of("liver"), advice.of("kidney")
    assert (advice.wrong, liver.false_positives, kidney.false_positives) == (2, 1, 0)
    assert (liver.false_volume, kidney.false_volume) == (0.5, 0.0)
    assert (kidney.inside, liver.inside) == (1.0, 0.0)
    assert advice.predicted == project.case_ids()


def test_volumes_of_cases_are_weighed_in_ml(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY | OUTSIDE, **BOTH}, {"lesion": IN_KIDNEY, **BOTH})
    assert look(project).of("kidney").inside == pytest.approx(16 / 24)


def test_the_distance_is_the_median_over_lesions_where_the_support_is(make: Make) -> None:
    near, far = box(3, 4, 13), box(3, 4, 16)  # 4 and 7 mm from the kidney
    project = make(
        {"lesion": near, "kidney": KIDNEY},
        {"lesion": far, "kidney": KIDNEY},
        {"lesion": box(3, 4, 20)},
        {"lesion": box(3, 4, 20), "kidney": NOTHING},
    )
    assert look(project).of("kidney").distance_mm == pytest.approx(5.5)
    assert look(project).of("liver").distance_mm is None


# ---------------------------------------------------------------------- the proposal


def test_one_false_positive_may_be_chance_and_several_add_their_support(make: Make) -> None:
    project = make(*({"lesion": IN_KIDNEY, **BOTH} for _ in range(3)))
    first, second, _ = project.case_ids()
    assert look(project).proposed == ("kidney",)
    assert look(project, {first: IN_LIVER}).proposed == ("kidney",)
    advice = look(project, {first: IN_LIVER, second: IN_LIVER})
    assert advice.proposed == ("kidney", "liver")
    assert [each.support for each in advice.supports] == ["kidney", "liver"]


def test_few_of_many_false_positives_add_nothing(make: Make) -> None:
    project = make(*({"lesion": IN_KIDNEY, **BOTH} for _ in range(2)))
    specks = box(0, slice(12, 20, 2), slice(0, 24, 2))
    predicted = dict.fromkeys(project.case_ids(), IN_LIVER | specks)
    advice = look(project, predicted)
    assert (advice.wrong, advice.of("liver").false_positives) == (98, 2)
    assert advice.proposed == ("kidney",)


def test_the_proposal_stays_small_and_the_lesions_come_first(make: Make) -> None:
    project = make(*({"lesion": IN_KIDNEY, **BOTH} for _ in range(2)))
    baseline = dict.fromkeys(project.case_ids(), Seen(IN_LIVER))
    assert advise(project, None, baseline, most=1).proposed == ("kidney",)


def test_where_lesions_tell_nothing_false_positives_do(make: Make) -> None:
    project = make(*({"lesion": OUTSIDE, **BOTH} for _ in range(2)))
    assert look(project).proposed == ("kidney", "liver")
    predicted = dict.fromkeys(project.case_ids(), IN_LIVER)
    assert look(project, predicted).proposed == ("liver",)


def test_a_support_without_a_voxel_is_never_proposed(make: Make) -> None:
    project = make({"lesion": OUTSIDE, "kidney": NOTHING, "liver": LIVER})
    advice = look(project)
    assert advice.proposed == ("liver",)
    assert "not proposed" in advice.of("kidney").reasons[-1]
    assert (advice.of("kidney").absent, advice.of("kidney").usable) == (1, False)


# ---------------------------------------------------------------------- what there is


def test_without_a_case_a_support_or_a_mask_it_is_refused(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, "liver": LIVER})
    with pytest.raises(InputError, match="no case"):
        advise(project, [])
    empty = Volume(NOTHING, grid())
    project.set_mask(project.case_ids()[0], "liver", empty, {}, replace=True)
    with pytest.raises(InputError, match="Import or click a support"):
        advise(project)


def test_a_project_without_supports_is_refused(make: Make) -> None:
    with pytest.raises(InputError, match="Import or click a support"):
        advise(make({"lesion": IN_KIDNEY}, supports=()))


def test_only_masks_that_enter_count_and_the_remedy_says_how(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH}, {"lesion": IN_KIDNEY, **BOTH})
    with pytest.raises(InputError, match="None of the 4 masks") as error:
        advise(project, admit="accepted")
    assert "--masks unreviewed" in error.value.remedy
    project.judge(project.case_ids()[0], "accepted", "liver")
    project.judge(project.case_ids()[1], "rejected", "kidney")
    advice = advise(project, admit="accepted")
    assert advice.proposed == ("liver",)
    assert (advice.of("liver").present, advice.of("liver").missing) == (1, 1)
    assert advice.of("kidney").holds == 0
    everything = advise(project)
    assert everything.of("kidney").held == 1
    assert everything.of("kidney").review == {"unreviewed": 1, "rejected": 1}


def test_recipes_are_applied(make: Make) -> None:
    project = make(
        {"lesion": IN_KIDNEY | IN_LIVER, **BOTH}, {"lesion": IN_KIDNEY, "kidney": KIDNEY}
    )
    project.add_recipe("merge", "organs", ["kidney", "liver"])
    (organs,) = look(project).supports
    assert (organs.support, organs.held, organs.lesions) == ("organs", 3, 3)
    assert (organs.present, organs.missing) == (1, 1), "of the second case a part is known"
    assert organs.review == {"unreviewed": 3, "none": 1}
    assert "missing in 1 of 2 cases" in organs.reasons


def test_the_reasons_are_sentences_with_numbers(make: Make) -> None:
    project = make(
        {"lesion": IN_KIDNEY | IN_LIVER, **BOTH},
        {"lesion": IN_KIDNEY, "kidney": KIDNEY},
        {"lesion": NOTHING, "kidney": KIDNEY, "liver": NOTHING},
    )
    first = project.case_ids()[0]
    project.judge(first, "accepted", "kidney")
    advice = look(project, {first: IN_LIVER | OUTSIDE | box(1, 3, slice(12, 16))})
    assert advice.of("kidney").reasons[:3] == (
        "holds 2 of 3 lesions",
        "touches 2 of 3 lesions",
        "67 % of the lesions' volume lies in its mask",
    )
    assert "2 masks are not accepted yet" in advice.of("kidney").reasons
    liver = advice.of("liver").reasons
    assert "holds 1 of 2 false positives of the baseline" in liver
    assert "missing in 1 of 3 cases" in liver
    assert "known not to be there in 1 of 3 cases" in liver


def test_cases_with_predictions_come_first_where_not_all_are_looked_at(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make(*({"lesion": IN_KIDNEY, **BOTH} for _ in range(5)))
    cases = project.case_ids()
    monkeypatch.setattr(placing, "ENOUGH_CASES", 2)
    assert advise(project).cases == (cases[0], cases[3])
    assert advise(project, None, {cases[4]: Seen(NOTHING)}).cases == (cases[0], cases[4])


def test_reserved_cases_are_not_looked_at_unless_named(make: Make) -> None:
    project = make(*({"lesion": IN_KIDNEY, **BOTH} for _ in range(3)))
    first, second, third = project.case_ids()
    project.reserve_test(ids=[third])
    assert advise(project).cases == (first, second)
    assert advise(project, [third]).cases == (third,)
    with pytest.raises(InputError, match="None of the 2 cases") as error:
        advise(project, None, {third: Seen(NOTHING)})
    assert "Predict training cases" in error.value.remedy


# ---------------------------------------------------------------------- memory and time


def test_one_support_is_in_memory_at_a_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    supports = ("kidney", "liver", "spleen")
    organs = {"kidney": KIDNEY, "liver": LIVER, "spleen": LIVER}
    project = make(
        *({"lesion": IN_KIDNEY, **organs} for _ in range(4)),
        {"lesion": NOTHING, **organs},
        supports=supports,
    )
    alive: list[ref[Mask]] = []
    most: list[int] = []

    def counted(path: Path, geometry: Geometry) -> Volume:
        most.append(sum(mask() is not None for mask in alive))
        volume = read_mask(path, geometry)
        alive.append(ref(volume.array))
        return volume

    monkeypatch.setattr(maskery, "read_mask", counted)
    look(project)
    assert max(most) <= 2, "the target, and a support while the next is read"
    assert len(alive) == 4 * 4 + 1, "no support is read where there is no lesion"
