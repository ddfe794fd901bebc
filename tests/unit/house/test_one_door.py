"""What the router can reach: engines on its own machine, and through one module alone an external provider.

The compress Job can reach an external teacher, through one module alone.
"""

import ast

import pytest
from house import ROOT, imported

ROUTER = ROOT / "serving" / "leanmodel_serving" / "router"
NETWORK = {"aiohttp", "httpx", "requests", "urllib", "urllib3", "socket", "http", "ssl", "websockets", "grpc"}
SPEAKS = {"wire", "lines", "outside"}
MODULES = sorted(ROUTER.glob("*.py"))


def called(tree, name):
    """Yield the calls of something of that name, such as aiohttp.ClientSession(…)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name:
            yield node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_the_doors_speak_to_a_network(path):
    tree = ast.parse(path.read_text())
    outside = {name.partition(".")[0] for _, name in imported(tree)} & NETWORK
    assert outside <= ({"aiohttp"} if path.stem in SPEAKS else set())
    opened = [*called(tree, "ClientSession"), *called(tree, "TCPConnector"), *called(tree, "UnixConnector")]
    opened += [*called(tree, "create_connection"), *called(tree, "open_connection")]
    if path.stem not in ("lines", "outside"):
        assert opened == []


def test_the_provider_is_asked_by_a_connector_that_asks_for_permission():
    [session] = called(ast.parse((ROUTER / "outside.py").read_text()), "ClientSession")
    [connector] = [word.value for word in session.keywords if word.arg == "connector"]
    assert ast.unparse(connector).partition("(")[0] == "_GuardedConnector"


def test_the_one_place_that_connects_to_engines_looks_first_whether_they_are_on_this_machine():
    tree = ast.parse((ROUTER / "lines.py").read_text())
    [connect] = called(tree, "create_connection")
    assert not [
        *called(tree, "ClientSession"),
        *called(tree, "TCPConnector"),
        *called(tree, "open_connection"),
    ]
    [function] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef) and connect in ast.walk(node)
    ]
    first = function.body[0]
    assert isinstance(first, ast.If) and ast.unparse(first.test) == "not inside(where.host)"
    assert isinstance(first.body[-1], ast.Raise) and not first.orelse
    assert [ast.unparse(part) for part in connect.args[1:]] == ["where.host", "where.port"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_else_knows_where_the_provider_is(path):
    tree = ast.parse(path.read_text())
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not named & {"base_url", "key_file"} or path.stem == "outside"


def test_no_redirect_is_followed():
    tree = ast.parse((ROUTER / "outside.py").read_text())
    [request] = [call for call in called(tree, "request") if ast.unparse(call.func) == "session.request"]
    assert [ast.unparse(word.value) for word in request.keywords if word.arg == "allow_redirects"] == [
        "False"
    ]
    for path in MODULES:
        for verb in ("get", "post", "put", "request", "ws_connect"):
            calls = [ast.unparse(call.func) for call in called(ast.parse(path.read_text()), verb)]
            assert not [name for name in calls if "session" in name.lower()] or path.stem == "outside"


COMPRESSION = sorted((ROOT / "compression" / "leanmodel_compression").rglob("*.py"))


@pytest.mark.parametrize("path", COMPRESSION, ids=lambda path: path.stem)
def test_one_module_of_the_compress_job_speaks_to_a_network(path):
    tree = ast.parse(path.read_text())
    outside = {name.partition(".")[0] for _, name in imported(tree)} & NETWORK
    # llama.cpp's server is asked on loopback.
    allowed = {"external/provider.py": {"httpx", "ssl"}, "edge/runtime.py": {"urllib"}}
    assert outside == next((names for place, names in allowed.items() if path.match(place)), set())
    [*clients] = called(tree, "AsyncClient")
    assert len(clients) == path.match("external/provider.py")
    for client in clients:
        words = {word.arg: ast.unparse(word.value) for word in client.keywords}
        assert words["follow_redirects"] == words["trust_env"] == "False"
