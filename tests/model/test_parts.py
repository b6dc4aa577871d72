"""Where a step's time goes: the parts add up, and watching changes nothing."""

import pytest

torch = pytest.importorskip("torch")

from labcore.kernels.cpu.library import why_unavailable  # noqa: E402
from labcore.model import parts as parts_module  # noqa: E402
from labcore.model.compiled import serve_blocks  # noqa: E402
from labcore.model.loader import load_model  # noqa: E402
from labcore.model.parts import PARTS, Parts, _Steps, count_operators, step_parts  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

IDS = list(range(40, 60))


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_a_step_splits_into_parts_that_add_up(model):
    seconds = step_parts(model, IDS, batch=3)
    assert tuple(seconds) == PARTS and min(seconds.values()) > 0


def test_operators_are_counted_where_they_are_called(model):
    few, more = count_operators(model, IDS, 3), count_operators(model, IDS, 6)
    assert few["linear"] >= 7 * model.config.n_layers + 1 and few["other"] > 0
    assert few["attention"] > model.config.n_layers
    assert more["linear"] == few["linear"], "one product for all sequences"


def test_watching_changes_no_token_and_leaves_no_hook(model):
    tokens = []

    def remember(*_, output):
        tokens.append(output)

    watched, plain = Parts(), Parts()
    hook = model.register_forward_hook(lambda module, arguments, output: remember(output=output.clone()))
    try:
        _Steps(model, IDS, 2, 4, plain).run(4)
        with watched.watching(model):
            _Steps(model, IDS, 2, 4, watched).run(4)
    finally:
        hook.remove()
    half = len(tokens) // 2
    assert all(torch.equal(one, other) for one, other in zip(tokens[:half], tokens[half:], strict=True))
    assert watched.seconds["linear"] > 0 and "linear" not in plain.seconds
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.model
@pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
def test_the_compiled_layers_report_too_and_are_whole_afterwards(checkpoint):
    model = load_model(checkpoint, transform=serve_blocks)
    seconds = step_parts(model, IDS, steps=2, samples=1)
    assert min(seconds.values()) > 0 and seconds["linear"] > seconds["other"]
    assert "before_attention" not in vars(model.layers[0].layers)


def test_time_belongs_to_the_part_it_passed_in(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(parts_module.time, "perf_counter", lambda: next(clock))
    parts = Parts()
    parts.enter("linear")  # one second of other, then two of linear, then four of attention
    parts.enter("attention")
    parts.enter("other")
    assert parts.seconds == {"other": 1.0, "linear": 2.0, "attention": 4.0}
