"""How supports are made of the masks on disk, which stay as they are.

A project has sources, each with a mask of its own, and recipes, applied in order: several sources
become one support, a structure is taken away from one, one grows over its lesions. Taking a recipe
away gives back what was there before. What the recipes do to voxels is in `fusion.recipes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from napari_backsplit.backend.project.values import NAME, Structure, Value

Known = Literal["whole", "part", "none"]
"""How much is known of a support in a case."""

BACKGROUND = "background"
"""The name of the label map's id 0; no support has it."""


class Recipe(Value):
    """One step from sources to supports.

    Attributes
    ----------
    kind
        "merge": `support` is the union of the sources, which are no supports of their own any
        more; of one source it is a renaming. "subtract": the sources' voxels are taken away from
        `support`. "grow": `support` takes the lesions that lie in it, and the gap around them.
    support
        What is made or changed.
    sources
        Supports at that step; of "subtract" targets too; none of "grow".
    colour
        Of a merged support; "": its first source's.
    who, when
        Who wrote the recipe, and when.
    """

    kind: Literal["merge", "subtract", "grow"]
    support: str = Field(pattern=NAME, max_length=64)
    sources: tuple[str, ...] = ()
    colour: str = Field(default="", pattern=r"^(#[0-9a-f]{6})?$")
    who: str = ""
    when: str = ""

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.kind == "grow") == bool(self.sources):
            raise ValueError(f"{self.kind} with {len(self.sources)} sources")
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"{self.words} names a structure twice")
        return self

    @property
    def words(self) -> str:
        """The recipe in words."""
        named = " + ".join(self.sources)
        match self.kind:
            case "merge":
                return f"{self.support} = {named}"
            case "subtract":
                return f"{self.support} without {named}"
        return f"{self.support} grown over its lesions"

    def applied(
        self, supports: Sequence[Structure], targets: Sequence[str]
    ) -> tuple[Structure, ...]:
        """Return the supports after this step.

        Raises
        ------
        ValueError
            It names what is not there, or makes what is.
        """
        names = [support.name for support in supports]
        if self.kind == "merge":
            return self._merged(supports, targets)
        others = {*names, *targets} - {self.support}
        self._refuse([self.support], names)
        self._refuse(self.sources, others)
        return tuple(supports)

    def _merged(
        self, supports: Sequence[Structure], targets: Sequence[str]
    ) -> tuple[Structure, ...]:
        names = [support.name for support in supports]
        self._refuse(self.sources, names)
        if self.support in {*names, *targets, BACKGROUND} - set(self.sources):
            raise ValueError(f"{self.words}: there is a {self.support} already")
        first = next(support for support in supports if support.name in self.sources)
        made = Structure(name=self.support, colour=self.colour or first.colour)
        return tuple(
            made if support is first else support
            for support in supports
            if support is first or support.name not in self.sources
        )

    def _refuse(self, names: Iterable[str], known: Iterable[str]) -> None:
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(f"{self.words}: there is no support {', '.join(unknown)} to take")


def fused_supports(
    supports: Sequence[Structure], targets: Sequence[str], recipes: Iterable[Recipe]
) -> tuple[Structure, ...]:
    """Return the supports that the recipes make, in order of priority.

    A merged support stands where the first of its sources stood.

    Raises
    ------
    ValueError
        A recipe names what is not there at its step.
    """
    result, masks = tuple(supports), {support.name for support in supports}
    for recipe in recipes:
        if recipe.kind == "merge" and recipe.support in masks - set(recipe.sources):
            raise ValueError(
                f"{recipe.words}: there is a {recipe.support} already, or was before a recipe"
            )
        result = recipe.applied(result, targets)
    return result


def owners(sources: Iterable[str], recipes: Iterable[Recipe]) -> dict[str, str]:
    """Return which support each source has become a part of; itself where it was not merged."""
    result = {source: source for source in sources}
    for recipe in recipes:
        if recipe.kind == "merge":
            result = {s: recipe.support if o in recipe.sources else o for s, o in result.items()}
    return result


def sources_of(name: str, recipes: Sequence[Recipe]) -> tuple[str, ...]:
    """Return every source that a support is made of or depends on; itself without a recipe."""
    for number in reversed(range(len(recipes))):
        recipe = recipes[number]
        if recipe.support == name and recipe.kind != "grow":
            own = () if recipe.kind == "merge" else (name,)
            found = [s for n in (*own, *recipe.sources) for s in sources_of(n, recipes[:number])]
            return tuple(dict.fromkeys(found))
    return (name,)


def known_supports(known: Mapping[str, Known], recipes: Iterable[Recipe]) -> dict[str, Known]:
    """Return how much is known of each support, from how much is of each source and target.

    Of a union with a source that is not known, a part is. What an unknown structure might have to
    be taken away from is not known at all.
    """
    result = dict(known)
    for recipe in recipes:
        parts: set[Known] = {result.get(source, "none") for source in recipe.sources}
        if recipe.kind == "merge":
            for source in recipe.sources:
                result.pop(source, None)
            result[recipe.support] = parts.pop() if len(parts) == 1 else "part"
        elif recipe.kind == "subtract" and parts - {"whole"}:
            result[recipe.support] = "none"
    return result
