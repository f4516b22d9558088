"""The table in the paper's layout: where each number stands, and what its interval is over."""

from __future__ import annotations

from typing import Any

import pytest
from experiment_support import arm, plan_of, result, summary

from napari_backsplit.backend.experiments.layout import DIFFER, layout_tables, plain_layout
from napari_backsplit.backend.experiments.outcomes import DrawResult, Outcome
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.tables import notes

LAYOUT = {"published": "table-8", "metrics": ["parameters", "dice", "hd95_mm"]}
ROWS, COLUMNS = ("Regular Training", "BackSplit"), ("Batch Size = 2", "Batch Size = 4")


def planned(**fields: Any) -> ExperimentPlan:
    """Return two rows and two columns; the arms are named by both."""
    arms = [
        {
            **arm(f"{row}, {column}", batch_size=batch),
            "row": row,
            "column": column,
        }
        for batch, column in ((2, COLUMNS[0]), (4, COLUMNS[1]))
        for row in ROWS
    ]
    for one in arms:
        if one["row"] == "Regular Training":
            one["run"]["arm"] = "binary"
    return plan_of(*arms, layout=LAYOUT, **fields)


PLAN = planned()
NAMES = [one.name for one in PLAN.arms]


def draw(seed: int, *dices: float, **more: Any) -> DrawResult:
    made = summary({n: {"dice": d, "hd95_mm": 10 * d} for n, d in zip(NAMES, dices, strict=True)})
    return DrawResult(seed, {n: Outcome("done", hours=1.0) for n in NAMES}, made, **more)


def test_every_arm_stands_in_its_row_and_column() -> None:
    results = [draw(1, 0.1, 0.2, 0.3, 0.4), draw(2, 0.3, 0.4, 0.5, 0.6)]
    ours = layout_tables(PLAN, results)[0]
    assert ours.head == (
        "Method",
        "Batch Size = 2: #Params",
        "Batch Size = 2: Dice",
        "Batch Size = 2: HD-95",
        "Batch Size = 4: #Params",
        "Batch Size = 4: Dice",
        "Batch Size = 4: HD-95",
    )
    assert [row[0] for row in ours.rows] == list(ROWS)
    half = 12.7062 * 0.1  # Student's t, 1 degree of freedom; the standard error is 0.1
    assert ours.rows[0][2] == f"0.200 ± {half:.3f}"
    assert ours.rows[1][5] == f"0.500 ± {half:.3f}"
    assert ours.rows[0][1] == "–", "the networks' sizes are not known"


def test_ours_and_the_published_stand_side_by_side() -> None:
    results = [draw(1, 0.1, 0.2, 0.3, 0.4)]
    titles = [table.title for table in layout_tables(PLAN, results)]
    assert titles[0] == "Tiny: ours"
    assert titles[1] == "Published, BackSplit, Tab. 8: KiTS23, Cyst"
    assert any(DIFFER in note for note in notes(PLAN, results))
    plain = plain_layout(PLAN, results)
    assert plain["ours"][1]["over"]["mean"] == pytest.approx(0.1)
    numbers = plain["published"]["numbers"]
    assert numbers[0] | {"metric": "dice", "text": "0.2033", "value": 0.2033} == numbers[0]


def test_a_narrow_terminal_gets_a_table_for_each_group_of_columns() -> None:
    made = layout_tables(PLAN, [draw(1, 0.1, 0.2, 0.3, 0.4)], brief=True)
    assert [table.head[-2] for table in made] == ["Batch Size = 2: Dice", "Batch Size = 4: Dice"]
    assert made[0].rows[0][2] == "0.100"


def test_a_missed_lesion_in_hd95_is_said() -> None:
    results = [draw(1, 0.1, 0.2, 0.3, 0.4)]
    assert any("leaves out lesion cases" in note for note in notes(PLAN, results))
    penalised = planned(comparison={"missed_hd95": "image diagonal"})
    assert any("the image's diagonal" in note for note in notes(penalised, results))


def rows(*dices: float) -> list[dict[str, str]]:
    wanted = {"target": "lesion", "arm": NAMES[0], "group": "lesion"}
    return [{**wanted, "case": f"c{place}", "dice": str(d)} for place, d in enumerate(dices)]


def test_one_draw_has_the_interval_of_its_folds_or_else_of_its_cases() -> None:
    dices = (0.2, 0.4, 0.6, 0.8)
    by_case = draw(1, 0.5, 0.5, 0.5, 0.5, cases=rows(*dices))
    half = 3.18245 * (0.2**2 * 5 / 3) ** 0.5 / 2  # four cases
    assert layout_tables(PLAN, [by_case])[0].rows[0][2] == f"0.500 ± {half:.3f}"
    assert any('"±" is of the cases' in note for note in notes(PLAN, [by_case]))
    folds = {"c0": 0, "c1": 0, "c2": 1, "c3": 1}
    by_fold = draw(1, 0.5, 0.5, 0.5, 0.5, cases=rows(*dices), fold_of=folds)
    half = 12.7062 * 0.2  # the folds have 0.3 and 0.7
    assert layout_tables(PLAN, [by_fold])[0].rows[0][2] == f"0.500 ± {half:.3f}"
    assert any('"±" is of the folds' in note for note in notes(PLAN, [by_fold]))


def test_the_networks_parameters_are_in_millions() -> None:
    made = draw(1, 0.1, 0.2, 0.3, 0.4, parameters={NAMES[0]: 31_190_000})
    assert layout_tables(PLAN, [made])[0].rows[0][1] == "31.19M"


def test_several_targets_have_rows_of_their_own_and_a_mean() -> None:
    plan = plan_of(
        {**arm("binary", arm="binary"), "row": "{target}"},
        {**arm("ours"), "row": "{target} (+BackSplit)"},
        layout={},
    )
    first = summary({"binary": {"dice": 0.2}, "ours": {"dice": 0.4}})
    second = summary({"binary": {"dice": 0.4}, "ours": {"dice": 0.8}})
    for entry in second["summaries"]:
        entry["target"] = "cyst"
    both = {**first, "targets": ["lesion", "cyst"]}
    both["summaries"] = [*first["summaries"], *second["summaries"]]
    found = {row[0]: row[1] for row in layout_tables(plan, [result(1, both)])[0].rows}
    assert found == {
        "Lesion": "0.200",
        "Lesion (+BackSplit)": "0.400",
        "Cyst": "0.400",
        "Cyst (+BackSplit)": "0.800",
        "All lesions mean": "0.300",
        "All lesions mean (+BackSplit)": "0.600",
    }


def test_masks_alone_are_a_table_of_dice() -> None:
    plan = plan_of(layout={"head": "Support", "metrics": ["dice"]}, clicks=[7, 10]).model_copy(
        update={"arms": ()}
    )
    quality = {"7 clicks": {"kidney": 0.5}, "10 clicks": {"kidney": 0.75}}
    (table,) = layout_tables(plan, [DrawResult(1, {}, quality=quality)])
    assert table.head == ("Support", "7 clicks: Dice", "10 clicks: Dice")
    assert table.rows == (("kidney", "0.500", "0.750"),)
