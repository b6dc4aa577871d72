"""Ceilings: the right work over the right time. How fast the machine is decides nothing here."""

import pytest

from labcore.bench import ceilings, hooks, suites
from labcore.bench.ceilings import cpu_array_bytes, measure_ceilings
from labcore.bench.device import last_level_cache_bytes, memory_bytes
from labcore.bench.record import Row
from labcore.core.errors import FetchError, InputError


@pytest.fixture
def small(monkeypatch):
    """The same measurements on arrays of 1 MiB and matrices of 64 × 64."""
    monkeypatch.setattr(ceilings, "cpu_array_bytes", lambda: 2**20)
    monkeypatch.setattr(ceilings, "CPU_MATMUL_SIZES", (64, 64))


@pytest.fixture
def no_torch(monkeypatch):
    find = ceilings.importlib.util.find_spec
    monkeypatch.setattr(
        ceilings.importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name)
    )


def by_key(found):
    return {one.key: one for one in found}


def test_work_is_counted_by_the_stated_formula(small):
    pytest.importorskip("torch")
    said = []
    found = by_key(measure_ceilings("cpu", threads=(1,), rounds=2, say=said.append))
    assert list(found)[:4] == ["read_bandwidth.1t", "copy_bandwidth.1t", "matmul.fp32.1t", "matmul.bf16.1t"]
    assert found["read_bandwidth.1t"].work == 2**20
    assert found["copy_bandwidth.1t"].work == 2 * 2**20
    assert found["matmul.fp32.1t"].work == 2 * 64**3
    assert len(said) == len(found)
    for one in found.values():
        assert len(one.seconds) == 2
        assert one.rates == pytest.approx([one.work / taken for taken in one.seconds], rel=1e-4)


def test_one_ceiling_a_thread_count(small):
    pytest.importorskip("torch")
    found = measure_ceilings("cpu", threads=(2, 1, 1), rounds=1, say=lambda line: None)
    assert [one.threads for one in found if one.name == "read_bandwidth"] == [1, 2]


def test_without_torch_numpy_measures_and_says_so(small, no_torch):
    found = by_key(measure_ceilings("cpu", threads=(1, 2), rounds=1, say=lambda line: None))
    assert list(found) == ["read_bandwidth.1t", "copy_bandwidth.1t", "matmul.fp32"]
    assert found["read_bandwidth.1t"].op == "numpy.max" and "BLAS" in found["matmul.fp32"].op


def test_the_array_exceeds_every_cache_and_fits_in_memory():
    size = cpu_array_bytes()
    assert size % 4 == 0 and size <= (memory_bytes() or 8 * 2**30) / 8
    assert size >= min(8 * (last_level_cache_bytes() or 0), (memory_bytes() or 2**40) / 8 - 4096)


def test_unknown_devices_are_refused(monkeypatch):
    monkeypatch.setattr(ceilings, "cuda_available", lambda: False)
    with pytest.raises(InputError, match="device 'tpu' is unknown"):
        measure_ceilings("tpu")
    with pytest.raises(InputError, match="no NVIDIA GPU"):
        measure_ceilings("cuda")


@pytest.mark.gpu
def test_gpu_ceilings():
    if not ceilings.cuda_available():
        pytest.skip("no NVIDIA GPU")
    found = by_key(measure_ceilings("cuda", rounds=3))
    assert {"read_bandwidth", "copy_bandwidth", "matmul.fp32", "matmul.bf16", "matmul.int8"} <= set(found)


def quick(monkeypatch, table):
    """Run suites from `table` of functions, on a machine whose ceilings are measured in no time."""
    one = ceilings.Ceiling("read_bandwidth", 2, "fp32", "torch.sum", "N", 1e9, "4 N", "B/s", (1.0, 1.0))
    monkeypatch.setattr(suites, "measure_ceilings", lambda *args, **kwargs: [one])
    monkeypatch.setattr(suites, "CPU_SUITES", {name: f"labcore.bench.suites:{name}" for name in table})
    monkeypatch.setattr(hooks, "load", lambda where: table[where.split(":")[1]])
    return suites.record(list(table), "cpu", 2, say=lambda line: None)


def good(run):
    run.add(Row("a", "a sum", [[1.0]], "s", "value", correct={"pass": True, "how": "equal"}))


def test_a_suite_adds_rows_and_a_missing_need_is_recorded_not_hidden(monkeypatch):
    def no_model(run):
        raise FetchError("the checkpoint could not be downloaded")

    def no_package(run):
        import a_peer_that_is_not_installed  # noqa: F401

    run = quick(monkeypatch, {"good": good, "model": no_model, "peer": no_package})
    assert [row["key"] for row in run["rows"]] == ["a"] and run["suites"] == ["ceilings", "good", "model", "peer"]
    assert [one["suite"] for one in run["skipped"]] == ["model", "peer"]
    assert "could not be downloaded" in run["skipped"][0]["why"] and "not_installed" in run["skipped"][1]["why"]


def test_an_impossible_row_costs_its_suite_and_not_the_run(monkeypatch):
    def cached(run):
        run.add(
            Row(
                "fast",
                "a read",
                [[0.5]],
                "s",
                "value",
                floor=1.0,
                floor_formula="bytes / read",
                correct={"pass": True, "how": "equal"},
            )
        )

    run = quick(monkeypatch, {"good": good, "cached": cached})
    assert [row["key"] for row in run["rows"]] == ["a"]
    assert "row 'fast': 0.5 s beats its floor 1 s" in run["skipped"][0]["why"]


def test_a_crashing_suite_is_recorded_as_failed_and_the_others_survive(monkeypatch, capsys):
    def broken(run):
        raise ZeroDivisionError("oops")

    run = quick(monkeypatch, {"broken": broken, "good": good})
    assert run["skipped"] == [{"suite": "broken", "why": "failed: ZeroDivisionError"}] and len(run["rows"]) == 1
    assert "ZeroDivisionError: oops" in capsys.readouterr().err


def test_suites_are_chosen_by_name(monkeypatch):
    monkeypatch.setattr(suites, "CPU_SUITES", {"a": "labcore.bench.suites:a", "gone": "labcore.no_such_room.bench:b"})
    assert suites.choose(["all"], "cpu") == ["a"]
    assert suites.choose(["ceilings"], "cpu") == []
    with pytest.raises(InputError, match="suite 'decoed' is unknown for cpu; use all, ceilings, a"):
        suites.choose(["decoed"], "cpu")


def test_every_registered_suite_and_doctor_hook_that_is_there_can_be_loaded():
    from labcore.bench.doctor import CHECKS

    for where in (*suites.CPU_SUITES.values(), *suites.CUDA_SUITES.values(), *CHECKS):
        if hooks.exists(where.split(":")[0]):
            assert callable(hooks.load(where)), where
