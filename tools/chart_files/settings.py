"""The operator's settings as values of the chart: which the chart knows itself, and which are values under `settings`.

Names, defaults and words come from :class:`leanmodel_operator.cluster.settings.Settings`, and from nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from leanmodel_operator.cluster.settings import Settings

Field = dataclasses.Field[Any]

BEGIN = "# settings: begin (written by `make charts` from the operator's own settings)"
END = "# settings: end"

KNOWN_TO_THE_CHART = frozenset(
    {
        "namespaces", "identity", "lease_namespace", "lease_name", "leader_election", "http_port",
        "compressor_image", "prover_image", "server_image", "image_pull_policy",
        "job_pull_secrets", "serving_pull_secrets", "job_priority_class", "serving_priority_class",
    }
)  # fmt: skip
"""Settings that other values say: templates/_environment.tpl puts them together."""

CHOICES = {
    "log_level": ["DEBUG", "INFO", "WARNING", "ERROR"],
    "store_access": ["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"],
}
"""Settings of which there are few: a wrong one should be refused before it reaches a pod."""

MAY_BE_NOTHING = {"job_retries", "keep_results"}
QUANTITIES = {"head_cpu", "head_memory", "autoscaler_cpu", "autoscaler_memory", "store_size"}
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


def fields() -> list[Field]:
    """Return the settings that are values under ``settings``, in their order."""
    return [item for item in dataclasses.fields(Settings) if item.name not in KNOWN_TO_THE_CHART]


def key(name: str) -> str:
    """Return the name of a setting as a value: ``head_cpu`` is ``headCpu``."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def block() -> str:
    """Return the part of values.yaml with the settings, markers included."""
    lines = [BEGIN, "# Settings of the operator.", "settings:"]
    for item in fields():
        words = item.metadata["help"]
        lines.append(f"  # {words[0].upper()}{words[1:]}.")
        lines.append(f"  {key(item.name)}: {json.dumps(_plain(item.default))}")
    return "\n".join([*lines, END])


def with_block(values: str) -> str:
    """Return the text of values.yaml with the block as it has to be.

    Raises:
        ValueError: the markers are gone.
    """
    pattern = re.compile(rf"^{re.escape(BEGIN)}$.*?^{re.escape(END)}$", re.MULTILINE | re.DOTALL)
    if len(pattern.findall(values)) != 1:
        raise ValueError(f"values.yaml: found no part between {BEGIN!r} and {END!r}; put both lines back")
    return pattern.sub(lambda _: block(), values)


def schema() -> dict[str, Any]:
    """Return the JSON schema of ``settings``."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {key(item.name): _schema(item) for item in fields()},
    }


def _schema(item: Field) -> dict[str, Any]:
    default = item.default
    if isinstance(default, bool):
        return {"type": "boolean"}
    if isinstance(default, int):
        return {"type": "integer", "minimum": 0 if item.name in MAY_BE_NOTHING else 1}
    if isinstance(default, float):
        return {"type": "number", "exclusiveMinimum": 0}
    if item.name in CHOICES:
        return {"type": "string", "enum": CHOICES[item.name]}
    if item.name in QUANTITIES:
        return {"type": "string", "pattern": QUANTITY}
    return {"type": "string"}


def _plain(default: Any) -> Any:
    """Return a default as people write it: 15, not 15.0."""
    return int(default) if isinstance(default, float) and default.is_integer() else default
