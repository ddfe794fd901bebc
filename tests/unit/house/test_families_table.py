"""docs/families.md is what the registries say, and the tests that it names are there and speak of the family."""

import sys

import pytest
from house import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from families_table import columns, families, has, render  # noqa: E402

TESTS = ROOT / "tests" / "compression"


def test_the_page_is_what_make_docs_writes():
    assert (ROOT / "docs" / "families.md").read_text() == render(), "run make docs"


@pytest.mark.parametrize("family", families(), ids=lambda family: f"{family[0]}-{family[1]}")
def test_a_family_is_tested_where_the_page_says(family):
    name, task, tests, decoder = family
    text = (TESTS / f"{tests}.py").read_text()
    if tests == "test_compress_families":
        assert f'"{decoder}"' in text
        return
    assert "FAMILIES" in text or f'"{name}"' in text or name in ("Llama", "Bert")
    making = "decoder_making" if task is None else "encoder_making"
    assert name in (TESTS / f"{making}.py").read_text() + text


@pytest.mark.parametrize("family", families(), ids=lambda family: f"{family[0]}-{family[1]}")
def test_a_family_has_small_weights_to_go_through_up_with(family):
    """tests/e2e/test_up_families.py takes its cases from the table itself; the weights are made by name."""
    name, _, _, decoder = family
    making = ROOT / "tests" / ("e2e/make_small_models.py" if decoder else "compression/encoder_making.py")
    begins = decoder.removesuffix("ForCausalLM").removesuffix("LMHeadModel")
    assert f'"{begins or name}"' in making.read_text()


def test_what_a_family_refuses_is_no_yes_and_stands_below():
    page = render()
    gemma = next(line for line in page.splitlines() if line.startswith("| Gemma 3 |"))
    cells = dict(
        zip([f"{name} {method}".strip() for name, method in columns()], gemma.split(" | ")[2:], strict=False)
    )
    assert cells["Prune Width"] == cells["Factorize"] == cells["Share"] == cells["Export"] == "–"
    assert cells["Quantize"] == "yes*" and cells["Prune Neurons"] == cells["Prune Heads"] == "yes"
    assert "| `Quantize` with `algorithm: SmoothQuant` of a Gemma 3 |" in page


def test_a_step_stands_where_its_task_has_it():
    def takes(task, step, method="", family="Bert"):
        return has(task, (step, method), family)

    assert takes(None, "Quantize") and not takes("text-classification", "Quantize")
    assert takes("text-classification", "Linear") and not takes("text-embedding", "Linear")
    assert takes(None, "Prune", "Heads") and not takes("text-embedding", "Prune", "Heads")
    assert takes("text-classification", "Prune", "Neurons")
    assert not takes("text-classification", "Prune", "Neurons", "SqueezeBert")
    assert len(columns()) == len(set(columns())) >= 10
