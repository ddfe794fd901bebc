"""The lock files: every line pinned and hashed, no host named, and both environments able to share."""

import re
import tomllib
from importlib import metadata

import pytest
from house import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
EXTRAS = {
    "serving.lock": ("serving", "evaluation", "operator"),
    "compression.lock": ("compression",),
    "image-operator.lock": ("operator",),
    "image-server.lock": ("serving", "evaluation"),
    "image-compressor.lock": ("compression",),
}
IMAGES = {
    "image-operator.lock": "serving.lock",
    "image-server.lock": "serving.lock",
    "image-compressor.lock": "compression.lock",
}
"""What is in an image, and the environment that its versions were tested in."""
CHECKS = {"pytest", "hypothesis", "mypy", "ruff", "import-linter"}


def pins(text: str) -> dict[str, tuple[str, int]]:
    """Each pinned package: its version and how many hashes it has. Anything else in the file is an error."""
    found: dict[str, tuple[str, int]] = {}
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+?)((?:\s+--hash=sha256:[0-9a-f]{64})*)\s*", entry)
        assert match, f"neither a pin nor a comment: {entry[:120]!r}"
        found[canonicalize_name(match[1])] = (match[2], match[3].count("--hash="))
    return found


def test_all_lock_files_are_there():
    others = ["build.lock", "clients.lock", "gateway.lock", "image-torch.lock", "installer.lock"]
    assert [path.name for path in LOCKS] == sorted([*EXTRAS, *others])


@pytest.mark.parametrize("image", sorted(IMAGES))
def test_an_image_holds_what_was_tested_and_no_checks(image):
    inside, tested = (pins((ROOT / "requirements" / name).read_text()) for name in (image, IMAGES[image]))
    assert {name: pin for name, pin in inside.items() if tested.get(name) != pin} == {}
    assert not CHECKS & set(inside)


@pytest.mark.parametrize("image", ["image-operator.lock", "image-server.lock"])
def test_an_image_holds_what_its_packages_need(image):
    """By the metadata of those that are installed here; an image may have the oldest Python 3.11 there is."""
    inside = pins((ROOT / "requirements" / image).read_text())
    oldest = {**default_environment(), "python_version": "3.11", "python_full_version": "3.11.0", "extra": ""}
    overridden = (ROOT / "requirements" / "overrides.txt").read_text().splitlines()
    left_out = {Requirement(line).name for line in overridden if line and not line.startswith("#")}
    missing = set()
    for name in inside:
        try:
            needs = [Requirement(text) for text in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        wanted = {canonicalize_name(n.name) for n in needs if n.marker is None or n.marker.evaluate(oldest)}
        missing |= {f"{name} needs {other}" for other in wanted - set(inside) - left_out}
    assert missing == set(), "run `make lock`"


def test_the_shared_layer_is_the_same_in_both_images():
    """Setuptools aside, whose versions differ: the second install replaces its few files."""
    shared, *both = (
        pins((ROOT / "requirements" / f"image-{name}.lock").read_text())
        for name in ("torch", "server", "compressor")
    )
    shared.pop("setuptools")
    assert [{name: pin for name, pin in shared.items() if image.get(name) != pin} for image in both] == [
        {},
        {},
    ]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_a_hash(path):
    found = pins(path.read_text())
    assert found
    assert [name for name, (_, hashes) in found.items() if hashes == 0] == []


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").iterdir()), ids=lambda path: path.name)
def test_no_url_host_or_path_of_a_machine(path):
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"(?:--(?:extra-)?index-url|--find-links|--trusted-host|file:|git\+|\s@\s)", text)
    # Package names have no dots before their pin, hosts always do.
    assert not re.search(r"\b[a-z0-9-]+\.(?:org|com|io|net|dev)\b", text)
    assert not re.search(r"(?<![\w.])/(?:root|home|work|tmp|usr|opt)/", text)


def test_the_parser_sees_what_is_wrong():
    assert pins("numpy==2.0\n") == {"numpy": ("2.0", 0)}
    for line in ("numpy>=2.0 --hash=sha256:" + "0" * 64, "--index-url=x", "-e .", "numpy @ file:x"):
        with pytest.raises(AssertionError, match="neither a pin"):
            pins(line)


def test_what_weighs_gigabytes_is_the_same_in_both_environments():
    serving, compression = (
        pins((ROOT / "requirements" / name).read_text()) for name in ("serving.lock", "compression.lock")
    )
    heavy = [name for name in serving if name == "torch" or name.startswith(("nvidia-", "cuda-", "triton"))]
    assert "torch" in heavy and len(heavy) > 10
    assert {name: serving[name] for name in heavy} == {name: compression[name] for name in heavy}


@pytest.mark.parametrize("lock", sorted(EXTRAS))
def test_lock_satisfies_pyproject(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS[lock]:
        wanted += project["optional-dependencies"][extra]
    found = pins((ROOT / "requirements" / lock).read_text())
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in found, f"{requirement} is not in {lock}: run `make lock`"
        assert requirement.specifier.contains(found[name][0]), f"{requirement} against {found[name][0]}"


def test_torch_is_the_build_of_the_default_index():
    for name in ("serving.lock", "compression.lock"):
        assert pins((ROOT / "requirements" / name).read_text())["torch"][0] == "2.13.0"
