"""Where the ledger of budgets and keys is kept, if not in the router's own folder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Name, Part

PASSWORD_FIELD = "password"
"""The key of a Secret that holds the password."""
Address = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?:[0-9]{1,5}$", max_length=260)
]


class RedisStore(Part):
    """A Redis (6 or later) that all replicas of the router reach."""

    address: Address = Field(description="Host and port, such as redis.data.svc:6379.")
    tls: bool = Field(
        False, description="Whether it is spoken to over TLS, its certificate checked. Default false."
    )
    database: int = Field(0, ge=0, le=15, description="Number of the database. Default 0.")
    user: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="User of its access list. Default: the default user."
    )
    password_secret: Name | None = Field(
        None,
        description="Secret in the LeanModel's namespace with the password under password; with `leanmodel up` the file "
        "~/.leanmodel/secrets/NAME/password. Default: none.",
    )
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/]*$", max_length=128)] | None = Field(
        None,
        description="What the names of all its entries begin with. Default: leanmodel/NAMESPACE/NAME; two clusters that "
        "share a Redis need one each.",
    )


class Ledger(Part):
    """Where budgets and keys' bounds are counted."""

    redis: RedisStore = Field(
        description="A Redis, for routers that must not forget when a volume or node is lost."
    )


class RedisAt(Part):
    """The same as the router is told it."""

    address: Address = Field(description="Host and port.")
    tls: bool = Field(False, description="Whether it is spoken to over TLS.")
    database: int = Field(0, ge=0, le=15, description="Number of the database.")
    user: str | None = Field(None, description="User; none: the default one.")
    password_file: str | None = Field(None, description="File with the password; none: there is no password.")
    prefix: str = Field(min_length=1, max_length=256, description="What the names of all entries begin with.")


def redis_at(store: RedisStore, namespace: str, name: str, password_file: str | None) -> RedisAt:
    """Return a manifest's Redis as the router is told it.

    Args:
        namespace: of the LeanModel called ``name``.
        password_file: where the Secret's password lies; None without a Secret.
    """
    return RedisAt(
        address=store.address, tls=store.tls, database=store.database, user=store.user, password_file=password_file,
        prefix=store.prefix or f"leanmodel/{namespace}/{name}",
    )  # fmt: skip
