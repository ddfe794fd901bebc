"""Cross-field rules in CEL, so that the API server says at `kubectl apply` what the models say here.

Keyed by the place in the resource; each rule is (expression, message). A message says what to write. What CEL
cannot say within its cost (files, weights, other objects) is left to the operator's Accepted condition.
"""

from __future__ import annotations

from pydantic import BaseModel

from .evaluation import Promise
from .external import PLAIN_PATTERN
from .jobs import CEL_COMPRESS
from .steps import MADE_FOR, STEP_TYPES, STRUCTURE_METHODS, WEIGHT_METHODS, Prune, Quantize
from .teacher_rules import CEL_SPEC

Rule = tuple[str, str]


def _known(name: str, holder: str) -> str:
    """Return that ``holder``'s data set exists, or may be left out because there is exactly one."""
    return (
        f"({name} ? has(self.dataSets) && self.dataSets.exists(d, d.name == {holder}) "
        ": has(self.dataSets) && self.dataSets.size() == 1)"
    )


def _fields(model: type[BaseModel]) -> set[str]:
    return {info.alias or name for name, info in model.model_fields.items()}


def _foreign(kind: str) -> Rule:
    """Return the rule that a step carries no field of another type of step."""
    known = set().union(*map(_fields, STEP_TYPES.values()))
    foreign = sorted(known - _fields(STEP_TYPES[kind]))
    present = " || ".join(f"has(self.{name})" for name in foreign)
    return (
        f"self.type != '{kind}' || !({present})",
        f"{', '.join(foreign)} do not belong to a {kind} step: remove them",
    )


def _scheme(name: str) -> str:
    """Return that a Quantize step has that scheme, written out or by default."""
    written = f"has(self.scheme) && self.scheme == '{name}'"
    return f"!has(self.scheme) || {written}" if Quantize.model_fields["scheme"].default == name else written


NEEDS_CHOICES = "['BalancedAccuracy', 'ChoiceAccuracy', 'F1']"
_PROVEN_ON = "has(self.evaluation) && has(self.evaluation.dataSet)"
_TUNED_ON = "has(self.large.finetune.dataSet)"
_PARTS = ("train", "validation", "fit", "certify", "report", "test")
_WEIGHTS = f"(has(self.method) && self.method in {list(WEIGHT_METHODS)})"
_UNITS = f"(has(self.method) && self.method in {list(STRUCTURE_METHODS)})"
_RETAIN = Promise.model_fields["retain"].default
_SECOND = "(has(self.routing) && has(self.routing.underPressure))"
_PLACES = (
    "(has(self.serving) && has(self.serving.router) && has(self.serving.router.limits) && "
    "has(self.serving.router.limits.concurrency))"
)
_TIMED = ("latency", "usdPerThousandRequests")
_PRICE: Rule = (
    "has(self.usdPerHour) ? !has(self.inputUSDPerMillionTokens) && !has(self.outputUSDPerMillionTokens) "
    ": has(self.inputUSDPerMillionTokens) && has(self.outputUSDPerMillionTokens)",
    "write usdPerHour, or both inputUSDPerMillionTokens and outputUSDPerMillionTokens",
)
_REPLICAS: Rule = (
    "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
    "maxReplicas is less than minReplicas: raise it",
)

_HTTPS: Rule = (
    f"!self.baseUrl.startsWith('http://') || self.baseUrl.matches('{PLAIN_PATTERN}')",
    "baseUrl: write https://, http would carry prompts unencrypted",
)
_WAITS = [
    (
        f"!has(self.{name}) || duration(self.{name}) > duration('0s')",
        f"{name}: write above 0, such as 30s",
    )
    for name in ("connect", "firstToken", "betweenTokens", "answer")
]

RULES: dict[str, list[Rule]] = {
    "": [
        (
            "self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: write at most 40 of a-z, 0-9 and -: Services and Jobs are named after it",
        ),
    ],
    "spec": [
        (
            f"!has(self.large.finetune) || {_known(_TUNED_ON, 'self.large.finetune.dataSet')}",
            "large.finetune.dataSet: write one of the names in spec.dataSets (optional where there is one)",
        ),
        (
            f"!has(self.lean) || {_known(_PROVEN_ON, 'self.evaluation.dataSet')}",
            "evaluation.dataSet: proving the lean model needs a data set: write one of the names in "
            "spec.dataSets (optional where there is one)",
        ),
        (
            "!has(self.lean) || !has(self.lean.steps) || self.lean.steps.all(s, !has(s.dataSet) || "
            "(has(self.dataSets) && self.dataSets.exists(d, d.name == s.dataSet)))",
            "lean.steps[].dataSet: write one of the names in spec.dataSets",
        ),
        *(
            (
                f"!has(self.lean) || !has(self.lean.search) || {_known(f'has(self.lean.search.{part}) && has(self.lean.search.{part}.dataSet)', f'self.lean.search.{part}.dataSet')}",
                f"lean.search.{part}.dataSet: write one of the names in spec.dataSets (optional where there is one)",
            )
            for part in ("promise", "training")
        ),
        (
            f"!has(self.lean) || !has(self.lean.search) || !({' || '.join(f'has(self.lean.search.budget.{name})' for name in _TIMED)}) || "
            "(has(self.task) && self.task == 'text-classification')",
            "lean.search.budget: speed is measured for task text-classification alone: write bytes, sizeRatio or device, "
            "and a gate on Saving or ThroughputRatio",
        ),
        (
            "!has(self.lean) || !has(self.lean.search) || !has(self.lean.search.budget.usdPerThousandRequests) || "
            "(has(self.pricing) && has(self.pricing.lean.usdPerHour))",
            "lean.search.budget.usdPerThousandRequests: needs a replica's price per hour: write pricing.lean.usdPerHour",
        ),
        (
            "!has(self.evaluation) || !has(self.evaluation.gates) || self.evaluation.gates.size() == 0 || "
            "has(self.lean)",
            "evaluation.gates: without spec.lean there is nothing to hold against them: add it, or remove the gates",
        ),
        (
            "!has(self.evaluation) || !has(self.evaluation.gates) || has(self.pricing) || "
            "!self.evaluation.gates.exists(g, g.metric == 'Saving')",
            "evaluation.gates: a gate on Saving needs prices: write spec.pricing.large and spec.pricing.lean",
        ),
        (
            "!has(self.evaluation) || !has(self.evaluation.metric) || "
            f"!(self.evaluation.metric in {NEEDS_CHOICES}) || !has(self.dataSets) || "
            "self.dataSets.exists(d, has(d.choices) && (has(self.evaluation.dataSet) ? "
            "d.name == self.evaluation.dataSet : self.dataSets.size() == 1))",
            "evaluation.metric: this metric needs choices: write spec.dataSets[].choices, or another metric",
        ),
        (
            "!has(self.routing) || !has(self.routing.fallback) || !has(self.task) || "
            "!(self.task in ['text-classification', 'text-embedding'])",
            "routing.fallback: no provider gives this model's labels or vectors: remove it",
        ),
        (
            "!has(self.routing) || !has(self.routing.budget) || has(self.pricing)",
            "routing.budget: there are no prices to count with: write spec.pricing, or remove the budget",
        ),
        (
            "!has(self.routing) || !has(self.routing.budget) || !has(self.routing.budget.whenExceeded) || "
            "self.routing.budget.whenExceeded != 'LeanOnly' || has(self.lean)",
            "routing.budget.whenExceeded: there is no lean model: write Reject, or add spec.lean",
        ),
        (
            f"!{_SECOND} || has(self.lean)",
            "routing.underPressure: there is no lean model: remove it, or add spec.lean",
        ),
        (
            f"!{_SECOND} || !has(self.routing.underPressure.when.budget) || has(self.routing.budget)",
            "routing.underPressure.when.budget: there is no budget to hold it against: write routing.budget, or remove it",
        ),
        (
            f"!{_SECOND} || !has(self.routing.underPressure.when.queue) || {_PLACES}",
            "routing.underPressure.when.queue: nothing ever waits: write serving.router.limits.concurrency, or remove it",
        ),
        (
            "!has(self.store) || !has(oldSelf.store) || self.store == oldSelf.store",
            "store: cannot change, all artifacts lie there: make a new LeanModel",
        ),
        *CEL_SPEC,
    ],
    "spec.routing": [
        (
            "!has(self.underPressure) || double(self.underPressure.retain) < "
            f"(has(self.promise) && has(self.promise.retain) ? double(self.promise.retain) : {_RETAIN})",
            f"underPressure.retain: write less than promise.retain (default {_RETAIN}): under pressure less is promised",
        ),
        (
            "!has(self.underPressure) || !has(self.strategy) || self.strategy != 'Fixed'",
            "underPressure: strategy Fixed promises nothing: remove it, or write another strategy",
        ),
    ],
    "spec.routing.underPressure": [
        ("double(self.retain) > 0.0", 'retain: write above 0, such as "0.9"'),
    ],
    "spec.routing.underPressure.when": [
        (
            "has(self.budget) || has(self.concurrency) || has(self.queue)",
            "write budget, concurrency or queue, or more of them",
        ),
        ("!has(self.budget) || double(self.budget) > 0.0", 'budget: write above 0, such as "0.5"'),
    ],
    "spec.routing.fallback.external": [_HTTPS],
    "spec.teacher.external": [_HTTPS],
    "spec.teacher": [
        ("double(self.maxUSD) <= 1000000000.0", "maxUSD: write at most 1000000000"),
        ("!has(self.temperature) || double(self.temperature) <= 2.0", "temperature: write from 0 to 2"),
        *(
            (
                f"!has(self.{name}) || duration(self.{name}) > duration('0s')",
                f"{name}: write above 0, such as 2m",
            )
            for name in ("timeout", "retryFor")
        ),
    ],
    "spec.routing.fallback": [
        (
            "!has(self.accepts) || self.accepts.all(a, self.accepts.exists_one(b, a == b))",
            "accepts: write each ability once",
        ),
    ],
    "spec.routing.fallback.timeouts": _WAITS,
    "spec.serving.router.timeouts": _WAITS,
    "spec.serving.router.breaker": [
        (
            "!has(self.openFor) || duration(self.openFor) > duration('0s')",
            "openFor: write above 0, such as 5s",
        ),
    ],
    "spec.task": [("self == oldSelf", "cannot change: make a new LeanModel")],
    "spec.large": [
        ("has(self.source) != has(self.external)", "write exactly one of source and external"),
        (
            "!has(self.external) || !has(self.finetune)",
            "an external model cannot be fine-tuned here: remove finetune, or give source",
        ),
    ],
    "spec.lean": [
        (
            "has(self.search) ? !has(self.source) && !has(self.steps) : has(self.source) || has(self.steps)",
            "write one of source, steps and search, or source and steps",
        ),
    ],
    "spec.lean.search": [
        (
            " || ".join(f"has(self.budget.{name})" for name in ("bytes", "sizeRatio", *_TIMED, "device")),
            'budget: write bytes, such as 90Mi, or sizeRatio, such as "0.6", latency, usdPerThousandRequests or device',
        ),
        (
            "!has(self.budget.latency) || duration(self.budget.latency) > duration('0s')",
            "budget.latency: write above 0, such as 20ms",
        ),
        (
            "!has(self.budget.usdPerThousandRequests) || double(self.budget.usdPerThousandRequests) > 0.0",
            'budget.usdPerThousandRequests: write above 0, such as "0.002"',
        ),
        (
            "!has(self.budget.sizeRatio) || (double(self.budget.sizeRatio) > 0.0 && double(self.budget.sizeRatio) < 1.0)",
            "budget.sizeRatio: write a share between 0 and 1",
        ),
    ],
    "spec.lean.steps": [
        (
            "!self.exists(s, s.type == 'Quantize') || (self.filter(s, s.type == 'Quantize').size() == 1 && "
            "self[self.size() - 1].type == 'Quantize')",
            "put Quantize last, and once: prune, then distil, then quantise",
        ),
    ],
    "spec.lean.steps[]": [
        (
            f"self.type != 'Prune' || {_WEIGHTS} || has(self.keepLayers) != has(self.ratio)",
            'Prune: write exactly one of keepLayers and ratio, such as ratio: "0.5"',
        ),
        (
            f"self.type != 'Prune' || {_WEIGHTS} || !(has(self.structure) || has(self.targets) || has(self.ignore))",
            "structure, targets and ignore belong to Magnitude, Wanda and SparseGPT: remove them, or write method",
        ),
        (
            f"self.type != 'Prune' || {_WEIGHTS} || {_UNITS} || !has(self.maxLength)",
            "maxLength does not belong to method Depth: remove it, or write method",
        ),
        (
            f"self.type != 'Prune' || !({_WEIGHTS} || {_UNITS}) || "
            "!(has(self.keepLayers) || has(self.selection) || has(self.protectFirst) || has(self.protectLast))",
            "keepLayers, selection, protectFirst and protectLast belong to method Depth: remove them",
        ),
        (
            f"self.type != 'Prune' || !{_WEIGHTS} || "
            "has(self.ratio) != (has(self.structure) && self.structure == '2:4')",
            'Prune: write ratio, such as "0.5", or structure "2:4", which is half: not both',
        ),
        (
            "self.type != 'Prune' || !has(self.keepLayers) || self.keepLayers >= "
            f"(has(self.protectFirst) ? self.protectFirst : {Prune.model_fields['protect_first'].default}) + "
            f"(has(self.protectLast) ? self.protectLast : {Prune.model_fields['protect_last'].default})",
            "keepLayers is less than protectFirst + protectLast: raise it, or protect fewer layers",
        ),
        *(
            (
                f"self.type != 'Quantize' || !has(self.algorithm) || self.algorithm != '{algorithm}' || "
                f"{_scheme(scheme)}",
                f"algorithm {algorithm} is for scheme {scheme}: write it, or algorithm RTN or GPTQ",
            )
            for algorithm, scheme in MADE_FOR.items()
        ),
        (
            "self.type != 'Factorize' || has(self.ratio) != has(self.energy)",
            'Factorize: write exactly one of ratio and energy, such as ratio: "0.2"',
        ),
        *(_foreign(kind) for kind in STEP_TYPES),
    ],
    "spec.dataSets[]": [
        (
            "!has(self.positive) || (has(self.choices) && self.positive in self.choices)",
            "positive: write one of choices",
        ),
    ],
    "spec.dataSets[].split": [
        (
            " + ".join(f"double(self.{part})" for part in _PARTS) + " <= 1.0000001",
            "the parts add up to more than 1: lower them",
        ),
    ],
    "spec.dataSets[].prompt": [
        (
            "has(self.user) != has(self.text)",
            "write exactly one of user (a chat) and text (a raw prompt)",
        ),
        (
            "!(has(self.text) && has(self.system))",
            "a raw prompt has no system message: put its words into text, or use user",
        ),
        (
            "(has(self.user) ? self.user : has(self.text) ? self.text : '{x}')"
            ".matches('[{][A-Za-z_][A-Za-z0-9_]*[}]')",
            "no column stands in the prompt: write it in braces, such as {msg}",
        ),
    ],
    "spec.evaluation.gates[]": [("has(self.min) != has(self.max)", "write exactly one of min and max")],
    "spec.evaluation.sampling": [
        (
            "!has(self.temperature) || double(self.temperature) == 0.0",
            'temperature: write "0": a sampled large model disagrees with itself, so quality could not be told '
            "from luck",
        ),
    ],
    "spec.routing.budget": [
        ("has(self.usdPerHour) || has(self.usdPerDay)", "write usdPerHour, usdPerDay, or both"),
        *(
            (
                f"!has(self.{name}) || (double(self.{name}) > 0.0 && double(self.{name}) <= 1000000000.0)",
                f'{name}: write US dollars above 0 and at most 1000000000, such as "20"',
            )
            for name in ("usdPerHour", "usdPerDay")
        ),
    ],
    "spec.serving.router.limits": [
        (
            "!has(self.queue) || has(self.concurrency)",
            "queue: nothing bounds what is under way: write concurrency, or remove queue",
        ),
    ],
    "spec.serving.router": [
        (
            "!has(self.state) || self.state.matches('^pvc://[a-z0-9]([-a-z0-9]*[a-z0-9])?(/.*)?$')",
            "state: write pvc://CLAIM or pvc://CLAIM/FOLDER",
        ),
        (
            "!has(self.heartbeat) || duration(self.heartbeat) > duration('0s')",
            "heartbeat: write above 0, such as 15s",
        ),
    ],
    "spec.routing.monitoring": [
        (
            "!has(self.falseAlarms) || (double(self.falseAlarms) > 0.0 && double(self.falseAlarms) <= 0.5)",
            "falseAlarms: write above 0 and at most 0.5, such as 0.05",
        ),
    ],
    "spec.pricing": [
        (
            "has(self.large.usdPerHour) == has(self.lean.usdPerHour)",
            "price both models per hour, or both per token",
        ),
    ],
    "spec.pricing.large": [_PRICE],
    "spec.pricing.lean": [_PRICE],
    "spec.jobs.compress": CEL_COMPRESS,
    "spec.serving.large": [_REPLICAS],
    "spec.serving.lean": [_REPLICAS],
}
