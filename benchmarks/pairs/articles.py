"""Sentences of an encyclopedia and the article that each is from: a classification into forty subjects.

    python benchmarks/pairs/articles.py FOLDER

writes FOLDER/articles.tsv, the same bytes each time. Some sentences give their subject away by a name, others ("He was
promoted to a full-time position") hardly at all, so that models of any size err on some, and on different ones.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIKITEXT = [ROOT / "benchmarks" / "data" / "wikitext-2" / name for name in ("valid.txt", "test.txt")]
WORDS = range(5, 31)
ARTICLES = 40
"""The longest ones of some 120."""
MOST = 140
"""Sentences of an article, the first ones, so that none outweighs the others."""


def articles() -> list[tuple[str, list[str]]]:
    """Return (title, sentences), the article with the most sentences first.

    Titles with unknown words are not unique; the article's place in the text is.
    """
    found: list[tuple[str, dict[str, None]]] = []
    for path in WIKITEXT:
        for line in path.read_text(encoding="utf-8").splitlines():
            text = re.sub(r" @(.)@ ", r"\1", line.strip())
            heading = re.fullmatch(r"= ([^=].*[^=]) =", text)
            if heading:
                found.append((heading[1], {}))
            if not text or text.startswith("=") or not found:
                continue
            for sentence in re.split(r"(?<= [.!?]) ", text):
                if len(sentence.split()) in WORDS:
                    found[-1][1].setdefault(sentence)
    return sorted(((title, list(sentences)) for title, sentences in found), key=lambda one: -len(one[1]))


def write(folder: Path) -> Path:
    """Write articles.tsv into a folder and return its path."""
    path = folder / "articles.tsv"
    lines = ["label\tsentence"]
    for place, (title, sentences) in enumerate(articles()[:ARTICLES]):
        lines += [f"{place:02d} {title}\t{sentence}" for sentence in sentences[:MOST]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
