"""A GPU that is none: tensors are computed on the processor, and behave as if some lay on another device.

Where a tensor lies is noted by its storage, so that views, parameters' ``data`` and in-place changes follow by
themselves. Two modes of torch see every call: one answers what Python asks of a tensor (``device``, ``to``, ``numpy``
and makers with ``device=``), the other every operator below it. The numbers are the processor's own; what CUDA would
refuse is refused: an operator over tensors of two devices (a CPU tensor of no dimension may join), drawing on a device
by another one's generator, and reading a device's memory as NumPy's or as a file's bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import torch
from compressed_tensors.utils import impl_backend
from conftest import run_plan
from llmcompressor.modifiers.gptq import gptq_quantize
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import modeling_utils

from leanmodel_api.plan import CompressPlan, CompressResult
from leanmodel_store.artifacts import Store

CPU = torch.device("cpu")
GPU = torch.device("cuda:0")
FIRST = "cuda:0 (pretended cuda:0)"
"""What a figure says of a step on one of them."""
# Operators that carry numbers from one device to another, or read one number, or no numbers at all.
_CARRIES = {"_to_copy", "copy_", "_copy_from", "_local_scalar_dense", "set_", "lift_fresh", "_has_compatible_shallow_copy_type"}  # fmt: skip
_READS = {"numpy", "__array__", "__dlpack__"}
_INDEXES = {"index", "index_put", "index_put_"}
_SWEEP = 4096


class MixedDevicesError(RuntimeError):
    """What CUDA would refuse."""


class Places:
    """Where each storage lies; what is not noted lies on the CPU."""

    def __init__(self) -> None:
        # A weak reference keeps the storage's own address from being given away: a note never speaks of another one.
        self._notes: dict[int, tuple[StorageWeakRef, torch.device]] = {}
        self.moved = 0
        self.within: torch.device | None = None
        """Where an operator is at work that makes tensors for itself, out of Python's sight."""

    def of(self, tensor: Any) -> torch.device:
        """Return where a tensor lies."""
        if tensor.is_meta:
            return torch.device("meta")
        if tensor.is_sparse:
            return CPU
        note = self._notes.get(tensor.untyped_storage()._cdata)
        return CPU if note is None else note[1]

    def put(self, tensor: Any, device: torch.device) -> None:
        """Note where a new tensor lies."""
        storage = tensor.untyped_storage()
        if device.type == "cpu":
            self._notes.pop(storage._cdata, None)
            return
        self.moved += 1
        if self.moved % _SWEEP == 0:
            self._notes = {key: note for key, note in self._notes.items() if not note[0].expired()}
        self._notes[storage._cdata] = (StorageWeakRef(storage), device)


def _tensors(values: Any) -> Iterator[Any]:
    return (value for value in tree_iter(values) if isinstance(value, torch.Tensor))


class _Operators(TorchDispatchMode):
    """Sees every operator: refuses mixtures, and notes where results lie."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        given = list(_tensors((args, kwargs)))
        # CUDA takes indices from the CPU.
        apart = _tensors(args[1]) if name in _INDEXES else ()
        indices = {id(one) for one in apart if self._places.of(one).type == "cpu"}
        # Linear algebra makes itself empty ones to write its verdict into, where the processor's numbers are.
        own = {id(one) for one in given if name.startswith("linalg_") and not one.numel()}
        meant = [one for one in given if id(one) not in indices | own]
        device = self._common(str(func), meant) if name not in _CARRIES else None
        if not given and self._places.within is not None:
            device = self._places.within
        known = {tensor.untyped_storage()._cdata for tensor in given if not tensor.is_sparse}
        draws = [one for one in tree_iter((args, kwargs)) if isinstance(one, torch.Generator)]
        if device is not None and any(draw.device.type != device.type for draw in draws):
            raise MixedDevicesError(f"Expected a {device.type} device type for generator: {func}")
        made = func(*args, **kwargs)
        if name in _CARRIES:
            # A copy within a device stays there; one that was asked for goes where _Calls puts it.
            device = self._places.of(given[0]) if given else CPU
        for tensor in _tensors(made):
            if not tensor.is_sparse and tensor.untyped_storage()._cdata not in known:
                self._places.put(tensor, device or CPU)
        return made

    def _common(self, name: str, given: list[Any]) -> torch.device:
        places = [(self._places.of(tensor), tensor.dim()) for tensor in given]
        devices = {place for place, _ in places if place.type == "cuda"}
        if "_fused_" in name and len({place for place, _ in places}) > 1:
            raise MixedDevicesError(f"{name} wants its counts of steps on the device, too")
        if len(devices) > 1 or (devices and any(place.type == "cpu" and size for place, size in places)):
            shapes = ", ".join(f"{tuple(one.shape)} on {self._places.of(one)}" for one in given)
            raise MixedDevicesError(f"Expected all tensors to be on the same device: {name} of {shapes}")
        if devices and name.split(".")[1].endswith("_") and places[0][0].type == "cpu":
            raise MixedDevicesError(f"{name} writes a device's numbers into a CPU tensor")
        return devices.pop() if devices else CPU


class _Calls(TorchFunctionMode):
    """Answers what Python asks about devices."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "__get__":
            asked = getattr(func.__self__, "__name__", "")
            if asked == "device":
                return self._places.of(args[0])
            if asked in ("is_cuda", "is_cpu"):
                return self._places.of(args[0]).type == asked.removeprefix("is_")
        if name == "get_device" and isinstance(args[0], torch.Tensor):
            place = self._places.of(args[0])
            return -1 if place.type == "cpu" else place.index
        if name in _READS and isinstance(args[0], torch.Tensor) and self._places.of(args[0]).type != "cpu":
            raise MixedDevicesError(
                f"{name} of a tensor on {self._places.of(args[0])}: copy it to the host first"
            )
        if name in ("to", "cuda", "cpu", "type_as") and args and isinstance(args[0], torch.Tensor):
            return self._moved(func, name, args, kwargs)
        if name == "scaled_dot_product_attention":
            # With dropout it makes its causal mask by itself.
            self._places.within = self._places.of(args[0])
            try:
                return func(*args, **kwargs)
            finally:
                self._places.within = None
        if kwargs.get("device") is not None:
            return self._made(func, name, args, kwargs)
        return func(*args, **kwargs)

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        tensor, rest, wanted = args[0], list(args[1:]), None
        if name in ("cuda", "cpu"):
            wanted = _device(rest[0] if rest else kwargs.get("device", name))
            rest, kwargs = [], {}
        elif kwargs.get("device") is not None:
            wanted = _device(kwargs.pop("device"))
        elif rest and isinstance(rest[0], (str, torch.device, int)) and not isinstance(rest[0], bool):
            wanted = _device(rest.pop(0))
        elif rest and isinstance(rest[0], torch.Tensor):
            wanted = self._places.of(rest[0])
            rest[0] = rest[0].dtype
        elif "other" in kwargs:
            other = kwargs.pop("other")
            wanted, kwargs["dtype"] = self._places.of(other), other.dtype
        kwargs = {key: value for key, value in kwargs.items() if key != "non_blocking" and value is not None}
        rest = [one for one in rest if isinstance(one, torch.dtype)]
        if wanted is None or wanted == self._places.of(tensor):
            return torch.Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if wanted.type == "meta":
            return torch.Tensor.to(tensor, wanted)
        kwargs.pop("copy", None)
        made = torch.Tensor.to(tensor, *rest, **kwargs, copy=True)
        self._places.put(made, wanted)
        return made

    def _made(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        device = _device(kwargs["device"])
        if device.type not in ("cpu", "cuda"):
            return func(*args, **kwargs)
        draw = kwargs.get("generator")
        if draw is not None and draw.device.type != device.type:
            raise MixedDevicesError(f"Expected a {device.type} device type for generator: {name}")
        if name in ("tensor", "as_tensor", "asarray") and isinstance(args[0], torch.Tensor):
            return self._moved(torch.Tensor.to, "to", (args[0],), {"device": device})
        kwargs["device"] = CPU
        made = func(*args, **kwargs)
        for tensor in _tensors(made):
            self._places.put(tensor, device)
        return made


def _device(given: Any) -> torch.device:
    found = torch.device("cuda", given) if isinstance(given, int) else torch.device(given)
    return torch.device("cuda", 0) if found.type == "cuda" and found.index is None else found


def _saving(places: Places) -> Any:
    """Return safetensors' writer, which takes tensors of the CPU alone here."""
    write = safetensors.torch.save_file

    def save(tensors: Any, *args: Any, **kwargs: Any) -> None:
        for name, tensor in tensors.items():
            if places.of(tensor).type != "cpu":
                raise MixedDevicesError(f"{name} is written from {places.of(tensor)}")
        write(tensors, *args, **kwargs)

    return save


@contextmanager
def pretended(count: int = 1, free: int = 2**36) -> Iterator[Places]:
    """Let torch have GPUs within the block.

    Args:
        count: how many.
        free: bytes that are free on each.
    """
    places = Places()
    answers: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: 0,
        "mem_get_info": lambda *_: (free, free),
        "get_device_name": lambda name: f"pretended {name}",
        "max_memory_allocated": lambda *_: places.moved,
        "reset_peak_memory_stats": lambda *_: None,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        # torch's exporter keeps and restores the state of every generator.
        "get_rng_state": lambda *_: torch.zeros(1),
        "set_rng_state": lambda *_: None,
    }
    general: dict[str, Any] = {
        "is_available": lambda: True,
        "current_accelerator": lambda *_, **__: GPU,
        # Optimisers ask whether their steps are being recorded.
        "current_stream": lambda *_: mock.Mock(is_capturing=lambda: False),
        # llmcompressor logs how much is taken.
        "device_count": lambda: count,
        "max_memory_allocated": lambda *_: 0,
        "get_memory_info": lambda *_: (free, free),
    }
    # Kernels for CUDA alone would be handed memory that is none of its.
    kernels = {(impl_backend, "ENFORCE_EAGER"): True, (gptq_quantize, "HAS_TRITON"): False}
    with ExitStack() as stack:
        save = _saving(places)
        for holder, values in (
            (torch.cuda, answers),
            (torch.accelerator, general),
            (safetensors.torch, {"save_file": save}),
            (modeling_utils, {"safe_save_file": save}),
        ):
            for name, value in values.items():
                stack.enter_context(mock.patch.object(holder, name, value))
        stack.enter_context(mock.patch.object(torch, "get_device_module", lambda *_: torch.cuda))
        for (holder, name), value in kernels.items():
            stack.enter_context(mock.patch.object(holder, name, value))
        stack.enter_context(_Operators(places))
        stack.enter_context(_Calls(places))
        yield places


def copied(store: Store, folder: Path) -> Store:
    """Return a store with the same artifacts."""
    shutil.copytree(store.root, folder)
    return Store(folder)


def both(plan: CompressPlan, one: Store, other: Store, count: int = 1) -> CompressResult:
    """Run a plan on the processor and on pretended GPUs, hold their bytes together, and return the second result."""
    plain = run_plan(plan, one)
    with pretended(count):
        made = run_plan(plan, other)
    assert [step.artifact for step in made.steps] == [step.artifact for step in plain.steps]
    assert {step.device for step in plain.steps} == {"CPU"}
    return made
