"""Conversations that have gone to the large model stay there; none is ever pinned to the lean one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import to_json

from .ask import Ask

MOST = 100_000


@dataclass(frozen=True)
class Conversation:
    """Which conversation a request belongs to.

    Attributes:
        key: its name, a digest; None where it cannot be told.
        later: whether it may have had a turn before.
        spoken: whether it surely had one.
    """

    key: bytes | None
    later: bool
    spoken: bool = False


ALONE = Conversation(None, False)
"""A request of no conversation that could be told."""


def conversation(ask: Ask, session: str) -> Conversation:
    """Return a request's conversation: by the session that it names, else by its messages up to the first user's.

    Args:
        session: the header x-session-id, empty where there is none.
    """
    messages = ask.body["messages"] if ask.endpoint == "chat" else []
    spoken = any(message.get("role") in ("assistant", "tool") for message in messages)
    if session:
        return Conversation(_digest("session", session), True, spoken)
    users = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    if not users:
        return Conversation(None, spoken, spoken)
    return Conversation(_digest("messages", messages[: users[0] + 1]), spoken, spoken)


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(to_json(parts), digest_size=16).digest()


class Pins:
    """The conversations that stay with the large model; the oldest are forgotten first."""

    def __init__(self) -> None:
        """Start with none."""
        self._kept: OrderedDict[bytes, None] = OrderedDict()
        self._fresh: set[bytes] = set()

    def holds(self, found: Conversation) -> bool:
        """Say whether a request's conversation is pinned. The first of its kind is free: it was not spoken yet."""
        return found.later and found.key is not None and found.key in self._kept

    def pin(self, found: Conversation) -> None:
        """Keep a conversation with the large model from now on."""
        if found.key is not None:
            self._fresh.add(found.key)
            self._keep(found.key)

    def take_fresh(self) -> set[bytes]:
        """Return what was pinned since the last call."""
        fresh, self._fresh = self._fresh, set()
        return fresh

    def again(self, keys: Iterable[bytes]) -> None:
        """Take back what could not be stored."""
        self._fresh.update(keys)

    def learn(self, keys: Iterable[bytes]) -> None:
        """Take in what other replicas have pinned, or the ones before this."""
        for key in keys:
            self._keep(key)

    def _keep(self, key: bytes) -> None:
        self._kept[key] = None
        self._kept.move_to_end(key)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
