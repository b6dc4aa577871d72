"""The kv_dequant suite: every row passes on the real store, and fails on one that reads something else."""

import pytest

torch = pytest.importorskip("torch")

from labcore.kv import quantized_bench  # noqa: E402
from labcore.kv.quantized_store import QuantizedStore  # noqa: E402


class Rows(list):
    threads = 1
    add = list.append


def rows(monkeypatch) -> list[dict]:
    monkeypatch.setattr(quantized_bench, "TOKENS", 160)
    monkeypatch.setattr(quantized_bench, "alternate", lambda programs, **_: {name: [[1.0]] for name in programs})
    run = Rows()
    quantized_bench.suite(run)
    return [row.to_json() for row in run]


def test_each_format_has_a_row_that_passes(monkeypatch):
    found = rows(monkeypatch)
    assert [row["key"] for row in found] == [f"cpu.kv_dequant.{name}" for name in quantized_bench.FORMATS]
    assert all(row["correct"]["pass"] and row["ratio"]["kind"] == "overhead" for row in found)
    assert all(row["bytes"] < row["config"]["fp32_bytes"] for row in found)


def test_a_store_that_forgets_a_token_fails(monkeypatch):
    whole = QuantizedStore.read
    monkeypatch.setattr(QuantizedStore, "read", lambda *where: whole(*where)[:, 1:])
    assert not any(row["correct"]["pass"] for row in rows(monkeypatch))
