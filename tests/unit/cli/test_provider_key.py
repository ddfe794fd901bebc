"""An external provider's key on one machine: a file of its owner's, checked before any work, and told to nobody."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanmodel_api.errors import InputError
from leanmodel_api.manifest import load
from leanmodel_api.resource import LeanModel
from leanmodel_cli.jobs import compress_command
from leanmodel_cli.main import main
from leanmodel_cli.provider_key import (
    check_provider_key,
    check_redis_password,
    check_teacher_key,
    key_file,
    password_file,
)
from leanmodel_cli.runs import Run
from leanmodel_cli.serve import ServeSide
from leanmodel_operator.jobs import large_plan, lean_plan

MANIFEST = yaml.safe_load((Path(__file__).parents[3] / "examples/quickstart/leanmodel.yaml").read_text())
FALLBACK = {
    "external": {"baseUrl": "https://api.example.com/v1", "model": "theirs", "apiKeySecret": "their-key"},
    "price": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEANMODEL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def document(permission: str = "Allowed") -> dict[str, Any]:
    made = copy.deepcopy(MANIFEST)
    made["spec"]["routing"] |= {"externalProviders": permission, "fallback": FALLBACK}
    return dict(made)


def model(permission: str = "Allowed") -> LeanModel:
    return load(document(permission))


def write_key(text: str = "sk-very-secret", mode: int = 0o600) -> Path:
    file = key_file("their-key")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return file


def test_the_key_is_looked_for_before_any_work(home: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        check_provider_key(model())
    assert write_key().relative_to(home) == Path("secrets/their-key/apiKey")
    check_provider_key(model())
    write_key("")
    with pytest.raises(InputError, match="is empty"):
        check_provider_key(model())
    write_key(mode=0o644)
    with pytest.raises(InputError, match="chmod 600") as caught:
        check_provider_key(model())
    assert "sk-very-secret" not in str(caught.value) and "apiKeySecret" in str(caught.value)


def test_what_is_not_asked_needs_no_key() -> None:
    check_provider_key(model("Forbidden"))
    check_provider_key(load(MANIFEST))


def test_up_refuses_a_manifest_whose_key_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "leanmodel.yaml"
    file.write_text(json.dumps(document()))
    assert main(["up", "-f", str(file)]) == 2
    said = capsys.readouterr().err
    assert "spec.routing.fallback.external.apiKeySecret" in said and "write the provider's key into" in said
    assert not Run.of("spam-filter").resource.exists(), "nothing was begun"


def test_the_router_is_told_where_the_key_lies_and_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def settings(*given: Any) -> None:
        seen.append(given[-1]("their-key"))

    monkeypatch.setattr("leanmodel_cli.serve.router_settings", settings)
    file = write_key()
    side = ServeSide(model(), Run.of("spam-filter"), tmp_path / "store", 8000, 1)
    monkeypatch.setattr(side, "_engine", lambda served: {})
    monkeypatch.setattr("leanmodel_cli.serve.Child", lambda *given: None)

    class Wanted:
        served = (object(),)

    side.apply(Wanted(), None)  # type: ignore[arg-type]
    assert seen == [str(file)]


def with_redis() -> LeanModel:
    made = copy.deepcopy(MANIFEST)
    made["spec"].setdefault("serving", {})["router"] = {
        "ledger": {"redis": {"address": "h:6379", "passwordSecret": "books"}}
    }
    return load(made)


def test_the_password_of_a_redis_is_looked_for_and_told_to_the_router_as_a_file(tmp_path: Path) -> None:
    found = with_redis()
    with pytest.raises(
        InputError, match=r"spec\.serving\.router\.ledger\.redis\.passwordSecret.*cannot be read"
    ):
        check_redis_password(found)
    file = password_file("books")
    file.parent.mkdir(parents=True)
    file.write_text("very secret")
    with pytest.raises(InputError, match="others may read"):
        file.chmod(0o644)
        check_redis_password(found)
    file.chmod(0o600)
    check_redis_password(found)
    check_redis_password(model())


TEACHER = {**FALLBACK, "maxCalls": 10, "maxUSD": "1"}


def taught() -> LeanModel:
    made = document()
    del made["spec"]["routing"]["fallback"]
    made["spec"]["teacher"] = TEACHER
    made["spec"]["lean"]["steps"][1]["answers"] = "Teacher"
    return load(made)


def test_a_teachers_key_is_looked_for_before_any_work_and_named_to_its_job_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = taught()
    for check in (check_provider_key, check_teacher_key):
        with pytest.raises(InputError, match=r"^spec\.teacher\.external\.apiKeySecret: .*cannot be read"):
            check(found)
    file = write_key()
    check_provider_key(found)
    check_teacher_key(load(MANIFEST))
    monkeypatch.setattr("leanmodel_cli.jobs.compression_python", lambda: Path("python"))
    run, base = Run.of("spam-filter", "default"), str(tmp_path)
    large, lean = large_plan(found, 1, base), lean_plan(found, None, 1, base)
    assert lean is not None
    command = compress_command(run, lean, "key", tmp_path)
    assert command[-2:] == ["--teacher-key-file", str(file)]
    assert "--teacher-key-file" not in compress_command(run, large, "key", tmp_path)
    assert "sk-very-secret" not in lean.to_json() and "externalTeacher" not in large.to_json()
