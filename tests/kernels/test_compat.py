"""Where a kernel runs: chips are described by numbers here, no GPU is needed."""

import warnings

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels import _compat  # noqa: E402


class OnGPU:
    """A tensor of which `choose` only reads the device."""

    device = torch.device("cuda:0")


@pytest.fixture
def chip(monkeypatch):
    """Pretend: chip(8, 0) puts such a chip at cuda:0, with no interpreter and nothing warned about yet."""

    def pretend(*cc: int, interpreter: bool = False):
        monkeypatch.setenv("TRITON_INTERPRET", str(int(interpreter)))
        monkeypatch.setattr(_compat, "_capability", lambda index: cc)
        _compat._warn_once.cache_clear()
        return OnGPU()

    return pretend


@pytest.mark.parametrize(
    ("cc", "needs", "chosen"),
    [
        ((7, 5), {}, "triton"),
        ((7, 5), {"mma": True}, "torch"),
        ((7, 0), {}, "torch"),
        ((8, 0), {"mma": True}, "triton"),
        ((8, 6), {"fp8": True}, "torch"),
        ((8, 9), {"mma": True, "fp8": True}, "triton"),
        ((9, 0), {"mma": True, "fp8": True}, "triton"),
        ((10, 0), {"mma": True, "fp8": True}, "triton"),
    ],
)
def test_auto_takes_triton_on_every_chip_that_can(chip, cc, needs, chosen):
    tensor = chip(*cc)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert _compat.choose("auto", tensor, what="attention", **needs) == chosen
        assert _compat.choose("auto", tensor, what="attention", **needs) == chosen
    said = [str(warning.message) for warning in seen]
    assert len(said) == (chosen == "torch")  # once, not twice
    assert all("attention runs in torch" in line and f"{cc[0]}.{cc[1]}" in line for line in said)


def test_triton_on_a_chip_that_cannot_is_refused_with_the_reason(chip):
    with pytest.raises(InputError, match=r"attention cannot run there: .*7\.5.*tensor cores.*backend='auto'"):
        _compat.choose("triton", chip(7, 5), mma=True, what="attention")
    assert _compat.choose("torch", chip(7, 5), mma=True) == "torch"


def test_a_cpu_tensor_goes_to_the_interpreter_or_silently_to_torch(chip):
    tensor = torch.zeros(1)
    chip(9, 0, interpreter=True)
    assert _compat.choose("auto", tensor, mma=True, fp8=True) == "triton"
    chip(9, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _compat.choose("auto", tensor) == "torch"
    with pytest.raises(InputError, match="TRITON_INTERPRET=1"):
        _compat.choose("triton", tensor)


def test_another_word_than_the_three_is_refused():
    with pytest.raises(InputError, match=r"backend='cuda': choose 'auto', 'triton' or 'torch'"):
        _compat.choose("cuda", torch.zeros(1))


def test_other_devices_are_named(chip):
    chip(9, 0)
    with pytest.raises(InputError, match="NVIDIA GPUs, and the tensor is on meta"):
        _compat.choose("triton", torch.zeros(1, device="meta"))


def test_the_capability_is_none_without_a_compiler(chip):
    chip(9, 0)
    assert _compat.capability("cpu") is None
    assert _compat.capability("cuda:0") == (9, 0)
    chip(9, 0, interpreter=True)
    assert _compat.capability("cuda:0") is None


def test_what_a_chip_has():
    assert [_compat.has_mma(cc) for cc in (None, (7, 5), (8, 0), (9, 0))] == [False, False, True, True]
    assert [_compat.has_fp8(cc) for cc in (None, (8, 0), (8, 9), (9, 0))] == [False, False, True, True]
