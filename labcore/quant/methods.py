"""Every method at the scale of a model: read the calibration windows, decide, swap the linears.

Each function changes the model it is given, and folds and rounds in the order its paper does. `rows` are calibration
windows [windows, length + 1]; the last token of a window is only a target, and only SqueezeLLM has use for it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from labcore.model.llama import Block, Llama
from labcore.model.loader import replace_module
from labcore.quant import windows
from labcore.quant.apply import StoredWeight, install, set_weight
from labcore.quant.awq import AWQResult, awq_clip, awq_search, clip
from labcore.quant.calibrate import GROUPS, block_inputs, input_statistics, linears, true_sequential
from labcore.quant.fold import fold, producers
from labcore.quant.fptq import LLAMA_PLAN, plan, round_activations
from labcore.quant.gptq import GPTQResult, gptq, hessian
from labcore.quant.llm_int8 import THRESHOLD, Int8Linear
from labcore.quant.rtn import quantize_weight
from labcore.quant.smoothquant import lae_scale, smoothquant_scale
from labcore.quant.spec import QuantSpec
from labcore.quant.squeezellm import fisher_diagonal, squeeze


def round_to_nearest(model: Llama, quantize: Callable[[Tensor], StoredWeight]) -> None:
    """Every weight on its own, in whatever format `quantize` knows. No calibration."""
    install(model, {name: quantize(layer.weight) for name, layer in linears(model).items()})


def rtn(model: Llama, spec: QuantSpec) -> None:
    round_to_nearest(model, lambda w: quantize_weight(w, spec).stored())


def gptq_model(model: Llama, rows: Tensor, spec: QuantSpec, **options) -> dict[str, GPTQResult]:
    """GPTQ, true-sequential: layers see the inputs that the quantized layers before them produce. options: gptq's."""
    results: dict[str, GPTQResult] = {}

    def visit(group: dict[str, nn.Linear], x: Tensor) -> None:
        h = hessian(x)
        for name, linear in group.items():
            results[name] = gptq(linear.weight, h, spec, **options)
            set_weight(linear, results[name].weight.stored().dequantize())

    true_sequential(model, rows[:, :-1], visit)
    install(model, {name: result.weight.stored() for name, result in results.items()})
    return results


@torch.no_grad()
def awq_model(
    model: Llama, rows: Tensor, spec: QuantSpec, *, clipping: bool = True, grid: int = 20, search: int = 8
) -> dict[str, AWQResult]:
    """AWQ: scales searched on the outputs of attention, MLP and down, folded, then every range but q's and k's clipped.

    Inputs are those of the float model, as in the reference. search: windows on which the grid is tried; the mean
    magnitudes and the clipping take all. Returns the searches by the first layer of their group.
    """
    inputs, results = rows[:, :-1], {}
    context, tried = windows.context(model, inputs[:search]), inputs[:search].numel()
    for index, block, seen in block_inputs(model, inputs):
        seen = dict(seen)
        searches = []
        for producer, group in producers(block):
            x = seen[group[0]]
            ws = [block.get_submodule(name).weight for name in group]
            few = x[:tried]
            found = awq_search(ws, x.abs().mean(0), few, spec, grid, _output(block, group, few, context))
            searches.append((producer, group, found))
        for producer, group, found in searches:  # all searched before any is folded
            fold(producer, [block.get_submodule(name) for name in group], found.scale)
            seen |= {name: seen[name] / found.scale for name in group}
            results[f"layers.{index}.{group[0]}"] = found
        for name, x in seen.items():
            if clipping and not name.endswith(("q_proj", "k_proj")):  # their outputs multiply: errors do not add up
                layer = block.get_submodule(name)
                set_weight(layer, clip(layer.weight, awq_clip(layer.weight, x, spec)))
    rtn(model, spec)
    return results


def _output(block: Block, group: tuple[str, ...], x: Tensor, context: tuple):
    """What AWQ's loss is taken of, as a function of the group's weights; None: of the layers' own outputs."""
    if len(group) == 1:
        return None
    parent, _, _ = group[0].partition(".")
    module, extra = (block.self_attn, context) if parent == "self_attn" else (block.mlp, ())
    names = [f"{name.partition('.')[2]}.weight" for name in group]
    return lambda ws: functional_call(module, dict(zip(names, ws, strict=True)), (x, *extra))


def squeezellm_model(model: Llama, rows: Tensor, bits: int, *, outliers: float = 0.0, sensitive: float = 0.0) -> None:
    """SqueezeLLM: sensitivities of all layers first, in the float model, then a codebook for every row."""
    fisher = fisher_diagonal(model, rows)
    shares = {"outliers": outliers, "sensitive": sensitive}
    install(
        model,
        {name: squeeze(layer.weight, fisher[name], bits, **shares).stored() for name, layer in linears(model).items()},
    )


def int8_model(
    model: Llama, rows: Tensor | None = None, *, threshold: float | None = None, static: bool = False
) -> None:
    """Weights and activations in 8 bits: scales per token, or static ones from calibration; threshold: LLM.int8()'s."""
    ranges = _ranges(model, rows) if static else {}
    for name, layer in linears(model).items():
        replace_module(
            model, name, Int8Linear(layer.weight, layer.bias, threshold=threshold, x_absmax=ranges.get(name))
        )


def llm_int8_model(model: Llama, threshold: float = THRESHOLD) -> None:
    """LLM.int8(). No calibration: outliers are found in every pass."""
    int8_model(model, threshold=threshold)


def smoothquant_model(model: Llama, rows: Tensor, *, alpha: float = 0.5, static: bool = False) -> None:
    """SmoothQuant: the inputs behind norms smoothed, then 8 bits."""
    smooth(model, rows, lambda x_absmax, ws: smoothquant_scale(x_absmax, ws, alpha))
    int8_model(model, rows, static=static)


def smooth(model: Llama, rows: Tensor, choose: Callable[[Tensor, list[Tensor]], Tensor]) -> None:
    """Fold choose(max|x|, weights) into every norm. The model computes what it did."""
    absmax = input_statistics(model, rows[:, :-1], lambda x: x.abs().amax(0))
    for index, block in enumerate(model.layers):
        for producer, group in producers(block):
            if isinstance(producer, nn.Linear):
                continue
            consumers = [block.get_submodule(name) for name in group]
            fold(producer, consumers, choose(absmax[f"layers.{index}.{group[0]}"], [c.weight for c in consumers]))


def fptq_model(model: Llama, rows: Tensor, spec: QuantSpec, *, by_range: bool = False) -> dict[str, str]:
    """FPTQ: weights on `spec`, activations in 8 bits by LLAMA_PLAN, or by each layer's range.

    A layer without a norm before it cannot be equalized; by range, one that ought to be gets a scale per token.
    Returns the treatment of every layer.
    """
    behind_norm = {name for group in (GROUPS[0], GROUPS[2]) for name in group}
    if by_range:
        chosen = plan(_ranges(model, rows))
        for name, kind in chosen.items():
            if kind == "lae" and name.split(".", 2)[2] not in behind_norm:
                chosen[name] = "token"
    else:
        chosen = {name: LLAMA_PLAN[name.rpartition(".")[2]] for name in linears(model)}
    absmax = input_statistics(model, rows[:, :-1], lambda x: x.abs().amax(0))
    for index, block in enumerate(model.layers):
        for producer, group in producers(block):
            if chosen[first := f"layers.{index}.{group[0]}"] == "lae":
                fold(producer, [block.get_submodule(name) for name in group], lae_scale(absmax[first]))
    w4a8(model, rows, spec, static={name for name, kind in chosen.items() if kind != "token"})
    return chosen


def w4a8(model: Llama, rows: Tensor, spec: QuantSpec, static: set[str] = frozenset()) -> None:
    """Weights on `spec`, rounded to nearest; activations in 8 bits, one calibrated scale in the layers `static`."""
    ranges = _ranges(model, rows) if static else {}

    def rounding(name: str) -> Callable[[Tensor], Tensor]:
        if name not in static:
            return round_activations
        return lambda x: round_activations(x, torch.full((len(x),), ranges[name]))

    weights = {name: quantize_weight(layer.weight, spec).stored() for name, layer in linears(model).items()}
    install(model, weights, {name: rounding(name) for name in weights})


def _ranges(model: Llama, rows: Tensor) -> dict[str, float]:
    """The largest |input| of every linear over the calibration windows."""
    return {name: x.item() for name, x in input_statistics(model, rows[:, :-1], lambda x: x.abs().amax()).items()}
