"""A Markdown page that holds the tables of an experiment between two marks."""

from __future__ import annotations

from pathlib import Path

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.files import write_text


def marks(name: str) -> tuple[str, str]:
    """Return the lines around the tables of an experiment."""
    return f"<!-- backsplit experiment {name} -->", f"<!-- end of {name} -->"


def new_page(plan: ExperimentPlan, text: str) -> str:
    """Return a page of its own: title, what it is about, and the tables between marks."""
    begin, end = marks(plan.name)
    about = f"{plan.about.strip()}\n\n" if plan.about.strip() else ""
    return f"# {plan.title}\n\n{about}{begin}\n\n{text.strip()}\n\n{end}\n"


def write_page(file: Path, plan: ExperimentPlan, text: str) -> None:
    """Write the tables between the marks of a page and leave the rest; make a missing page.

    Raises
    ------
    InputError
        As for `require_marks`.
    """
    if not file.exists():
        write_text(file, new_page(plan, text))
        return
    require_marks(file, plan.name)
    begin, end = marks(plan.name)
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    write_text(file, f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def require_marks(file: Path, name: str) -> None:
    """Refuse a page that has no place for an experiment's tables.

    Raises
    ------
    InputError
        The file exists, and has not each mark once, the first before the second.
    """
    if not file.exists():
        return
    text = file.read_text(encoding="utf-8")
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(
            f"{file} has no place for the tables of {name!r}.",
            f"Write {begin} and {end} where they belong, once each.",
        )
