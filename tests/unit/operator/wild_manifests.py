"""Manifests as nobody would write them: the quickstart's with parts replaced, removed and put in, at any depth."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from cluster_world import QUICKSTART
from hypothesis import strategies as st

WORDS = st.sampled_from(
    [
        "", "x", "0", "-1", "1e400", "NaN", "None", "9" * 40, "1Gi", "0.99", "10m", "file:", "file:/etc/passwd",
        "file:../x", "file:data/sms.tsv", "hf://", "hf://a/b", "s3://b/k", "pvc://", "pvc://claim/folder", "pypi:x==1",
        "https://h/p", "configmap/", "configmap/x", "pvc/x/../y", "{", "{msg}", "{0}", "{a.b}", "\x00", "é" * 300,
        "Prune", "Quantize", "Cascade", "Fixed", "W8A8", "LeanQualityRetained", "BalancedAccuracy", "text-generation",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), WORDS, st.text(max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(WORDS, st.text(max_size=8)), inner, max_size=4),
    ),
    max_leaves=8,
)
PATCHES = st.sampled_from(
    [
        ("serving", "overrides", "podTemplate"), ("serving", "overrides"), ("serving", "large", "resources"),
        ("serving", "lean"), ("store",), ("lean", "source"), ("lean", "steps"), ("large", "finetune"), ("dataSets",),
        ("evaluation",), ("evaluation", "gates"), ("routing",), ("routing", "promise"), ("routing", "monitoring"), ("routing", "budget"),
        ("serving", "router"), ("serving", "router", "limits"), ("pricing",), ("jobs",),
        ("rollout",), ("suspend",), ("seed",), ("task",), ("large", "source", "uri"),
    ]
)  # fmt: skip


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """A manifest with up to four changes; its metadata is what an API server lets through."""
    body: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    for _ in range(draw(st.integers(1, 4))):
        change = draw(st.sampled_from(["replace", "remove", "put", "field"]))
        if change == "field":
            _set(body["spec"], draw(PATCHES), draw(VALUES))
            continue
        places = _places(body["spec"])
        if not places:
            break
        where, key = draw(st.sampled_from(places))
        if change == "remove":
            del where[key]
        elif change == "replace":
            where[key] = draw(VALUES)
        elif isinstance(where, dict):
            where[draw(st.one_of(WORDS, st.text(max_size=8)))] = draw(VALUES)
        else:
            where.append(draw(VALUES))
    body["metadata"]["annotations"] = draw(
        st.dictionaries(
            st.sampled_from(
                ["leanmodel.io/inputs", "leanmodel.io/retry", "leanmodel.io/renew-template", "other"]
            ),
            st.one_of(WORDS, st.text(max_size=20)),
            max_size=3,
        )
    )
    return body


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container below a value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


def _set(spec: Any, path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(spec, dict):
            return
        inner = spec.get(part)
        spec[part] = inner if isinstance(inner, dict) else {}
        spec = spec[part]
    if isinstance(spec, dict):
        spec[path[-1]] = copy.deepcopy(value)
