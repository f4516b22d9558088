"""The lesion's mask from a prediction: which one, as one step that can be undone."""

from __future__ import annotations

from qtpy.QtWidgets import QInputDialog, QWidget

from napari_backsplit.backend.structures.adopting import predicted_mask, predictions_for
from napari_backsplit.widgets._desk import Desk


def adopt(parent: QWidget, desk: Desk) -> None:
    """Ask which prediction of the open case to take over, and take it over."""
    annotation = desk.annotation
    if annotation is None:
        desk.told.emit("No case is open: choose one from the list.")
        return
    found = predictions_for(annotation.project, annotation.case)
    if not found:
        desk.told.emit(f"There is no prediction of {annotation.case} yet: run backsplit predict.")
        return
    titles = [f"{title or job} ({job})" for job, title in found]
    title, chosen = QInputDialog.getItem(
        parent, "Lesion from a prediction", "Prediction", titles, 0, False
    )
    if chosen:
        take_over(desk, found[titles.index(title)][0])


def take_over(desk: Desk, job: str) -> None:
    """Put a prediction in place of the lesion's mask; it has to be accepted by a person."""
    annotation = desk.annotation
    if annotation is None:
        return
    target = annotation.project.schema.target_names[0]

    def work() -> None:
        mask, about = predicted_mask(annotation.project, annotation.case, job, target)
        annotation.replace(target, mask, about)

    desk.select(target)
    desk.scribe.do(work, lambda _: desk.told.emit(f"{target} is from {job}: look, and accept it."))
