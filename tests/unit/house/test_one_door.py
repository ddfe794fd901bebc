"""What the router can reach: engines on its own machine, and through one module alone an external provider.

The compress Job can reach an external teacher, through one module alone.
"""

import ast

import pytest
from house import ROOT, imported

ROUTER = ROOT / "serving" / "leanmodel_serving" / "router"
NETWORK = {"aiohttp", "httpx", "requests", "urllib", "urllib3", "socket", "http", "ssl", "websockets", "grpc"}
SPEAKS = {"wire", "upstream", "outside"}
OPENS = {"upstream": "_InsideConnector", "outside": "_GuardedConnector"}
"""By module that opens connections: the connector that it opens them with."""
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
    if path.stem in OPENS:
        [session] = opened
        assert [
            ast.unparse(word.value).partition("(")[0] for word in session.keywords if word.arg == "connector"
        ] == [OPENS[path.stem]]
    else:
        assert opened == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nothing_else_knows_where_the_provider_is(path):
    tree = ast.parse(path.read_text())
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not named & {"base_url", "key_file"} or path.stem == "outside"


def test_no_redirect_is_followed():
    tree = ast.parse((ROUTER / "wire.py").read_text())
    [request] = [call for call in called(tree, "request") if ast.unparse(call.func) == "session.request"]
    assert [ast.unparse(word.value) for word in request.keywords if word.arg == "allow_redirects"] == [
        "False"
    ]
    for path in MODULES:
        for verb in ("get", "post", "put", "request", "ws_connect"):
            calls = [ast.unparse(call.func) for call in called(ast.parse(path.read_text()), verb)]
            assert not [name for name in calls if "session" in name.lower()] or path.stem == "wire"


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
