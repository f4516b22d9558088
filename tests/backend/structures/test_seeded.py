"""The engine without a model: what each prompt does, on images drawn by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.phantom import PhantomSpec, draw
from napari_backsplit.backend.structures.engines import (
    EngineCancelled,
    Mask,
    Request,
    Scene,
    make_engine,
)
from napari_backsplit.backend.structures.prompts import Box, Lasso, Point, Scribble, slices
from napari_backsplit.backend.structures.seeded import Drawn, Seeded
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.volume import read_mask, read_volume

SHAPE = (32, 48, 48)


def ball(center: tuple[int, int, int], radius: float, shape: tuple[int, int, int] = SHAPE) -> Mask:
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return np.asarray(sum((g - c) ** 2 for g, c in zip(grid, center, strict=True)) <= radius**2)


LEFT, RIGHT = ball((16, 24, 14), 9), ball((16, 24, 35), 9)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Two balls of one intensity, apart, at 2 mm, in noise."""
    image = np.random.default_rng(0).normal(0, 8, SHAPE)
    image[LEFT | RIGHT] += 100
    return Scene("balls", image.astype(np.float32), (2.0, 2.0, 2.0))


def answered(
    scene: Scene,
    *prompts: Drawn,
    start: Mask | None = None,
    forbidden: Mask | None = None,
    mask: Mask | None = None,
) -> Mask:
    """Return the whole mask after an engine that has seen nothing yet answered."""
    before = np.zeros(scene.image.shape, bool) if mask is None else mask
    answer = Seeded().segment(
        Request(scene, "run", start, prompts, before, forbidden), lambda: False
    )
    after = before.copy()
    after[slices(answer.bounds)] = answer.mask
    return after


def dice(reference: Mask, prediction: Mask) -> float:
    return float(2 * (reference & prediction).sum() / (reference.sum() + prediction.sum()))


def test_it_is_ready_without_anything_and_says_what_it_is() -> None:
    state = Seeded.look(EngineSettings())
    assert (state.state, state.title) == ("ready", "Seeded (classical)")
    engine = make_engine("seeded", EngineSettings())
    told: list[str] = []
    about = engine.start(told.append)
    assert (about.engine, about.licence) == ("seeded", "")
    assert about.model == state.model != ""


def test_one_click_gives_the_ball_it_is_in_and_not_the_other(scene: Scene) -> None:
    mask = answered(scene, Point(at=(16, 24, 14)))
    assert dice(LEFT, mask) > 0.95
    assert not (mask & RIGHT).any()


def test_a_click_on_the_edge_gives_the_ball_too(scene: Scene) -> None:
    assert dice(LEFT, answered(scene, Point(at=(16, 24, 22)))) > 0.9


def test_a_second_click_adds_the_other_ball(scene: Scene) -> None:
    mask = answered(scene, Point(at=(16, 24, 14)), Point(at=(16, 24, 35)))
    assert dice(LEFT | RIGHT, mask) > 0.95


def test_a_negative_click_removes_what_it_is_in_and_keeps_the_rest(scene: Scene) -> None:
    prompts = Point(at=(16, 24, 14)), Point(at=(16, 24, 35)), Point(at=(16, 24, 34), positive=False)
    mask = answered(scene, *prompts[::2], start=RIGHT, mask=RIGHT)
    assert dice(LEFT, mask) > 0.9
    assert not mask[16, 24, 34]


def test_touching_balls_are_cut_at_their_neck() -> None:
    one, other = ball((16, 24, 14), 10), ball((16, 24, 33), 10)
    image = np.where(one | other, 100, 0) + np.random.default_rng(1).normal(0, 8, SHAPE)
    scene = Scene("neck", image.astype(np.float32), (2.0, 2.0, 2.0))
    assert dice(one, answered(scene, Point(at=(16, 24, 14)))) > 0.93


def test_scribbles_are_kept_and_a_negative_one_is_cut_out(scene: Scene) -> None:
    scribble = Scribble(axis=0, index=16, path=((20, 10), (28, 18)))
    cut = Scribble(axis=0, index=16, path=((22, 8), (22, 10)), positive=False)
    mask = answered(scene, scribble, cut)
    assert dice(LEFT, mask) > 0.8
    assert mask[slices(scribble.bounds())][scribble.mask()].all()
    assert not mask[slices(cut.bounds())][cut.mask()].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_box_in_any_plane_gives_the_ball_and_stays_within_its_sides(
    scene: Scene, axis: int
) -> None:
    low, high = [6, 14, 4], [27, 35, 25]
    low[axis], high[axis] = (16, 24, 14)[axis], (16, 24, 14)[axis] + 1
    mask = answered(scene, Box(low=(low[0], low[1], low[2]), high=(high[0], high[1], high[2])))
    assert dice(LEFT, mask) > 0.95
    half = answered(scene, Box(low=(16, 14, 4), high=(17, 35, 14)))
    assert half.any()
    assert not half[:, :, 14:].any()


def test_the_inside_of_a_lasso_belongs_to_the_structure(scene: Scene) -> None:
    lasso = Lasso(axis=0, index=16, path=((14, 4), (14, 24), (34, 24), (34, 4)))
    mask = answered(scene, lasso)
    assert mask[slices(lasso.bounds())][lasso.mask()].all()
    assert dice(LEFT, mask) > 0.9
    cut = answered(scene, lasso.model_copy(update={"positive": False}), start=LEFT, mask=LEFT)
    assert not cut[16][14:35, 4:25].any()


def test_a_mask_it_starts_from_is_extended_and_the_rest_of_it_stays(scene: Scene) -> None:
    painted = ball((16, 5, 24), 3)
    mask = answered(scene, Point(at=(16, 24, 14)), start=painted, mask=painted)
    assert mask[painted].all()
    assert dice(LEFT, mask & ~painted) > 0.95


def test_finished_structures_are_never_in_the_answer(scene: Scene) -> None:
    finished = np.zeros(SHAPE, bool)
    finished[:, :, :14] = True
    lasso = Lasso(axis=0, index=16, path=((14, 4), (14, 24), (34, 24), (34, 4)))
    mask = answered(scene, Point(at=(16, 24, 16)), lasso, forbidden=finished)
    assert not (mask & finished).any()
    assert mask[LEFT & ~finished].mean() > 0.9


def test_a_new_engine_answers_as_one_that_has_seen_other_clicks(scene: Scene) -> None:
    engine = Seeded()
    empty = np.zeros(SHAPE, bool)
    prompts = Point(at=(16, 24, 14)), Point(at=(12, 26, 35))
    for count in (1, 2):
        request = Request(scene, "run", None, prompts[:count], empty)
        answer = engine.segment(request, lambda: False)
    fresh = Seeded().segment(request, lambda: False)
    assert fresh.bounds == answer.bounds
    assert fresh.mask.tobytes() == answer.mask.tobytes()


def test_it_can_be_cancelled_and_asked_again(scene: Scene) -> None:
    engine = Seeded()
    request = Request(scene, "run", None, (Point(at=(16, 24, 14)),), np.zeros(SHAPE, bool))
    looks = iter([False, True])
    with pytest.raises(EngineCancelled):
        engine.segment(request, lambda: next(looks))
    assert engine.segment(request, lambda: False).mask.any()
    engine.close()
    engine.close()


@pytest.mark.parametrize("spacing", [(5.0, 0.7, 0.7), (1.0, 1.0, 1.0), (4.0, 4.0, 4.0)])
@pytest.mark.parametrize("scale", [1.0, 0.001, 40.0])
def test_any_spacing_and_unit_will_do(spacing: tuple[float, float, float], scale: float) -> None:
    shape = tuple(round(100 / step) + 1 for step in spacing)
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    organ = sum(((g * s - 50) / 28) ** 2 for g, s in zip(grid, spacing, strict=True)) <= 1
    image = np.where(organ, 150, 60) + np.random.default_rng(0).normal(0, 10, shape)
    z, y, x = (n // 2 for n in shape)
    scene = Scene("organ", (image * scale).astype(np.float32), spacing)
    assert dice(np.asarray(organ), answered(scene, Point(at=(z, y, x)))) > 0.9


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_any_image_gives_a_mask_that_holds_the_click(
    shape: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.choice([0.0, 5.0, 100.0], shape).astype(np.float32)
    z, y, x = (data.draw(st.integers(0, n - 1)) for n in shape)
    mask = answered(Scene(str(seed), image, (1.0, 2.5, 4.0)), Point(at=(z, y, x)))
    assert mask[z, y, x]


def test_three_clicks_give_the_liver_of_the_phantom() -> None:
    drawn = draw(20, PhantomSpec(shape=(64, 96, 96)))
    liver = drawn.masks["liver"]
    scene = Scene("20", drawn.image.array.astype(np.float32), drawn.image.spacing_mm)
    at = np.argwhere(liver)[:: liver.sum() // 4][1:4]
    mask = answered(scene, *(Point(at=(int(z), int(y), int(x))) for z, y, x in at))
    assert dice(liver, mask) > 0.85


def test_seven_clicks_on_a_real_left_kidney(real_data: Path) -> None:
    folder = real_data / "totalsegmentator"
    volume = read_volume(folder / "example_ct_sm.nii.gz").canonical()
    kidney = read_mask(folder / "example_seg_fast" / "kidney_left.nii.gz").canonical().array
    image = np.ascontiguousarray(volume.array, np.float32)
    at = np.random.default_rng(0).choice(np.argwhere(kidney), 7, replace=False)
    prompts = [Point(at=(int(z), int(y), int(x))) for z, y, x in at]
    assert dice(kidney, answered(Scene("ct", image, volume.spacing_mm), *prompts)) > 0.85
