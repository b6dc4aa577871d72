"""What a quantized weight costs in bits, in error and in time."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max, log, oo

from labcore.formulas.printing import fraction, product
from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

AWQ = "AWQ, arXiv:2306.00978, section 3.2"
OBS = "OBQ, arXiv:2208.11580, equation 7; the optimal brain surgeon of Hassibi and Stork, 1993"
TIME_BOUND = "roofline of the linear layers: time is the larger of bytes over bandwidth and FLOPs over peak"

declare(
    "quant.two_level_bits",
    "Bits a weight whose scales are quantized as well",
    r"\bar b_2",
    bits + (b_scale + b_zero) / G + b_super / (G * n_super),
    "bit/element",
    source="llama.cpp, ggml-common.h (k-quants); QLoRA, arXiv:2305.14314, section 3 (double quantization)",
    doc="Groups of G weights share a narrow scale and zero, and n_super groups share the numbers that widen those.",
    rises="bits b_scale b_zero b_super",
    falls="G n_super",
    limits=(Limit(n_super, oo, "kv.quant_effective_bits"),),
)

declare(
    "quant.codebook_bits",
    "Bits a weight with a codebook for each output row",
    r"\bar b_{\mathrm{cb}}",
    bits + n_levels * b_scale / d_in + f_sparse * (b_scale + b_index),
    "bit/element",
    source="SqueezeLLM, arXiv:2306.07629, section 4: dense codes, a 16-bit table a row, a sparse remainder",
    doc="Without a sparse part f_sparse is 0. Row pointers of the sparse matrix are left out.",
    rises="bits n_levels b_scale b_index f_sparse",
    falls="d_in",
    limits=(Limit(f_sparse, 0, bits + n_levels * b_scale / d_in),),
)

declare(
    "quant.model_bytes",
    "Bytes of a model with quantized linear layers",
    "M",
    fraction(product(P_lin, b_bar), BITS_PER_BYTE) + b_w * P_keep,
    "B",
    source="what is quantized at its effective bits, and what stays (embeddings, norms, often the head) at b_w",
    rises="P_lin b_bar b_w P_keep",
    limits=(Limit(P_keep, 0, fraction(product(P_lin, b_bar), BITS_PER_BYTE)),),
)

declare(
    "quant.step",
    "Step of a uniform grid",
    r"\Delta",
    w_span / (n_levels - 1),
    "1",
    source="Jacob et al., arXiv:1712.05877, section 2.1",
    doc="n_levels is 2^b; a symmetric grid that drops its lowest code has 2^b - 1 levels over twice the largest size.",
    valid=(Condition(n_levels >= 2, "n_levels={n_levels} makes no grid; give at least 2 levels"),),
    rises="w_span",
    falls="n_levels",
)

declare(
    "quant.rounding_variance",
    "Mean squared error of rounding to the nearest level",
    r"\sigma_\Delta^2",
    fraction(step**2, 12),
    "1",
    source="Bennett, Bell System Technical Journal 27, 1948: errors uniform over a step",
    doc="Inside the grid's range, for numbers spread over many steps.",
    rises="step",
)

declare(
    "quant.obs_loss",
    "Loss of rounding one weight when the others make up for it",
    r"\delta E",
    fraction(e_round**2, product(2, h_inv)),
    "1",
    source=OBS,
    doc="h_inv is the weight's diagonal entry of the inverse Hessian of the weights not yet rounded.",
    rises="e_round",
    falls="h_inv",
)

declare(
    "quant.awq_error_ratio",
    "Error of a weight that was scaled up before rounding, over its error before",
    r"\rho_s",
    step_scaled / (step * s_channel),
    "1",
    source=f"{AWQ}, equation 3",
    doc="1/s as long as the group's step does not grow; the step grows once a scaled weight sets the range.",
    rises="step_scaled",
    falls="step s_channel",
    limits=(Limit(step_scaled, step, 1 / s_channel),),
)

declare(
    "quant.smooth_scale",
    "SmoothQuant's factor for one input channel",
    "s_j",
    fraction(x_absmax**migration, w_absmax ** (1 - migration)),
    "1",
    source="SmoothQuant, arXiv:2211.10438, equation 4",
    doc="Activations are divided by it, the weights that read them multiplied.",
    rises="x_absmax",
    falls="w_absmax",
    limits=(Limit(migration, 1, x_absmax),),
)

declare(
    "quant.log_scale",
    "FPTQ's factor for one input channel",
    r"s_j^{\log}",
    fraction(x_absmax * log(2), log(2 + x_absmax)),
    "1",
    source="FPTQ, arXiv:2308.15987, equation 6 (logarithmic activation equalization)",
    doc="Depends on activations alone; an activation of m becomes log2(2 + m).",
    rises="x_absmax",
    limits=(Limit(x_absmax, oo, oo),),
)

declare(
    "quant.speedup_bound",
    "Most that narrower weights can speed up a step that waits for them",
    r"S_{\max}",
    fraction(product(BITS_PER_BYTE, b_w), b_bar),
    "1",
    source=TIME_BOUND,
    doc="16/b̄ against 16-bit weights: the ratio of the bytes. Caches, activations and other layers make it smaller.",
    rises="b_w",
    falls="b_bar",
)

declare(
    "quant.weight_only_speedup",
    "Speed-up of a weight-only format at batch B",
    "S(B)",
    Max(b_w, 2 * FLOP * B / R) / Max(fraction(b_bar, BITS_PER_BYTE), 2 * FLOP * B / R),
    "1",
    source=TIME_BOUND,
    doc="Linear layers only, at best: the arithmetic stays in 16 bits and unpacking is free.",
    valid=(
        Condition(
            b_bar <= BITS_PER_BYTE * b_w,
            "b_bar={b_bar} is wider than the {bound} bits it replaces; give a narrower format",
            BITS_PER_BYTE * b_w,
        ),
    ),
    rises="b_w",
    falls="b_bar B",
    limits=(Limit(B, oo, 1), Limit(R, oo, "quant.speedup_bound")),
)
