"""Reading records and policies: every message names the line, the field, what was found and what to write."""

from __future__ import annotations

import json

import pytest
from routing_making import make_records

from leanmodel_api.errors import InputError
from leanmodel_routing import calibrate, parse_records, read_policy, read_records

GOOD = '{"prompt": "a", "lean_quality": 1, "large_quality": 0.5}'


def test_good_lines_blank_lines_and_unknown_keys():
    lines = [
        GOOD,
        "",
        '{"prompt": "b", "lean_quality": 0, "large_quality": 1, "id": 7, "lean_logprob": [-1]}',
    ]
    records, notes = parse_records(lines)
    assert [record.prompt for record in records] == ["a", "b"]
    assert len(notes) == 2
    assert "'id' of 1 records" in notes[0] and "did you mean lean_logprobs?" in notes[1]


def test_chat_messages_are_prompts_too():
    line = '{"prompt": [{"role": "user", "content": "hi"}], "lean_quality": 1, "large_quality": 1}'
    assert parse_records([line])[0][0].prompt_text == "hi"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("{", ["line 2", "no JSON"]),
        ('{"prompt": "a", "large_quality": 1}', ["line 2", "lean_quality", "missing"]),
        (
            '{"prompt": "a", "lean_quality": 1.5, "large_quality": 1}',
            ["lean_quality", "1.5", "less than or equal to 1"],
        ),
        ('{"prompt": "a", "lean_quality": "1", "large_quality": 1}', ["lean_quality", '"1"', "number"]),
        ('{"prompt": "a", "lean_quality": true, "large_quality": 1}', ["lean_quality", "true"]),
        ('{"prompt": "a", "lean_quality": NaN, "large_quality": 1}', ["lean_quality", "NaN"]),
        ('{"prompt": 3, "lean_quality": 1, "large_quality": 1}', ["prompt", "3"]),
        (GOOD[:-1] + ', "lean_logprobs": [0.7]}', ["lean_logprobs", "0.7", "at most 0"]),
        (GOOD[:-1] + ', "lean_logprobs": ["x"]}', ["lean_logprobs.0", '"x"']),
        (
            GOOD[:-1] + ', "lean_logprobs": [-1], "lean_top_logprobs": []}',
            ["lean_top_logprobs", "expected 1"],
        ),
        (GOOD[:-1] + ', "lean_cost": -1}', ["lean_cost", "-1", "greater than or equal to 0"]),
        (GOOD[:-1] + ', "weight": 0}', ["weight", "0", "greater than 0"]),
        ("[1]", ["line 2", "[1]"]),
    ],
)
def test_bad_lines(line, parts):
    with pytest.raises(InputError) as caught:
        parse_records([GOOD, line], "r.jsonl")
    for part in ["r.jsonl", *parts]:
        assert part in str(caught.value)


def test_many_bad_lines_are_cut_off():
    with pytest.raises(InputError) as caught:
        parse_records(["{"] * 1000)
    assert len(caught.value.issues) == 20


def test_no_records_and_no_file(tmp_path):
    with pytest.raises(InputError, match="no record"):
        parse_records(["", "  "])
    with pytest.raises(InputError, match="cannot be read"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "latin").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_records(tmp_path / "latin")


def test_policies_are_read_bare_or_from_a_calibration(tmp_path):
    result = calibrate(make_records(300, seed=1), 0.9, 0.9)
    (tmp_path / "whole").write_text(json.dumps(result.document()))
    (tmp_path / "bare").write_text(result.policy.model_dump_json())
    assert read_policy(tmp_path / "whole") == read_policy(tmp_path / "bare") == result.policy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.123}, "changed"),
        ({"version": "9"}, "version"),
        ({"predictor": None, "kind": "cascade", "digest": ""}, "predictor: missing"),
        ({"extra": 1}, "extra"),
    ],
)
def test_bad_policies(tmp_path, change, message):
    content = calibrate(make_records(300, seed=1), 0.9, 0.9).policy.model_dump(mode="json") | change
    (tmp_path / "p").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_policy(tmp_path / "p")


def test_what_is_no_policy(tmp_path):
    (tmp_path / "p").write_text("no json")
    with pytest.raises(InputError, match="no readable JSON"):
        read_policy(tmp_path / "p")
    (tmp_path / "p").write_text("[]")
    with pytest.raises(InputError):
        read_policy(tmp_path / "p")
