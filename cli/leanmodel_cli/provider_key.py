"""Keys and passwords on one machine: files where a cluster would have Secrets."""

from __future__ import annotations

import stat
from pathlib import Path

from leanmodel_api.errors import InputError, Issue
from leanmodel_api.external import KEY_FIELD, External
from leanmodel_api.ledger import PASSWORD_FIELD
from leanmodel_api.plan import CompressPlan
from leanmodel_api.resource import LeanModel
from leanmodel_api.teacher_rules import FIELD, learners

from .runs import home


def key_file(secret: str) -> Path:
    """Return the file that stands for the Secret of a name."""
    return home() / "secrets" / secret / KEY_FIELD


def check_provider_key(model: LeanModel) -> None:
    """Check that the keys of providers that may be asked are there, and their owner's alone.

    Raises:
        InputError: one is not; the message says what to do and nothing of the key.
    """
    routing = model.spec.routing
    if routing.fallback is not None and routing.external_providers == "Allowed":
        _check_external(routing.fallback.external, "spec.routing.fallback")
    check_teacher_key(model)


def check_teacher_key(model: LeanModel) -> None:
    """Check that the key of the external teacher is there, and its owner's alone.

    Raises:
        InputError: it is not; the message says what to do and nothing of the key.
    """
    if model.spec.teacher is not None and learners(model.spec):
        _check_external(model.spec.teacher.external, FIELD)


def teacher_key_options(plan: CompressPlan) -> list[str]:
    """Return the options that tell a compress Job where its teacher's key lies; none where it needs none."""
    access = plan.external_teacher
    secret = access.teacher.external.api_key_secret if access is not None else None
    return ["--teacher-key-file", str(key_file(secret))] if secret is not None else []


def _check_external(external: External, place: str) -> None:
    secret = external.api_key_secret
    if secret is not None:
        _check(f"{place}.external.apiKeySecret", secret, key_file(secret), "provider's key")


def password_file(secret: str) -> Path:
    """Return the file that stands for the Secret of a Redis' password."""
    return home() / "secrets" / secret / PASSWORD_FIELD


def check_redis_password(model: LeanModel) -> None:
    """Check that the password of the ledger's Redis is there, and its owner's alone.

    Raises:
        InputError: it is not; the message says what to do and nothing of the password.
    """
    ledger = model.spec.serving.router.ledger
    secret = ledger.redis.password_secret if ledger is not None else None
    if secret is not None:
        _check("spec.serving.router.ledger.redis.passwordSecret", secret, password_file(secret), "password")


def _check(field: str, secret: str, file: Path, what: str) -> None:
    write = f"write the {what} into {file} and `chmod 600` it"
    try:
        mode, size = file.stat().st_mode, file.stat().st_size
    except OSError as error:
        found = f"found {secret}, whose file {file} cannot be read: {error.strerror}"
        raise InputError(Issue(field, found, write)) from None
    if not size:
        raise InputError(Issue(field, f"found {secret}, whose file {file} is empty", write))
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            Issue(field, f"found {secret}, whose file {file} others may read", f"`chmod 600 {file}`")
        )
