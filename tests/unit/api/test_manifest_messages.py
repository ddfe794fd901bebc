"""Bad manifests: each costs a clear error that names the field, what was found, and what to write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmodel_api.errors import ManifestError
from leanmodel_api.manifest import load
from leanmodel_api.resource import LeanModel

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("leanmodel.yaml"))
QUICKSTART = yaml.safe_load((Path(__file__).parents[3] / "examples/quickstart/leanmodel.yaml").read_text())
SEARCH = {"budget": {"sizeRatio": "0.6"}}
DELETE = object()


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """Return the quickstart's manifest with values put (or deleted) at paths such as spec.lean.steps.0.type."""
    document = copy.deepcopy(QUICKSTART)
    for path, value in changes:
        place: Any = document
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            place = place[part]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value
    return document


PRUNE = {"type": "Prune", "keepLayers": 4}
PROVIDER = {"baseUrl": "https://api.example.com/v1", "model": "m"}


def fallback(**external: str) -> dict[str, Any]:
    """A fallback as it should be, its provider changed."""
    price = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "2"}
    return {"external": {**PROVIDER, **external}, "price": price}


TEACHER: dict[str, Any] = {**fallback(), "maxCalls": 100, "maxUSD": "1"}


def taught(**changes: Any) -> list[tuple[str, Any]]:
    """A student that learns of an external teacher, as it should be but for changes of the teacher."""
    return [
        ("spec.teacher", {**TEACHER, **changes}), ("spec.lean.steps.1.answers", "Teacher"),
        ("spec.routing.externalProviders", "Allowed"),
    ]  # fmt: skip


QUANTIZE = {"type": "Quantize", "scheme": "W8A8"}
CASES: list[tuple[str, list[tuple[str, Any]], str, str]] = [
    # what, changes, the field that the message names, words of finding or remedy
    ("no api version", [("apiVersion", DELETE)], "apiVersion", "is missing"),
    ("other api version", [("apiVersion", "leanmodel.io/v9")], "apiVersion", "leanmodel.io/v1alpha1"),
    ("other kind", [("kind", "LeenModel")], "kind", "'LeanModel'"),
    ("no name", [("metadata.name", DELETE)], "metadata.name", "is missing"),
    ("upper-case name", [("metadata.name", "Spam")], "metadata.name", "'Spam'"),
    ("no spec", [("spec", DELETE)], "spec", "is missing"),
    ("spec a list", [("spec", [])], "spec", "an object"),
    ("misspelt field", [("spec.eveluation", {})], "spec.eveluation", "did you mean 'evaluation'"),
    ("unknown field", [("spec.xyzzy", 1)], "spec.xyzzy", "fields here: task"),
    ("misspelt deep field", [("spec.large.finetune.epoch", "1")], "spec.large.finetune.epoch", "did you mean 'epochs'"),
    ("misspelt in a step", [("spec.lean.steps.0.keepLayer", 3)], "spec.lean.steps[0].keepLayer", "did you mean 'keepLayers'"),
    ("field of another step", [("spec.lean.steps.0.scheme", "W8A8")], "spec.lean.steps[0].scheme", "fields here: type, method"),
    ("step without type", [("spec.lean.steps.0.type", DELETE)], "spec.lean.steps[0].type", "has no type"),
    ("unknown step", [("spec.lean.steps.0.type", "Shrink")], "spec.lean.steps[0].type", "'Prune', 'Distill', "),
    ("reserved step", [("spec.lean.steps.0", {"type": "Merge"})], "spec.lean.steps[0].type", "not supported yet"),
    ("aware of no grid", [("spec.lean.steps", [PRUNE, {"type": "Heal", "quantizationAware": "W8A8"}])], "spec.lean.steps[1].quantizationAware", "right after it"),
    ("adapters prune", [("spec.lean.steps", [{"type": "Heal", "method": "LoRA", "pruneTo": "0.5"}])], "spec.lean.steps[0].pruneTo", "write method: Full"),
    ("block without size", [("spec.lean.steps", [{"type": "Prune", "method": "Magnitude", "ratio": "0.5", "structure": "Block"}])], "spec.lean.steps[0].blockSize", "write a size"),
    ("number for a string", [("spec.routing.promise.retain", 0.98)], "spec.routing.promise.retain", '"0.98"'),
    ("per cent", [("spec.routing.promise.retain", "98")], "spec.routing.promise.retain", '"0.95"'),
    ("not a number", [("spec.large.finetune.learningRate", "fast")], "spec.large.finetune.learningRate", '"0.0001"'),
    ("string for a whole number", [("spec.lean.steps.0.keepLayers", "four")], "spec.lean.steps[0].keepLayers", "whole number"),
    ("no layers", [("spec.lean.steps.0.keepLayers", 0)], "spec.lean.steps[0].keepLayers", "greater than or equal to 1"),
    ("text for a boolean", [("spec.suspend", "perhaps")], "spec.suspend", "true or false"),
    ("wrong enum", [("spec.lean.steps.2.scheme", "W3A3")], "spec.lean.steps[2].scheme", "'W4A16'"),
    ("list for an object", [("spec.serving", [])], "spec.serving", "an object"),
    ("object for a list", [("spec.dataSets", {})], "spec.dataSets", "a list"),
    ("no steps", [("spec.lean.steps", [])], "spec.lean.steps", "at least 1"),
    ("bad memory", [("spec.jobs", {"compress": {"memory": "lots"}})], "spec.jobs.compress.memory", '"4Gi"'),
    ("bad digest", [("spec.large.source.digest", "md5:1")], "spec.large.source.digest", "sha256:"),
    ("bad duration", [("spec.rollout", {"steps": [{"weight": 5, "pause": {"duration": "soon"}}]})], "spec.rollout.steps[0].pause.duration", '"10m"'),
    ("bad port", [("spec.serving", {"router": {"port": 80}})], "spec.serving.router.port", "1024"),
    ("two sources of large", [("spec.large.external", {"baseUrl": "https://x.example/v1", "model": "m"}), ("spec.large.finetune", DELETE)], "spec.large:", "both source and external"),
    ("no source of large", [("spec.large.source", DELETE)], "spec.large:", "neither source nor external"),
    ("lean made twice", [("spec.lean.search", SEARCH)], "spec.lean:", "write one of source, steps and search, or source and steps"),
    ("lean brought and found", [("spec.lean", {"source": {"uri": "file:x"}, "search": SEARCH})], "spec.lean:", "has source and search"),
    ("lean made never", [("spec.lean", {})], "spec.lean:", "none of source, steps and search"),
    ("quantise before prune", [("spec.lean.steps", [QUANTIZE, PRUNE])], "spec.lean.steps[1].type", "put Quantize last"),
    ("quantise before distil", [("spec.lean.steps", [QUANTIZE, {"type": "Distill"}])], "spec.lean.steps[1].type", "Distill after the Quantize"),
    ("quantise twice", [("spec.lean.steps", [QUANTIZE, QUANTIZE])], "spec.lean.steps[1].type", "put Quantize last"),
    ("prune by nothing", [("spec.lean.steps.0.keepLayers", DELETE)], "spec.lean.steps[0]:", "neither keepLayers nor ratio"),
    ("prune by both", [("spec.lean.steps.0.ratio", "0.5")], "spec.lean.steps[0]:", "both keepLayers and ratio"),
    ("2:4 read as a number", [("spec.lean.steps.0", {"type": "Prune", "method": "Wanda", "structure": 124})], "spec.lean.steps[0].structure", "'2:4'"),
    ("half twice", [("spec.lean.steps.0", {"type": "Prune", "method": "Wanda", "structure": "2:4", "ratio": "0.5"})], "spec.lean.steps[0].ratio", "which is half"),
    ("zeros of no share", [("spec.lean.steps.0", {"type": "Prune", "method": "Wanda"})], "spec.lean.steps[0].ratio", "the share of weights"),
    ("all weights zero", [("spec.lean.steps.0", {"type": "Prune", "method": "Wanda", "ratio": "1"})], "spec.lean.steps[0].ratio", "found 1"),
    ("zeros by layers", [("spec.lean.steps.0.method", "Wanda")], "spec.lean.steps[0].keepLayers", "it belongs to Depth"),
    ("layers by pattern", [("spec.lean.steps.0.targets", ["Linear"])], "spec.lean.steps[0].targets", "it belongs to Magnitude or"),
    ("channels of no share", [("spec.lean.steps.0", {"type": "Prune", "method": "Width"})], "spec.lean.steps[0].ratio", "share of channels"),
    ("heads of no share", [("spec.lean.steps.0", {"type": "Prune", "method": "Heads"})], "spec.lean.steps[0].ratio", "share of key-value groups"),
    ("neurons as layers", [("spec.lean.steps.0", {"type": "Prune", "method": "Neurons", "ratio": "0.5", "keepLayers": 4})], "spec.lean.steps[0].keepLayers", "belongs to Depth"),
    ("neurons in fours", [("spec.lean.steps.0", {"type": "Prune", "method": "Neurons", "ratio": "0.5", "structure": "2:4"})], "spec.lean.steps[0].structure", "belongs to Magnitude"),
    ("awq for activations", [("spec.lean.steps.2.algorithm", "AWQ")], "spec.lean.steps[2].algorithm", "write scheme: W4A16"),
    ("smoothing for weights alone", [("spec.lean.steps.2", {**QUANTIZE, "scheme": "W4A16", "algorithm": "SmoothQuant"})], "spec.lean.steps[2].algorithm", "write scheme: W8A8"),
    ("sensitive by no data", [("spec.lean.steps.2", {**QUANTIZE, "ignoreSensitive": 2, "dataSet": "none-such"})], "spec.lean.steps[2].dataSet", "none-such"),
    ("sensitive after training for all", [("spec.lean.steps.1.quantizationAware", "W8A8"), ("spec.lean.steps.2", {**QUANTIZE, "ignoreSensitive": 2})], "spec.lean.steps[2].ignoreSensitive", "was trained for None"),
    ("low rank of no size", [("spec.lean.steps.0", {"type": "Factorize"})], "spec.lean.steps[0]", "neither ratio nor energy"),
    ("low rank of two sizes", [("spec.lean.steps.0", {"type": "Factorize", "ratio": "0.2", "energy": "0.9"})], "spec.lean.steps[0]", "both ratio and energy"),
    ("low rank of nothing", [("spec.lean.steps.0", {"type": "Factorize", "energy": "1"})], "spec.lean.steps[0].energy", "between 0 and 1"),
    ("pruning thin layers", [("spec.lean.steps", [{"type": "Factorize", "ratio": "0.2"}, PRUNE])], "spec.lean.steps[1].type", "put Prune before it"),
    ("low rank of zeros", [("spec.lean.steps", [{"type": "Prune", "method": "Wanda", "ratio": "0.5"}, {"type": "Factorize", "ratio": "0.2"}])], "spec.lean.steps[1].type", "no zeros"),
    ("rounding thin layers", [("spec.lean.steps", [{"type": "Factorize", "ratio": "0.2"}, QUANTIZE])], "spec.lean.steps[1].type", "not supported yet"),
    ("neurons after zeros", [("spec.lean.steps", [{"type": "Prune", "method": "Wanda", "ratio": "0.5"}, {"type": "Prune", "method": "Neurons", "ratio": "0.5"}])], "spec.lean.steps[1].method", "put Neurons before it"),
    ("distil after zeros", [("spec.lean.steps", [{"type": "Prune", "method": "Magnitude", "ratio": "0.5"}, {"type": "Distill"}])], "spec.lean.steps[1].type", "would fill the zeros"),
    ("heal after trim", [("spec.lean.steps", [{"type": "Trim"}, {"type": "Heal"}])], "spec.lean.steps[1].labelWeight", "put Heal before it"),
    ("field of a heal in a trim", [("spec.lean.steps.0", {"type": "Trim", "loraRank": 4})], "spec.lean.steps[0].loraRank", "fields here: type, dataSet"),
    ("protects more than it keeps", [("spec.lean.steps.0.protectFirst", 9)], "spec.lean.steps[0].keepLayers", "less than protectFirst"),
    ("data set of no name", [("spec.evaluation.dataSet", "sns")], "spec.evaluation.dataSet", "write one of sms"),
    ("no data set", [("spec.dataSets", [])], "spec.large.finetune.dataSet", "there is no data set"),
    ("two data sets, none named", [("spec.dataSets", [QUICKSTART["spec"]["dataSets"][0], {**QUICKSTART["spec"]["dataSets"][0], "name": "b"}])], "spec.evaluation.dataSet", "write which: one of sms, b"),
    ("same name twice", [("spec.dataSets", [QUICKSTART["spec"]["dataSets"][0]] * 2)], "spec.dataSets:", "stands 2 times"),
    ("parts above one", [("spec.dataSets.0.split.train", "0.9")], "spec.dataSets[0].split", "add up to"),
    ("no prompt", [("spec.dataSets.0.prompt", {})], "spec.dataSets[0].prompt", "neither user nor text"),
    ("prompt without a column", [("spec.dataSets.0.prompt.user", "hello")], "spec.dataSets[0].prompt", "no column stands"),
    ("raw prompt with a system message", [("spec.dataSets.0.prompt", {"text": "{msg}", "system": "s"})], "spec.dataSets[0].prompt.system", "raw prompt"),
    ("one choice", [("spec.dataSets.0.choices", ["ham"])], "spec.dataSets[0].choices", "at least 2"),
    ("same choice twice", [("spec.dataSets.0.choices", ["ham", "ham"]), ("spec.dataSets.0.positive", "ham")], "spec.dataSets[0].choices", "twice"),
    ("choices without answer", [("spec.dataSets.0.answer", DELETE)], "spec.dataSets[0].answer", "{label}"),
    ("positive is no choice", [("spec.dataSets.0.positive", "eggs")], "spec.dataSets[0].positive", "not among choices"),
    ("metric without choices", [("spec.dataSets.0.choices", DELETE), ("spec.dataSets.0.positive", DELETE)], "spec.evaluation.metric", "has no choices"),
    ("gate of two bounds", [("spec.evaluation.gates.0.max", "1")], "spec.evaluation.gates[0]:", "both min and max"),
    ("gate of no bound", [("spec.evaluation.gates.0.min", DELETE)], "spec.evaluation.gates[0]:", "neither min nor max"),
    ("gate above the promise", [("spec.evaluation.gates.0.min", "0.99")], "spec.evaluation.gates[0].min", "nothing is ever escalated"),
    ("gate on saving without prices", [("spec.evaluation.gates.0", {"metric": "Saving", "min": "0.1"}), ("spec.pricing", DELETE)], "spec.evaluation.gates[0]:", "needs prices"),
    ("gates without lean", [("spec.lean", DELETE)], "spec.evaluation.gates", "no lean model"),
    ("price of two bases", [("spec.pricing.lean", {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"})], "spec.pricing:", "different bases"),
    ("a teacher that is forbidden", [*taught(), ("spec.routing.externalProviders", "Forbidden")], "spec.routing.externalProviders", "prompts of the train part would leave"),
    ("a teacher, and nothing said", [*taught(), ("spec.routing.externalProviders", DELETE)], "spec.routing.externalProviders", "write Allowed, or answers: DataSet"),
    ("a teacher that is not there", [("spec.lean.steps.1.answers", "Teacher")], "spec.lean.steps[1].answers", "write spec.teacher"),
    ("a teacher of nobody", [("spec.teacher", TEACHER)], "spec.teacher", "write answers: Teacher in a step"),
    ("answers of somebody else", [*taught(), ("spec.lean.steps.1.answers", "Large")], "spec.lean.steps[1].answers", "'DataSet' or 'Teacher'"),
    ("a teacher without a bound", [("spec.teacher", {**fallback(), "maxCalls": 5})], "spec.teacher.maxUSD", "is missing"),
    ("a teacher without calls", taught(maxCalls=0), "spec.teacher.maxCalls", "greater than or equal to 1"),
    ("dollars as a number", taught(maxUSD=5), "spec.teacher.maxUSD", "write it as a string"),
    ("dollars beyond count", taught(maxUSD="1e30"), "spec.teacher.maxUSD", "write at most"),
    ("a teacher in the clear", taught(external={**PROVIDER, "baseUrl": "http://api.example.com/v1"}), "spec.teacher.external.baseUrl", "write https://"),
    ("a teacher too warm", taught(temperature="2.5"), "spec.teacher.temperature", "from \"0\" to \"2\""),
    ("no time for a teacher", taught(timeout="0s"), "spec.teacher.timeout", "above 0"),
    ("no second try", taught(retryFor="0m"), "spec.teacher.retryFor", "above 0"),
    ("a proof without labels", [*taught(), ("spec.dataSets.0.answer", DELETE)], "spec.dataSets[0].answer", "write the answer's column"),
    ("half a price", [("spec.pricing.lean", {"inputUSDPerMillionTokens": "1"})], "spec.pricing.lean", "one token price of two"),
    ("no price", [("spec.pricing.lean", {})], "spec.pricing.lean", "has no price"),
    ("sampling", [("spec.evaluation.sampling.temperature", "0.7")], "spec.evaluation.sampling.temperature", "disagrees with itself"),
    ("replicas", [("spec.serving", {"large": {"minReplicas": 3, "maxReplicas": 2}})], "spec.serving.large.maxReplicas", "less than minReplicas"),
    ("unknown scheme", [("spec.large.source.uri", "ftp://x/y")], "spec.large.source.uri", "pypi:"),
    ("reserved scheme", [("spec.large.source.uri", "s3://bucket/key")], "spec.large.source.uri", "not supported yet"),
    ("external", [("spec.large", {"external": {"baseUrl": "https://x.example/v1", "model": "m"}})], "spec.large.external", "not supported yet"),
    ("search without a budget", [("spec.lean", {"search": {}})], "spec.lean.search.budget", "is missing"),
    ("search with an empty budget", [("spec.lean", {"search": {"budget": {}}})], "spec.lean.search.budget:", "has none of bytes, sizeRatio, device; "),
    ("search beside steps", [("spec.lean.search", SEARCH)], "spec.lean:", "steps and search"),
    ("search by dollars of a decoder", [("spec.lean", {"search": {"budget": {"usdPerThousandRequests": "1", "bytes": "1Mi"}}})], "spec.lean.search.budget.usdPerThousandRequests", "has no vLLM; write bytes, sizeRatio or device, and a gate on Saving"),
    ("search by time of a decoder", [("spec.lean", {"search": {"budget": {"latency": "20ms"}}})], "spec.lean.search.budget.latency", "known when vLLM has answered, and the compress Job has no vLLM; write bytes, sizeRatio or device, and a gate on ThroughputRatio"),
    ("search below no time", [("spec.lean", {"search": {"budget": {"latency": "-5ms"}}})], "spec.lean.search.budget.latency", "such as \"20ms\" or \"1.5s\""),
    ("search for a device without room for the engine", [("spec.lean", {"search": {"budget": {"device": {"memory": "1Gi"}}}})], "spec.lean.search.budget.device.memory", "vLLM alone takes about 2196.9 MB with spec.serving.lean.kvCache 512Mi; write more, or a smaller kvCache"),
    ("search for a device without memory", [("spec.lean", {"search": {"budget": {"device": {}}}})], "spec.lean.search.budget.device.memory", "is missing"),
    ("search for a device without GPU on one", [("spec.lean", {"search": {"budget": {"device": {"memory": "8Gi"}}}}), ("spec.serving.lean", {"resources": {"gpu": 1}})], "spec.serving.lean.resources.gpu", "a machine without GPU; write 0"),
    ("search of the whole", [("spec.lean", {"search": {"budget": {"sizeRatio": "1"}}})], "spec.lean.search.budget.sizeRatio", "between 0 and 1"),
    ("search of nothing", [("spec.lean", {"search": {"budget": {"bytes": "0"}}})], "spec.lean.search.budget.bytes", "such as 90Mi"),
    ("search on no known data", [("spec.lean", {"search": {**SEARCH, "promise": {"dataSet": "other"}}})], "spec.lean.search.promise.dataSet", "'other'"),
    ("search that learns from no known data", [("spec.lean", {"search": {**SEARCH, "training": {"dataSet": "other"}}})], "spec.lean.search.training.dataSet", "'other'"),
    ("search that keeps nothing", [("spec.lean", {"search": {**SEARCH, "promise": {"retain": "0"}}})], "spec.lean.search.promise.retain", "above 0"),
    ("search without a validation part", [("spec.lean", {"search": SEARCH}), ("spec.dataSets.0.split.validation", "0")], "spec.dataSets[0].split.validation", "judges its candidates"),
    ("search without answers", [("spec.lean", {"search": SEARCH}), ("spec.dataSets.0.choices", DELETE), ("spec.dataSets.0.positive", DELETE), ("spec.dataSets.0.answer", DELETE)], "spec.dataSets[0].answer", "against the wanted ones"),
    ("a gate below the budget", [("spec.lean", {"search": SEARCH}), ("spec.evaluation.gates.0", {"metric": "SizeRatio", "max": "0.5"})], "spec.evaluation.gates[0].max", "what is found could not pass"),
    ("a gate above the search's promise", [("spec.lean", {"search": {**SEARCH, "promise": {"retain": "0.8"}}}), ("spec.evaluation.gates.0", {"metric": "LeanQualityRetained", "min": "0.85"})], "spec.evaluation.gates[0].min", "write at most 0.8"),
    ("strategy", [("spec.routing.strategy", "Random")], "spec.routing.strategy", "Auto"),
    ("a level that never alarms", [("spec.routing.monitoring", {"falseAlarms": "0"})], "spec.routing.monitoring.falseAlarms", "at most 0.5"),
    ("allowed without a provider", [("spec.routing.externalProviders", "Allowed")], "spec.routing.externalProviders", "write spec.routing.fallback"),
    ("a provider without a price", [("spec.routing.fallback", {"external": PROVIDER})], "spec.routing.fallback.price", "is missing"),
    ("half a price", [("spec.routing.fallback", {"external": PROVIDER, "price": {"inputUSDPerMillionTokens": "1"}})], "spec.routing.fallback.price.outputUSDPerMillionTokens", "is missing"),
    ("a provider in the clear", [("spec.routing.fallback", fallback(baseUrl="http://api.example.com/v1"))], "spec.routing.fallback.external.baseUrl", "write https://"),
    ("a key in the address", [("spec.routing.fallback", fallback(baseUrl="https://me:key@api.example.com/v1"))], "spec.routing.fallback.external.baseUrl", "found"),
    ("a query in the address", [("spec.routing.fallback", fallback(baseUrl="https://api.example.com/v1?key=x"))], "spec.routing.fallback.external.baseUrl", "found"),
    ("an unknown ability", [("spec.routing.fallback", {**fallback(), "accepts": ["Audio"]})], "spec.routing.fallback.accepts[0]", "'Tools' or 'Images'"),
    ("an ability twice", [("spec.routing.fallback", {**fallback(), "accepts": ["Tools", "Tools"]})], "spec.routing.fallback.accepts", "write each once"),
    ("no time for a provider", [("spec.routing.fallback", {**fallback(), "timeouts": {"firstToken": "0s"}})], "spec.routing.fallback.timeouts.firstToken", "above 0"),
    ("no time for a model", [("spec.serving.router", {"timeouts": {"betweenTokens": "0m"}})], "spec.serving.router.timeouts.betweenTokens", "above 0"),
    ("a heartbeat without a pause", [("spec.serving.router", {"heartbeat": "0s"})], "spec.serving.router.heartbeat", "above 0"),
    ("a breaker that never opens", [("spec.serving.router", {"breaker": {"openFor": "0s"}})], "spec.serving.router.breaker.openFor", "above 0"),
    ("more retries than requests", [("spec.serving.router", {"retries": "1.5"})], "spec.serving.router.retries", '"0.95"'),
    ("budget of nothing", [("spec.routing.budget", {})], "spec.routing.budget:", "write one of them, or both"),
    ("budget of another name", [("spec.routing.budget", {"largeUSDPerHour": "20"})], "spec.routing.budget.largeUSDPerHour", "usdPerHour"),
    ("budget of a number", [("spec.routing.budget", {"usdPerDay": 20})], "spec.routing.budget.usdPerDay", "write it as a string"),
    ("budget of 0", [("spec.routing.budget", {"usdPerDay": "0.0"})], "spec.routing.budget.usdPerDay", "expected above 0"),
    ("budget beyond count", [("spec.routing.budget", {"usdPerHour": "1e999999"})], "spec.routing.budget.usdPerHour", "expected at most"),
    ("budget without prices", [("spec.routing.budget", {"usdPerDay": "20"}), ("spec.evaluation.gates", DELETE), ("spec.pricing", DELETE)], "spec.routing.budget:", "write spec.pricing"),
    ("lean only without lean", [("spec.routing.budget", {"usdPerDay": "20", "whenExceeded": "LeanOnly"}), ("spec.evaluation.gates", DELETE), ("spec.lean", DELETE)], "spec.routing.budget.whenExceeded", "add spec.lean"),
    ("second promise above the first", [("spec.routing.underPressure", {"retain": "0.99", "when": {"concurrency": 9}})], "spec.routing.underPressure.retain", "lower it"),
    ("second promise of nothing", [("spec.routing.underPressure", {"retain": "0", "when": {"concurrency": 9}})], "spec.routing.underPressure.retain", "between 0"),
    ("second promise at no time", [("spec.routing.underPressure", {"retain": "0.5", "when": {}})], "spec.routing.underPressure.when:", "write one of them"),
    ("second promise without when", [("spec.routing.underPressure", {"retain": "0.5"})], "spec.routing.underPressure.when", "is missing"),
    ("second promise by no budget", [("spec.routing.underPressure", {"retain": "0.5", "when": {"budget": "0.5"}})], "spec.routing.underPressure.when.budget", "write spec.routing.budget"),
    ("second promise at once", [("spec.routing.underPressure", {"retain": "0.5", "when": {"budget": "0"}}), ("spec.routing.budget", {"usdPerDay": "20"})], "spec.routing.underPressure.when.budget", "above 0"),
    ("second promise by no queue", [("spec.routing.underPressure", {"retain": "0.5", "when": {"queue": 9}})], "spec.routing.underPressure.when.queue", "limits.concurrency"),
    ("second promise by a queue too long", [("spec.routing.underPressure", {"retain": "0.5", "when": {"queue": 9}}), ("spec.serving.router", {"limits": {"concurrency": 2}})], "spec.routing.underPressure.when.queue", "no more than 8 may wait"),
    ("second promise never", [("spec.routing.underPressure", {"retain": "0.5", "when": {"concurrency": 9}}), ("spec.serving.router", {"limits": {"concurrency": 8}})], "spec.routing.underPressure.when.concurrency", "no more than 8"),
    ("second promise of a fixed route", [("spec.routing.underPressure", {"retain": "0.5", "when": {"concurrency": 9}}), ("spec.routing.strategy", "Fixed")], "spec.routing.underPressure:", "another strategy"),
    ("second promise without lean", [("spec.routing.underPressure", {"retain": "0.5", "when": {"concurrency": 9}}), ("spec.evaluation.gates", DELETE), ("spec.lean", DELETE)], "spec.routing.underPressure:", "add spec.lean"),
    ("another end of a budget", [("spec.routing.budget", {"usdPerDay": "20", "whenExceeded": "Stop"})], "spec.routing.budget.whenExceeded", "LeanOnly"),
    ("queue without a bound", [("spec.serving", {"router": {"limits": {"queue": 5}}})], "spec.serving.router.limits.queue", "concurrency"),
    ("body of nothing", [("spec.serving", {"router": {"limits": {"maxBody": "1"}}})], "spec.serving.router.limits.maxBody", "from 1Ki to 1Gi"),
    ("no time at all", [("spec.serving", {"router": {"limits": {"queueTimeout": "0s"}}})], "spec.serving.router.limits.queueTimeout", "from 1s to 24h"),
    ("state on one machine", [("spec.serving", {"router": {"state": "pvc://x"}})], "spec.serving.router.state", "not supported yet on one machine"),
    ("access of no kind", [("spec.serving", {"router": {"access": "Nobody"}})], "spec.serving.router.access", "Keys"),
    ("scaling", [("spec.serving", {"lean": {"maxReplicas": 3}})], "spec.serving.lean.maxReplicas", "not supported yet"),
    ("gpu", [("spec.serving", {"lean": {"resources": {"gpu": 1}}})], "spec.serving.lean.resources.gpu", "not supported yet"),
    ("rollout", [("spec.rollout", {"steps": [{"weight": 5}]})], "spec.rollout.steps", "not supported yet"),
    ("heads without relations", [("spec.lean.steps.1", {"type": "Distill", "objectives": ["Hidden"], "relationHeads": 3})], "spec.lean.steps[1].relationHeads", "without Attention in objectives"),
    ("smoothing weights", [("spec.lean.steps.2", {**QUANTIZE, "scheme": "W8A16", "algorithm": "SmoothQuant"})], "spec.lean.steps[2].algorithm", "write scheme: W8A8"),
    ("a GPU that is not given", [("spec.jobs", {"compress": {"device": "GPU"}})], "spec.jobs.compress.gpu", "write 1, or device: Auto"),
    ("a GPU that is not used", [("spec.jobs", {"compress": {"device": "CPU", "gpu": 1}})], "spec.jobs.compress.gpu", "write 0, or device: Auto"),
    ("no such device", [("spec.jobs", {"compress": {"device": "TPU"}})], "spec.jobs.compress.device", "Auto"),
    ("overrides", [("spec.serving", {"overrides": {"podTemplate": {}}})], "spec.serving.overrides", "not supported yet"),
    ("bucket store", [("spec.store", {"uri": "s3://b"})], "spec.store.uri", "not supported yet"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "field", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_bad_manifest_names_field_and_remedy(changes: list[tuple[str, Any]], field: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(changed(*changes))
    lines = [line for line in str(caught.value).splitlines() if line.startswith(field)]
    assert lines, f"no line starts with {field!r}:\n{caught.value}"
    assert any(words in line for line in lines), f"{words!r} is not said:\n{caught.value}"


@pytest.mark.parametrize("document", [None, [], "text", 3], ids=repr)
def test_document_that_is_no_object(document: object) -> None:
    with pytest.raises(ManifestError, match="apiVersion, kind, metadata and spec"):
        load(document)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_are_valid_and_survive_the_round_trip(path: Path) -> None:
    model = load(yaml.safe_load(path.read_text()))
    again = LeanModel.model_validate(model.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert again == model


def _places(value: Any, path: str = "") -> list[str]:
    """Return the paths of all values of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in items for p in (f"{path}{key}", *_places(item, f"{path}{key}."))]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(_places(QUICKSTART)), JUNK), min_size=1, max_size=3))
def test_junk_anywhere_is_accepted_or_refused_in_our_words(changes: list[tuple[str, Any]]) -> None:
    document = copy.deepcopy(QUICKSTART)
    for path, value in changes:
        try:
            document = changed_in(document, path, value)
        except (KeyError, TypeError, IndexError, AttributeError):
            continue  # an earlier change took the place away
    try:
        load(document)
    except ManifestError as error:
        assert error.issues
        assert all(issue.field and issue.found for issue in error.issues)


def changed_in(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    place: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("field", "spec"),
    [
        ("spec.serving.lean.maxReplicas", {"serving": {"lean": {"maxReplicas": 4}}}),
        ("spec.serving.large.resources.gpu", {"serving": {"large": {"resources": {"gpu": 1}}}}),
        ("spec.serving.overrides", {"serving": {"overrides": {"podTemplate": {}}}}),
        ("spec.store.uri", {"store": {"uri": "pvc://claim/folder"}}),
    ],
)
def test_what_takes_a_cluster_is_refused_on_one_machine_alone(field, spec):
    document = changed()
    document["spec"] |= spec
    with pytest.raises(ManifestError) as refused:
        load(document)
    (issue,) = refused.value.issues
    assert issue.field == field and "on one machine" in issue.found
    assert load(document, "Cluster").metadata.name


def test_what_a_teacher_labels_needs_no_labels_and_what_is_allowed_needs_no_fallback() -> None:
    more = copy.deepcopy(QUICKSTART["spec"]["dataSets"][0]) | {"name": "unlabelled"}
    del more["answer"]
    changes = [
        *taught(), ("spec.dataSets", [*QUICKSTART["spec"]["dataSets"], more]),
        ("spec.evaluation.dataSet", QUICKSTART["spec"]["dataSets"][0]["name"]),
        ("spec.lean.steps.1.dataSet", "unlabelled"),
        ("spec.large.finetune.dataSet", QUICKSTART["spec"]["dataSets"][0]["name"]),
    ]  # fmt: skip
    names = [("spec.lean.steps.0.dataSet", QUICKSTART["spec"]["dataSets"][0]["name"])]
    spec = load(changed(*changes, *names)).spec
    assert spec.teacher is not None and spec.routing.fallback is None
    with pytest.raises(ManifestError, match=r"spec\.dataSets\[1\]\.answer: choices are given but no answer"):
        load(changed(*changes[3:], *names))


def test_a_generator_may_match_what_lies_inside_and_have_its_table_in_8_bits() -> None:
    inside = {
        "type": "Distill", "objectives": ["Logits", "Hidden", "Attention"], "hiddenWeight": "2", "attentionWeight": "0.5",
        "relationHeads": 3, "layerMap": [{"student": 0, "teacher": 9}],
    }  # fmt: skip
    bits = {"type": "Quantize", "scheme": "W8A16", "embeddings": "Int8"}
    steps = load(changed(("spec.lean.steps", [PRUNE, inside, bits]))).spec.lean.steps
    assert [step.type for step in steps] == ["Prune", "Distill", "Quantize"]
