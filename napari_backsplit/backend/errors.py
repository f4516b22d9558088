"""The errors a person may see: what is wrong, with the offending value, and what to do."""

from __future__ import annotations


class BackSplitError(Exception):
    """An error with a remedy.

    Parameters
    ----------
    problem : str
        One sentence that says what is wrong and names the offending value.
    remedy : str, optional
        One sentence that says what to do about it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}".strip()


class InputError(BackSplitError):
    """A file or a value that cannot be used."""


class GeometryError(InputError):
    """A grid that is wrong, missing, or not the one expected."""


class ProjectError(BackSplitError):
    """A project that cannot be opened, or a request that it cannot meet."""


class UntrustedModelError(BackSplitError):
    """A model folder that would run code, or is not what it says."""


class JobError(BackSplitError):
    """A job that cannot be started, followed or resumed."""
