"""Three parts: fit chooses, certify tests, report measures. None may do the work of another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from leanmodel_api.errors import InputError, one
from leanmodel_api.policy import PartSizes, Record

SHARES = (0.4, 0.4, 0.2)
"""Shares of fit, certify and report. The certificate's power comes from certify, its aim from fit."""
FEWEST = 3


@dataclass(frozen=True)
class Parts:
    """Records of the three parts; `notes` says what a reader should know about the split."""

    fit: tuple[Record, ...]
    certify: tuple[Record, ...]
    report: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> PartSizes:
        """How many records each part holds."""
        return PartSizes(fit=len(self.fit), certify=len(self.certify), report=len(self.report))

    def checked(self) -> Parts:
        """The same parts; raises InputError where one is empty, and notes prompts that two parts share."""
        for name, records in (("fit", self.fit), ("certify", self.certify), ("report", self.report)):
            if not records:
                raise one(
                    InputError, f"parts.{name}", "found no record", "give each part at least one record"
                )
        seen = {record.prompt_text for record in self.fit}
        shared = sum(record.prompt_text in seen for record in self.certify)
        if not shared:
            return self
        note = f"{shared} certify records have a prompt of the fit part too: the parts are not independent"
        return Parts(self.fit, self.certify, self.report, (*self.notes, note))


def split(records: Sequence[Record], seed: int, shares: tuple[float, float, float] = SHARES) -> Parts:
    """Split by a seeded hash of the prompt, evenly within each stratum; equal prompts stay together.

    The order of the records does not matter. Where fewer than half of the prompts are different the prompt
    cannot tell records apart, so whole records are hashed instead, and a note says so. Raises InputError
    below 3 records.
    """
    if len(records) < FEWEST:
        raise one(
            InputError,
            "records",
            f"found {len(records)}",
            f"give at least {FEWEST}: one each to fit, certify, report",
        )
    prompts = [record.prompt_text for record in records]
    notes: list[str] = []
    different = len(set(prompts))
    keys = prompts
    if different < 0.5 * len(records):
        keys = [f"{index}\n{text}" for index, text in enumerate(sorted(_whole(record) for record in records))]
        records = sorted(records, key=_whole)
        notes.append(
            f"only {different} of {len(prompts)} prompts are different: split by record, not by prompt"
        )
    elif different < len(records):
        notes.append(
            f"{len(records) - different} records repeat a prompt: they stay in one part and count as "
            "independent although they are not; remove duplicates for an exact certificate"
        )
    groups: dict[str, dict[str, list[Record]]] = {}
    for key, record in zip(keys, records, strict=True):
        place = hashlib.sha256(f"{seed}\n{key}".encode()).hexdigest()
        groups.setdefault(record.stratum or "", {}).setdefault(place, []).append(record)
    parts: tuple[list[Record], list[Record], list[Record]] = ([], [], [])
    bounds = (shares[0] / sum(shares), (shares[0] + shares[1]) / sum(shares))
    for stratum in sorted(groups):
        places = sorted(groups[stratum])
        for rank, place in enumerate(places):
            middle = (rank + 0.5) / len(places)
            index = 0 if middle < bounds[0] else (1 if middle < bounds[1] else 2)
            parts[index].extend(sorted(groups[stratum][place], key=_whole))
    for index in range(3):  # only tiny or lopsided inputs leave a part empty
        if not parts[index]:
            parts[index].append(max(parts, key=len).pop())
    return Parts(tuple(parts[0]), tuple(parts[1]), tuple(parts[2]), tuple(notes))


def _whole(record: Record) -> str:
    return json.dumps(record.model_dump(mode="json", exclude_none=True), sort_keys=True)
