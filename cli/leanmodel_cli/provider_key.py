"""Keys and passwords on one machine: files where a cluster would have Secrets."""

from __future__ import annotations

import stat
from pathlib import Path

from leanmodel_api.errors import InputError, Issue
from leanmodel_api.external import KEY_FIELD
from leanmodel_api.ledger import PASSWORD_FIELD
from leanmodel_api.resource import LeanModel

from .runs import home

_FIELD = "spec.routing.fallback.external.apiKeySecret"


def key_file(secret: str) -> Path:
    """Return the file that stands for the Secret of a name."""
    return home() / "secrets" / secret / KEY_FIELD


def check_provider_key(model: LeanModel) -> None:
    """Check that the key of a provider that may be asked is there, and its owner's alone.

    Raises:
        InputError: it is not; the message says what to do and nothing of the key.
    """
    routing = model.spec.routing
    secret = routing.fallback.external.api_key_secret if routing.fallback is not None else None
    if secret is None or routing.external_providers != "Allowed":
        return
    _check(_FIELD, secret, key_file(secret), "provider's key")


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
        raise InputError(
            Issue(field, f"found {secret}, whose file {file} cannot be read: {error.strerror}", write)
        ) from None
    if not size:
        raise InputError(Issue(field, f"found {secret}, whose file {file} is empty", write))
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(
            Issue(field, f"found {secret}, whose file {file} others may read", f"`chmod 600 {file}`")
        )
