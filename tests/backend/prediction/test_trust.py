from __future__ import annotations

import copy
import json
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.prediction import trust


@pytest.fixture
def plans(tiny: Any) -> dict[str, Any]:
    return copy.deepcopy(tiny.plans())


def _set(plans: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split("/")
    for parent in parents:
        plans = plans[parent]
    plans[last] = value


FULL = "configurations/3d_fullres"
PLANTED = [
    ("image_reader_writer", "traceback"),
    ("label_manager", "recursive_find_python_class"),
    ("experiment_planner_used", "shutil"),
    ("dataset_name", "../../etc"),
    ("plans_name", "a/b"),
    (f"{FULL}/preprocessor_name", "shutil"),
    (f"{FULL}/preprocessor_name", ["DefaultPreprocessor"]),
    (f"{FULL}/normalization_schemes", ["os"]),
    (f"{FULL}/normalization_schemes", 3),
    (f"{FULL}/resampling_fn_data", "sys"),
    (f"{FULL}/resampling_fn_seg", "OrderedDict"),
    (f"{FULL}/resampling_fn_probabilities", "pd"),
    (f"{FULL}/resampling_fn_data_kwargs", {"order": {"nested": "os.system"}}),
    (f"{FULL}/data_identifier", "../outside"),
    (f"{FULL}/next_stage", ["../outside"]),
    (f"{FULL}/UNet_class_name", "VGG"),
    (f"{FULL}/architecture", "os.system"),
    (f"{FULL}/architecture/network_class_name", "os.system"),
    (f"{FULL}/architecture/network_class_name", None),
    (f"{FULL}/architecture/network_class_name", "planted.PlainConvUNet"),
    (f"{FULL}/architecture/network_class_name", "torch.hub.load"),
    (f"{FULL}/architecture/arch_kwargs/conv_op", "os.system"),
    (f"{FULL}/architecture/arch_kwargs/nonlin", "planted"),
    (f"{FULL}/architecture/arch_kwargs/nonlin", ["torch.nn.ReLU"]),
    (f"{FULL}/architecture/_kw_requires_import", ["n_stages"]),
    (f"{FULL}/architecture/_kw_requires_import", ["missing"]),
    (f"{FULL}/architecture/_kw_requires_import", "conv_op"),
    ("configurations", ["3d_fullres"]),
]


def test_nnunets_own_plans_pass(plans: dict[str, Any]) -> None:
    trust.check_plans(plans)


@pytest.mark.parametrize(("path", "value"), PLANTED, ids=lambda value: str(value)[:40])
def test_a_planted_name_is_refused(plans: dict[str, Any], path: str, value: object) -> None:
    _set(plans, path, value)
    with pytest.raises(UntrustedModelError, match="names"):
        trust.check_plans(plans)


def test_every_configuration_is_checked(plans: dict[str, Any]) -> None:
    plans["configurations"]["other"] = {
        "inherits_from": "3d_fullres",
        "preprocessor_name": "os",
    }
    with pytest.raises(UntrustedModelError, match="'os' as its preprocessor name"):
        trust.check_plans(plans)


def test_a_new_kind_of_import_is_refused(plans: dict[str, Any]) -> None:
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"]["norm_op_kwargs"] = "subprocess.call"
    architecture["_kw_requires_import"].append("norm_op_kwargs")
    with pytest.raises(UntrustedModelError, match=re.escape("subprocess.call")):
        trust.check_plans(plans)


@pytest.mark.parametrize("name", ["planted.thing", "os"])
def test_a_name_left_out_of_the_imports_is_refused_too(plans: dict[str, Any], name: str) -> None:
    """nnUNetTrainerBN imports conv_op whether it is listed or not."""
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["arch_kwargs"]["conv_op"] = name
    architecture["_kw_requires_import"] = []
    with pytest.raises(UntrustedModelError, match=name):
        trust.check_plans(plans)
    architecture["arch_kwargs"] |= {"conv_op": "torch.nn.Conv3d", "pool": "conv"}
    trust.check_plans(plans)


@pytest.mark.parametrize(
    "changes",
    [
        {"overwrite_image_reader_writer": "traceback"},
        {"overwrite_image_reader_writer": ["SimpleITKIO"]},
        {"file_ending": "/../../x.nii"},
        {"labels": {"background": 0, "lesion": "1"}},
        {"labels": {"background": 0, "lesion": [1, "2"]}},
        {"labels": ["background"]},
        {"regions_class_order": ["1"]},
    ],
    ids=str,
)
def test_a_planted_dataset_is_refused(tiny: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(UntrustedModelError):
        trust.check_dataset(tiny.dataset({"lesion": 1}) | changes)


def test_nnunets_own_datasets_pass(tiny: Any) -> None:
    trust.check_dataset(tiny.dataset({"lesion": 1}, overwrite_image_reader_writer="NibabelIO"))
    trust.check_dataset(tiny.dataset({"whole": [1, 2], "core": 2}, regions_class_order=[1, 2]))


@pytest.mark.parametrize("name", ["os", "planted.Trainer", "nnUNetTrainer; import os", 3, None])
def test_a_planted_trainer_is_refused(name: object) -> None:
    with pytest.raises(UntrustedModelError):
        trust.check_trainer(name)


def test_stock_trainers_pass() -> None:
    for name in ("nnUNetTrainer", "nnUNetTrainer_250epochs", "nnInteractiveTrainer_stub"):
        trust.check_trainer(name)


@pytest.mark.parametrize("content", ["shutil", {"inference_class": "os.system"}, 3])
def test_a_planted_session_class_is_refused(tiny: Any, tmp_path: Path, content: object) -> None:
    tiny.write_json_files(tmp_path, tiny.plans(), tiny.dataset({"target": 1}))
    (tmp_path / "inference_session_class.json").write_text(json.dumps(content))
    with pytest.raises(UntrustedModelError, match="inference session"):
        trust.check_folder(tmp_path)


def test_a_folder_without_plans_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no plans\.json"):
        trust.check_folder(tmp_path)


def test_a_planted_module_does_not_run(
    tiny: Any, plans: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydoc.locate would import it; the folder is refused before."""
    mark = tmp_path / "ran"
    (tmp_path / "planted_module.py").write_text(f"open({str(mark)!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "planted_module.Net"
    _set(plans, f"{FULL}/architecture/network_class_name", name)
    tiny.write_json_files(tmp_path / "m", plans, tiny.dataset({"lesion": 1}))
    with pytest.raises(UntrustedModelError, match=name):
        trust.check_folder(tmp_path / "m")
    assert not mark.exists()
    assert pydoc.locate(name) is not None
    assert mark.exists(), "the planted module is harmless, so the test proves nothing"


def test_every_allowed_name_exists_or_is_an_alternative_spelling() -> None:
    """The list names nothing that another package could later take over."""
    import torch

    roots = {name.split(".")[0] for name in trust.OPERATORS | trust.NETWORKS}
    assert roots == {"torch", "dynamic_network_architectures"}
    for name in trust.OPERATORS:
        if name.startswith("torch.nn.") and name.count(".") == 2:
            assert issubclass(getattr(torch.nn, name.split(".")[-1]), torch.nn.Module)
