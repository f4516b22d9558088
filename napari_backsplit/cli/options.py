"""Command-line options made from a typed spec: limits, units and help are written once, there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from napari_backsplit.backend.errors import InputError

Spec = TypeVar("Spec", bound=BaseModel)
MORE = "Settings that need not be changed"


def with_spec(
    spec: type[BaseModel],
    skip: tuple[str, ...] = (),
    first: tuple[str, ...] = (),
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of a spec.

    The command takes the options that were given as one dict, its parameter `options`.

    Parameters
    ----------
    spec : type of BaseModel
        Its fields' descriptions become the help.
    skip : tuple of str
        Fields that get no option.
    first : tuple of str
        Fields that the help shows first, the others under a heading of their own; (): all.
    **defaults
        What the help shows as a field's default instead of the spec's own.
    """
    fields = {name: field for name, field in spec.model_fields.items() if name not in skip}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        kept = [p for p in own.parameters.values() if p.name != "options"]

        def wrapper(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in fields}
            options = {name: value for name, value in given.items() if value is not None}
            _require_one(options, getattr(spec, "either", ()))
            command(options=options, **arguments)

        added = [
            _parameter(name, field, defaults.get(name), "" if name in (first or fields) else MORE)
            for name, field in fields.items()
        ]
        parameters = [*kept, *added]
        wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        return wrapper

    return decorate


def _require_one(options: Mapping[str, Any], either: tuple[str, ...]) -> None:
    said = [f"--{name.replace('_', '-')}" for name in either if name in options]
    if len(said) > 1:
        raise InputError(f"{' and '.join(said)} exclude one another.", "Give one of them.")


def _parameter(name: str, field: FieldInfo, default: Any, panel: str) -> inspect.Parameter:
    shown = field.default if default is None else default
    text = (field.description or "").replace("`", "").rstrip(".") + "."
    if get_origin(field.annotation) is Literal:
        text += f" One of: {', '.join(map(str, get_args(field.annotation)))}."
    if shown is not None and shown != () and shown != {}:
        text += f" [default: {','.join(map(str, shown)) if isinstance(shown, tuple) else shown}]"
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=text,
        metavar=_metavar(field),
        rich_help_panel=panel or None,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _metavar(field: FieldInfo) -> str:
    kind = str(field.annotation)
    for word, metavar in (
        ("tuple", "A,B,..."),
        ("dict", "A=B,..."),
        ("Literal", "NAME"),
        ("float", "NUMBER"),
        ("int", "N"),
        ("bool", "true|false"),
    ):
        if word in kind:
            return metavar
    return "TEXT"


def make_spec(spec: type[Spec], options: Mapping[str, Any]) -> Spec:
    """Build a spec from the options' text.

    Raises
    ------
    InputError
        A value is not what its field takes; the sentence names the option and its limits.
    """
    values = {name: _parsed(spec.model_fields[name], value) for name, value in options.items()}
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        problem = first["msg"].removeprefix("Value error, ").rstrip(".")
        if not first["loc"]:  # fields that do not go together: a sentence of the spec's own
            see = "See: backsplit recipes" if "recipe" in problem else "See --help."
            raise InputError(f"{problem[0].upper()}{problem[1:]}.", see) from None
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(
            f"{option} {first.get('input')!r}: {problem[0].lower()}{problem[1:]}.",
            "See --help for what it takes.",
        ) from None


def _parsed(field: FieldInfo, value: Any) -> Any:
    kind = str(field.annotation)
    if not isinstance(value, str):
        return value
    if "tuple" in kind:
        return [part.strip() for part in value.split(",") if part.strip()]
    if "dict" in kind:
        return pairs(value.split(","))
    whole = "int" in kind or any(isinstance(one, int) for one in get_args(field.annotation))
    return int(value) if whole and value.lstrip("-").isdigit() else value


def pairs(given: list[str] | None) -> dict[str, str]:
    """Return NAME=VALUE texts as a mapping.

    Raises
    ------
    InputError
        A text has no =.
    """
    split = [text.partition("=") for text in given or [] if text]
    bare = [key for key, equals, _ in split if not equals]
    if bare:
        raise InputError(f"{bare[0]!r} has no =.", "Write NAME=VALUE.")
    return {key.strip(): value.strip() for key, _, value in split}
