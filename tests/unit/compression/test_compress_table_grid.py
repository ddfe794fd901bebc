"""The token table's grid: whole multiples of a scale per row, whatever stands in the table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leanmodel_compression.steps import grid, token_table


class Model(torch.nn.Module):  # type: ignore[misc]  # Any where mypy runs
    """A table and a head, tied or not."""

    def __init__(self, weight: Any, tied: bool) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(*weight.shape, _weight=weight, dtype=torch.bfloat16)
        self.head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.bfloat16)
        if tied:
            self.head.weight = self.table.weight

    def get_output_embeddings(self) -> Any:
        return self.head


def shape(tied: bool) -> Any:
    return SimpleNamespace(decoder=SimpleNamespace(table="table"), tied=tied)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 24),
    seed=st.integers(0, 2**16),
    size=st.sampled_from([0.0, 1e-6, 1.0, 300.0]),
    tied=st.booleans(),
)
def test_what_is_stored_is_what_training_for_the_grid_would_see(
    rows: int, columns: int, seed: int, size: float, tied: bool
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = (size * torch.randn(rows, columns, generator=draw)).to(torch.bfloat16)
    model = Model(weight.clone(), tied)
    token_table.put_on_grid(model, shape(tied))
    numbers, scale = model.table.weight, model.table.weight_scale
    assert numbers.dtype == torch.int8 and scale.dtype == torch.bfloat16 and scale.shape == (rows, 1)
    assert torch.equal(numbers.float() * scale.float(), grid.fake(weight.float(), 8, None))
    assert (model.head.weight.data_ptr() == numbers.data_ptr()) is tied


@pytest.mark.parametrize("rows", [token_table.ROWS, token_table.ROWS + 3])
def test_a_table_of_more_rows_than_are_rounded_at_once(rows: int) -> None:
    weight = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    model = Model(weight.clone(), False)
    token_table.put_on_grid(model, shape(False))
    expanded = model.table.weight.float() * model.table.weight_scale.float()
    assert torch.equal(expanded, grid.fake(weight.float(), 8, None))
