from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.fusion.advisor import advise
from napari_backsplit.backend.fusion.gap_estimate import bands_of
from napari_backsplit.backend.project import Project
from tests.backend.fusion.placing import (
    IN_KIDNEY,
    NOTHING,
    SHAPE,
    SPACING_MM,
    Make,
    Seen,
    box,
    maker,
    near,
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    yield from maker(tmp_path)


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
