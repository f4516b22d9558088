from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.arms import (
    ArmScheme,
    arm_label_map,
    missing_sets,
    source_digest,
)
from napari_backsplit.backend.training.dataset import sources, write_raw
from napari_backsplit.backend.training.run_scheme import left_out, run_scheme, supports_of
from napari_backsplit.backend.training.spec import Arm, RunSpec
from napari_backsplit.backend.volume import read_label_map
from tests.backend.training.arm_support import WHOLE, make_project

# ---------------------------------------------------------------- which cases are left out

SHARES = st.floats(0.01, 1)
SEEDS = st.integers(0, 2**16)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[list[list[str]], dict[str, str]]:
    """Return cases to train on and to validate on, and the patient of each; none is on both."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    owners = [patient for patient, size in enumerate(sizes) for _ in range(size)]
    order = draw(st.permutations(range(len(owners))))
    patients = {f"case_{n:03d}": f"patient-{owner}" for n, owner in zip(order, owners, strict=True)}
    held_out = draw(st.sets(st.sampled_from(sorted(set(patients.values())))))
    parts: list[list[str]] = [[], []]
    for case, patient in patients.items():
        parts[patient in held_out].append(case)
    return parts, patients


@given(cohorts(), SHARES, SHARES, SEEDS)
def test_a_smaller_share_is_among_a_larger_one(cohort: Any, one: float, two: float, seed: int):
    parts, patients = cohort
    smaller, larger = (set(left_out(s, parts, patients, seed)) for s in sorted((one, two)))
    assert larger <= smaller
    assert left_out(1.0, parts, patients, seed) == ()


@given(cohorts(), SHARES, SEEDS)
def test_each_part_keeps_a_case_and_no_patient_is_divided(cohort: Any, share: float, seed: int):
    parts, patients = cohort
    out = left_out(share, parts, patients, seed)
    assert out == left_out(share, [list(reversed(part)) for part in parts], patients, seed)
    for part in parts:
        kept = {patients[case] for case in part if case not in out}
        assert kept or not part
        assert kept.isdisjoint(patients[case] for case in part if case in out)


@given(st.integers(1, 60), SHARES, SEEDS)
def test_with_a_case_a_patient_the_share_is_exact(count: int, share: float, seed: int) -> None:
    cases = [f"case_{n:03d}" for n in range(count)]
    out = left_out(share, [cases], {case: case for case in cases}, seed)
    assert count - len(out) == max(1, round(share * count))


def test_another_seed_draws_others() -> None:
    cases = [f"case_{n:03d}" for n in range(20)]
    patients = {case: case for case in cases}
    drawn = {left_out(0.5, [cases], patients, seed) for seed in range(8)}
    assert len(drawn) == 8


# ---------------------------------------------------------------- the scheme of a run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Six cases; the first two are of one patient, the last knows no support."""
    known = [WHOLE] * 5 + [("lesion",)]
    folder = tmp_path_factory.mktemp("scheme") / "p"
    with make_project(folder, known, {0: "twice", 1: "twice"}) as project:
        yield project


def scheme_of(project: Project, **changes: Any) -> ArmScheme:
    cases = project.case_ids()
    return run_scheme(project, RunSpec(**changes), cases, (cases[:4] + cases[5:], cases[4:5]))


def maps_of(project: Project, scheme: ArmScheme) -> dict[str, np.ndarray]:
    codes = missing_sets(project, scheme, project.case_ids())
    return {case: arm_label_map(project, scheme, case, codes) for case in project.case_ids()}


def test_a_copy_of_a_support_is_learnt_where_it_is_named(project: Project) -> None:
    copy = project.schema.supports[0].model_copy(update={"name": "left-7-clicks"})
    project.set_supports([*project.schema.supports, copy])
    assert supports_of(project, RunSpec()) == ("left", "right")
    assert supports_of(project, RunSpec(supports=("left-7-clicks",))) == ("left-7-clicks",)


def test_the_first_supports_are_those_that_the_run_names_first(project: Project) -> None:
    for supports, count, learnt in [
        ((), None, ("left", "right")),
        ((), 1, ("left",)),
        (("right", "left"), 1, ("right",)),
        (("right", "left"), 2, ("left", "right")),
    ]:
        run = RunSpec(supports=supports, support_count=count)
        assert supports_of(project, run) == learnt
        assert supports_of(project, RunSpec(**run.model_dump() | {"arm": "binary"})) == ()


def test_more_supports_than_there_are_are_refused(project: Project) -> None:
    with pytest.raises(InputError, match=r"first 3 supports .* of 2 \(left, right\).*at most 2"):
        scheme_of(project, support_count=3)
    with pytest.raises(InputError, match="no support spleen"):
        scheme_of(project, supports=["spleen"])


@pytest.mark.parametrize("seed", range(5))
def test_the_share_is_of_the_cases_with_supports(project: Project, seed: int) -> None:
    cases = project.case_ids()
    scheme = scheme_of(project, support_cases=0.01, seed=seed)
    assert cases[4] not in scheme.without, "the one case to validate on keeps its supports"
    assert cases[5] not in scheme.without, "it has none to leave out"
    kept = set(cases[:4]) - set(scheme.without)
    assert kept in ({cases[0], cases[1]}, {cases[2]}, {cases[3]})
    assert scheme_of(project, support_cases=1.0, seed=seed).without == ()
    assert scheme_of(project, support_cases=0.01, seed=seed, arm="binary").without == ()


@pytest.mark.parametrize("arm", ["backsplit", "permuted", "blobs"])
def test_a_case_that_is_left_out_is_told_a_set_or_the_background(
    project: Project, arm: Arm
) -> None:
    """Compare the label maps voxel by voxel with those of the same arm in full."""
    whole = maps_of(project, scheme_of(project, arm=arm, missing="background"))
    sets = scheme_of(project, arm=arm, support_cases=0.5, seed=1)
    plain = scheme_of(project, arm=arm, support_cases=0.5, seed=1, missing="background")
    assert sets.without == plain.without
    assert 0 < len(sets.without) < 4
    codes = missing_sets(project, sets, project.case_ids())
    both = codes.code(("left", "right"))
    assert codes.label_sets[both - 4] == {0, 2, 3}
    assert missing_sets(project, plain, project.case_ids()).codes == ()
    for case, told in maps_of(project, sets).items():
        lesion = whole[case] == 1
        background = maps_of(project, plain)[case]
        nothing_known = not (whole[case] > 1).any()
        if case in sets.without or nothing_known:
            assert np.array_equal(told, np.where(lesion, 1, both))
            assert np.array_equal(background, lesion)
        else:
            assert np.array_equal(background, whole[case])
            assert np.array_equal(told, whole[case])


def test_names_and_digests_follow_what_is_told(project: Project, tmp_path: Path) -> None:
    cases = project.case_ids()
    schemes = [
        scheme_of(project, support_cases=share, missing=missing, supports=supports)
        for share in (1.0, 0.7, 0.3)
        for missing in ("label-set", "background")
        for supports in ((), ("left",))
    ]
    assert len({scheme.name for scheme in schemes}) == len(schemes)
    told = {tuple(sources(project, scheme, cases).items()) for scheme in schemes}
    assert len(told) == len(schemes)
    binary = [scheme_of(project, arm="binary", support_cases=share) for share in (1.0, 0.3)]
    assert binary[0] == binary[1], "the arm without supports is one dataset"


@pytest.mark.parametrize("arm", ["backsplit", "permuted", "blobs"])
def test_a_case_that_is_left_out_has_another_digest(project: Project, arm: Arm) -> None:
    whole = scheme_of(project, arm=arm, missing="background")
    some = scheme_of(project, arm=arm, missing="background", support_cases=0.5, seed=1)
    codes = missing_sets(project, whole, project.case_ids())
    changed = {
        case
        for case in project.case_ids()
        if source_digest(project, whole, case, codes) != source_digest(project, some, case, codes)
    }
    assert changed == set(some.without)


def test_what_is_told_lies_on_the_disk_and_is_written_anew_when_it_changes(
    project: Project, tmp_path: Path
) -> None:
    cases = project.case_ids()
    for missing in ("label-set", "background"):
        scheme = scheme_of(project, support_cases=0.5, seed=1, missing=missing)
        dataset = write_raw(project, scheme, cases, tmp_path / "raw")
        for case, told in maps_of(project, scheme).items():
            file = tmp_path / "raw" / dataset["dataset"][case]["label"]
            assert np.array_equal(read_label_map(file).array, told)
        assert dataset["backsplit"]["label_sets"] == ([[0, 2, 3]] if missing == "label-set" else [])
        assert (tmp_path / "raw" / "README.md").exists() == (missing == "label-set")
