"""The heap while a checkpoint is read: what is freed is the system's again, between blocks that stay."""

from __future__ import annotations

from leanmodel_compression import memory

BLOCKS, BLOCK = 64, 2**20


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    return memory.read_status()["RssAnon"]


def test_large_blocks_that_are_freed_go_back_at_once() -> None:
    with memory.small_heap():
        blocks = [b"x" * BLOCK for _ in range(BLOCKS)]
        before = anonymous()
        del blocks[::2]
        assert before - anonymous() > 0.9 * BLOCKS * BLOCK / 2
    # Afterwards the heap keeps what lies between blocks that stay, as training wants it.
    more = [b"y" * BLOCK for _ in range(BLOCKS)]
    before = anonymous()
    del more[::2]
    assert before - anonymous() < 0.5 * BLOCKS * BLOCK / 2
    assert len(blocks) == len(more) == BLOCKS // 2
