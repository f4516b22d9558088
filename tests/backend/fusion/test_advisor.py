from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.fusion import places as placing
from napari_backsplit.backend.fusion.advice import Advice
from napari_backsplit.backend.fusion.advice_inputs import (
    ClassArray,
    ClassFile,
    read_baseline,
    read_run,
    seen_cases,
)
from napari_backsplit.backend.fusion.advisor import advise
from napari_backsplit.backend.fusion.gap_estimate import bands_of
from napari_backsplit.backend.fusion.information import gap_shares
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project import masks as maskery
from napari_backsplit.backend.volume import Geometry, Volume, read_mask, write_volume

Mask = NDArray[np.bool_]
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHAPE = (9, 20, 24)
SPACING_MM = (3.0, 1.5, 1.0)
WHOLE = slice(None)


def box(z: Any = WHOLE, y: Any = WHOLE, x: Any = WHOLE, shape: Sequence[int] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


NOTHING = box(slice(0), slice(0), slice(0))
KIDNEY = box(slice(1, 8), slice(2, 10), slice(2, 10))
LIVER = box(slice(1, 8), slice(2, 10), slice(12, 22))
IN_KIDNEY = box(slice(3, 5), slice(4, 6), slice(4, 6))
IN_LIVER = box(slice(3, 5), slice(4, 6), slice(16, 18))
OUTSIDE = box(slice(3, 5), slice(16, 18), slice(4, 6))
BOTH = {"kidney": KIDNEY, "liver": LIVER}

Make = Callable[..., Project]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make a project whose cases have these masks; the target is called lesion."""
    projects = []

    def project(
        *cases: Mapping[str, Mask],
        supports: Sequence[str] = ("kidney", "liver"),
        targets: Sequence[str] = ("lesion",),
    ) -> Project:
        made = Project.create(tmp_path / "project", "advised", ["CT"], targets, supports)
        projects.append(made)
        for index, masks in enumerate(cases):
            shape = next(iter(masks.values())).shape
            grid = Geometry(shape, (3.0, 1.5, 1.0), (0.0, 0.0, 0.0), AXES)
            image = np.full(shape, index, np.float32)
            file = tmp_path / f"image_{index}.nii.gz"
            write_volume(Volume(image, grid), file)
            case = made.add_case({"CT": file}, patient=f"patient {index}")
            for name, mask in masks.items():
                made.set_mask(case.id, name, Volume(mask.astype(np.uint8), grid), {})
        return made

    yield project
    for made in projects:
        made.close()


@dataclass(frozen=True, eq=False)
class Seen:
    """A prediction in memory."""

    where: Mask
    eta: NDArray[np.float32] | None = None

    def mask(self) -> Mask:
        return self.where

    def probability(self) -> NDArray[np.float32] | None:
        return self.eta


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


# ---------------------------------------------------------------------- the estimate


def estimates(project: Project, baseline: Mapping[str, Seen] | None = None) -> dict[str, Any]:
    advice = advise(project, project.case_ids(), baseline)
    return {each.support: each.gap_estimate for each in advice.supports}


def test_each_voxel_near_lesions_is_in_one_band() -> None:
    lesions = box(4, 4, 4) | box(4, 4, 8) | box(8, 19, 23)
    bands = bands_of(lesions, SPACING_MM)
    counted = np.zeros(SHAPE, int)
    for band in bands:
        counted[band.box] += band.inside
    assert len(bands) == 3
    assert np.array_equal(counted, near(lesions).astype(int))


def test_in_the_midst_of_one_support_nothing_divides_the_background(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, "kidney": ~NOTHING})
    assert estimates(project) == {"kidney": 0.0, "liver": None}


def test_the_estimate_is_the_mean_of_pi_by_not_pi(make: Make) -> None:
    """One row of 1 mm voxels, a lesion at its start, kidney up to 6, liver from there on."""
    shape = (1, 1, 24)
    project = make(
        {
            "lesion": box(0, 0, 0, shape=shape),
            "kidney": box(0, 0, slice(1, 6), shape=shape),
            "liver": box(0, 0, slice(3, 24), shape=shape),  # the kidney comes first
        }
    )
    pi = [
        sum(1 <= x < 6 for x in near) / len(near)
        for at in range(11)  # within 10 mm
        for near in [list(range(max(1, at - 5), at + 6))]
    ]
    expected = np.mean([p * (1 - p) for p in pi])
    assert estimates(project) == {
        "kidney": pytest.approx(expected),
        "liver": pytest.approx(expected),
    }


def test_voxels_weigh_by_the_models_doubt(make: Make) -> None:
    shape = (1, 1, 24)
    project = make(
        {
            "lesion": box(0, 0, 0, shape=shape),
            "kidney": box(0, 0, slice(1, 6), shape=shape),
            "liver": box(0, 0, slice(6, 24), shape=shape),
        },
        {"lesion": box(0, 0, 0, shape=shape), "kidney": box(0, 0, slice(1, 24), shape=shape)},
    )
    case, other = project.case_ids()
    eta = np.zeros(shape, np.float32)
    eta[0, 0, 6] = 0.5  # its neighbourhood, 1 to 11, has five voxels of the kidney
    eta[0, 0, 10] = 0.9  # 5 to 15: one
    doubts = {case: Seen(NOTHING[:1, :1], eta)}
    weighed = 0.25 * 5 / 11 * 6 / 11 + 0.09 * 1 / 11 * 10 / 11
    assert estimates(project, doubts)["kidney"] == pytest.approx(weighed / 0.34, rel=1e-5)
    notes = advise(project, [case, other], doubts).notes
    assert any("ESTIMATE" in note and "eta (1 - eta)" in note for note in notes)
    certain = {case: Seen(NOTHING[:1, :1], np.zeros(shape, np.float32))}
    assert estimates(project, certain) == {"kidney": None, "liver": None}
    unsaid = advise(project, [case, other], {case: Seen(NOTHING[:1, :1])}).notes
    assert any("weighs 1" in note for note in unsaid)


# ---------------------------------------------------------------------- the gap of a run


def grid(shape: Sequence[int] = SHAPE) -> Geometry:
    z, y, x = shape
    return Geometry((z, y, x), SPACING_MM, (0.0, 0.0, 0.0), AXES)


CLASSES = ("background", "lesion", "kidney")


def softmax(classes: int = 3, seed: int = 0) -> NDArray[np.float32]:
    powers = np.random.default_rng(seed).random((classes, *SHAPE), np.float32) + 0.1
    return np.asarray(powers / powers.sum(axis=0), np.float32)


def near(lesion: Mask) -> Mask:
    """Within 10 mm, voxel by voxel."""
    steps = np.argwhere(np.ones(lesion.shape))[:, None] - np.argwhere(lesion)[None]
    away = np.linalg.norm(steps * np.asarray(SPACING_MM), axis=2).min(axis=1)
    return np.asarray((away <= 10).reshape(lesion.shape))


def test_the_gap_of_a_run_is_its_mean_in_and_around_the_lesions(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH}, {"lesion": NOTHING, **BOTH})
    first, second = project.case_ids()
    eta = softmax()
    run = {case: ClassArray(CLASSES, eta) for case in (first, second)}
    advice = advise(project, None, None, run)
    expected = gap_shares(eta, 1)[2][near(IN_KIDNEY)].mean()
    assert advice.of("kidney").gap == pytest.approx(expected, rel=1e-5)
    assert advice.of("liver").gap is None, "the run does not know it"
    assert any("information gap" in reason for reason in advice.of("kidney").reasons)
    assert "The run's information gap is a mean over 1 of 2 cases." in advice.notes


def test_several_targets_of_a_run_are_one(make: Make) -> None:
    project = make({"lesion": IN_KIDNEY, "cyst": IN_LIVER, **BOTH}, targets=("lesion", "cyst"))
    eta = softmax(4)
    run = {project.case_ids()[0]: ClassArray(("background", "lesion", "cyst", "kidney"), eta)}
    merged = np.stack([eta[1] + eta[2], eta[0], eta[3]])
    expected = gap_shares(merged, 0)[2][near(IN_KIDNEY | IN_LIVER)].mean()
    assert advise(project, None, None, run).of("kidney").gap == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "words"),
    [(("background", "lesion"), "Proposition 1"), (("a", "b", "c"), "no class of the project")],
)
def test_a_run_that_cannot_tell_is_refused(
    make: Make, classes: tuple[str, ...], words: str
) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    run = {project.case_ids()[0]: ClassArray(classes, softmax(len(classes)))}
    with pytest.raises(InputError, match=words):
        advise(project, None, None, run)


# ---------------------------------------------------------------------- files


def write_npz(folder: Path, case: str, eta: NDArray[Any]) -> None:
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{case}.npz", probabilities=eta)
    labels = {name: number for number, name in enumerate(CLASSES)}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def test_class_probabilities_as_nnunet_writes_them(make: Make, tmp_path: Path) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    case = project.case_ids()[0]
    eta = softmax()
    write_npz(tmp_path / "npz", case, eta)
    ids = eta.argmax(axis=0).astype(np.uint8)
    write_volume(Volume(ids, grid()), tmp_path / "npz" / f"{case}.nii.gz")
    run = read_run(project, tmp_path / "npz")
    assert list(run) == [case]
    assert run[case].classes == CLASSES
    assert np.array_equal(run[case].values(KIDNEY), eta[:, KIDNEY])
    memory = {case: ClassArray(CLASSES, eta)}
    assert advise(project, None, None, run) == advise(project, None, None, memory)


def test_turned_axes_are_found_out_by_the_label_map(tmp_path: Path) -> None:
    eta = softmax()
    write_npz(tmp_path, "case", eta[:, :, ::-1])
    ids = eta.argmax(axis=0).astype(np.uint8)
    write_volume(Volume(ids, grid()), tmp_path / "case.nii.gz")
    with pytest.raises(GeometryError, match="case do not fit the label map"):
        ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)


def test_class_probabilities_on_another_grid_or_cut_short_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path, "case", softmax()[:, :-1])
    with pytest.raises(GeometryError, match="case"):
        ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)
    write_npz(tmp_path, "case", softmax())
    whole = (tmp_path / "case.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"nothing"):
        (tmp_path / "case.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="case cannot be read"):
            ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)
    np.savez(tmp_path / "case.npz", probabilities=np.array([{}], object))
    with pytest.raises(InputError, match="cannot be read"):
        ClassFile(tmp_path, "case", CLASSES).values(KIDNEY)


@pytest.mark.parametrize("labels", [None, {"background": 0, "whole": [1, 2]}, {"a": 0, "b": 2}])
def test_classes_without_an_id_each_are_refused(make: Make, tmp_path: Path, labels: Any) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    write_npz(tmp_path / "npz", project.case_ids()[0], softmax())
    (tmp_path / "npz" / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_run(project, tmp_path / "npz")


def test_folders_without_this_projects_cases_are_refused(make: Make, tmp_path: Path) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    with pytest.raises(InputError, match="no prediction"):
        read_baseline(project, tmp_path)
    with pytest.raises(InputError, match="save_probabilities"):
        read_run(project, tmp_path)


def test_a_folder_of_predictions(make: Make, tmp_path: Path) -> None:
    """Of two targets and a support: the support's id is no target."""
    project = make({"lesion": IN_KIDNEY, "cyst": IN_LIVER, **BOTH}, targets=("lesion", "cyst"))
    case = project.case_ids()[0]
    ids = IN_KIDNEY + np.uint8(2) * IN_LIVER + np.uint8(3) * OUTSIDE
    write_volume(Volume(ids, grid()), tmp_path / f"{case}.nii.gz")
    prediction = read_baseline(project, tmp_path)[case]
    assert np.array_equal(prediction.mask(), IN_KIDNEY | IN_LIVER)
    assert prediction.probability() is None
    for name, share in (("lesion", 0.25), ("cyst", 0.5)):
        half = np.full(SHAPE, share, np.float32)
        write_volume(Volume(half, grid()), tmp_path / f"{case}_{name}_probability.nii.gz")
    eta = prediction.probability()
    assert eta is not None
    assert eta.dtype == np.float32
    assert eta == pytest.approx(0.75)


def test_strange_ids_and_another_grid_are_refused_with_the_case(make: Make, tmp_path: Path) -> None:
    project = make({"lesion": IN_KIDNEY, **BOTH})
    case = project.case_ids()[0]
    file = tmp_path / f"{case}.nii.gz"
    write_volume(Volume(IN_KIDNEY * np.uint8(255), grid()), file)
    with pytest.raises(InputError, match=f"{case} holds the id 255"):
        read_baseline(project, tmp_path)[case].mask()
    moved = Geometry(SHAPE, SPACING_MM, (5.0, 0.0, 0.0), AXES)
    write_volume(Volume(IN_KIDNEY.astype(np.uint8), moved), file)
    with pytest.raises(GeometryError, match=f"{case} is not on the grid") as error:
        advise(project, None, read_baseline(project, tmp_path))
    assert "Predict from the project's own images" in error.value.remedy


def test_what_a_model_has_seen_is_read_from_the_record(tmp_path: Path) -> None:
    assert seen_cases(tmp_path) == ()
    roles = {"a": {"role": "training"}, "b": {"role": "unseen"}, "c": {"role": "validation"}}
    record = {"cases": {**roles, "d": {"role": None}, "e": None}}
    (tmp_path / "predictions.json").write_text(json.dumps(record))
    assert seen_cases(tmp_path) == ("a", "c")


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
