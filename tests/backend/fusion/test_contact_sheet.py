from __future__ import annotations

import io
import tracemalloc
from itertools import combinations, permutations, product

import numpy as np
import pytest
from PIL import Image

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion import contact_sheet
from napari_backsplit.backend.fusion.contact_sheet import (
    draw_sheet,
    make_tile,
    make_tiles,
    sheet_pages,
    telling_slice,
    tile_png,
)
from napari_backsplit.backend.fusion.review import case_state, survey
from napari_backsplit.backend.pictures import DARK, LIGHT, new_figure
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, restore, write_volume
from tests.backend.fusion.cohort import GRID, make_cohort, put

CANONICAL = (4, 10, 12)
MM = (5.0, 3.0, 2.0)
ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def stored(order, signs):
    """Return a grid whose index axes x, y, z run along LPS axes in another order and sense."""
    direction = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        direction[world, axis] = sign
    sizes, steps = ([values[2 - world] for world in order] for values in (CANONICAL, MM))
    rows = tuple(tuple(row) for row in direction.tolist())
    return Geometry(tuple(sizes[::-1]), tuple(steps[::-1]), (0.0, 0.0, 0.0), rows)


def landmark_project(folder, geometry):
    """Make a case with a bright lesion near the patient's right and front, in the third slice."""
    image, lesion = np.zeros(CANONICAL, np.float32), np.zeros(CANONICAL, bool)
    lesion[2, 1:3, 2:4] = True  # axes toward head, back and left: small x is the patient's right
    image[lesion] = 1000
    file = folder / "a.nii.gz"
    write_volume(Volume(restore(image, geometry).copy(), geometry), file)
    with Project.create(folder / "p", "p", ["MR"], ["lesion"], ["liver"]) as project:
        case = project.add_case({"MR": file}).id
        project.set_mask(case, "lesion", Volume(restore(lesion, geometry).copy(), geometry), {})
    return Project.open(folder / "p", read_only=True)


def only_tile(project):
    return make_tile(project, case_state(project, "case_001"))


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_the_patients_right_is_left_however_the_file_is_stored(tmp_path, order, signs):
    tile = only_tile(landmark_project(tmp_path, stored(order, signs)))
    assert np.argwhere(tile.labels == 1).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert np.array_equal(tile.plane > 500, tile.labels == 1)
    assert tile.spacing_mm == (3.0, 2.0)
    assert tile.note == "slice 3 of 4: most lesion; missing: liver"


def test_the_picture_shows_the_landmark_and_its_outline_where_they_are(tmp_path):
    project = landmark_project(tmp_path, stored((1, 0, 2), (-1, 1, -1)))
    axes = new_figure(3, 3).add_axes((0, 0, 1, 1))
    contact_sheet.draw_tile(axes, only_tile(project), project.schema)
    (outline,) = axes.collections
    corners = np.concatenate([path.vertices for path in outline.get_paths()])
    assert corners.min(axis=0) == pytest.approx([4.0, 3.0])  # mm from the right, from the front
    assert corners.max(axis=0) == pytest.approx([8.0, 9.0])

    picture = np.asarray(Image.open(io.BytesIO(tile_png(only_tile(project), project.schema))))
    height, width = picture.shape[:2]
    assert height / width == pytest.approx(30 / 24, rel=0.02)
    wanted = [int(project.schema.targets[0].colour[n : n + 2], 16) for n in (1, 3, 5)]
    y, x = np.nonzero((np.abs(picture[..., :3].astype(int) - wanted) < 12).all(axis=-1))
    assert 24 * x.min() / width == pytest.approx(4, abs=0.3)
    assert 24 * x.max() / width == pytest.approx(8, abs=0.3)
    assert 30 * y.min() / height == pytest.approx(3, abs=0.3)
    assert 30 * y.max() / height == pytest.approx(9, abs=0.3)


def test_the_slice_is_the_one_that_tells_most():
    labels = np.zeros((5, 4, 4), np.uint8)
    assert telling_slice(labels, 1) == (2, "no mask, the middle")
    labels[4, :2] = 2
    labels[3, :1] = 2
    assert telling_slice(labels, 1) == (4, "no lesion, most of the supports")
    labels[1, 0, 0] = 1
    assert telling_slice(labels, 1) == (1, "most lesion")
    assert telling_slice(labels, 2)[0] == 4  # a second target is lesion too


@pytest.fixture
def project(tmp_path):
    """Four cases: with a lesion, without, without any mask, and one that cannot be read."""
    with make_cohort(tmp_path, cases=4) as project:
        put(project, "case_001", "lesion", (2, 2, slice(2, 4)))
        put(project, "case_001", "liver", (slice(2, 5), slice(2, 5), slice(2, 5)))
        put(project, "case_002", "lesion", ())
        put(project, "case_002", "liver", (5, slice(2, 4), slice(2, 4)))
        put(project, "case_004", "lesion", (2, 2, 2))
        project.judge("case_001", "accepted")
        yield project


def tiles_of(project, **options):
    return list(make_tiles(project, survey(project).values(), **options))


def break_image(project, case):
    path = project.image_paths(case)[0]
    path.unlink()
    path.write_bytes(b"nothing")


def test_each_tile_says_what_it_shows(project):
    first, second, third, _ = tiles_of(project)
    assert (first.case, first.state) == ("case_001", "✓ accepted")
    assert first.note == "slice 3 of 8: most lesion; missing: kidney"
    assert second.state == "not judged"
    assert second.note == "slice 6 of 8: no lesion, most of the supports; missing: kidney"
    assert third.note == "slice 5 of 8: no mask, the middle; missing: liver, kidney"
    assert not third.labels.any()


def test_only_masks_that_enter_are_outlined(project):
    assert set(np.unique(tiles_of(project)[0].labels)) == {0, 1, 2}
    accepted = tiles_of(project, admit="accepted")[0]
    assert set(np.unique(accepted.labels)) == {0, 1}
    assert "missing: liver, kidney" in accepted.note


def test_an_image_that_cannot_be_read_gives_a_tile_that_says_so(project):
    break_image(project, "case_004")
    *others, last = tiles_of(project)
    assert last.plane is None
    assert last.note == "The image cannot be read."
    assert tile_png(last, project.schema) is None
    assert all(tile.plane is not None for tile in others)
    assert draw_sheet([*others, last], project.schema)


def test_an_image_on_another_grid_than_the_project_knows_is_not_shown(project):
    path = project.image_paths("case_004")[0]
    path.unlink()
    grid = Geometry((4, 4, 4), (10.0,) * 3, (0.0,) * 3, GRID.direction)
    write_volume(Volume(np.zeros((4, 4, 4), np.int16), grid), path)
    assert tiles_of(project)[3].plane is None


def test_a_mask_that_cannot_be_read_leaves_the_image(project):
    project.mask_path("case_004", "lesion").write_bytes(b"nothing")
    tile = tiles_of(project)[3]
    assert tile.plane is not None
    assert not tile.labels.any()
    assert tile.note == "A mask cannot be read: middle slice, no outlines."


def size_of(page):
    return Image.open(io.BytesIO(page)).size


def test_more_cases_than_a_page_holds_make_several_pages(project):
    tiles = tiles_of(project)
    pages = list(sheet_pages(tiles, project.schema, len(tiles), per_page=3))
    assert len(pages) == 2
    assert size_of(pages[0]) == size_of(pages[1])
    assert len(list(sheet_pages(tiles, project.schema, 4, per_page=4))) == 1
    assert list(sheet_pages([], project.schema, 0)) == []
    with pytest.raises(InputError, match="A page of 0 cases"):
        list(sheet_pages(tiles, project.schema, 4, per_page=0))


def test_a_page_has_the_colours_of_its_theme(project):
    for theme in (LIGHT, DARK):
        page = Image.open(io.BytesIO(draw_sheet(tiles_of(project), project.schema, theme)))
        assert "#{:02x}{:02x}{:02x}".format(*page.getpixel((0, 0))[:3]) == theme.page


@pytest.fixture
def drawn(monkeypatch):
    """Draw a page, and return its figure."""
    figures = []
    monkeypatch.setattr(contact_sheet, "png", lambda figure: figures.append(figure) or b"")

    def draw(project):
        draw_sheet(tiles_of(project), project.schema, LIGHT, "page 1 of 1")
        return figures[-1]

    return draw


def test_everything_written_lies_inside_of_the_page(project, drawn):
    figure = drawn(project)
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    words = {text.get_text() for text in texts}
    assert {"case_001", "✓ accepted", "lesion (target)", "kidney", "page 1 of 1"} <= words
    for text in texts:
        box = text.get_window_extent()
        assert figure.bbox.contains(box.x0, box.y0), text
        assert figure.bbox.contains(box.x1, box.y1), text


def test_long_names_are_not_written_on_one_another(tmp_path, drawn):
    names = [f"support_with_a_rather_long_name_{n:02d}" for n in range(8)]
    with make_cohort(tmp_path, cases=4) as project:
        project.set_supports([*names, "x" * 64])
        boxes = [text.get_window_extent() for text in drawn(project).texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_many_cases_need_the_memory_of_one(tmp_path):
    """Each image has 4 MB; what is kept of it is a slice of 48 kB."""
    grid = Geometry((128, 128, 128), (1.0,) * 3, (0.0,) * 3, GRID.direction)
    with make_cohort(tmp_path, cases=6, geometry=grid) as project:
        states = survey(project).values()

    def traced(chosen):
        tracemalloc.start()
        tiles = list(make_tiles(project, chosen))
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(tiles) == len(chosen)
        return held, most

    traced(list(states)[:1])  # what is imported and kept for ever
    _, most_of_one = traced(list(states)[:1])
    held, most = traced(states)
    assert most < 1.2 * most_of_one
    assert held < 1e6
