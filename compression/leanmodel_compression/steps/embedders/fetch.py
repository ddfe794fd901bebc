"""Fetch: a sentence encoder's safetensors as float32, its pooling in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmodel_api.classification import EMBEDDING

from ... import hf
from ...classifiers import pooling
from ..encoders.fetch import EncoderFetching
from ..protocol import Outcome, Place, Task


class EmbedderFetching(EncoderFetching):
    """Turns fetched files into the first artifact."""

    def settings(self, spec: Any) -> Mapping[str, Any]:
        """The task: a classifier's artifact of the same source is another."""
        return {**super().settings(spec), "task": EMBEDDING}

    def run(self, task: Task, place: Place) -> Outcome:
        """Write the encoder, and beside its sizes how a vector is made of its states."""
        outcome = super().run(task, place)
        config = pooling.with_pooling(hf.read_json(place.source / hf.CONFIG), place.source)
        kept = {**hf.read_json(place.target / hf.CONFIG), pooling.KEY: config[pooling.KEY]}
        hf.write_json(place.target / hf.CONFIG, kept)
        how = pooling.pooling_of(kept)
        detail = f"safetensors as float32, pooling {how.mode}{', normalised' if how.normalize else ''}"
        return Outcome(outcome.modules_changed, detail)
