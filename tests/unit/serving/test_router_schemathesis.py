"""Schemathesis asks the router by its own document, over real HTTP: every answer must be one that the document tells of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from policies_made import made
from router_running import running

from leanmodel_api.policy import Scope

# A header that no document names is nobody's fault: HTTP wants it ignored.
CONFIG = "[generation]\nallow-extra-parameters = false\n"
RUN = ("--phases", "examples,coverage,fuzzing", "--generation-deterministic", "--continue-on-failure", "--no-color",
       "--checks", "all", "--max-response-time", "20", "--suppress-health-check", "all")  # fmt: skip
CASES = 12
"""Per operation in the phase that draws; the phase that walks each rule of a schema makes hundreds besides."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    # A limit of cost is refused where a request's cost has no bound, which no schema can say.
    [{}, {"overrides": True, "unchecked": "positive_data_acceptance"}, {"task": "text-embedding", "strategy": "AllLarge"}],
    ids=["cascade", "overrides", "embeddings"],
)  # fmt: skip
def test_every_answer_is_in_the_document(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = dict(changes)
    unchecked = changes.pop("unchecked", "")
    policy = made("cascade", scope=Scope(), threshold=0.4).model_dump(mode="json")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    with running(tmp_path, **{"strategy": "Cascade", "policy": policy, **changes}) as router:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", f"{router.url}/openapi.json", "--header", f"Authorization: Bearer {router.key}"),
            *(*RUN, "--max-examples", str(CASES)),
            *(("--exclude-checks", unchecked) if unchecked else ()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Traceback" not in router.log.read_text(), router.log.read_text()[-4000:]
        assert router.process.poll() is None
