from __future__ import annotations

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.cli import console
from napari_backsplit.cli.options import make_spec, with_spec


def test_text_becomes_a_typed_spec() -> None:
    spec = make_spec(RunSpec, {"supports": "kidney, liver", "fold": "all", "split_offset": "-5"})
    assert (spec.supports, spec.fold, spec.split_offset) == (("kidney", "liver"), "all", -5.0)
    assert make_spec(RunSpec, {"label_mapping": "tumour=cyst"}).label_mapping == {"tumour": "cyst"}
    assert make_spec(PlanSpec, {"patch_size": "32,32,16"}).patch_size == (32, 32, 16)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="--epochs 0"):
        make_spec(RunSpec, {"epochs": "0"})
    with pytest.raises(InputError, match="'tumour' has no ="):
        make_spec(RunSpec, {"label_mapping": "tumour"})


def test_an_error_keeps_the_brackets_of_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    console.complain("/data/[old]/scan[/b].nii does not exist.", "Check [it].")
    assert "/data/[old]/scan[/b].nii does not exist." in capsys.readouterr().err


def test_of_two_budgets_one_is_asked_for() -> None:
    def command(*, options: dict[str, object]) -> None:
        raise AssertionError("two budgets were taken")

    given = dict.fromkeys(RunSpec.model_fields) | {"epochs": "3", "hours": "2"}
    with pytest.raises(InputError, match="--epochs and --hours"):
        with_spec(RunSpec)(command)(**given)
