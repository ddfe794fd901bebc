"""What is checked before any work. Pure: facts in, issues out."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from leanmodel_api.errors import Issue
from leanmodel_api.parts import Example
from leanmodel_api.plan import CompressPlan
from leanmodel_api.search_budget import untold_issues
from leanmodel_api.step_rules import order_issues
from leanmodel_api.steps import Export, Finetune, Linear, Quantize, Share
from leanmodel_api.steps import Step as StepSpec
from leanmodel_api.teacher_rules import access_issues, learns

from . import devices, memory
from .batches import MICRO_ANSWERS, MICRO_TOKENS, Row, Rows, cut, rough_tokens
from .classifiers import checks as classifiers
from .families import FAMILIES
from .machine import Machine
from .shapes import ModelShape
from .steps import EXPAND, export_as_teacher, registry, step_of
from .steps.protocol import Step, Task

MEMORY_FIELD = "spec.jobs.compress.memory"
STORE_FIELD = "spec.store.uri"
MIB = 2**20
# Left free on the disk beside what the steps write.
DISK_RESERVE = 256 * MIB
ROUGH_TEMPLATE = 24


@dataclass(frozen=True)
class Planned:
    """A step of the plan: its kind, its object in the plan, its place in the manifest."""

    step: Step
    spec: Finetune | StepSpec | None
    field: str


def role_field(plan: CompressPlan) -> str:
    """Return the manifest's field of the model that is made."""
    return "spec.large" if plan.role == "Large" else "spec.lean"


def planned(plan: CompressPlan) -> list[Planned]:
    """Return the plan's steps in order, a fetch first where there is a source."""
    found: list[Planned] = []
    steps = registry(plan.task)
    if plan.source is not None:
        found.append(Planned(steps["Fetch"], None, f"{role_field(plan)}.source"))
    if plan.finetune is not None:
        found.append(Planned(steps["Finetune"], plan.finetune, f"{role_field(plan)}.finetune"))
    shared: list[Planned] = []
    for index, spec in enumerate(plan.steps):
        field = f"{role_field(plan)}.steps[{index}]"
        # Neither a grid nor an engine knows layers that share their weights.
        if isinstance(spec, Quantize | Export):
            found += shared
            shared = []
        found.append(Planned(step_of(spec, plan.task), spec, field))
        if isinstance(spec, Share):
            shared = [Planned(EXPAND, spec, field)]
    found += shared
    # What no step exports is exported as it is: a classifier's engine reads ONNX.
    if plan.task is not None and not any(isinstance(spec, Export | Linear) for spec in plan.steps):
        step = export_as_teacher(plan.task) if plan.role == "Large" else steps["Export"]
        found.append(Planned(step, Export(type="Export"), role_field(plan)))
    return found


def plan_issues(plan: CompressPlan) -> list[Issue]:
    """Return what is wrong with the plan itself: its start, its order, its data sets."""
    field, found = role_field(plan), []
    if (plan.source is None) == (plan.base is None):
        found.append(
            Issue(field, "source and base must not both be set or missing", "give exactly one of them")
        )
    if plan.search is not None:
        return found + search_issues(plan)
    if plan.base is not None and not plan.steps and plan.finetune is None:
        found.append(Issue(f"{field}.steps", "no step to do", "write at least one step, or a source"))
    found += order_issues(plan.steps, f"{field}.steps") + teacher_issues(plan)
    for item in planned(plan):
        wants, name = item.step.data_set(item.spec)
        if wants:
            found += data_set_issues(plan, name, item.field)
        if item.step.teaches and plan.teacher is None and plan.base is None:
            found.append(Issue(item.field, "there is no teacher", "give the plan the large model's artifact"))
    return found


def teacher_issues(plan: CompressPlan) -> list[Issue]:
    """Return why the plan's steps may not learn from an external teacher: whatever wrote it, it fails closed."""
    return access_issues(plan.external_teacher, [item.field for item in planned(plan) if learns(item.spec)])


def data_set_issues(plan: CompressPlan, name: str | None, field: str) -> list[Issue]:
    """Return what is wrong with a step's choice of data set."""
    names = [data_set.name for data_set in plan.data_sets]
    if name is None and len(names) == 1:
        return []
    if name is None:
        found = f"it names none of {len(names)} data sets" if names else "it needs a data set, there is none"
        return [
            Issue(
                f"{field}.dataSet",
                found,
                f"write one of {', '.join(names)}" if names else "add to spec.dataSets",
            )
        ]
    if name not in names:
        return [
            Issue(f"{field}.dataSet", f"{name!r} is not in spec.dataSets", f"write one of {', '.join(names)}")
        ]
    return []


def search_issues(plan: CompressPlan) -> list[Issue]:
    """Return what is wrong with a search's choice of data sets, and what its budget asks and the plan does not tell.

    Nothing where there is no search.
    """
    if plan.search is None:
        return []
    field = f"{role_field(plan)}.search"
    found = untold_issues(plan)
    found += data_set_issues(plan, plan.search.promise.data_set, f"{field}.promise")
    return found + data_set_issues(plan, plan.search.training.data_set, f"{field}.training")


def model_issues(shape: ModelShape, plan: CompressPlan) -> list[Issue]:
    """Return why the model that comes in cannot be worked on."""
    field = f"{role_field(plan)}.source" if plan.source is not None else "spec.large.source"
    if plan.task is not None:
        return classifiers.model_issues(shape, plan, field)
    works = [item.step.name for item in planned(plan) if item.spec is not None]
    works += ["a search"] if plan.search is not None else []
    found = []
    if shape.quantised and works:
        found.append(
            Issue(
                field,
                f"the model is already quantised ({shape.quantised}), and {works[0]} needs float weights",
                "name the float model; quantised ones can only be brought along as lean.source",
            )
        )
    if shape.architecture not in FAMILIES and works:
        found.append(
            Issue(
                field,
                f"{shape.architecture} is not supported yet by {works[0]}",
                f"name a model of {', '.join(FAMILIES)}",
            )
        )
    if shape.positions and plan.max_model_length > shape.positions:
        serving = "large" if plan.role == "Large" else "lean"
        found.append(
            Issue(
                f"spec.serving.{serving}.maxModelLength",
                f"{plan.max_model_length} tokens, and the model was made for {shape.positions}",
                f"write at most {shape.positions}",
            )
        )
    return found


def tokenizer_issues(beyond: Sequence[str], shape: ModelShape, field: str) -> list[Issue]:
    """Return that the tokenizer beside the weights is another model's: it gives numbers that the table lacks.

    Args:
        beyond: tokens whose numbers are larger than the token table.
        shape: of the model.
        field: the manifest's field that names the model.
    """
    if not beyond:
        return []
    found = (
        f"its tokenizer is another model's: {len(beyond)} tokens, such as {beyond[0]!r}, have numbers beyond the "
        f"{shape.vocabulary} rows of the token table"
    )
    return [Issue(field, found, "put the tokenizer beside the weights that they were trained with")]


def template_issues(examples: Sequence[Example], has_template: bool, field: str) -> list[Issue]:
    """Return why a chat data set cannot be asked of this model."""
    if has_template or not any(example.messages is not None for example in examples):
        return []
    return [
        Issue(
            f"{field}.prompt.user",
            "the model has no chat template",
            "write prompt.text, a raw prompt, instead",
        )
    ]


def task_issues(tasks: Sequence[tuple[Planned, Task]]) -> list[Issue]:
    """Return what the steps find wrong, each with its own data and the model as it will be by then."""
    return [
        issue for item, task in tasks for issue in family_issues(item, task.shape) or item.step.issues(task)
    ]


def family_issues(item: Planned, shape: ModelShape) -> list[Issue]:
    """Return that a decoder's family does not have a step, or not as it is asked for."""
    refused = shape.decoder.refusal(item.spec) if shape.architecture in FAMILIES else None
    if refused is None:
        return []
    member, refusal = refused
    asked = (
        item.step.name if member == "type" else f"{item.step.name} with {member} {getattr(item.spec, member)}"
    )
    return [
        Issue(
            f"{item.field}.{to_camel(member)}",
            f"{asked} of a {shape.decoder.name}: {refusal.why}",
            refusal.instead,
        )
    ]


def refusals(tasks: Sequence[tuple[Planned, Task]], limit: int, machine: Machine) -> list[Issue]:
    """Return why this machine, or the Job's limit, is too small for the steps that are left to do."""
    found: list[Issue] = []
    for item, task in tasks:
        need = item.step.memory(task)
        if need > limit:
            found.append(
                Issue(
                    MEMORY_FIELD,
                    f"{item.field} ({item.step.name}) needs about {mib(need)}, the limit is {mib(limit)}",
                    f"write at least {need // MIB + 1}Mi, or make the step smaller (batchSize, maxLength, trainLayers)",
                )
            )
        elif need > machine.memory_bytes:
            found.append(
                Issue(
                    MEMORY_FIELD,
                    f"{item.field} ({item.step.name}) needs about {mib(need)}, and the machine has "
                    f"{mib(machine.memory_bytes)} free",
                    "free memory, or make the step smaller (batchSize, maxLength, trainLayers)",
                )
            )
        found += device_refusals(item, task, machine.device_bytes)
    disk = sum(item.step.disk(task) for item, task in tasks) + (DISK_RESERVE if tasks else 0)
    if disk > machine.disk_bytes:
        found.append(
            Issue(
                STORE_FIELD,
                f"the steps write about {mib(disk)}, and its disk has {mib(machine.disk_bytes)} free",
                "free some, or name a store on a larger disk",
            )
        )
    return found


def device_refusals(item: Planned, task: Task, free: int | None) -> list[Issue]:
    """Return that a GPU is too small for a step; nothing where models stay on the processor (``free`` is None)."""
    if free is None or item.step.name == "Linear":
        return []
    need = device_bytes(item, task)
    if need <= free:
        return []
    found = f"{item.field} ({item.step.name}) needs about {mib(need)} of the GPU's memory, and {mib(free)} are free"
    advice = "write CPU, use a larger GPU, or make the step smaller (batchSize, maxLength, trainLayers)"
    return [Issue(devices.FIELD, found, advice)]


def device_bytes(item: Planned, task: Task) -> int:
    """Return what a step holds on a GPU: its estimate without the process, or what looking at its model takes."""
    looking = memory.forward_bytes(item.step.after(task), MICRO_TOKENS, MICRO_ANSWERS, 3)
    need = looking if item.step.name in devices.HOST_STEPS else item.step.memory(task)
    return max(0, need - memory.PROCESS_BYTES)


def mib(count: int) -> str:
    """Return bytes in whole MiB, for a message."""
    return f"{count // MIB} MiB"


def rough_rows(train: Sequence[Example], validation: Sequence[Example]) -> Rows:
    """Return rows of about the right length, before there is a tokenizer: on the long side."""
    return Rows(
        tuple(map(_rough, filter(_learnable, train))), tuple(map(_rough, filter(_learnable, validation)))
    )


def _learnable(example: Example) -> bool:
    return example.answer is not None or example.text is not None


def _rough(example: Example) -> Row:
    texts = [example.text or "", *(message.content for message in example.messages or [])]
    prompt = ROUGH_TEMPLATE + sum(map(rough_tokens, texts))
    if example.answer is None:
        return Row(tuple(range(prompt)), 1)
    # The same answer must give the same tokens: rows are counted by it.
    answer = (zlib.crc32(example.answer.encode()),) * (2 + rough_tokens(example.answer))
    return Row((*range(prompt), *answer), prompt)


def chain(
    items: Sequence[Planned],
    shape: ModelShape,
    seed: int,
    rows: Sequence[Rows | None],
    teacher: ModelShape | None,
    tokenizer: str = "",
    labels: tuple[str, ...] = (),
) -> list[tuple[Planned, Task]]:
    """Return each step with its task: the shape that the steps before it leave, its rows cut to its length."""
    found: list[tuple[Planned, Task]] = []
    for item, seen in zip(items, rows, strict=True):
        length = item.step.max_length(item.spec)
        mine = seen if seen is None or length is None else cut_rows(seen, length)
        told = teacher if item.step.teaches else None
        task = Task(item.spec, item.field, shape, seed, mine, told, tokenizer, labels)
        found.append((item, task))
        shape = item.step.after(task)
    return found


def cut_rows(rows: Rows, length: int) -> Rows:
    """Return both parts with every row cut to ``length`` tokens."""
    return Rows(
        tuple(cut(row, length) for row in rows.train), tuple(cut(row, length) for row in rows.validation)
    )
