"""The papers' numbers are data: as they were printed, and whole."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments import published as module
from napari_backsplit.backend.experiments.published import Number, published, published_names

TABLES = {1: 72, 2: 72, 3: 24, 4: 60, 5: 52, 6: 36, 7: 36, 8: 36, 9: 36, 10: 36, 11: 36, 12: 9}


def number(name: str, *place: str) -> Number:
    """Return the number of (dataset, row, column, metric)."""
    (found,) = [
        n for n in published(name).numbers() if (n.dataset, n.row, n.column, n.metric) == place
    ]
    return found


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_whole_and_all_its_numbers_are_numbers(table: int) -> None:
    numbers = list(published(f"table-{table}").numbers())
    assert len(numbers) == TABLES[table]
    assert all(isfinite(one.value) and one.value > 0 for one in numbers)
    assert all(one.value <= 1 for one in numbers if one.metric in ("dice", "nsd"))
    places = {(n.dataset, n.row, n.column, n.metric) for n in numbers}
    assert len(places) == len(numbers)


READ = {
    ("table-1", "KiTS23", "Cyst (+BackSplit)", "U-Net", "dice"): "0.4573",
    ("table-1", "PANTHER-MR", "Tumor", "ResEncU-Net", "dice"): "0.516",
    ("table-1", "PANTHER-MR", "Tumor (+BackSplit)", "SegResNet", "hd95_mm"): "73.1859",
    ("table-1", "NSCLC-Radiomics", "GTV", "ResEncU-Net", "parameters"): "101.86M",
    ("table-2", "MSWAL", "Kidney Stone (+BackSplit)", "U-Net", "nsd"): "0.5401",
    ("table-2", "MSWAL", "All lesions mean (+BackSplit)", "U-Net", "dice"): "0.3190",
    ("table-3", "AutoPET", "BackSplit w/ VS", "", "hd95_mm"): "682.6587",
    ("table-4", "KiTS", "BackSplit with ⊕7", "", "dice"): "0.4919",
    ("table-4", "MSWAL", "BackSplit with ⊕10", "", "nsd"): "0.5860",
    ("table-5", "MSWAL", "Postcava", "10 clicks", "dice"): "0.7724",
    ("table-5", "AutoPET", "Stomach", "10 clicks", "dice"): "0.8791",
    ("table-6", "AutoPET", "Gall Bladder", "VIBESegmentator", "dice"): "0.3875",
    ("table-7", "NSCLC-Radiomics", "BackSplit", "Patch Size Variation 2", "dice"): "0.5724",
    ("table-8", "NSCLC-Radiomics", "BackSplit", "Batch Size = 4", "nsd"): "0.4353",
    ("table-9", "PANTHER-MR", "BackSplit", "without Deep Supervision", "hd95_mm"): "46.5688",
    ("table-10", "KiTS23", "Regular Training", "2D U-Net", "dice"): "0.3234",
    ("table-11", "KiTS23", "BackSplit", "3D SwinUNETR", "hd95_mm"): "309.6816",
    ("table-12", "KiTS23", "Training with Virtual Class", "", "dice"): "0.2469",
}


@pytest.mark.parametrize("place", READ, ids=" ".join)
def test_numbers_read_by_hand(place: tuple[str, ...]) -> None:
    found = number(*place)
    assert found.text == READ[place]
    assert found.value == pytest.approx(float(READ[place].rstrip("M")))


def test_one_fold_of_the_same_training_is_the_same_in_all_tables() -> None:
    """Tab. 7 to 11 begin with the training that Tab. 4 and 12 have too."""
    for dataset, regular in (("KiTS23", "0.2033"), ("PANTHER-MR", "0.3828")):
        for table in range(7, 12):
            first = published(f"table-{table}").columns[0]
            assert (
                number(f"table-{table}", dataset, "Regular Training", first, "dice").text == regular
            )


def test_a_table_that_is_not_known_or_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no published numbers 'table-13'"):
        published("table-13")
    assert "softseg" in published_names()
    text = 'source = "x"\nhead = "x"\ncolumns = ["a", "b"]\nmetrics = ["dice"]\n'
    short = text + '[[datasets]]\nname = "d"\nrows = [["r", "0.1"]]\n'
    (tmp_path / "short.toml").write_text(short)
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    with pytest.raises(InputError, match="too short"):
        published("short")
