"""The `backsplit` command: one sub-command per step. Heavy modules load only when a step runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from napari_backsplit import __version__
from napari_backsplit.backend.errors import BackSplitError

GUIDE = """
Make a lesion model better by sub-dividing its background (BackSplit).

You need images, a reference mask of the lesion (the *target*) in each, and masks of a few organs
around it (the *supports*). A project keeps them together:

    backsplit init my-project --channel CT --target lesion --support kidney
    cd my-project
    backsplit import images ../images --pattern "{case}.nii.gz"
    backsplit import masks lesion ../lesions
    backsplit import masks kidney ../kidneys
    backsplit reserve --fraction 0.25
    backsplit check

Then train, and see whether it helped:

    backsplit plan
    backsplit train --arm binary
    backsplit finetune --from 2
    backsplit predict 2; backsplit predict 3; backsplit predict 4
    backsplit compare binary=5 finetune=6 longer=7 --control longer

Try it all on synthetic cases in a quarter of an hour: backsplit demo. Long work runs as a job that
goes on when this window closes. Research use only: not a medical device.
"""

app = typer.Typer(
    name="backsplit",
    help=GUIDE,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"napari-backsplit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; an error is one sentence, its remedy, and exit code 1."""
    try:
        app()
    except BackSplitError as error:
        from napari_backsplit.cli.console import complain

        complain(error.problem, error.remedy)
        sys.exit(1)
    except OSError as error:
        from napari_backsplit.cli.console import complain

        if not error.filename:
            raise
        complain(
            f"{error.filename}: {error.strerror or type(error).__name__}.",
            "Check the rights on the folder and the space on the disk.",
        )
        sys.exit(1)


from napari_backsplit.cli import (  # noqa: E402  they add commands
    advise,  # noqa: F401
    cluster,  # noqa: F401
    comparing,  # noqa: F401
    data,  # noqa: F401
    demo,  # noqa: F401
    evaluating,  # noqa: F401
    experiment,  # noqa: F401
    improve,  # noqa: F401
    jobs,  # noqa: F401
    models,  # noqa: F401
    predicting,  # noqa: F401
    preflight,  # noqa: F401
    recipes,  # noqa: F401
    repeating,  # noqa: F401
    report,  # noqa: F401
    review,  # noqa: F401
    seg,  # noqa: F401
    structures,  # noqa: F401
)
