"""Which package loads what, and what napari sees of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import npe2
import pytest

import napari_backsplit
from napari_backsplit.backend import WORKER_ONLY

SCREEN = ("qtpy", "PySide6", "PyQt5", "PyQt6", "superqt", "magicgui", "pyqtgraph", "napari")
HEAVY = ("torch", "nnunetv2", "nnInteractive", "monai", "batchgenerators", "batchgeneratorsv2")
ROOT = Path(napari_backsplit.__file__).parent

# Imports each module with some packages out of reach; prints which module asked for which.
PROBE = """
import importlib, json, sys

class Fence:
    forbidden, modules = json.loads(sys.argv[1])
    present, asked = "", {}

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package in self.forbidden:
            self.asked.setdefault(self.present, []).append(package)
            raise ImportError(f"{self.present} imports {name}")

fence = Fence()
sys.meta_path.insert(0, fence)
for fence.present in fence.modules:
    try:
        importlib.import_module(fence.present)
    except ImportError:
        if fence.present not in fence.asked:
            raise
print(json.dumps(fence.asked))
"""


def modules_of(folder: str) -> list[str]:
    """Return the modules of a folder of the package, in order."""
    files = sorted((ROOT / folder).rglob("*.py"))
    names = (".".join(f.relative_to(ROOT.parent).with_suffix("").parts) for f in files)
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def asked_for(modules: list[str], forbidden: tuple[str, ...]) -> dict[str, list[str]]:
    """Return which of some modules ask for forbidden packages when they are imported."""
    values = json.dumps([forbidden, modules])
    done = subprocess.run([sys.executable, "-c", PROBE, values], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_only_the_worker_only_modules_load_torch_or_nnunet_and_none_loads_qt() -> None:
    modules = modules_of("backend")
    assert set(WORKER_ONLY) <= set(modules)
    asked = asked_for(modules, SCREEN + HEAVY)
    assert {name: packages for name, packages in asked.items() if name not in WORKER_ONLY} == {}
    assert {p for packages in asked.values() for p in packages} <= set(HEAVY)
    assert set(WORKER_ONLY) - set(asked) == set(), "listed, but they need no heavy package"


def test_the_command_loads_only_what_its_options_need() -> None:
    light = ("numpy", "scipy", "SimpleITK", "pydicom", "matplotlib", "jinja2", "psutil", "psygnal")
    forbidden = (*SCREEN, *HEAVY, *light, "filelock")
    modules = [name for name in modules_of("cli") if not name.endswith(".console")]
    assert asked_for(modules, forbidden) == {}
    code = "import sys, napari_backsplit.cli; print('rich.progress' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_plugin_loads_no_heavy_package() -> None:
    assert asked_for(modules_of("widgets"), HEAVY) == {}


def test_napari_finds_the_plugin() -> None:
    engine = npe2.PluginManager()
    engine.discover()
    manifest = engine.get_manifest("napari-backsplit")
    assert manifest.display_name == "BackSplit"
    assert manifest.package_version == napari_backsplit.__version__


def test_the_manifest_is_valid() -> None:
    manifest = npe2.PluginManifest.from_file(ROOT / "napari.yaml")
    assert manifest.name == "napari-backsplit"
    for name in _python_names(json.loads(manifest.model_dump_json())):
        module, _, attribute = name.partition(":")
        assert module in modules_of(""), name
        assert f"def {attribute}(" in _source(module) or f"class {attribute}" in _source(module)


def _python_names(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["python_name"]] if value.get("python_name") else []
        return here + [name for item in value.values() for name in _python_names(item)]
    return [n for item in value for n in _python_names(item)] if isinstance(value, list) else []


def _source(module: str) -> str:
    path = ROOT.parent / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.read_text()


def test_one_version() -> None:
    assert version("napari-backsplit") == napari_backsplit.__version__


@pytest.mark.parametrize("module", ["napari_backsplit", "napari_backsplit.backend"])
def test_a_bare_import_loads_next_to_nothing(module: str) -> None:
    code = f"import sys; old = set(sys.modules); import {module}; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {"napari_backsplit", *sys.stdlib_module_names}
