from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_backsplit.backend import pictures
from napari_backsplit.backend.pictures import CT_WINDOW, LIGHT, grey_limits

SPACING = (2.0, 1.0)


@pytest.fixture
def axes():
    return pictures.new_figure(2, 2).add_axes((0, 0, 1, 1))


def outline_of(axes, mask, points=900):
    """Return the corners (x, y) in mm of the outline of a mask."""
    before = len(axes.collections)
    pictures.draw_outline(axes, mask, SPACING, "#ff0000", points=points)
    drawn = axes.collections[before:]
    return np.concatenate([p.vertices for c in drawn for p in c.get_paths()]) if drawn else None


@pytest.mark.parametrize("points", [900, 10])
def test_an_outline_runs_along_the_edges_of_its_voxels(axes, points):
    mask = np.zeros((10, 20), bool)
    mask[2:4, 5:8] = True
    corners = outline_of(axes, mask, points)
    assert corners.min(axis=0) == pytest.approx([5.0, 4.0], abs=1e-6)
    assert corners.max(axis=0) == pytest.approx([8.0, 8.0], abs=1e-6)


def test_a_mask_that_fills_the_slice_has_an_outline_around_it(axes):
    corners = outline_of(axes, np.ones((3, 4), bool))
    assert corners.min(axis=0) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert corners.max(axis=0) == pytest.approx([4.0, 6.0], abs=1e-6)


def test_an_empty_mask_has_no_outline(axes):
    assert outline_of(axes, np.zeros((3, 4), bool)) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1))
def test_an_outline_bounds_its_mask_wherever_it_lies(voxels):
    mask = np.zeros((6, 9), bool)
    for y, x in voxels:
        mask[y, x] = True
    corners = outline_of(pictures.new_figure(1, 1).add_axes((0, 0, 1, 1)), mask)
    rows, columns = np.nonzero(mask)
    assert corners[:, 1].min() == pytest.approx(2.0 * rows.min(), abs=1e-6)
    assert corners[:, 1].max() == pytest.approx(2.0 * (rows.max() + 1), abs=1e-6)
    assert corners[:, 0].min() == pytest.approx(columns.min(), abs=1e-6)
    assert corners[:, 0].max() == pytest.approx(columns.max() + 1, abs=1e-6)


def test_a_slice_has_the_shape_of_the_patient(axes):
    assert pictures.show_plane(axes, np.zeros((10, 20)), SPACING, (0, 1)) == (20.0, 20.0)
    assert axes.images[0].get_extent() == [0, 20.0, 20.0, 0]


def test_letters_stand_where_the_patient_has_them(axes):
    pictures.show_plane(axes, np.zeros((10, 20)), SPACING, (0, 1))
    pictures.mark_directions(axes, (20.0, 20.0))
    at = {text.get_text(): text.get_position() for text in axes.texts}
    assert at["R"][0] < 2
    assert at["L"][0] > 18
    assert at["A"][1] < 2  # mm from the upper edge
    assert at["P"][1] > 18


def test_the_scale_bar_has_its_length_and_says_it(axes):
    pictures.draw_scale_bar(axes, (100.0, 200.0), 50)
    x = axes.lines[0].get_xdata()
    assert x[1] - x[0] == 50
    assert axes.texts[0].get_text() == "5 cm"
    pictures.draw_scale_bar(axes, (10.0, 20.0), 2)
    assert axes.texts[1].get_text() == "2 mm"


def test_ct_is_shown_in_a_window_of_soft_tissue_unless_it_holds_no_such_values():
    tissue = np.linspace(-1000, 1000, 1001)
    assert grey_limits(tissue, "CT") == CT_WINDOW
    assert grey_limits(tissue, "ct") == CT_WINDOW
    assert grey_limits(tissue + 5000, "CT") == pytest.approx((4010.0, 5990.0))
    assert grey_limits(tissue, "MR") == pytest.approx((-990.0, 990.0))


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_slice_of_one_value_has_limits_all_the_same(value):
    low, high = grey_limits(np.full((4, 4), value))
    assert low < high


def test_voxels_that_are_no_number_do_not_count():
    assert grey_limits(np.array([np.nan, np.inf])) == (0.0, 1.0)
    low, high = grey_limits(np.array([np.nan, 1.0, 3.0]))
    assert 1 <= low < high <= 3


def test_a_picture_is_a_png_without_metadata():
    figure = pictures.new_figure(2, 1)
    image = Image.open(io.BytesIO(pictures.png(figure)))
    assert (image.format, image.size) == ("PNG", (288, 144))
    assert "Software" not in image.info
    assert image.getpixel((0, 0))[3] == 0  # the page shows through


def test_long_names_are_cut():
    assert pictures.shorten("abc", 3) == "abc"
    assert pictures.shorten("abcd", 3) == "ab…"


def test_an_axis_takes_the_ink_of_its_page(axes):
    axes.set_title("name", loc="left")
    pictures.style_axes(axes, LIGHT)
    assert axes.get_title("left") == "name"
    assert axes.xaxis.label.get_color() == LIGHT.ink
