"""Which devices a Job computes on: the processor, or the GPUs that torch sees.

A Job chooses once, by ``spec.jobs.compress.device`` and by what is there. Loaders put models on the first device (a
frozen teacher on the last), and whatever is made besides follows the model that it meets (:func:`of`). What is drawn is
drawn on the processor and moved, so that a seed gives the same numbers everywhere, and files hold processor tensors.
Rules in full: docs/techniques/devices.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from leanmodel_api.errors import Issue, RefusedError
from leanmodel_api.jobs import Device

FIELD = "spec.jobs.compress.device"
CPU = "cpu"
HOST_STEPS = frozenset({"Expand", "Export", "Fetch", "Linear", "Scratch", "Share"})
"""Steps that move numbers more than they compute, or whose libraries know no GPU: they work on the processor."""


@dataclass(frozen=True)
class Devices:
    """Where models go, in torch's words.

    Attributes:
        first: what is trained, measured or changed.
        last: a frozen teacher; the same where there is one device.
    """

    first: str = CPU
    last: str = CPU


@dataclass
class Used:
    """What a block loaded models onto.

    Attributes:
        names: of the devices, in torch's words.
        peak: bytes that torch held on them at most, together; 0 on the processor.
    """

    names: set[str] = field(default_factory=set)
    peak: int = 0

    def words(self) -> str:
        """Return the devices for a report: ``CPU``, or GPUs by number and name."""
        gpus = sorted(self.names - {CPU})
        return ", ".join(f"{name} ({title(name)})" for name in gpus) or "CPU"


_here = Devices()
_noted: list[Used] = []


def choose(wanted: Device, count: int) -> Devices:
    """Return the devices of a Job.

    Args:
        wanted: ``Auto``, ``CPU`` or ``GPU``.
        count: GPUs that torch sees.

    Raises:
        RefusedError: GPUs are wanted, and there is none.
    """
    if wanted == "GPU" and count < 1:
        raise RefusedError(missing())
    if wanted == "CPU" or count < 1:
        return Devices()
    return Devices("cuda:0", f"cuda:{count - 1}")


def missing() -> Issue:
    """Return that there is no GPU where one is asked for."""
    found = "found GPU, and torch sees none here"
    advice = "write Auto or CPU, or give the Job one: spec.jobs.compress.gpu: 1 in a cluster, a driver on a machine"
    return Issue(FIELD, found, advice)


def visible() -> int:
    """Return the GPUs that torch sees."""
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def use(wanted: Device) -> Devices:
    """Choose the devices of this process from now on; until then it is the processor.

    Raises:
        RefusedError: GPUs are wanted, and there is none.
    """
    global _here  # noqa: PLW0603 - one choice for a process, as torch's own number of threads is
    _here = Devices()
    _here = choose(wanted, visible() if wanted != "CPU" else 0)
    return _here


def here() -> str:
    """Return where a model goes that is trained, measured or changed."""
    return _note(_here.first)


def teacher() -> str:
    """Return where a frozen teacher goes."""
    return _note(_here.last)


def _note(name: str) -> str:
    for used in _noted:
        used.names.add(name)
    return name


def placed(model: Any, device: str | None = None) -> Any:
    """Return a model that was loaded on the processor on a device. Default: the Job's first."""
    target = here() if device is None else device
    return bare(model).to(target) if on_gpu(target) else model


def bare(model: Any) -> Any:
    """Return a model whose weights are its own again where compressed-tensors keeps them: else they could not be moved."""
    if any(not isinstance(module._parameters, dict) for module in model.modules()):
        from compressed_tensors.offload import remove_dispatch

        remove_dispatch(model, onload_tensors=True)
    return model


def of(model: Any) -> Any:
    """Return the device that a module's weights are on; the processor where it has none."""
    weight = next(iter(model.parameters()), None)
    return CPU if weight is None else weight.device


def brought_home(model: Any) -> None:
    """Put a model on the processor, where files are written from."""
    if on_gpu(of(model)):
        bare(model).to(CPU)


def asked(model: Any, given: Mapping[str, Any], **more: Any) -> Any:
    """Return a model's output with its tensors where the inputs are, wherever the model is.

    Args:
        model: of transformers.
        given: tensors by name, all on one device.
        more: what else it is called with.
    """
    place, home = of(model), next(iter(given.values())).device
    if place == home:
        return model(**given, **more)
    found = model(**{name: value.to(place) for name, value in given.items()}, **more)
    return type(found)(**{name: _moved(value, home) for name, value in found.items()})


def _moved(value: Any, device: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(part, device) for part in value)
    return value.to(device) if hasattr(value, "to") else value


def on_gpu(device: Any) -> bool:
    """Say whether a device is no processor."""
    return not str(device).startswith(CPU)


@contextmanager
def noting() -> Iterator[Used]:
    """Note what models are loaded onto within the block, and how much of it was held."""
    import torch

    used = Used()
    gpus = sorted({name for name in (_here.first, _here.last) if on_gpu(name)})
    for name in gpus:
        torch.cuda.reset_peak_memory_stats(name)
    _noted.append(used)
    try:
        yield used
    finally:
        _noted.pop()
        used.peak = sum(int(torch.cuda.max_memory_allocated(name)) for name in gpus if name in used.names)


def free() -> int | None:
    """Return the bytes that are free on the first device; None on the processor."""
    if not on_gpu(_here.first):
        return None
    import torch

    return int(torch.cuda.mem_get_info(_here.first)[0])


def settle() -> None:
    """Wait until the first device has done what it was given: calls to a GPU come back before."""
    if on_gpu(_here.first):
        import torch

        torch.cuda.synchronize(_here.first)


def give_back() -> None:
    """Hand back memory of GPUs that torch keeps and holds nothing in."""
    if on_gpu(_here.first):
        import torch

        torch.cuda.empty_cache()


def title(name: str) -> str:
    """Return what a GPU is called."""
    import torch

    return str(torch.cuda.get_device_name(name))


def full(error: BaseException) -> str | None:
    """Return what to tell of an error that says that a device's memory is full, None of any other."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(error, torch.OutOfMemoryError):
        return None
    first = next(iter(str(error).strip().splitlines()), "")
    return (
        f"{FIELD}: out of memory on the GPU ({first}); write CPU, use a larger GPU, or make the step smaller "
        "(batchSize, maxLength, trainLayers)"
    )
