"""The command of a comparison's report: where it is, and the same as PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, require_project
from napari_backsplit.cli.models import COMPARE


@app.command(rich_help_panel=COMPARE)
def report(
    comparison: Annotated[
        str, typer.Argument(help="Number of a comparison; the newest by default.")
    ] = "",
    project: ProjectOption = Path(),
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to report.pdf beside it, with a browser.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say where the report of a comparison is, and print it to PDF with --pdf.

    The browser is a Chromium, Chrome or Edge on this machine; it reaches no network.
    """
    from napari_backsplit.backend.comparison.pdf import write_pdf
    from napari_backsplit.cli.console import say, show

    require_project(project)
    html = find_report(project, comparison)
    written = {"report": html}
    if pdf:
        written["pdf"] = write_pdf(html, html.with_suffix(".pdf"))
    if as_json:
        show({kind: path.relative_to(project).as_posix() for kind, path in written.items()}, True)
        return
    for kind, path in written.items():
        say(f"{'PDF' if kind == 'pdf' else 'Report'}: {path}")


def find_report(project: Path, comparison: str) -> Path:
    """Return the report of a comparison: by its number, its id, or the newest.

    Raises
    ------
    InputError
        There is no such comparison.
    """
    folder = project / "comparisons"
    known = sorted(path.parent for path in folder.glob("*/report.html"))
    if not known:
        raise InputError("The project has no comparison yet.", "Compare first: backsplit compare")
    if not comparison:
        return max(known, key=lambda path: _number(path.name)) / "report.html"
    found = [p for p in known if p.name == comparison or _number(p.name) == _number(comparison)]
    if not found or not (comparison.isdigit() or comparison == found[0].name):
        names = ", ".join(path.name for path in known)
        raise InputError(f"There is no comparison {comparison}.", f"There are: {names}.")
    return found[0] / "report.html"


def _number(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else -1
