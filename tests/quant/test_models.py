"""Methods on a whole (tiny) decoder: folding changes nothing, walks see what layers see, swaps are counted in bytes."""

import copy
import math

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import DataError, InputError  # noqa: E402
from labcore.quant import calibrate, methods, windows  # noqa: E402
from labcore.quant.apply import bits_per_weight, install, stored_bytes  # noqa: E402
from labcore.quant.awq import awq_scale  # noqa: E402
from labcore.quant.evaluate import Interval, Reference, evaluate, perplexity  # noqa: E402
from labcore.quant.fold import fold, producers  # noqa: E402
from labcore.quant.gptq import gptq, hessian, layer_loss  # noqa: E402
from labcore.quant.rtn import quantize_weight  # noqa: E402
from labcore.quant.smoothquant import lae_scale, smoothquant_scale  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from labcore.quant.squeezellm import fisher_diagonal  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

SPEC = QuantSpec(4, 16)


@pytest.fixture(scope="module")
def rows():
    return torch.randint(0, 257, (6, 17), generator=torch.Generator().manual_seed(0))


def planted(seed: int = 0, **changes):
    """A tiny model whose norms make two channels large, as real models' do."""
    model = tiny_model(seed, **changes)
    for block in model.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            norm.weight.data[[3, 17]] = 25.0
    return model


def logits(model, rows):
    with torch.no_grad():
        return windows.logits(model, rows[:, :-1])


def quantized(model, change, *arguments, **options):
    model = copy.deepcopy(model)
    change(model, *arguments, **options)
    return model


# --- folding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_folding_leaves_the_function_as_it_was(rows, kv_heads):
    model = planted(n_kv_heads=kv_heads)
    before, generator = logits(model, rows), torch.Generator().manual_seed(2)
    for block in model.layers:
        found = producers(block)
        assert len(found) == (4 if kv_heads == 4 else 3), "with grouped-query heads v does not fold into o"
        for producer, group in found:
            consumers = [block.get_submodule(name) for name in group]
            scale = torch.rand(consumers[0].in_features, generator=generator) * 4 + 0.25
            old = consumers[0].weight.clone()
            fold(producer, consumers, scale)
            assert not torch.equal(consumers[0].weight, old)
    torch.testing.assert_close(logits(model, rows), before, rtol=1e-4, atol=1e-4)


def test_a_fold_through_shared_heads_is_refused_and_changes_nothing(rows):
    model = planted()
    attention, before = model.layers[0].self_attn, logits(model, rows)
    with pytest.raises(InputError, match=r"16 output channels feed layers with .32. inputs .* grouped-query"):
        fold(attention.v_proj, [attention.o_proj], torch.ones(32))
    with pytest.raises(InputError, match="a scale is 0; it must be positive"):
        fold(model.layers[0].input_layernorm, [attention.q_proj], torch.zeros(32))
    assert torch.equal(logits(model, rows), before)


@pytest.mark.parametrize(
    "choose",
    [lambda x, ws: smoothquant_scale(x, ws, 0.5), lambda x, ws: lae_scale(x), lambda x, ws: awq_scale(x, 0.7)],
)
def test_smoothing_changes_the_inputs_and_not_the_model(rows, choose):
    model = planted()
    before, spread = logits(model, rows), _spread(model, rows)
    methods.smooth(model, rows, choose)
    torch.testing.assert_close(logits(model, rows), before, rtol=1e-4, atol=1e-4)
    assert _spread(model, rows) < spread / 2


def _spread(model, rows) -> float:
    """How much larger the largest channel of the first block's input is than the middle one."""
    x = calibrate.input_statistics(model, rows[:, :-1], lambda x: x.abs().amax(0))["layers.0.self_attn.q_proj"]
    return (x.max() / x.median()).item()


# --- calibration -----------------------------------------------------------------------------------------------------


def test_the_walks_see_the_inputs_that_the_layers_see(rows):
    model, seen, hooks = planted(), {}, []
    for name, layer in calibrate.linears(model).items():
        hooks.append(layer.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]})))
    logits(model, rows)
    for hook in hooks:
        hook.remove()
    walked = calibrate.input_statistics(model, rows[:, :-1], lambda x: x)
    visited = {}
    calibrate.true_sequential(model, rows[:, :-1], lambda group, x: visited.update(dict.fromkeys(group, x)))
    assert list(walked) == list(visited) == list(calibrate.linears(model)) and len(walked) == 14
    for name, x in seen.items():
        torch.testing.assert_close(walked[name], x)
        torch.testing.assert_close(visited[name], x)


def test_true_sequential_shows_every_group_what_the_quantized_ones_before_it_produce(rows):
    model = planted()
    seen = {}

    def visit(group, x):
        for name, layer in group.items():
            seen[name] = x
            layer.weight = torch.nn.Parameter(layer.weight * 1.5, requires_grad=False)

    changed = copy.deepcopy(model)
    calibrate.true_sequential(changed, rows[:, :-1], visit)
    after = calibrate.input_statistics(changed, rows[:, :-1], lambda x: x)
    for name, x in after.items():
        torch.testing.assert_close(seen[name], x)
    before = calibrate.input_statistics(model, rows[:, :-1], lambda x: x)
    assert not torch.allclose(seen["layers.0.self_attn.o_proj"], before["layers.0.self_attn.o_proj"])


def test_block_inputs_belong_to_the_unchanged_model(rows):
    model = planted()
    expected = calibrate.input_statistics(model, rows[:, :-1], lambda x: x)
    changed = copy.deepcopy(model)
    for index, block, seen in calibrate.block_inputs(changed, rows[:, :-1]):
        block.mlp.down_proj.weight = torch.nn.Parameter(block.mlp.down_proj.weight * 0, requires_grad=False)
        for name, x in seen.items():
            torch.testing.assert_close(x, expected[f"layers.{index}.{name}"])


def test_calibration_refuses_nothing_and_what_is_not_finite(rows):
    model = planted()
    with pytest.raises(InputError, match=r"calibration windows of shape \(0, 16\)"):
        methods.gptq_model(model, rows[:0], SPEC)
    with pytest.raises(InputError, match="no calibration windows"):
        methods.squeezellm_model(model, rows[:0], 4)
    model.layers[1].input_layernorm.weight.data[5] = torch.nan
    with pytest.raises(InputError, match=r"input of layers.1.self_attn.q_proj .* is nan"):
        methods.gptq_model(model, rows, SPEC)


# --- methods ---------------------------------------------------------------------------------------------------------


def test_gptq_of_a_model_is_gptq_of_its_layers(rows):
    model = planted()
    found = quantized(model, methods.gptq_model, rows, SPEC)
    inputs = calibrate.input_statistics(found, rows[:, :-1], lambda x: x)
    for name, layer in calibrate.linears(model).items():
        h = hessian(inputs[name])
        expected = gptq(layer.weight, h, SPEC).weight.stored().dequantize()
        share = (found.get_submodule(name).weight - expected).abs().gt(1e-6).float().mean()
        assert share < 0.01, name  # inputs differ by rounding, so a weight on a tie may fall the other way
        rounded = layer_loss(layer.weight, quantize_weight(layer.weight, SPEC).dequantize(), h)
        assert layer_loss(layer.weight, found.get_submodule(name).weight, h) < rounded


def test_methods_order_as_they_should_on_inputs_with_large_channels(rows):
    model = planted()
    reference = Reference(model, rows)

    def kl(change, *arguments, **options):
        return evaluate(quantized(model, change, *arguments, **options), reference).divergence.kl.value

    rounded = kl(methods.rtn, SPEC)
    assert kl(methods.rtn, QuantSpec(8, 16)) < rounded / 20
    assert kl(methods.gptq_model, rows, SPEC) < rounded / 1.5
    assert kl(methods.gptq_model, rows, SPEC, order="act", groups="static") < rounded / 1.5
    assert kl(methods.awq_model, rows, SPEC) < rounded / 1.2
    assert kl(methods.squeezellm_model, rows, 4, outliers=0.01, sensitive=0.01) < rounded
    token, static = kl(methods.int8_model), kl(methods.int8_model, rows, static=True)
    assert token < static < 1
    assert kl(methods.llm_int8_model) < token
    assert kl(methods.smoothquant_model, rows, static=True) < static / 1.5


def test_awq_never_chooses_worse_than_rounding_on_its_calibration(rows):
    model = planted()
    found = methods.awq_model(model, rows, SPEC)
    assert list(found) == [f"layers.{i}.{name}" for i in (0, 1) for name in
                           ("self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj")]  # fmt: skip
    for result in found.values():
        assert len(result.curve) == 20 and min(result.curve) == result.curve[round(result.alpha * 20)]
        assert result.curve[0] >= min(result.curve) and result.scale.max() * result.scale.min() == pytest.approx(1)
    assert found["layers.0.self_attn.q_proj"].alpha > 0


def test_fptq_follows_its_plan(rows):
    model = planted()
    kinds = methods.fptq_model(copy.deepcopy(model), rows, SPEC)
    assert kinds["layers.1.self_attn.v_proj"] == "lae" and kinds["layers.1.mlp.down_proj"] == "token"
    by_range = methods.fptq_model(model, rows, SPEC, by_range=True)
    assert by_range["layers.0.self_attn.q_proj"] == "lae" and by_range["layers.0.self_attn.o_proj"] == "static"


# --- storage and evaluation ------------------------------------------------------------------------------------------


def test_bytes_of_a_model_are_those_of_its_parts():
    model = planted(intermediate=64)
    linear = sum(layer.weight.numel() for layer in calibrate.linears(model).values())
    rest = sum(p.numel() for p in model.parameters()) - linear
    assert stored_bytes(model) == (2 * linear, 2 * linear + 2 * rest) and bits_per_weight(model) == 16
    methods.rtn(model, QuantSpec(4, 16))
    per_group = 4 * 16 / 8 + 2 + 0.5
    assert stored_bytes(model) == (linear / 16 * per_group, linear / 16 * per_group + 2 * rest)
    assert bits_per_weight(model) == pytest.approx(4 + 20 / 16)


def test_installing_is_all_or_nothing():
    model = planted()
    good = quantize_weight(model.layers[0].mlp.up_proj.weight, SPEC)
    bad = copy.deepcopy(good)
    bad.scale[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite; nothing was swapped"):
        install(model, {"layers.0.mlp.up_proj": good, "layers.1.mlp.up_proj": bad})
    with pytest.raises(InputError, match="'lm_head' is not a linear layer of a block"):
        install(model, {"lm_head": good})
    assert isinstance(model.layers[0].mlp.up_proj, torch.nn.Linear)


def test_perplexity_and_divergence_are_their_definitions(rows):
    model, other = planted(), planted(seed=1)
    reference = Reference(model, rows)
    p, q = (logits(m, rows).double().log_softmax(-1).unflatten(0, (6, 16)) for m in (model, other))
    nll = [-x.gather(2, rows[:, 1:, None]).squeeze(2).mean(1) for x in (p, q)]
    found = evaluate(other, reference)
    assert reference.perplexity.value == pytest.approx(nll[0].mean().exp().item(), rel=1e-5)
    assert found.perplexity == perplexity(other, rows) and found.tokens == 96
    assert found.perplexity.value == pytest.approx(nll[1].mean().exp().item(), rel=1e-5)
    spread = 1.96 * nll[1].std().item() / 6**0.5
    assert found.perplexity.high == pytest.approx((nll[1].mean() + spread).exp().item(), rel=1e-5)
    kl = (p.exp() * (p - q)).sum(-1)
    assert found.divergence.kl.value == pytest.approx(kl.mean().item(), rel=1e-4)
    assert found.divergence.top1 == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    excess = nll[1] - nll[0]
    assert found.divergence.excess.low == pytest.approx((excess.mean() - 1.96 * excess.std() / 6**0.5).item(), rel=1e-3)
    same = evaluate(model, reference)
    assert same.divergence.kl.value < 1e-7 and same.divergence.top1 == 1


def test_few_windows_and_large_losses_keep_an_interval():
    alone = Interval.of(torch.tensor([2.0]))
    assert (alone.value, alone.low, alone.high) == (2.0, -math.inf, math.inf)
    assert alone.exp().low == 0 and alone.exp().high == math.exp(700), "beyond it a float overflows"


def test_a_model_that_answers_nan_is_not_scored(rows):
    model = planted()
    model.norm.weight.data[5] = torch.nan
    with pytest.raises(DataError, match="logits in window 0 are not finite"):
        perplexity(model, rows)


def test_fisher_information_is_the_sum_of_squared_gradients_over_windows(rows):
    model, name = planted(), "layers.1.mlp.up_proj"
    found = fisher_diagonal(model, rows[:2])
    assert list(found) == list(calibrate.linears(model))
    assert not any(p.requires_grad for p in model.parameters()), "the model stays as it was"
    w, expected = model.get_submodule(name).weight.requires_grad_(True), 0
    for row in rows[:2]:
        logp = windows.logits(model, row[None, :-1]).log_softmax(-1)
        (gradient,) = torch.autograd.grad(-logp.gather(1, row[1:, None]).mean(), w)
        expected += gradient**2
    torch.testing.assert_close(found[name], expected)


def test_windows_share_one_token_and_are_spread_over_the_text():
    assert windows.cut(list(range(10)), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert windows.cut(list(range(21)), 2, 2).tolist() == [[0, 1, 2], [10, 11, 12]]
    with pytest.raises(InputError, match=r"4 tokens hold 1 windows of 3 \+ 1; 2 were asked for"):
        windows.cut([1, 2, 3, 4], 3, 2)
    with pytest.raises(InputError, match="2 tokens hold 0 windows"):
        windows.cut([1, 2], 3)
