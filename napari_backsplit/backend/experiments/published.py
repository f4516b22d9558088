"""The numbers that the papers published, as they printed them, to show beside ours.

`published/*.toml` has a file for each table; a value is text, so that 0.516 stays 0.516. Figures
(Fig. 3 to 6) have no numbers in the paper's text, and so no file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.cells import Table

_FOLDER = resources.files("napari_backsplit.backend.experiments") / "published"

LABELS = {
    "parameters": "#Params",
    "dice": "Dice",
    "hd95_mm": "HD-95",
    "nsd": "NSD",
    "dice_gain_percent": "Dice, %",
}


@dataclass(frozen=True)
class Number:
    """A published number.

    Attributes
    ----------
    dataset, target, row, column, metric : str
        Where it stands; "" where the table has no such heading.
    text : str
        As it was printed: "0.516", "31.19M".
    """

    dataset: str
    target: str
    row: str
    column: str
    metric: str
    text: str

    @property
    def value(self) -> float:
        """The number; parameters in millions."""
        return float(self.text.removesuffix("M"))


@dataclass(frozen=True)
class Block:
    """A table's part on one dataset: rows of texts, all metrics of a column side by side."""

    name: str
    target: str
    about: str
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Published:
    """A published table.

    Attributes
    ----------
    source : str
        Paper and table.
    note : str
        How it was made, and what is odd in it.
    head : str
        Head of the first column.
    columns, metrics : tuple of str
        Groups of columns, and the columns of each.
    blocks : tuple of Block
    """

    source: str
    note: str
    head: str
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    blocks: tuple[Block, ...]

    def numbers(self) -> Iterator[Number]:
        """Yield all numbers, row by row."""
        places = [(column, metric) for column in self.columns for metric in self.metrics]
        for block in self.blocks:
            for row, *texts in block.rows:
                for (column, metric), text in zip(places, texts, strict=True):
                    yield Number(block.name, block.target, row, column, metric, text)

    def tables(self) -> list[Table]:
        """Return a table for each dataset, as it was printed."""
        head = (self.head, *heads(self.columns, self.metrics))
        return [Table(self._title(block), head, block.rows) for block in self.blocks]

    def _title(self, block: Block) -> str:
        named = ", ".join(part for part in (block.name, block.target) if part)
        about = f". {block.about.rstrip('.')}" if block.about else ""
        return f"Published, {self.source}: {named}{about}"


def heads(columns: tuple[str, ...], metrics: tuple[str, ...]) -> list[str]:
    """Return the heads of the metrics of each group of columns."""
    labels = [LABELS.get(metric, metric) for metric in metrics]
    return [f"{column}: {label}" if column else label for column in columns for label in labels]


def published_names() -> list[str]:
    """Return the names of the tables that are known."""
    files = (file.name for file in _FOLDER.iterdir())
    return sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml"))


def published(name: str) -> Published:
    """Read a published table.

    Raises
    ------
    InputError
        There is none of this name, or a row has not a number for each column.
    """
    if name not in published_names():
        raise InputError(f"There are no published numbers {name!r}.", "Leave `published` out.")
    values = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    columns, metrics = tuple(values["columns"]), tuple(values["metrics"])
    blocks = [
        Block(
            block["name"],
            block.get("target", ""),
            block.get("about", ""),
            tuple((row, *" ".join(cells).split()) for row, *cells in block["rows"]),
        )
        for block in values["datasets"]
    ]
    if any(len(row) != 1 + len(columns) * len(metrics) for b in blocks for row in b.rows):
        raise InputError(f"A row of the published numbers {name!r} is too short or too long.")
    note = values.get("note", "")
    return Published(values["source"], note, values["head"], columns, metrics, tuple(blocks))
