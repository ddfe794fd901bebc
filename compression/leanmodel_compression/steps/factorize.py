"""Factorize: a linear layer becomes two thin ones, the best of their rank for the inputs that calibration rows give.

The best means: of all layers of that rank, the one whose outputs on those tokens differ least (SVD-LLM,
arXiv 2403.07378, which finds it by whitening the inputs and cutting the singular values of what follows). With L
the Cholesky factor of the inputs' second moments and U the first left singular vectors of W L, that layer is
U (Uᵀ W): the same product as SVD-LLM's, without inverting L. Layers are gone through one after the other, each on
what the thin ones before it give (see layerwise).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from leanmodel_api.base import number
from leanmodel_api.errors import Issue
from leanmodel_api.low_rank import INNER, OUTER, RANKS, architecture, family_of, model_type
from leanmodel_api.step_rules import factorize_issues

from .. import hf, low_rank, memory
from ..shapes import Linear, ModelShape, forward_flops, targeted
from . import layerwise, sparse
from .protocol import Outcome, Place, StepError, Task, WithRows, Work, checked, samples

# Share of the mean diagonal that is added to the moments, so that they have a Cholesky factor.
DAMPENING = 1e-4
# Ranks of at least twice this are multiples of it: W4A16's groups fit them, and so do the tiles of kernels.
MULTIPLE = 32
# Layers that get the same inputs: their moments are taken once.
SHARED = {
    "self_attn.k_proj": "self_attn.q_proj",
    "self_attn.v_proj": "self_attn.q_proj",
    "mlp.up_proj": "mlp.gate_proj",
}


class Factorizing(WithRows):
    """Makes linear layers low-rank."""

    name = "Factorize"
    version = 1
    libraries = ("torch", "transformers")
    teaches = False

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """All but the data set's name, whose content counts by itself."""
        return dict(spec.model_dump(mode="json", exclude={"data_set", "type"}, exclude_none=True))

    def issues(self, task: Task) -> list[Issue]:
        """Check the amount, that layers match and become smaller, and that there are rows."""
        spec, field, shape = task.spec, task.field, task.shape
        found = factorize_issues(spec, field)
        linears = wanted(task)
        if not linears:
            found.append(
                Issue(
                    f"{field}.targets",
                    f"{spec.targets} without {spec.ignore} match none of the linear layers in the decoder's layers",
                    "write [Linear], or patterns such as re:.*mlp.*",
                )
            )
        if not found and spec.ratio is not None:
            none = [linear.name for linear in linears if budget_rank(linear, number(spec.ratio)) < 1]
            if none:
                words = f"{spec.ratio} leaves no rank to {len(none)} layers such as {none[0]}"
                found.append(Issue(f"{field}.ratio", words, "write a smaller one, or name them in ignore"))
        if family_of(shape.architecture) is None:
            found.append(Issue(field, f"there are no low-rank {shape.architecture}", "remove the step"))
        if task.rows is None or not task.rows.train:
            found.append(
                Issue(f"{field}.dataSet", "Factorize calibrates on rows, there are none", "give rows")
            )
        return found

    def after(self, task: Task) -> ModelShape:
        """Thin layers by the budget; by energy only the work can tell, and whole layers are the most it can be."""
        name = architecture(family_of(task.shape.architecture) or "")
        if task.spec.ratio is None:
            return replace(task.shape, architecture=name)
        share = number(task.spec.ratio)
        ranks = {linear.name: max(1, budget_rank(linear, share)) for linear in wanted(task)}
        return replace(task.shape, architecture=name, ranks=tuple(sorted(ranks.items())))

    def memory(self, task: Task) -> int:
        """The model in float32, one state per token, a layer's moments, and a decomposition of its largest matrix."""
        lengths = [len(row.ids) for row in samples(task)]
        calibrating = memory.calibration_bytes(task.shape, lengths, True)
        largest = max((linear.columns * linear.rows for linear in wanted(task)), default=0)
        loaded = memory.loaded_bytes(task.shape)
        return checked(task, self.after(task), loaded + calibrating + 6 * memory.FLOAT * largest)

    def disk(self, task: Task) -> int:
        """The artifact, and the finished layers."""
        return 4 * self.after(task).parameters

    def work(self, task: Task) -> Work:
        """Two passes over the samples, the moments, and a decomposition per layer."""
        tokens = sum(len(row.ids) for row in samples(task))
        flops = 2 * forward_flops(task.shape, tokens, 0)
        for linear in wanted(task):
            small, large = sorted((linear.columns, linear.rows))
            if linear.name.partition(".layers.")[2].partition(".")[2] not in SHARED:
                flops += 2.0 * tokens * linear.columns**2
            # Singular values take many passes that matrix products' speed does not tell.
            flops += linear.columns**3 / 3 + 2.0 * linear.rows * linear.columns**2 + 40.0 * large * small**2
        return Work(flops=flops, bytes=30.0 * task.shape.parameters, seconds=3.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Factorise every layer, write the thin ones among the others, and a configuration that names them."""
        factoring = Factoring(task.spec, {linear.name for linear in wanted(task)})
        watched = sorted({SHARED.get(name, name) for name in map(within, factoring.names)})
        changed, resumed_at = layerwise.walk(place, samples(task), watched, factoring.change, put)
        memory.give_back()
        inner = f".{INNER}.weight"
        ranks = {
            name.removesuffix(inner): int(value.shape[0])
            for name, value in changed.items()
            if name.endswith(inner)
        }
        if not ranks:
            words = f"energy {task.spec.energy} makes none of {len(factoring.names)} layers smaller"
            raise StepError(Issue(f"{task.field}.energy", words, "write a smaller one, or ratio"))
        tensors = sparse.read(place)
        for name in ranks:
            del tensors[f"{name}.weight"]
            if f"{name}.bias" in tensors:
                tensors[f"{name}.{OUTER}.bias"] = tensors.pop(f"{name}.bias")
        sparse.write({**tensors, **changed}, place)
        family = family_of(task.shape.architecture) or ""
        config = hf.read_json(place.target / hf.CONFIG)
        config |= {RANKS: ranks, "model_type": model_type(family), "architectures": [architecture(family)]}
        hf.write_json(place.target / hf.CONFIG, config)
        shape = replace(task.shape, architecture=architecture(family), ranks=tuple(sorted(ranks.items())))
        return Outcome(len(ranks), describe(task.spec, ranks, len(factoring.names)), resumed_at, {}, shape)


class Factoring:
    """What becomes of one decoder layer."""

    def __init__(self, spec: Any, names: set[str]):
        """Take the step's object and the names of the layers that are meant."""
        self.spec, self.names = spec, names

    def change(self, name: str, layer: Any, moments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the thin layers' tensors by name; none for a layer that stays whole."""
        found: dict[str, Any] = {}
        roots: dict[str, Any] = {}
        for whole in sorted(self.names):
            if not whole.startswith(f"{name}."):
                continue
            at = within(whole)
            source = SHARED.get(at, at)
            if source not in roots:
                roots[source] = root(moments[source])
            weight = layer.get_submodule(at).weight
            share = number(self.spec.ratio) if self.spec.ratio is not None else None
            thin = thinned(weight, roots[source], share, number(self.spec.energy or "1"))
            if thin is not None:
                found[f"{whole}.{INNER}.weight"], found[f"{whole}.{OUTER}.weight"] = thin
        return found


def root(moments: Any) -> Any:
    """Return a lower triangular L with L Lᵀ = moments, slightly damped."""
    import torch

    damped = moments.clone()
    damped.diagonal().add_(DAMPENING * max(float(moments.diagonal().mean()), 1e-12))
    return torch.linalg.cholesky(damped)


def thinned(weight: Any, lower: Any, ratio: float | None, energy: float) -> tuple[Any, Any] | None:
    """Return (inner, outer) of a weight (rows × columns), or None where they would not be smaller.

    Args:
        weight: of the layer.
        lower: the root of its inputs' moments.
        ratio: the share of its parameters that goes, or None to go by energy.
        energy: the share of its output's squares that stays.
    """
    import torch

    rows, columns = weight.shape
    left, values, _ = torch.linalg.svd(weight @ lower, full_matrices=False)
    if ratio is not None:
        rank = budget_rank(Linear("", columns, rows), ratio)
    else:
        squares = values.double().square().cumsum(0)
        rank = -rounded(-(int((squares < energy * squares[-1]).sum()) + 1))
    if rank * (rows + columns) >= rows * columns:
        return None
    outer = left[:, :rank]
    return outer.T @ weight, outer


def put(layer: Any, name: str, tensors: Mapping[str, Any]) -> None:
    """Put thin layers into a decoder layer."""
    for key, value in tensors.items():
        whole, _, _ = key.removesuffix(".weight").rpartition(".")
        if not key.endswith(f".{INNER}.weight"):
            continue
        parent, _, child = whole.removeprefix(f"{name}.").rpartition(".")
        holder = layer.get_submodule(parent)
        linear, outer = getattr(holder, child), tensors[f"{whole}.{OUTER}.weight"]
        made = low_rank.pair(linear.in_features, value.shape[0], linear.out_features, linear.bias is not None)
        made.inner.weight.data, made.outer.weight.data = value, outer
        if linear.bias is not None:
            made.outer.bias.data = linear.bias.data
        setattr(holder, child, made)


def within(name: str) -> str:
    """Return a layer's name within its decoder layer: ``mlp.up_proj`` of ``model.layers.3.mlp.up_proj``."""
    return name.split(".", 3)[3]


def budget_rank(linear: Linear, ratio: float) -> int:
    """Return the rank at which the two thin layers have the share of parameters that stays; 0 where there is none."""
    return rounded(int((1 - ratio) * linear.columns * linear.rows / (linear.columns + linear.rows)))


def rounded(rank: int) -> int:
    """Return a rank as a whole multiple, the next below (of a negative one: the next above its size)."""
    return rank - rank % MULTIPLE if abs(rank) >= 2 * MULTIPLE else rank


def wanted(task: Task) -> list[Linear]:
    """Return the layers that are meant; the head stays whatever targets says."""
    return targeted(task.shape, task.spec.targets, [*task.spec.ignore, "lm_head"])


def describe(spec: Any, ranks: Mapping[str, int], layers: int) -> str:
    """Return the settings in short, and the ranks that came of them."""
    how = f"ratio {spec.ratio}" if spec.ratio is not None else f"energy {spec.energy}"
    return f"{how}, {len(ranks)} of {layers} layers, ranks {min(ranks.values())} to {max(ranks.values())}"
