"""Faults planted in the phantom and in a real CT: each is found where it is; docs/quality.md."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from tests.backend.fusion.planting import (
    SHAPES,
    faults,
    hippocampi,
    phantom_scene,
    real_scene,
    volume_outliers,
)

CUT_BELOW = {
    "kidney_left", "kidney_right", "small_bowel", "duodenum", "vertebrae_l2", "iliopsoas_left",
    "iliopsoas_right",
}  # fmt: skip
CUT_ABOVE = {
    "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_middle_lobe_right",
    "lung_lower_lobe_right", "vertebrae_t12", "vertebrae_t11", "costal_cartilages",
    *(f"rib_{side}_{n}" for side in ("left", "right") for n in range(7, 12)),
}  # fmt: skip
CUT_TWICE = {
    "spleen", "liver", "stomach", "colon", "aorta", "inferior_vena_cava", "spinal_cord",
    "autochthon_left", "autochthon_right",
}  # fmt: skip
CRUMBS = {"pancreas", "lung_middle_lobe_right", "small_bowel"}
FAULTS = tuple(faults(phantom_scene(1)))


def planted(scene):
    """Faults among the organs that take part in them; to look at all organs takes long."""
    scene = scene.only("kidney_left", "kidney_right", "liver", "stomach")
    return scene.findings(), faults(scene)


@pytest.fixture(scope="module")
def phantom():
    return planted(phantom_scene(1))


@pytest.fixture(scope="module")
def real(real_data):
    return planted(real_scene(real_data))


def check(fault, clean):
    finding = fault.found(clean)
    assert finding is not None
    assert fault.is_placed(finding)


@pytest.mark.parametrize(("seed", "shape"), enumerate(SHAPES))
def test_a_clean_phantom_has_nothing_to_look_at(seed, shape):
    found = phantom_scene(seed, shape, lesions=seed != 1).findings()
    assert [f for f in found if f.severity != "info"] == []
    assert {f.code for f in found} <= {"border", "small_hole", "lesion_free", "outside_supports"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_phantom(phantom, fault):
    clean, faulty = phantom
    check(faulty[fault], clean)


def test_a_volume_three_times_too_large_in_phantoms():
    livers = [phantom_scene(seed).masks["liver"] for seed in range(8)]
    assert volume_outliers(livers, 5) == ["5"]


def test_what_is_found_in_the_real_sample_as_it_is(real_data):
    found = defaultdict(set)
    for finding in real_scene(real_data).findings():
        side = finding.message.split("toward the ")[-1].split(":")[0]
        found[finding.severity, finding.code, side * (finding.code == "border")].add(
            finding.structure
        )
    assert found == {
        ("info", "border", "feet"): CUT_BELOW | CUT_TWICE,
        ("info", "border", "head"): CUT_ABOVE | CUT_TWICE,
        ("warning", "tiny_islands", ""): CRUMBS,
        ("info", "small_hole", ""): {"liver"},
        ("info", "lesion_free", ""): {"lesion"},
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_real_sample(real, fault):
    clean, faulty = real
    check(faulty[fault], clean)


def test_a_volume_three_times_too_large_in_real_cases(real_data):
    masks = hippocampi(real_data)
    assert len(masks) == 32
    for number in np.linspace(0, 31, 4).astype(int):
        assert volume_outliers(masks, int(number)) == [str(number)]
