import hashlib
import json
import random
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.datasets import PARTS, DataSet, Prompt, Split
from leanmodel_api.errors import InputError
from leanmodel_api.parts import Example
from leanmodel_api.sources import Source
from leanmodel_store import templates
from leanmodel_store.artifacts import Store
from leanmodel_store.datasets import build_examples, load, read_rows, split
from leanmodel_store.split import assign, deal
from leanmodel_store.tables import Row, Table

FIELD = "spec.dataSets[0]"
HALVES = {"train": "0.5", "validation": "0", "fit": "0", "certify": "0", "report": "0", "test": "0.5"}


def data_set(**changes: Any) -> DataSet:
    fields: dict[str, Any] = {
        "name": "d", "source": Source(uri="file:d"), "format": "TSV", "prompt": Prompt(user="{msg}"),
        "answer": "{label}", "choices": ["ham", "spam"],
    }  # fmt: skip
    return DataSet(**{**fields, **changes})


def table(rows: list[tuple[str, str]]) -> Table:
    return Table(("label", "msg"), tuple(Row(n, {"label": a, "msg": m}) for n, (a, m) in enumerate(rows, 2)))


def refused(said: str, field: str = FIELD) -> Any:
    return pytest.raises(InputError, match=rf"(?s)^{field.replace('[', chr(92) + '[')}.*{said}")


# ------------------------------------------------------------------------------------------- reading


def test_tsv_has_no_quoting_and_only_line_feeds_end_a_line() -> None:
    data = '\ufefflabel\tmsg\r\nham\t"open quote\nspam\ta\u2028b\x85c "d"\n\n'.encode()
    assert [row.values["msg"] for row in read_rows(data, "TSV", FIELD).rows] == [
        '"open quote',
        'a\u2028b\x85c "d"',
    ]


def test_csv_quotes_and_counts_lines() -> None:
    rows = read_rows(b'label,msg\nham,"a, ""b""\nc"\nspam,d\n', "CSV", FIELD).rows
    assert [(row.line, row.values["msg"]) for row in rows] == [(2, 'a, "b"\nc'), (4, "d")]


def test_jsonl_turns_scalars_into_text() -> None:
    found = read_rows(b'{"a": 1, "b": true}\n\n{"a": 1.5, "c": null, "d": [1]}\n', "JSONL", FIELD)
    assert found.columns == ("a", "b", "c", "d")
    assert found.rows == (Row(1, {"a": "1", "b": "true"}), Row(3, {"a": "1.5"}))


def test_text_has_a_row_per_paragraph() -> None:
    found = read_rows(b"\n one\ntwo\n \nthree\r\n\r\n", "Text", FIELD)
    assert found.rows == (Row(2, {"text": "one\ntwo"}), Row(5, {"text": "three"}))


@pytest.mark.parametrize(
    ("format", "data", "said"),
    [
        ("TSV", b"", "empty"),
        ("JSONL", b" \n\n", "empty"),
        ("TSV", b"label\tmsg\n", "a header and no rows"),
        ("TSV", b"label\tmsg\nham\tcaf\xe9\n", "not UTF-8: byte 0xe9 in line 2.*iconv"),
        ("TSV", "label\tmsg\n".encode("utf-16"), "UTF-16"),
        ("TSV", b"label\tmsg\nham\t\0\n", "zero byte in line 2"),
        ("TSV", b"label\tmsg\nham\tx\ty\n", r"line 2 has 3 fields, and the header has 2 \(label, msg\)"),
        ("TSV", b"msg\tmsg\nham\tx\n", "empty or repeated names"),
        ("CSV", b'label,msg\nham,"x\n', "is not CSV"),
        ("CSV", b"label,msg\nham\n", "line 2 has 1 fields"),
        ("JSONL", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("JSONL", b"[1]\n", "line 1 holds a list"),
        ("JSONL", b'{"a": "\\ud800"}\n', "surrogate"),
    ],
)
def test_files_that_are_refused(format: Any, data: bytes, said: str) -> None:
    with refused(said, f"{FIELD}.source"):
        read_rows(data, format, FIELD)


@given(st.binary(max_size=200), st.sampled_from(["TSV", "CSV", "JSONL", "Text"]))
def test_any_bytes_give_rows_or_a_message(data: bytes, format: Any) -> None:
    try:
        found = read_rows(data, format, FIELD)
    except InputError as error:
        assert FIELD in str(error)
    else:
        assert found.rows and all(set(row.values) <= set(found.columns) for row in found.rows)


CELL = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), min_size=1).filter(
    str.strip
)


@given(st.lists(st.tuples(CELL, CELL), min_size=1))
def test_tsv_and_jsonl_give_the_same_rows(rows: list[tuple[str, str]]) -> None:
    tsv = "a\tb\n" + "".join(f"{a}\t{b}\n" for a, b in rows)
    jsonl = "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows)
    one, other = read_rows(tsv.encode(), "TSV", FIELD), read_rows(jsonl.encode(), "JSONL", FIELD)
    assert [row.values for row in one.rows] == [row.values for row in other.rows]


# ------------------------------------------------------------------------------------------- templates


def test_templates_fill_in_plain_names_only_and_braces_double() -> None:
    template = templates.parse('{{"q": "{my text}"}}', FIELD)
    assert template.columns == ("my text",)
    assert template.render({"my text": "{msg} {0.__class__}"}) == '{"q": "{msg} {0.__class__}"}'


@pytest.mark.parametrize(
    "text", ["{", "}", "{}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{a:{b}}", "{ a}", "{a.__class__}"]
)
def test_templates_that_are_refused(text: str) -> None:
    with refused("in braces|cannot be read"):
        templates.parse(text, FIELD)


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        template = templates.parse(text, FIELD)
    except InputError:
        return
    filled = template.render({column: "\x01" for column in template.columns})
    assert filled.count("\x01") >= len(template.columns)


# ------------------------------------------------------------------------------------------- examples


def test_prompts_become_messages_or_text() -> None:
    rows = table([("ham", "a"), ("spam", "b")])
    chat = build_examples(rows, data_set(prompt=Prompt(system="be {brief}", user="Q: {msg}")), FIELD).examples
    assert {tuple((m.role, m.content) for m in e.messages or []) for e in chat} == {
        (("system", "be {brief}"), ("user", "Q: a")), (("system", "be {brief}"), ("user", "Q: b")),
    }  # fmt: skip
    raw = build_examples(rows, data_set(prompt=Prompt(text="{msg}\nLabel:")), FIELD).examples
    assert {(e.text, e.messages, e.answer) for e in raw} == {
        ("a\nLabel:", None, "ham"), ("b\nLabel:", None, "spam"),
    }  # fmt: skip
    assert {e.id for e in chat}.isdisjoint(e.id for e in raw)


def test_duplicates_go_by_folded_white_space_and_case_stays() -> None:
    rows = [("ham", "a  b"), ("ham", " a\u00a0b "), ("spam", "A b"), ("spam", "a b"), ("ham", "c")]
    built = build_examples(table(rows), data_set(), FIELD)
    assert (len(built.examples), built.duplicates_removed, built.conflicts) == (3, 2, 1)
    assert Counter(e.answer for e in built.examples) == {"ham": 2, "spam": 1}  # "a b" is ham by two to one
    kept = build_examples(table(rows), data_set(drop_duplicates=False), FIELD)
    assert len(kept.examples) == 5 == len({e.id for e in kept.examples}) and kept.duplicates_removed == 0


@pytest.mark.parametrize(
    ("changes", "rows", "field", "said"),
    [
        (
            {"prompt": Prompt(user="{text}")},
            None,
            f"{FIELD}.prompt.user",
            "column text, and the file has label, msg",
        ),
        ({"prompt": Prompt(text="{mgs}")}, None, f"{FIELD}.prompt.text", r"such as \{msg\}"),
        ({"prompt": Prompt(user="no column")}, None, f"{FIELD}.prompt.user", "all prompts would be one"),
        ({"answer": "{lable}"}, None, f"{FIELD}.answer", r"such as \{label\}"),
        (
            {},
            [("ham", "a"), ("Spam", "b"), ("x", "c")],
            f"{FIELD}.choices",
            "line 3 .*'Spam'.* ham, spam, and 1 more",
        ),
        ({}, [("ham", "a"), ("ham", "b")], f"{FIELD}.answer", "all 2 rows have the one answer 'ham'"),
        ({"choices": None}, [("ham", "a"), ("ham", "b")], f"{FIELD}.answer", "one answer"),
        ({"answer": "same"}, None, f"{FIELD}.choices", "'same'"),
        ({}, [("ham", "a"), ("", "b")], f"{FIELD}.answer", "line 3 makes an empty text"),
        ({}, [("ham", "a"), ("spam", "  ")], f"{FIELD}.prompt.user", "line 3 makes an empty text"),
    ],
)
def test_data_sets_that_are_refused(changes: dict[str, Any], rows: Any, field: str, said: str) -> None:
    with refused(said, field):
        build_examples(table(rows or [("ham", "a"), ("spam", "b")]), data_set(**changes), FIELD)


def test_a_row_without_the_column_is_named() -> None:
    rows = Table(("label", "msg"), (Row(1, {"label": "ham", "msg": "a"}), Row(2, {"label": "spam"})))
    with refused("line 2 has no text in column msg", f"{FIELD}.prompt.user"):
        build_examples(rows, data_set(), FIELD)


def test_max_rows_draws_by_the_seed_and_not_by_the_order() -> None:
    rows = [("ham" if n % 3 else "spam", f"m{n}") for n in range(60)]
    shuffled = random.Random(1).sample(rows, len(rows))
    one, other = (build_examples(table(r), data_set(max_rows=20), FIELD).examples for r in (rows, shuffled))
    assert one == other and len(one) == 20
    third = build_examples(table(rows), data_set(max_rows=20, split=Split(seed=1)), FIELD).examples
    assert {e.id for e in third} != {e.id for e in one}


# ------------------------------------------------------------------------------------------- the draw

SHARES = st.lists(st.integers(0, 50), min_size=2, max_size=7).filter(lambda w: sum(w) > 0).map(
    lambda weights: [Fraction(weight, sum(weights)) for weight in weights]
)  # fmt: skip


@given(count=st.integers(0, 400), shares=SHARES)
def test_after_any_number_of_places_each_part_has_its_share_to_within_less_than_one(
    count: int, shares: list[Fraction]
) -> None:
    given_out = [0] * len(shares)
    for place, part in enumerate(deal(count, shares), 1):
        given_out[part] += 1
        assert all(abs(n - share * place) < 1 for n, share in zip(given_out, shares, strict=True))
    assert sum(given_out) == count


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.text("xyz ", min_size=1, max_size=4)), max_size=60
).filter(lambda rows: len({label for label, text in rows if text.strip()}) > 1)


@settings(deadline=None)
@given(rows=ROWS, order=st.randoms(use_true_random=False), seed=st.integers(0, 99), drop=st.booleans())
def test_parts_are_disjoint_complete_stratified_and_independent_of_the_order(
    rows: list[tuple[str, str]], order: random.Random, seed: int, drop: bool
) -> None:
    rows = [(label, text) for label, text in rows if text.strip()]
    shares = Split(seed=seed, train="0.5", validation="0", fit="0", certify="0.25", report="0", test="0.25")
    settled = data_set(choices=["a", "b", "c"], split=shares, drop_duplicates=drop)
    shuffled = rows[:]
    order.shuffle(shuffled)
    try:
        built = build_examples(table(rows), settled, FIELD)
        parts = split(built, shares, FIELD)
    except InputError as error:
        assert "gets none" in str(error) or "one answer" in str(error)
        return
    again = split(build_examples(table(shuffled), settled, FIELD), shares, FIELD)
    assert {name: getattr(parts, name) for name in PARTS} == {name: getattr(again, name) for name in PARTS}
    assert parts.digest == again.digest and parts.label_counts == again.label_counts
    members = [example for name in PARTS for example in getattr(parts, name)]
    assert sorted(e.id for e in members) == sorted(e.id for e in built.examples)
    assert len({e.id for e in members}) == len(members)
    prompts = [{" ".join(e.plain().split()) for e in getattr(parts, name)} for name in PARTS]
    for one in range(len(PARTS)):
        for other in range(one):
            assert prompts[one].isdisjoint(prompts[other])  # even where duplicates are kept
    if drop:
        counts = Counter(example.answer for example in members)
        for name, share in (("train", 0.5), ("certify", 0.25), ("test", 0.25)):
            part = Counter(example.answer for example in getattr(parts, name))
            assert abs(len(getattr(parts, name)) - share * len(members)) < 1
            assert all(abs(part[label] - share * count) < 2 for label, count in counts.items())


def test_another_seed_draws_other_parts_and_another_digest() -> None:
    built = build_examples(
        table([("ham" if n % 2 else "spam", f"m{n}") for n in range(100)]), data_set(), FIELD
    )
    one, other = split(built, Split(seed=0), FIELD), split(built, Split(seed=1), FIELD)
    assert one.counts() == other.counts()
    assert {e.id for e in one.train} != {e.id for e in other.train}
    assert one.digest != other.digest


def test_the_digest_tells_prompts_answers_and_parts_apart() -> None:
    rows = [("ham" if n % 2 else "spam", f"m {n}") for n in range(20)]
    digests = set()
    for changed in (rows, [("spam", "m 1"), *rows[:1], *rows[2:]], [("spam", "m  0"), *rows[1:]]):
        digests.add(split(build_examples(table(changed), data_set(), FIELD), Split(**HALVES), FIELD).digest)
    digests.add(split(build_examples(table(rows), data_set(), FIELD), Split(train="0.5", validation="0", fit="0",
                certify="0", report="0.5", test="0"), FIELD).digest)  # fmt: skip
    assert len(digests) == 4


def test_the_first_rows_of_a_part_are_a_mixed_sample() -> None:
    rows = [("ham" if n % 5 else "spam", f"m{n}") for n in range(2000)]
    parts = split(build_examples(table(rows), data_set(), FIELD), Split(), FIELD)
    first = Counter(e.answer for e in parts.train[:200])
    assert 15 <= first["spam"] <= 70  # 40 expected; by answer it would be 0 or 200


def test_free_text_answers_are_drawn_fairly() -> None:
    rows = [(f"answer {n}", f"m{n}") for n in range(1000)]
    parts = split(build_examples(table(rows), data_set(choices=None), FIELD), Split(), FIELD)
    assert parts.counts() == {
        "train": 400,
        "validation": 50,
        "fit": 100,
        "certify": 250,
        "report": 100,
        "test": 100,
    }


def test_a_part_without_rows_says_how_many_are_needed() -> None:
    built = build_examples(table([("ham", "a"), ("spam", "b"), ("ham", "c")]), data_set(), FIELD)
    with refused(
        "none of the 3 rows at a share of 0.05; give the data set at least 20", f"{FIELD}.split.validation"
    ):
        split(built, Split(), FIELD)
    with refused("add up to 1.6", f"{FIELD}.split"):
        split(built, Split(train="1"), FIELD)


def test_groups_stay_together() -> None:
    ids = [f"{group}-{n}" for group in range(20) for n in range(3)]
    groups = [text.partition("-")[0] for text in ids]
    parts = assign(ids, groups, ["x"] * 60, [Fraction(1, 2), Fraction(1, 4)], seed=3)
    assert all(
        len({part for part, g in zip(parts, groups, strict=True) if g == group}) == 1 for group in groups
    )
    assert set(parts) == {0, 1, 2}


# ------------------------------------------------------------------------------------------- the whole


def test_load_fetches_reads_and_splits(store: Store, manifest_dir: Path) -> None:
    lines = "".join(f"{'ham' if n % 4 else 'spam'}\tmessage {n}\n" for n in range(200))
    (manifest_dir / "d").write_text("label\tmsg\n" + lines + "ham\tmessage  1\n")
    parts = load(data_set(), manifest_dir, store)
    assert parts.duplicates_removed == 1 and parts.label_counts == {"ham": 150, "spam": 50}
    assert parts.counts()["certify"] == 50 and isinstance(parts.certify[0], Example)
    assert load(data_set(), manifest_dir, store) == parts
    with refused("there is no file", "spec.dataSets[d].source.uri".replace(".", r"\.").replace("]", r"\]")):
        load(data_set(source=Source(uri="file:absent")), manifest_dir, store)


SMS = Path(__file__).parents[3] / "examples" / "quickstart" / "data" / "sms.tsv"


def test_the_quickstarts_messages_are_all_read() -> None:
    found = read_rows(SMS.read_bytes(), "TSV", FIELD)
    assert len(found.rows) == 5574
    assert Counter(row.values["label"] for row in found.rows) == {"ham": 4827, "spam": 747}
    built = build_examples(found, data_set(), FIELD)
    assert (len(built.examples), built.duplicates_removed, built.conflicts) == (5160, 414, 0)


# ------------------------------------------------------------------------------------------- groups


def test_a_row_says_its_group_and_without_one_nothing_changes() -> None:
    rows = [("ham" if n % 2 else "spam", f"text {n}") for n in range(40)]
    plain = split(build_examples(table(rows), data_set(), FIELD), Split(**HALVES), FIELD)
    kinds = split(build_examples(table(rows), data_set(group="about {label}"), FIELD), Split(**HALVES), FIELD)
    assert {(e.answer, e.group) for e in kinds.train} == {("ham", "about ham"), ("spam", "about spam")}
    assert [e.id for e in kinds.train] == [e.id for e in plain.train] and kinds.digest != plain.digest
    # The digest of data without groups is what it was when there were none: proofs stay what they prove.
    sha = hashlib.sha256()
    for name in PARTS:
        for example in getattr(plain, name):
            known = {
                key: value for key, value in json.loads(example.model_dump_json()).items() if key != "group"
            }
            sha.update(f"{name} {json.dumps(known, separators=(',', ':'))}\n".encode())
    assert plain.digest == f"sha256:{sha.hexdigest()}"
    with refused("names the column topic", f"{FIELD}.group"):
        build_examples(table(rows), data_set(group="{topic}"), FIELD)
