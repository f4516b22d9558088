"""The command that writes a prediction as DICOM SEG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, open_project
from napari_backsplit.cli.models import COMPARE


@app.command("export-seg", rich_help_panel=COMPARE)
def export_seg(
    case: Annotated[str, typer.Argument(help="Id of a case that came as a DICOM series.")],
    job: Annotated[str, typer.Argument(help="Number of a prediction job.")],
    destination: Annotated[Path, typer.Argument(help="New file, NAME.dcm.")],
    project: ProjectOption = Path(),
    series: Annotated[
        Path | None,
        typer.Option(help="Where the series is now, if it was moved since it was imported."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a predicted mask as DICOM SEG onto the series that its image came from.

    The file names the patient, as the series does; it says that it is for research use only.
    """
    from napari_backsplit.backend.prediction.dicom_seg import write_seg
    from napari_backsplit.cli.console import show
    from napari_backsplit.cli.jobs import find_job

    predicted = find_job(project, job, "predict").folder
    with open_project(project, read_only=True) as opened:
        written = write_seg(opened, case, predicted, destination, source=series)
    show({"seg": str(written)}, as_json, [f"Wrote {written}."])
