"""Questions of five kinds with one right answer each, for models that are good at some and bad at others.

    python benchmarks/pairs/questions.py FOLDER

writes FOLDER/questions.tsv, the same bytes each time. What a pair of models is worth to a router depends on where they
differ: a small model reads off a year or tells spam as well as a large one, adds badly, and nobody knows the next word
of an encyclopedia. The sentences are WikiText-2's and the messages the SMS Spam Collection's, both in this repository;
the sums are drawn by lot.
"""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIKITEXT = [ROOT / "benchmarks" / "data" / "wikitext-2" / name for name in ("valid.txt", "test.txt")]
MESSAGES = ROOT / "examples" / "quickstart" / "data" / "sms.tsv"
PREPOSITIONS = ("of", "in", "to", "for", "on", "with", "at", "by", "from", "as")
WORDS = range(6, 21)
"""Words of a sentence: shorter ones say too little, longer ones take time."""
MESSAGE_LENGTH = 160
"""Characters: one SMS."""
COUNTS = {"preposition": 1300, "spam": 1000, "sum": 800, "year": 350, "next": 550}

Row = tuple[str, str]
"""A question and its answer."""


def drawn(seed: str) -> int:
    """Return a number that looks drawn by lot and is the same for the same seed, everywhere."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")


def sentences() -> list[str]:
    """Return WikiText's sentences of a fitting length without unknown words, each once, in the text's order."""
    found: dict[str, None] = {}
    for path in WIKITEXT:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith("="):
                continue
            for sentence in re.split(r"(?<= [.!?]) ", re.sub(r" @(.)@ ", r"\1", line.strip())):
                whole = sentence.endswith((" .", " !", " ?")) and sentence[0].isupper()
                if whole and "<unk>" not in sentence and len(sentence.split()) in WORDS:
                    found.setdefault(sentence)
    return list(found)


def prepositions() -> Iterator[Row]:
    """One preposition of a sentence is left out."""
    for sentence in sentences():
        words = sentence.split()
        places = [place for place, word in enumerate(words) if word in PREPOSITIONS]
        if places:
            place = places[drawn(sentence) % len(places)]
            yield f"Fill in: {' '.join([*words[:place], '___', *words[place + 1 :]])}", words[place]


def spam() -> Iterator[Row]:
    """A message is spam or ham."""
    with MESSAGES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            text = " ".join(row["msg"].split())
            if text and len(text) <= MESSAGE_LENGTH:
                yield f"Spam or ham? {text}", row["label"]


def sums() -> Iterator[Row]:
    """Two numbers below a hundred are added."""
    for first in range(3, 100):
        for second in range(3, 100):
            yield f"Add: {first} + {second}", str(first + second)


def years() -> Iterator[Row]:
    """A sentence names one year."""
    for sentence in sentences():
        found = re.findall(r"\b(1[0-9]{3}|20[0-9]{2})\b", sentence)
        if len(found) == 1:
            yield f"Which year? {sentence}", found[0]


def next_words() -> Iterator[Row]:
    """A sentence goes on with a word of four letters or more."""
    for sentence in sentences():
        words = sentence.split()
        places = [place for place in range(5, len(words)) if re.fullmatch(r"[a-z]{4,}", words[place])]
        if places:
            place = places[drawn("next " + sentence) % len(places)]
            yield f"Next word: {' '.join(words[:place])}", words[place]


KINDS: dict[str, Callable[[], Iterator[Row]]] = {
    "preposition": prepositions, "spam": spam, "sum": sums, "year": years, "next": next_words,
}  # fmt: skip


def questions() -> list[tuple[str, str, str]]:
    """Return (kind, question, answer), of each kind so many as COUNTS says, drawn by the questions' own digests."""
    found = []
    for kind, make in KINDS.items():
        rows = sorted(dict(make()).items(), key=lambda row: drawn(row[0]))
        found += [(kind, question, answer) for question, answer in rows[: COUNTS[kind]]]
    return sorted(found, key=lambda row: drawn(row[1]))


def write(folder: Path) -> Path:
    """Write questions.tsv into a folder and return its path."""
    path = folder / "questions.tsv"
    lines = ["kind\tquestion\tanswer", *("\t".join(row) for row in questions())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
