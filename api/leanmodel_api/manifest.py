"""From text to a checked LeanModel: schema first, then cross-field rules, then what is not built yet."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import Issue, ManifestError
from .resource import LeanModel
from .rules import cross_field_issues
from .steps import STEP_TYPES
from .unsupported import Place, unsupported_issues


def load(document: object, place: Place = "Machine") -> LeanModel:
    """Return the LeanModel that a parsed YAML or JSON document describes.

    Args:
        document: the object as parsed; anything but a mapping is an error.
        place: where it is to be carried out; some things can be done in one place only.

    Raises:
        ManifestError: with one issue per fault, each naming field, finding and remedy.
    """
    if not isinstance(document, dict):
        raise ManifestError(
            Issue(
                "(document)",
                f"found {_kind(document)}",
                "write one LeanModel object with apiVersion, kind, metadata and spec",
            )
        )
    try:
        model = LeanModel.model_validate(document)
    except ValidationError as error:
        raise ManifestError([_issue(detail) for detail in error.errors()]) from None
    issues = [*cross_field_issues(model), *unsupported_issues(model, place)]
    if issues:
        raise ManifestError(issues)
    return model


def _path(location: Sequence[int | str]) -> str:
    """Return a pydantic location as a manifest path; names of union members are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (part[:1].isupper() and text.endswith("]")):
            text += ("." if text else "") + part
    return text or "(document)"


def _issue(detail: ErrorDetails) -> Issue:
    """Translate one pydantic error into our form."""
    path, kind, context = _path(detail["loc"]), detail["type"], detail.get("ctx", {})
    value = detail["input"]
    if kind == "extra_forbidden":
        return Issue(path, "is not a field of the resource", _nearest(detail["loc"]))
    if kind == "missing":
        return Issue(path, "is missing", "write it; `kubectl explain` or docs/resource.md says what it means")
    if kind == "literal_error":
        return Issue(path, f"found {value!r}", f"write one of {context.get('expected', '')}")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        wanted = context.get("expected_tags", ", ".join(map(repr, STEP_TYPES)))
        found = f"found type {context['tag']!r}" if "tag" in context else "has no type"
        return Issue(f"{path}.type", found, f"write one of {wanted} (others are not supported yet)")
    if kind == "string_pattern_mismatch":
        return Issue(
            path, f"found {value!r}", f"write a string such as {_example(str(context.get('pattern', '')))}"
        )
    if kind == "string_type":
        return Issue(
            path,
            f"found {_kind(value)} {value!r}",
            f'write it as a string: "{value}"' if isinstance(value, int | float) else "write a string",
        )
    if kind in ("int_type", "int_parsing", "int_from_float", "bool_parsing", "bool_type"):
        return Issue(
            path,
            f"found {_kind(value)} {value!r}",
            "write true or false" if "bool" in kind else "write a whole number",
        )
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return Issue(
            path, f"found {_kind(value)}", "write an object with the fields that docs/resource.md lists"
        )
    if kind == "list_type":
        return Issue(path, f"found {_kind(value)}", "write a list")
    return Issue(path, f"found {value!r}"[:200], detail["msg"])


_EXAMPLES = (("(ms|s)", '"20ms" or "1.5s"'), ("(m|k|M|G", '"500m", "2" or "4Gi"'), ("0-9]+h", '"30s", "10m" or "1h30m"'), ("1(", '"0.95" (from 0 to 1)'),
             ("sha256", '"sha256:" and 64 hex digits'), ("[eE]", '"0.0001" or "1e-4"'), ("a-z0-9", "'spam-filter' (lower case, digits, dashes)"))  # fmt: skip


def _example(pattern: str) -> str:
    return next((example for mark, example in _EXAMPLES if mark in pattern), f"that matches {pattern}")


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        int: "a number",
        float: "a number",
        bool: "a boolean",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)


def _nearest(location: Sequence[int | str]) -> str:
    """Suggest the closest field name beside an unknown one."""
    names = field_names(location[:-1])
    wrong = str(location[-1])
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}? Fields here: {', '.join(names)}"
    return f"remove it; fields here: {', '.join(names)}" if names else "remove it"


def field_names(location: Sequence[int | str]) -> list[str]:
    """Return the wire names of the fields at a location of the resource, in order."""
    models: list[type[BaseModel]] = [LeanModel]
    for part in location:
        if isinstance(part, int):
            continue
        inner = [
            m
            for model in models
            for name, f in model.model_fields.items()
            if part in (f.alias, name)
            for m in _models_in(f.annotation)
        ]
        models = inner or [m for m in models if m.__name__ == part] or models
    return [info.alias or name for model in models for name, info in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation such as ``Annotated[list[A | B], …] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        arguments = arguments[:1]
    if origin is None and not isinstance(annotation, types.UnionType):
        return []
    return [model for argument in arguments for model in _models_in(argument)]
