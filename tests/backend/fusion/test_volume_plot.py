from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from napari_backsplit.backend.fusion import volume_plot
from napari_backsplit.backend.fusion.volume_plot import is_wide, place_names, plot_volumes
from napari_backsplit.backend.pictures import DARK, LIGHT

COLOUR = "#d55e00"


@pytest.fixture
def drawn(monkeypatch):
    """Draw, and return the axes."""
    figures = []
    monkeypatch.setattr(volume_plot, "png", lambda figure: figures.append(figure) or b"")

    def draw(ml, outliers=()):
        plot_volumes("liver", ml, COLOUR, LIGHT, outliers)
        figures[-1].canvas.draw()
        return figures[-1].axes[0]

    return draw


def dots(axes):
    return sorted(float(x) for line in axes.lines for x in line.get_xdata())


def cohort(values):
    return {f"case_{number:03d}": value for number, value in enumerate(values, start=1)}


def test_each_case_with_voxels_is_a_dot(drawn):
    axes = drawn(cohort([3.0, 1.0, 0.0, 2.0]))
    assert dots(axes) == [1.0, 2.0, 3.0]
    assert axes.get_xlabel() == "volume (ml); median 2 ml; 3 cases; 1 more with an empty mask"
    assert axes.get_title("left") == "liver"


def test_the_median_is_drawn(drawn):
    (line,) = drawn(cohort([1.0, 2.0, 9.0])).collections
    assert line.get_segments()[0][:, 0].tolist() == [2.0, 2.0]


def test_a_wide_spread_gets_a_logarithmic_axis(drawn):
    assert drawn(cohort([1.0, 10.0])).get_xscale() == "linear"
    axes = drawn(cohort([1.0, 10.1]))
    assert axes.get_xscale() == "log"
    assert "logarithmic" in axes.get_xlabel()
    assert drawn(cohort([1.0, 2.0])).get_xlim()[0] == 0


def test_zero_does_not_count_for_the_spread(drawn):
    assert drawn(cohort([0.0, 1.0, 2.0])).get_xscale() == "linear"
    assert not is_wide([])


def test_outliers_are_ringed_and_named(drawn):
    axes = drawn(cohort([5.0, 5.1, 4.9, 5.2, 30.0]), ["case_005"])
    assert [text.get_text() for text in axes.texts] == ["case_005"]
    (ringed,) = (line for line in axes.lines if line.get_markeredgewidth() > 1)
    assert ringed.get_xdata() == [30.0]


def test_a_case_without_voxels_is_no_outlier(drawn):
    assert not drawn(cohort([5.0, 0.0]), ["case_002", "case_009"]).texts


def test_names_of_outliers_are_never_written_on_one_another(drawn):
    ml = cohort([1.0] * 20 + [1.2**n for n in range(1, 41)])
    axes = drawn(ml, [f"case_{n:03d}" for n in range(21, 61)])
    *named, more = axes.texts
    boxes = [Text.get_window_extent(text) for text in named]  # without their lines
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert "case_060" in [text.get_text() for text in named]  # the farthest
    assert more.get_text() == f"and {40 - len(named)} outliers more"


def test_a_name_without_room_is_left_out():
    assert place_names({f"case_{n:03d}": 0.5 for n in range(6)}) == {
        "case_000": -0.6, "case_001": 0.6,
    }  # fmt: skip


def test_no_line_runs_through_a_name():
    rows = place_names({"case_001": 0.5, "case_002": 0.51, "case_003": 0.55, "case_004": 0.52})
    assert rows == {"case_001": -0.6, "case_002": 0.6, "case_003": -0.9}


@pytest.mark.parametrize("values", [[], [0.0], [0.001], [5.0, 5.0], [1e-3, 1e4]])
@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_any_cohort_can_be_drawn(values, theme):
    image = Image.open(io.BytesIO(plot_volumes("liver", cohort(values), COLOUR, theme)))
    assert image.format == "PNG"
    assert np.asarray(image)[..., 3].any()
