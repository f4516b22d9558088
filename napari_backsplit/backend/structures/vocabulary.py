"""Names for structures: TotalSegmentator's, with their SNOMED CT codes and colours.

vocabulary.csv holds the 117 classes of TotalSegmentator's task "total", those of "total_mr" that
differ, and everyday names for both sides at once. Names, codes and colours are facts taken from
https://github.com/wasserth/TotalSegmentator (totalsegmentator_snomed_mapping.csv; Apache License
2.0, Copyright Jakob Wasserthal), changed so: lower-case names, two misspelt meanings corrected, a
pair has the code of its sides, and the classes of "total_mr" that have no entry there (both lungs,
vertebrae, intervertebral discs) were given one.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import sqrt

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project.schema import OKABE_ITO, Structure, coloured, neutral_name

FILE = "vocabulary.csv"
ALIKE = 60.0
"""Colours that are closer than this (see `_distance`) are not told apart in a picture."""

_LONGEST = 64


@dataclass(frozen=True)
class Term:
    """A name with its meaning.

    Attributes
    ----------
    name : str
        A structure's name, such as "kidney_left".
    code, meaning : str
        In SNOMED CT.
    laterality : {"left", "right", "both", ""}
        "both" is a pair under one name.
    colour : str
        As #rrggbb.
    """

    name: str
    code: str
    meaning: str
    laterality: str
    colour: str

    @property
    def words(self) -> tuple[str, ...]:
        """What it can be found by, in lower case."""
        return _words(f"{self.name} {self.meaning} {self.laterality}")


@cache
def vocabulary() -> tuple[Term, ...]:
    """Return all names, TotalSegmentator's order first, then the everyday ones."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(Term(**row) for row in csv.DictReader(text.splitlines()))


def find(text: str) -> tuple[Term, ...]:
    """Return the names that hold every word of a text, or part of a word, in any order.

    A name that is the text comes first, then those with its words whole. No text finds all.
    """
    asked = _words(text)
    found = [term for term in vocabulary() if all(_holds(term, word) for word in asked)]
    return tuple(sorted(found, key=lambda term: _rank(term, asked)))


def _holds(term: Term, word: str) -> bool:
    return any(word in known for known in term.words)


def _rank(term: Term, asked: tuple[str, ...]) -> tuple[bool, int]:
    parts = sum(word not in term.words for word in asked)
    return not asked or sorted(_words(term.name)) != sorted(asked), parts


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", _plain(text)))


def _plain(text: str) -> str:
    """Return a text in lower case, without accents."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in split if not unicodedata.combining(letter))


def neutral(text: str) -> str:
    """Turn free text into a structure's name: "Left psoas!" -> "left_psoas".

    Raises
    ------
    InputError
        Nothing of it is left, it is "background", or it is longer than 64 letters.
    """
    name = neutral_name(_plain(text)).strip("-_")
    if not name or name == "background":
        raise InputError(f"{text!r} is no name for a structure.", "Use letters a-z and digits.")
    if len(name) > _LONGEST:
        raise InputError(
            f"The name {name!r} has {len(name)} letters, more than {_LONGEST}.", "Shorten it."
        )
    return name


def structure_named(name: str, taken: Sequence[str] = ()) -> Structure:
    """Make a structure in its usual colour, or in another where one like it is taken.

    Parameters
    ----------
    name : str
        Of the vocabulary, or any other.
    taken : sequence of str
        Colours in use, as #rrggbb.

    Raises
    ------
    InputError
        The name has other characters than a-z 0-9 _ -, or more than 64.
    """
    usual = [term.colour for term in vocabulary() if term.name == name]
    structure = coloured([name], taken)[0]
    for colour in (*usual, *OKABE_ITO):
        if all(_distance(colour, other) >= ALIKE for other in taken):
            return structure.model_copy(update={"colour": colour})
    return structure


def _distance(one: str, other: str) -> float:
    """Return how unlike two colours are, 0 to 765 (the "redmean" of compuphase.com)."""
    first, second = (tuple(bytes.fromhex(colour[1:])) for colour in (one, other))
    red = (first[0] + second[0]) / 512
    squares = [(a - b) ** 2 for a, b in zip(first, second, strict=True)]
    return sqrt((2 + red) * squares[0] + 4 * squares[1] + (3 - red) * squares[2])
