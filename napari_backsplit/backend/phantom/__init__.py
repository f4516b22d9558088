"""The sample data: synthetic abdominal CT with organs, lesions and look-alikes.

Nothing here comes from a person. The lesions are renal cysts; cysts of the liver and spleen,
the gallbladder and fluid-filled bowel have the same intensity and are no lesions, so a model has
to know where it is. Renal sinus fat is left out: its blurred edge looks like water, and leaving it
out favours a model that learns the organs.

Axes are z, y, x, pointing toward superior, posterior and left. Anatomy is placed in fractions of
the half field of view: (0, 0, 0) is the centre, (1, 1, 1) the superior posterior left corner.
"""

from __future__ import annotations

from napari_backsplit.backend.phantom.drawing import draw
from napari_backsplit.backend.phantom.sample import (
    SUPPORTS,
    SampleCase,
    sample_cases,
    sample_project,
    write_sample,
)
from napari_backsplit.backend.phantom.spec import (
    LESION,
    NOTE,
    STRUCTURES,
    Cyst,
    Phantom,
    PhantomSpec,
)

__all__ = [
    "LESION",
    "NOTE",
    "STRUCTURES",
    "SUPPORTS",
    "Cyst",
    "Phantom",
    "PhantomSpec",
    "SampleCase",
    "draw",
    "sample_cases",
    "sample_project",
    "write_sample",
]
