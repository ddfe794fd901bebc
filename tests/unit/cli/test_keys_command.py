"""leanmodel keys: a key is shown once, kept as a hash, and can be taken back; for a cluster kubectl does it."""

from __future__ import annotations

import base64
import io
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from leanmodel_api.errors import InputError
from leanmodel_api.keys import KeyEntry
from leanmodel_cli.main import parser
from leanmodel_cli.runs import Run
from leanmodel_serving.ledger.books import Hold
from leanmodel_serving.ledger.file import LedgerFile, Settle, ledger_beside
from leanmodel_serving.router.keyring import Keyring

NOW = 1_800_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANMODEL_HOME", str(tmp_path))
    return tmp_path


def keys(*words: str) -> int:
    given = parser().parse_args(["keys", *words])
    code: int = given.run(given)
    return code


def test_a_key_opens_the_router_until_it_is_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        keys(
            "create", "team-a", "support", "--usd-per-day", "5", "--requests-per-minute", "60", "--days", "30"
        )
        == 0
    )
    printed = capsys.readouterr()
    key = printed.out.strip()
    run = Run.of("support")
    (file,) = run.keys.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(run.keys.stat().st_mode) == 0o700
    assert key not in printed.err and key[14:] not in file.read_text()
    ring = Keyring(run.keys, lambda: NOW - 86400 * 30)
    entry = ring.opened(key.encode())
    assert (entry.tenant, entry.limits.requests_per_minute) == ("team-a", 60)
    assert entry.limits.budget is not None and entry.limits.budget.usd_per_day == "5"
    assert entry.expires is not None and entry.limits.budget.when_exceeded == "Reject"
    assert keys("revoke", entry.id, "support") == 0
    ring.look()
    assert len(ring) == 0
    with pytest.raises(InputError, match="is no key"):
        keys("revoke", entry.id, "support")


def test_the_list_says_whose_what_and_how_much_and_never_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    keys("create", "team-a", "support", "--concurrency", "2")
    key = capsys.readouterr().out.strip()
    run, name = Run.of("support"), key[3:13]
    ledger = ledger_beside(str(run.state))
    assert ledger is not None
    file = LedgerFile(ledger)
    file.apply([Settle(Hold("h", "o", name, NOW, 0), 1_234_567, 9, (), None, NOW)], "o", NOW)
    keys("list", "support")
    shown = capsys.readouterr().out
    assert (
        "team-a" in shown
        and "2 at once" in shown
        and "0.001234 USD, 1 requests" in shown.replace("0.001235", "0.001234")
    )
    assert key not in shown and key[14:] not in shown
    file.close()


@pytest.mark.parametrize(
    ("words", "option", "remedy"),
    [
        (["Team A"], "TENANT", "lower case"),
        (["a", "--usd-per-day", "five"], "--usd-per-day", "such as"),
        (["a", "--usd-per-hour", "0"], "--usd-per-hour", "above 0"),
        (["a", "--requests-per-minute", "0"], "--requests-per-minute", "above 0"),
        (["a", "--concurrency", "-1"], "--concurrency", "above 0"),
        (["a", "--days", "0"], "--days", "from 1"),
    ],
)
def test_what_cannot_be_is_said_in_the_words_of_the_command(
    words: list[str], option: str, remedy: str
) -> None:
    with pytest.raises(InputError) as refused:
        keys("create", words[0], "support", *words[1:])
    assert option in str(refused.value) and remedy in str(refused.value)
    assert not Run.of("support").keys.exists()


def test_for_a_cluster_each_key_is_its_own_managers_entry_of_one_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret: dict[str, Any] = {}
    managers = []
    for tenant in ("team-a", "team-b"):
        keys("create", tenant, "support", "--cluster", "-n", "ml")
        printed = capsys.readouterr()
        made = json.loads(printed.out)
        assert (made["kind"], made["metadata"]["name"], made["metadata"]["namespace"]) == (
            "Secret", "lm-support-keys", "ml",
        )  # fmt: skip
        ((name, value),) = made["data"].items()
        entry = KeyEntry.model_validate_json(base64.b64decode(value))
        key = printed.err.split("shown this once: ")[1].split()[0]
        assert name == f"{entry.id}.json" and key.startswith(f"lm-{entry.id}-") and key not in printed.out
        assert f"--field-manager=leanmodel-key-{entry.id}" in printed.err
        managers.append(entry.id)
        secret = {**made, "data": {**secret.get("data", {}), **made["data"]}}
    assert not Run.of("support", "ml").root.exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(secret)))
    keys("list", "support", "--cluster")
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("team-a", "team-b", *managers))
    keys("revoke", managers[0], "support", "--cluster", "-n", "ml")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["data"] == {} and f"leanmodel-key-{managers[0]}" in printed.err


def test_what_is_no_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "[]", "kind: Pod", "{: bad"):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        with pytest.raises(InputError, match="is no Secret"):
            keys("list", "support", "--cluster")
    with pytest.raises(InputError, match="name the LeanModel"):
        keys("create", "team-a", "--cluster")
    with pytest.raises(InputError, match="ten digits"):
        keys("revoke", "../../etc", "support")
