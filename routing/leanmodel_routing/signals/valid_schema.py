"""Whether the answer follows the JSON schema that its request asks for: one that does not is of no use to its reader.

Engines that are held to the schema while they write follow it, unless the answer is cut off; others may not. Schema and
answer both come from outside, and the router has a millisecond: so a check is given up after STEPS looks at a keyword,
nothing is ever fetched, and no pattern is tried, since one can be made that takes for ever. What is given up counts as not
followed, which is the careful side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable

from leanmodel_routing.observation import Observation
from leanmodel_routing.signals.base import Params
from leanmodel_routing.signals.shape import tells, unfenced

STEPS = 20_000
"""Looks at a keyword, or at a member of a list in one, until a check is given up."""
LONGEST = 65_536
"""Characters of a schema or an answer; of longer ones nothing is said."""
UNTRIED = ("pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef")
"""Keywords whose check has no bound that could be kept."""
_Check = Callable[[Any, Any, Any, Any], Any]
_left: ContextVar[list[int]] = ContextVar("left")


class _GivenUpError(Exception):
    """The check took too long, or would have."""


class ValidSchema:
    """One feature: 1 where the whole answer, its Markdown fence aside, follows the request's schema, else 0.

    No feature where all or none of the fit part's answers do, as with other shapes.
    """

    name = "valid-schema"
    needs = ("answer", "schema")

    def fit(self, observations: Sequence[Observation]) -> dict[str, JsonValue]:
        """`tells`: whether the fit part has enough answers of either kind."""
        asked = [item for item in observations if all(item.has(need) for need in self.needs)]
        return {"tells": tells([_follows(item) for item in asked])}

    def feature_names(self, params: Params) -> tuple[str, ...]:
        """Names of the features."""
        return ("valid_schema",) if params.get("tells") else ()

    def values(self, observation: Observation, params: Params) -> list[float]:
        """[1 if it follows the schema else 0], or nothing where that tells nothing."""
        return [float(_follows(observation))] if params.get("tells") else []


def _follows(observation: Observation) -> bool:
    return follows(observation.answer or "", observation.schema or {})


def follows(answer: str, schema: Mapping[str, Any]) -> bool:
    """Whether an answer is JSON that follows a schema; not where that cannot be told."""
    text = unfenced(answer.strip())
    try:
        written = json.dumps(schema, sort_keys=True)
        if len(text) > LONGEST or len(written) > LONGEST:
            return False
        found = json.loads(text, parse_constant=_refuse)
        validator = _compiled(written)
    except (ValueError, TypeError, RecursionError):
        return False
    if validator is None:
        return False
    token = _left.set([STEPS])
    try:
        return next(validator.iter_errors(found), None) is None
    except (_GivenUpError, Unresolvable, RecursionError, ArithmeticError):
        return False
    finally:
        _left.reset(token)


@lru_cache(maxsize=256)
def _compiled(written: str) -> Any:
    """The validator of a schema; None where it is no schema."""
    schema = json.loads(written)
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError):
        return None
    # A registry of its own: without one, references to other machines would be followed.
    return _COUNTING(schema, registry=Registry())


def _counted(check: _Check) -> _Check:
    def counting(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _spend(1 + (len(value) if isinstance(value, list | dict) else 0))
        yield from check(validator, value, instance, schema) or ()

    return counting


def _spend(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise _GivenUpError


def _untried(validator: Any, value: Any, instance: Any, schema: Any) -> NoReturn:
    raise _GivenUpError


def _unique(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """As the standard's, in one walk; 1 and 1.0 count as two."""
    if value and isinstance(instance, list):
        _spend(len(instance))
        if len({json.dumps(item, sort_keys=True) for item in instance}) < len(instance):
            yield ValidationError("not unique")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_COUNTING = extend(
    Draft202012Validator,
    {
        **{name: _counted(check) for name, check in Draft202012Validator.VALIDATORS.items()},
        **dict.fromkeys(UNTRIED, _untried),
        "uniqueItems": _unique,
    },
)
