"""The page: nothing foreign gets into its markup, and nothing is loaded from elsewhere."""

import html.parser
import re

from hypothesis import given
from hypothesis import strategies as st

from leanmodel_evaluation.report.html import escape, table, tag
from leanmodel_evaluation.report.svg import Chart, Mark, Row, forest, scale


class Elements(html.parser.HTMLParser):
    """Collects elements, attributes and text as a browser would."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_text_stays_text(text: str) -> None:
    found = Elements(tag("td", text, css="text").html)
    assert found.names == ["td"]
    assert not re.search(r"<(?!/?td)", tag("td", text).html)


@given(st.text())
def test_attributes_stay_attributes(text: str) -> None:
    found = Elements(tag("p", "x", title=text).html)
    assert found.names == ["p"] and [name for name, _ in found.attributes] == ["title"]


def test_what_turns_the_writing_around_is_shown() -> None:
    assert escape("a\u202eb\x00c") == "a[U+202E]b[U+0000]c"
    assert escape("line\nnext") == "line\nnext"


def test_hostile_labels_in_charts_and_tables() -> None:
    evil = "</svg><script>alert(1)</script>\"'&"
    chart = Chart(
        "t", evil, evil, evil, str, str, [Mark(0, 0, evil, tip=evil), Mark(1, 1, evil)], level=(0.5, evil)
    )
    for page in (
        chart.svg(),
        forest(evil, evil, [Row(evil, 0.5, 0.4, 0.6)], 0, str),
        table(evil, [evil], [[evil]], frozenset()).html,
    ):
        assert "<script" not in page
        assert "script" not in Elements(page).names


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_axes_hold_all_values(values: list[float]) -> None:
    ticks = scale(values)
    slack = (ticks[-1] - ticks[0]) * 1e-6
    assert ticks == sorted(ticks)
    assert 2 <= len(ticks) <= 13
    assert ticks[0] <= min(values) + slack and ticks[-1] >= max(values) - slack
