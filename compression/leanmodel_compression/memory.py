"""Peak memory: estimated from shapes before the work, measured while it runs.

The estimates are of anonymous memory, and count what is held at once: the process itself, weights in float32, gradients and AdamW's two
moments of what is trained, and what autograd keeps of the largest micro-batch. They err upwards.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from . import devices
from .shapes import ModelShape

MIB = 2**20
# Interpreter, torch, transformers: 485 to 500 MiB of anonymous memory, as measured in Jobs on models of no size (another
# 340 are mapped libraries, which a kernel drops when memory is short); llmcompressor adds some.
PROCESS_BYTES = 512 * MIB
LLMCOMPRESSOR_BYTES = 40 * MIB
# What the first backward pass and an optimiser bring along (threads and their arenas, modules), and what the heap keeps of
# one step while the next one wants other sizes.
TRAINER_BYTES = 96 * MIB
FLOAT = 4
# malloc.h's names, and from which size a block of a checkpoint that is read belongs to the system.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
SMALL_BLOCK = 256 * 2**10


def weights_bytes(shape: ModelShape) -> int:
    """Return the bytes of the weights in float32."""
    return FLOAT * shape.parameters


def loaded_bytes(shape: ModelShape) -> int:
    """Return what a process holds once a model is loaded (:func:`small_heap`: the file's own bytes went back)."""
    return PROCESS_BYTES + weights_bytes(shape)


def activation_bytes(shape: ModelShape, tokens: int, layers: int, checkpointed: bool = False) -> int:
    """Return what autograd keeps of a micro-batch: per token and layer, what the backward pass reads.

    Two norms (input and normalised), queries, keys and values spread over all heads, and the attention's result
    twice make about 10 × hidden + 4 × kv; the MLP keeps four of its inner width. The backward pass holds a fifth more
    for a moment at most (a SmolLM2's training was measured at 0.8 of the whole).
    """
    keys = shape.kv_heads * shape.head_dim
    kept = 10 * shape.hidden + 4 * keys + 4 * shape.intermediate
    # Between two thin layers stands an activation of the width of their rank.
    kept += sum(rank for _, rank in shape.ranks) // shape.layers
    held = 1 if checkpointed else layers
    return int(1.2 * FLOAT * tokens * kept * held)


def logits_bytes(shape: ModelShape, answers: int, copies: int = 4) -> int:
    """Return the bytes of logits, their log-softmax and gradients at so many answer positions."""
    return FLOAT * answers * shape.outputs * copies


def training_bytes(
    shape: ModelShape, trained: int, tokens: int, answers: int, layers: int, logit_copies: int = 4
) -> int:
    """Return the peak of a training step.

    Args:
        shape: the model that is trained.
        trained: its parameters that are trained.
        tokens: tokens of the largest micro-batch.
        answers: answer positions of the largest micro-batch.
        layers: layers that autograd goes through.
        logit_copies: vocabulary-wide rows held per answer position.
    """
    steady = TRAINER_BYTES + weights_bytes(shape) + 3 * FLOAT * trained
    logits = logits_bytes(shape, answers, logit_copies)
    batch = activation_bytes(shape, tokens, layers) + logits
    # Writing a checkpoint holds its bytes once more, and about as much as the logits were is still the heap's.
    checkpoint = 3 * FLOAT * trained + logits
    return max(forward_bytes(shape, 0, 0), PROCESS_BYTES + steady + max(batch, checkpoint))


def forward_bytes(shape: ModelShape, tokens: int, answers: int, logit_copies: int = 4) -> int:
    """Return the peak of loading a model and of a forward pass without gradients.

    While it is loaded, the largest table is there twice.
    """
    table = FLOAT * shape.vocabulary * shape.hidden
    batch = activation_bytes(shape, tokens, 1) + logits_bytes(shape, answers, logit_copies)
    return loaded_bytes(shape) + max(table, batch)


def calibration_bytes(shape: ModelShape, lengths: Sequence[int], hessians: bool) -> int:
    """Return what is held besides the model while calibration rows go through the layers.

    Args:
        shape: the model.
        lengths: tokens of each calibration row.
        hessians: whether each linear layer of a decoder layer gets a matrix of its inputs, which is factorised.
    """
    states = 2 * FLOAT * sum(lengths) * shape.hidden
    batch = activation_bytes(shape, max(lengths, default=1), 1)
    if not hessians:
        return states + batch
    first = shape.linears()[: len(shape.decoder.projections)]
    matrices = sum(FLOAT * linear.columns**2 for linear in first)
    return states + batch + matrices + 4 * FLOAT * shape.intermediate**2


@dataclass
class Meter:
    """Peak memory of this process while the block runs.

    ``peak`` is the largest resident set in bytes (mapped files included), ``anonymous`` the largest part of
    it that no file backs and that a kernel cannot drop. Both are 0 where the system does not say.
    """

    interval: float = 0.05
    peak: int = 0
    anonymous: int = 0
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def __enter__(self) -> Meter:
        """Reset the kernel's high-water mark where it allows it, and start sampling."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._reset = read_status().get("VmHWM", 0)
        self._sample()
        self._thread = threading.Thread(target=self._watch, name="memory-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling and take the last readings."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()
        mark = read_status().get("VmHWM", 0)
        # A mark that was not reset belongs to an earlier step, unless this one went past it.
        if mark > self._reset:
            self.peak = max(self.peak, mark)

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        status = read_status()
        self.peak = max(self.peak, status.get("VmRSS", 0))
        self.anonymous = max(self.anonymous, status.get("RssAnon", 0))


def read_status(path: Path = Path("/proc/self/status")) -> dict[str, int]:
    """Return the memory lines of a process's status in bytes (``VmRSS``, ``VmHWM``, ``RssAnon`` …)."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if len(words) == 2 and words[1] == "kB":
                found[name] = int(words[0]) * 1024
    return found


@contextlib.contextmanager
def small_heap() -> Iterator[None]:
    """Take large blocks from the system and give them back at once while the block runs (glibc; elsewhere nothing changes).

    A checkpoint is read tensor by tensor, each first as it is stored and then as float32. glibc keeps what such blocks
    leave free, up to half of the model again; nothing that comes later is of their sizes.
    """
    _thresholds(SMALL_BLOCK)
    try:
        yield
    finally:
        # What glibc itself settles at once such blocks were freed: training wants its memory kept.
        _thresholds(32 * MIB)


def _thresholds(block: int) -> None:
    """Set from which size a block is the system's, and how much free memory at the end of the heap is kept."""
    import ctypes

    if os.name == "posix":
        with contextlib.suppress(OSError, AttributeError):
            setting = ctypes.CDLL("libc.so.6").mallopt
            setting(M_MMAP_THRESHOLD, block)
            setting(M_TRIM_THRESHOLD, 2 * block)


def give_back() -> None:
    """Collect garbage and hand free memory back to the system and to GPUs, so that a step starts from its own peak."""
    import ctypes
    import gc

    gc.collect()
    devices.give_back()
    if os.name == "posix":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
