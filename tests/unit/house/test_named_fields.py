"""A field that a message names is a field of the resource: whoever follows the message must find it."""

import ast
import re

import yaml
from house import PACKAGES, ROOT

PATH = re.compile(r"\bspec((?:\.[a-z][A-Za-z]*(?:\[[^\]]*\])?)+)")
FREE = {"podTemplate"}


def named_fields():
    """Yield (file, path) of each spec.… that a string of ours names; docstrings are left out."""
    for package in PACKAGES.values():
        for file in sorted(package.rglob("*.py")):
            tree = ast.parse(file.read_text())
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                    for found in PATH.finditer(node.value):
                        yield file.relative_to(ROOT), found[1]


def known(path, schema):
    for word in path.strip(".").split("."):
        name = word.partition("[")[0]
        if "properties" not in schema or name in FREE:
            return True
        if name not in schema["properties"]:
            return False
        schema = schema["properties"][name]
        schema = schema.get("items", schema)
    return True


def test_every_field_that_is_named_exists():
    document = yaml.safe_load((ROOT / "crds" / "leanmodel.yaml").read_text())
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    found = list(named_fields())
    assert len(found) > 40
    assert [f"{file}: spec{path}" for file, path in found if not known(path, schema)] == []
