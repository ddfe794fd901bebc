"""How engines are started, and which applications the desired state has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leanmodel_api.ledger import RedisAt
from leanmodel_serving.applications import (
    EngineSettings,
    RouterArgs,
    desired_state,
    engine_application,
    router_application,
)
from leanmodel_serving.engines.hardware import cpu_dtype, cpu_flags, packed_weights
from leanmodel_serving.engines.vllm import environment, server_arguments
from leanmodel_serving.host.reconcile import parse_desired


def engine(revision: str, **changes: object) -> EngineSettings:
    known = {"revision": revision, "model": f"/m/{revision}", "token_file": "/t"}
    return EngineSettings.model_validate({**known, **changes})


ROUTER = RouterArgs(settings_file="/s", engine_token_file="/t", internal_token_file="/i")


def test_a_router_without_a_redis_is_the_one_that_it_was_before_there_were_any() -> None:
    """Another argument would restart it, and one of before would not start with what it does not know."""
    assert "redis" not in router_application(ROUTER)["args"]
    there = ROUTER.model_copy(update={"redis": RedisAt(address="h:1", prefix="p")})
    assert RouterArgs.model_validate(router_application(there)["args"]) == there


@pytest.mark.parametrize(
    ("wanted", "flags", "found"),
    [
        ("Auto", {"avx2", "avx512f"}, "float32"),
        ("Auto", {"avx2", "avx512_bf16"}, "bfloat16"),
        ("Auto", {"amx_bf16"}, "bfloat16"),
        ("Auto", {"asimd", "bf16"}, "bfloat16"),
        ("Auto", set(), "float32"),
        ("BFloat16", {"avx2"}, "bfloat16"),
        ("Float32", {"amx_bf16"}, "float32"),
    ],
)
def test_auto_takes_bfloat16_only_where_the_processor_has_it(
    wanted: str, flags: set[str], found: str
) -> None:
    assert cpu_dtype(wanted, flags) == found  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [set(), {"avx2"}, {"avx512_bf16"}])
def test_packed_weights_are_computed_with_in_16_bits(flags: set[str]) -> None:
    """vLLM 0.29's kernel raises for float32: "cpu_gemm_wna16" not implemented for 'Float'."""
    lean = engine("lean-1")
    assert "--dtype=bfloat16" in server_arguments(lean, flags, cpu=True, packed=True)
    asked = engine("lean-1", dtype="Float16")
    assert "--dtype=float16" in server_arguments(asked, flags, cpu=True, packed=True)
    with pytest.raises(
        ValueError, match=r"^spec\.serving\.lean\.dtype: found Float32, but .*; write Auto or BFloat16$"
    ):
        server_arguments(engine("lean-1", dtype="Float32"), flags, cpu=True, packed=True)
    # On a GPU vLLM has kernels for it, or says so itself.
    assert "--dtype=float32" in server_arguments(
        engine("lean-1", dtype="Float32"), flags, cpu=False, packed=True
    )


def packed(bits: int) -> dict[str, object]:
    group = {"weights": {"num_bits": bits}, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": group},
    }


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"quantization_config": packed(4)}, True),
        ({"quantization_config": packed(8)}, False),
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "int-quantized"}}, False),
        ({"quantization_config": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_whether_weights_are_packed_is_read_from_the_artifact(
    tmp_path: Path, config: dict[str, object] | None, found: bool
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert packed_weights(tmp_path) is found


def test_flags_are_read_from_either_kind_of_processor(tmp_path: Path) -> None:
    for key in ("flags", "Features"):
        (tmp_path / key).write_text(f"processor : 0\n{key}\t: fpu avx2 bf16\n")
        assert cpu_flags(tmp_path / key) == {"fpu", "avx2", "bf16"}
    assert cpu_flags(tmp_path / "missing") == set()


def test_the_cpu_command_line() -> None:
    line = server_arguments(engine("lean-1", kv_cache_bytes=2**28), {"avx2"}, cpu=True)
    for wanted in (
        "--served-model-name=lean-1", "--model=/m/lean-1", "--dtype=float32", "--max-model-len=1024",
        f"--kv-cache-memory-bytes={2**28}", "--distributed-executor-backend=uni", "--enforce-eager",
        "--no-enable-log-requests",
    ):  # fmt: skip
        assert wanted in line
    assert "--dtype=auto" in server_arguments(engine("lean-1"), set(), cpu=False)


def test_threads_and_privacy_are_in_the_environment() -> None:
    found = environment(engine("lean-1", threads=3))
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["VLLM_NO_USAGE_STATS"] == "1" and found["HF_HUB_OFFLINE"] == "1"


def test_adding_a_lean_revision_leaves_the_others_as_they_are() -> None:
    router = router_application(ROUTER)
    before = desired_state([engine_application(engine("large-1"))], router)
    after = desired_state(
        [engine_application(engine(name)) for name in ("large-1", "lean-1", "lean-2")], router
    )
    by_name = {item["name"]: item for item in after["applications"]}
    assert [by_name[item["name"]] for item in before["applications"]] == before["applications"]
    prefixes = [item["route_prefix"] for item in after["applications"]]
    assert sorted(prefixes) == sorted({"/", "/engines/large-1", "/engines/lean-1", "/engines/lean-2"})


def test_the_desired_state_is_what_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    document = desired_state([engine_application(engine("large-1"))], router_application(ROUTER))
    parsed = ServeDeploySchema.model_validate(parse_desired(json.dumps(document)))
    assert [application.name for application in parsed.applications] == ["large-1", "router"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "applications"),
        ('{"applications": [{"name": "a"}, {"name": "a"}]}', "more than once"),
    ],
)
def test_a_desired_state_that_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_desired(text)


def test_an_engine_unknown_here_has_no_application() -> None:
    with pytest.raises(KeyError):
        engine_application(engine("a"), "NoSuchEngine")
