"""Fetch: an encoder's safetensors become a float32 model in Hugging Face's layout, with its head where it has one."""

from __future__ import annotations

from leanmodel_api.errors import Issue

from ... import devices, hf, memory
from ...classifiers import models
from ..protocol import Outcome, Place, StepError, Task, Work
from .common import FLOAT, EncoderStep, encoder, looked


class EncoderFetching(EncoderStep):
    """Turns fetched files into the first artifact."""

    name = "Fetch"
    libraries = ("transformers", "tokenizers")

    def issues(self, task: Task) -> list[Issue]:
        """What can be wrong with a source is checked with the plan."""
        return []

    def memory(self, task: Task) -> int:
        """Loading, with a copy."""
        return looked(task.shape, memory.PROCESS_BYTES + 2 * FLOAT * task.shape.parameters)

    def work(self, task: Task) -> Work:
        """Reading and writing; transformers takes seconds to get going."""
        return Work(bytes=12.0 * task.shape.parameters, seconds=5.0)

    def run(self, task: Task, place: Place) -> Outcome:
        """Write the model, its configuration and its tokenizer into the target folder."""
        place.progress(0, 2, "reading weights")
        shape = encoder(task.shape)
        load = models.load if shape.labels else models.load_base
        try:
            model = load(place.source, devices.CPU)
        except hf.MissingWeightsError as error:
            raise StepError(Issue(task.field, str(error), "fetch or export the whole model")) from error
        models.save(model, place.target)
        place.progress(1, 2, "writing the tokenizer")
        hf.load_tokenizer(place.source).save_pretrained(str(place.target))
        hf.tidy(place.target, "float32")
        if not (place.target / "tokenizer.json").exists():
            found = "its tokenizer cannot be written as tokenizer.json, which the engine reads"
            raise StepError(Issue(task.field, found, "name a model with tokenizer.json or vocab.txt"))
        place.progress(2, 2, "")
        modules = sum(1 for module in model.modules() if not list(module.children()))
        head = f"labels {', '.join(shape.labels)}" if shape.labels else "no head yet"
        return Outcome(modules, f"safetensors as float32, {head}")
