"""How many rows a batch holds: as many as memory and a step's time allow, and the start says which of them it was."""

from types import SimpleNamespace

import pytest

from roleplay.engine import capacity
from roleplay.engine.local import LocalEngine
from tests.roleplay.engine.test_engine import CONTEXT, base_model


@pytest.mark.parametrize(
    ("milliseconds", "rows_in_memory", "chosen", "reason"),
    [
        (1, 999, 64, "a step takes 64 ms"),
        (4, 999, 32, "a step takes 128 ms; one of 64 takes 256"),
        (90, 999, 8, "a step takes 720 ms; one of 16 takes 1440"),
        (4, 16, 16, "a step takes 64 ms; the caches of 32 could take 0.0 GB"),
        (4, 1, 8, "a step takes 32 ms; the caches of 16 could take 0.0 GB"),
    ],
)
def test_as_many_rows_as_time_and_memory_allow(
    milliseconds: int, rows_in_memory: int, chosen: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalEngine(base_model(), (), CONTEXT)
    cache = local._decoder.new_cache()
    cache.reserve(CONTEXT)
    free = SimpleNamespace(available=rows_in_memory * cache.bytes / capacity.MEMORY_SHARE)
    monkeypatch.setattr(capacity.psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(capacity, "step_seconds", lambda decoder, count: milliseconds * count / 1000)
    local.choose_at_once()
    promise = "the greedy text stays the same"  # in float32
    assert local.at_once == chosen
    assert any(f"up to {chosen} rows: {reason}; " in line and promise in line for line in local.describe())
    local.choose_at_once(3)
    assert any("up to 3 rows: as AT_ONCE says" in line for line in local.describe())
