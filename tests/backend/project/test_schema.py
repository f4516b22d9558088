from __future__ import annotations

import subprocess
import sys

import pytest

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.project import OKABE_ITO, Channel, Provenance, Schema, Structure
from napari_backsplit.backend.project import schema as room
from napari_backsplit.backend.project.schema import coloured, migrate, neutral_name, parse


def _schema(**values: object) -> Schema:
    structures = coloured(["lesion", "liver"])
    base = {"name": "p", "channels": [Channel(name="CT")], "targets": structures[:1]}
    return Schema(**{**base, "supports": structures[1:], **values})


def test_a_channels_modality_is_its_name_unless_it_is_given():
    assert Channel(name="CT").modality == "CT"
    assert Channel(name="venous", modality="CT").modality == "CT"


def test_structures_get_the_colours_of_okabe_and_ito_in_order():
    assert [s.colour for s in coloured(["a", "b", "c"])] == list(OKABE_ITO[:3])


def test_a_colour_that_is_taken_is_used_only_when_none_is_free():
    first = Structure(name="a", colour=OKABE_ITO[1])
    assert [s.colour for s in coloured([first, "b", "c"])] == [
        OKABE_ITO[1],
        OKABE_ITO[0],
        OKABE_ITO[2],
    ]
    many = coloured([f"s{number}" for number in range(10)])
    assert [s.colour for s in many[8:]] == list(OKABE_ITO[:2])


@pytest.mark.parametrize("name", ["Liver", "left kidney", "", "a/b", "tumör"])
def test_a_structures_name_is_plain(name):
    with pytest.raises(InputError, match="structure"):
        coloured([name])


def test_a_name_is_used_once_over_targets_and_supports():
    with pytest.raises(ValueError, match="lesion is there twice"):
        _schema(supports=coloured(["lesion"]))


def test_the_schema_survives_the_way_to_json_and_back():
    schema = _schema(seed=3, folds={"patient_001": 2})
    assert parse(schema.model_dump(mode="json")) == (schema, 2)


def test_a_newer_format_is_refused_with_both_versions():
    with pytest.raises(ProjectError, match=r"format 99.*up to 2.*Update"):
        migrate({"format_version": 99})


@pytest.mark.parametrize("data", [[], {}, {"format_version": "1"}])
def test_something_else_is_refused(data):
    with pytest.raises(ProjectError, match="no format version"):
        migrate(data)


def test_an_older_format_goes_through_every_migration(monkeypatch):
    steps = {
        -1: lambda data: {**data, "a": 1},
        0: lambda data: {**data, "b": data["a"] + 1},
        1: dict,
    }
    monkeypatch.setattr(room, "MIGRATIONS", {**room.MIGRATIONS, **steps})
    assert migrate({"format_version": -1}) == ({"format_version": 2, "a": 1, "b": 2}, -1)


def test_a_format_without_a_migration_is_refused():
    with pytest.raises(ProjectError, match="No migration leads from format 0"):
        migrate({"format_version": 0})


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(ProjectError, match="colours"):
        parse({**_schema().model_dump(mode="json"), "colours": []})


@pytest.mark.parametrize("text", ["/home/x", "C:\\scans\\x", "~/x", "\\\\host\\share"])
def test_a_provenance_never_holds_a_path(text):
    with pytest.raises(ValueError, match="path"):
        Provenance(prompts=[{"file": text}])


def test_a_provenance_keeps_further_keys():
    assert Provenance(version="2.1").model_dump()["version"] == "2.1"


@pytest.mark.parametrize(
    ("text", "name"), [("Left Kidney", "left_kidney"), (" L1/L2 ", "l1_l2"), ("aorta", "aorta")]
)
def test_neutral_name(text, name):
    assert neutral_name(text) == name


def test_importing_the_package_loads_no_room_of_it():
    code = "import sys, napari_backsplit.backend.project as p; print('pydantic' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
