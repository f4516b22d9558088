"""A fusion that follows edits box by box is the fusion of the masks as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.fusion.cases import apply_recipes
from napari_backsplit.backend.fusion.fuse import LabelScheme, fuse
from napari_backsplit.backend.fusion.live import LiveFusion
from napari_backsplit.backend.project import Channel, Schema
from napari_backsplit.backend.project.recipes import Recipe
from napari_backsplit.backend.project.schema import coloured

SHAPE = (20, 9, 10)
SPACING = (3.0, 4.0, 5.0)
NAMES = ("lesion", "left", "right", "liver")
MERGE = Recipe(kind="merge", support="kidney", sources=("left", "right"))
GROW = Recipe(kind="grow", support="liver")
SUBTRACT = Recipe(kind="subtract", support="liver", sources=("right",))
RECIPES = ((), (MERGE,), (GROW,), (SUBTRACT, GROW), (SUBTRACT, MERGE, GROW))


def schema_of(recipes=()):
    first, *rest = coloured(NAMES)
    channel = Channel(name="CT")
    return Schema(name="p", channels=[channel], targets=[first], supports=rest, recipes=recipes)


def draw(rng, size):
    """Three boxes at random places."""
    mask = np.zeros(SHAPE, bool)
    for _ in range(3):
        low = [int(rng.integers(0, n)) for n in SHAPE]
        mask[tuple(slice(a, a + int(rng.integers(1, size))) for a in low)] = True
    return mask


def expected(schema, masks):
    made = apply_recipes(schema, masks, SPACING)
    supports = tuple(support.name for support in schema.fused_supports)
    scheme = LabelScheme(schema.target_names, supports)
    claims = sum((made[n].astype(int) for n in supports if n in made), np.zeros(SHAPE, int))
    return fuse({n: m for n, m in made.items() if n in scheme.names}, scheme, SHAPE), claims


def test_a_row_of_many_lesions_is_one_region_after_the_other():
    lesion = np.zeros((3, 3, 3000), bool)
    lesion[1, 1, ::2] = True
    masks = {"lesion": lesion, "liver": ~lesion}
    live = LiveFusion(schema_of((GROW,)), masks, lesion.shape, (20.0, 20.0, 20.0))
    end = (slice(1, 2), slice(1, 2), slice(2990, 2991))
    masks["liver"][end] = False
    assert live.update("liver", end) == (slice(0, 3), slice(0, 3), slice(0, 3000))


def test_voxels_may_be_asked_for_while_another_thread_rearranges(monkeypatch):
    masks = {"lesion": draw(np.random.default_rng(0), 5)}
    live = LiveFusion(schema_of((MERGE,)), masks, SHAPE, SPACING)
    before, told = live.voxels(), []

    def asked(*given):
        told.append(live.voxels())
        return ()

    monkeypatch.setattr("napari_backsplit.backend.fusion.live.lesion_regions", asked)
    monkeypatch.setattr(live, "_made", lambda box: asked() or {})
    live.rearrange(schema_of((GROW,)), masks)
    assert len(told) > 1
    assert all(each == before for each in told)


def assert_right(live, schema, masks):
    fused, claims = expected(schema, masks)
    np.testing.assert_array_equal(live.label_map, fused.label_map)
    np.testing.assert_array_equal(live.claims, claims)
    assert {n: v for n, v in live.voxels().items() if v} == {
        n: v for n, v in fused.voxels.items() if v
    }
    targets = schema.target_names
    assert live.overlaps() == {
        pair: n for pair, n in fused.overlaps.items() if not set(pair) & set(targets)
    }
    assert live.conflicts == np.count_nonzero(claims > 1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    recipes=st.sampled_from(RECIPES),
    there=st.sets(st.sampled_from(NAMES[1:])),
)
def test_it_follows_every_edit(seed, recipes, there):
    rng, schema = np.random.default_rng(seed), schema_of(recipes)
    masks = {name: draw(rng, 5) for name in ("lesion", *sorted(there))}
    live = LiveFusion(schema, masks, SHAPE, SPACING)
    assert_right(live, schema, masks)
    for _ in range(4):
        name = str(rng.choice(sorted(masks)))
        low = [int(rng.integers(0, n - 1)) for n in SHAPE]
        box = tuple(slice(a, min(a + 4, n)) for a, n in zip(low, SHAPE, strict=True))
        masks[name][box] ^= rng.random(masks[name][box].shape) < 0.5
        before = live.label_map.copy()
        changed = live.update(name, box)
        assert_right(live, schema, masks)
        outside = np.ones(SHAPE, bool)
        outside[changed] = False
        assert np.array_equal(before[outside], live.label_map[outside])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(RECIPES), st.sampled_from(RECIPES))
def test_it_follows_recipes_priorities_and_what_enters(seed, first, second):
    rng = np.random.default_rng(seed)
    masks = {name: draw(rng, 5) for name in NAMES}
    live = LiveFusion(schema_of(first), masks, SHAPE, SPACING)
    schema = schema_of(second)
    if not second:
        schema = schema.model_copy(update={"supports": tuple(reversed(schema.supports))})
    fewer = {name: mask for name, mask in masks.items() if name != "right"}
    live.rearrange(schema, fewer)
    assert_right(live, schema, fewer)
    live.rearrange(schema_of(first), masks)
    assert_right(live, schema_of(first), masks)


def test_a_stroke_touches_only_its_box():
    masks = {name: np.zeros(SHAPE, bool) for name in NAMES}
    live = LiveFusion(schema_of(), masks, SHAPE, SPACING)
    box = (slice(3, 4), slice(2, 5), slice(2, 5))
    masks["liver"][box] = True
    assert live.update("liver", box) == box
    assert live.label_map.sum() == 9 * live.scheme.ids["liver"]


def test_a_mask_that_does_not_enter_changes_nothing():
    masks = {"lesion": np.zeros(SHAPE, bool)}
    live = LiveFusion(schema_of(), masks, SHAPE, SPACING)
    assert live.update("liver", (slice(0, 1),) * 3) is None
    assert live.missing == ("left", "right", "liver")


@pytest.mark.parametrize("entered", [("lesion", "left"), ("lesion", "left", "right")])
def test_a_union_with_an_unknown_part_keeps_what_is_known(entered):
    masks = {name: np.zeros(SHAPE, bool) for name in entered}
    masks["left"][2, 3, 4] = True
    live = LiveFusion(schema_of((MERGE,)), masks, SHAPE, SPACING)
    assert live.label_map[2, 3, 4] == live.scheme.ids["kidney"]
    assert ("kidney" in live.missing) == ("right" not in entered)


def test_what_a_later_edit_takes_away_is_gone_however_late_it_is_told():
    """Masks are read as they are: the first update sees the second edit too."""
    lesion, liver = np.zeros((60, 12, 12), bool), np.ones((60, 12, 12), bool)
    lesion[40:44, 4:8, 4:8] = True
    liver[40:44, 4:8, 4:8] = False
    liver[44:46, 5:7, 5:7] = False  # a gap, which the liver takes as long as the lesion is there
    masks, schema = {"lesion": lesion, "liver": liver}, schema_of((GROW,))
    live = LiveFusion(schema, masks, lesion.shape, (1.0, 1.0, 1.0))
    assert live.label_map[45, 5, 5] == live.scheme.ids["liver"]
    first, second = (
        (slice(2, 4), slice(5, 7), slice(5, 7)),
        (slice(40, 44), slice(4, 8), slice(4, 8)),
    )
    lesion[first], lesion[second] = True, False
    live.update("lesion", first)
    live.update("lesion", second)
    anew = LiveFusion(schema, masks, lesion.shape, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(live.label_map, anew.label_map)
