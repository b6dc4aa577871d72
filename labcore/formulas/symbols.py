"""The symbols of the book, each with one name, one LaTeX form, one unit and one meaning.

A product prints its factors in the order of this table, so κ reads 2 n_ℓ n_kv d_h b_kv and not in alphabetical
order. Counted things (parameters, tokens, heads) are plain numbers. A literal that counts something else wears a
mark: `2 * FLOP * P` is two FLOP a parameter. Marks are read by the unit check (dimensions.py) and then vanish.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy as sp

from labcore.core.units import unit

# domain -> (what a value must satisfy, the same in words, what sympy may assume)
DOMAINS: dict[str, tuple[Any, str, dict[str, bool]]] = {
    "positive": (lambda x: x > 0, "above 0", {"positive": True}),
    "nonnegative": (lambda x: x >= 0, "0 or more", {"nonnegative": True}),
    "count": (lambda x: x >= 1, "1 or more", {"positive": True}),
    "fraction": (lambda x: (x > 0) & (x <= 1), "above 0 and at most 1", {"positive": True}),
    "real": (lambda x: x == x, "a number of either sign", {"real": True}),
}


@dataclass(frozen=True)
class Input:
    """A symbol as a formula takes it.

    `low` to `high` is where random checks and sliders move; `domain` (a key of DOMAINS) is what is accepted.
    `integer` says the thing is counted; a mean of counts, such as 12.5 sequences, is accepted all the same.
    `written` is the decimal unit of a rate (GB/s): a Quantity in GiB/s is then refused, see core.units.magnitude.
    """

    name: str
    latex: str
    unit: str
    doc: str
    low: float
    high: float
    domain: str = "positive"
    integer: bool = False
    written: str | None = None
    choices: tuple[float, ...] | None = None

    @property
    def symbol(self) -> sp.Symbol:
        """The sympy symbol, with the assumptions that follow from the domain."""
        return sp.Symbol(self.name, **DOMAINS[self.domain][2], **({"integer": True} if self.integer else {}))


TABLE: dict[str, Input] = {}


def symbol(name: str, latex: str, unit_text: str, doc: str, low: float, high: float, **more: Any) -> sp.Symbol:
    """Enter a symbol in the table and return it."""
    if name in TABLE:
        raise ValueError(f"symbol {name!r} is already {TABLE[name].doc}; one name, one meaning")
    unit(unit_text)
    TABLE[name] = Input(name, latex, unit_text, doc, low, high, **more)
    return TABLE[name].symbol


def count(name: str, latex: str, unit_text: str, doc: str, low: float, high: float, **more: Any) -> sp.Symbol:
    """A symbol that counts things, one or more."""
    return symbol(name, latex, unit_text, doc, low, high, **{"domain": "count", "integer": True} | more)


# Marks: units carried by literals.
MARKS: dict[sp.Symbol, str] = {}


def mark(unit_text: str) -> sp.Symbol:
    """The unit that a literal carries; counts as 1 in every value."""
    symbol_ = sp.Symbol(f"[{unit_text}]", positive=True)
    MARKS[symbol_] = unit_text
    return symbol_


def conversion(unit_text: str) -> sp.Expr:
    """The factor that equals 1: `conversion("s/h")` is 3600 s/h, `conversion("tok/Mtok")` is 10^6 tok/Mtok."""
    factor = round(1 / unit(unit_text).scale)
    literal = sp.Pow(10, len(str(factor)) - 1, evaluate=False) if factor in (10**6, 10**9) else sp.Integer(factor)
    return sp.Mul(literal, mark(unit_text), evaluate=False)


FLOP = mark("FLOP")
SECONDS_PER_HOUR = conversion("s/h")
TOKENS_PER_MTOK = conversion("tok/Mtok")
BITS_PER_BYTE = conversion("bit/B")

# Money
price_hour = symbol("price_hour", r"C_{\mathrm{h}}", "USD/h", "price of the machine for an hour", 0.2, 100)

# Latency
e2e = symbol("e2e", r"\mathrm{E2E}", "s", "time from request to last token", 0.5, 100)
ttft = symbol("ttft", r"\mathrm{TTFT}", "s", "time to first token", 0.01, 5)
latency = symbol("latency", r"W_{\mathrm{req}}", "s", "time a request spends in the system", 0.1, 100)
request_rate = symbol("request_rate", r"\lambda", "request/s", "requests that arrive in a second", 0.1, 1000)
t_queue = symbol("t_queue", r"t_{\mathrm{queue}}", "s", "wait before the first chunk", 0, 10, domain="nonnegative")
n_out = count("n_out", r"n_{\mathrm{out}}", "tokens", "tokens generated for a request", 2, 4096)

# Machine
n_kernels = count("n_kernels", r"n_{\mathrm{kernel}}", "kernels", "kernels launched in one step", 10, 5000)
t_kernel = symbol("t_kernel", r"t_{\mathrm{kernel}}", "s/kernel", "time the CPU needs to launch one kernel", 1e-6, 3e-5)
R = symbol("R", "R", "FLOP/B", "ridge point of the roofline, F/β", 20, 600)
intensity = symbol("intensity", "I", "FLOP/B", "arithmetic intensity", 0.1, 5000)
memory = symbol("memory", r"M_{\mathrm{gpu}}", "B", "memory of one GPU as its driver reports it", 8e9, 300e9)
memory_fraction = symbol(
    "memory_fraction", r"f_{\mathrm{mem}}", "1", "share of memory the engine may use", 0.5, 1, domain="fraction"
)
n_gpu = count("n_gpu", r"N_{\mathrm{gpu}}", "GPUs", "GPUs that share the work (tensor-parallel ranks)", 1, 64)
power = symbol("power", r"W_{\mathrm{gpu}}", "W", "electric power of one GPU", 30, 1500)
F = symbol("F", "F", "FLOP/s", "dense peak rate of one GPU", 1e12, 5e15)
mfu = symbol("mfu", r"\mathrm{MFU}", "1", "share of the peak rate that is reached", 0.05, 1, domain="fraction")
beta = symbol("beta", r"\beta", "B/s", "memory bandwidth of one GPU", 1e10, 1e13, written="GB/s")
tpot = symbol("tpot", r"\mathrm{TPOT}", "s/token", "mean time between output tokens", 1e-3, 0.5)
beta_link = symbol(
    "beta_link", r"\beta_{\mathrm{link}}", "B/s", "bandwidth of the link that KV moves over", 1e9, 1e12, written="GB/s"
)

# Weights
b_w = symbol("b_w", "b_w", "B/parameter", "bytes a weight", 0.25, 4)
P = count("P", "P", "parameters", "parameters of the model", 1e8, 1e12)
P_dense = count("P_dense", r"P_{\mathrm{dense}}", "parameters", "parameters that every token uses", 1e8, 1e11)
n_moe = count("n_moe", r"n_{\mathrm{moe}}", "layers", "layers that have experts", 1, 96)
P_expert = count("P_expert", r"P_{\mathrm{expert}}", "parameters", "parameters of one expert in one layer", 1e6, 1e9)
P_lin = count("P_lin", r"P_{\mathrm{lin}}", "parameters", "parameters of the layers that are quantized", 1e8, 1e12)
P_keep = count(
    "P_keep", r"P_{\mathrm{keep}}", "parameters", "parameters that keep their 16 bits", 1, 1e10, domain="nonnegative"
)
E = count("E", "E", "experts", "routed experts in a layer", 4, 512)

# Work in a step
T = count("T", "T", "tokens", "tokens carried by one pass, prefill and decode together", 1, 65536)
B = symbol("B", "B", "sequences", "sequences decoded together", 1, 1024, integer=True)
k = count("k", "k", "experts", "routed experts a token uses in a layer", 1, 16)

# Speculation
alpha = symbol("alpha", r"\alpha", "1", "probability that a drafted token is kept", 0.05, 0.99, domain="fraction")
K = count("K", "K", "tokens", "tokens drafted for one verification", 1, 16)
c = symbol("c", "c", "1", "time of a draft step in plain steps", 0.005, 0.5, domain="nonnegative")
v = symbol("v", "v", "1", "time of a verification in plain steps", 1, 8)
t_draft = symbol("t_draft", r"t_{\mathrm{draft}}", "s", "time of one draft step", 1e-4, 0.05, domain="nonnegative")
t_ver = symbol("t_ver", r"t_{\mathrm{ver}}", "s", "time of one verification", 1e-3, 0.5)

# Attention
hidden = count("hidden", r"d_{\mathrm{model}}", "elements", "width of the residual stream", 512, 16384)
n_layers = count("n_layers", r"n_\ell", "layers", "layers that keep their own keys and values", 1, 128)
n_global = count("n_global", r"n_{\mathrm{glob}}", "layers", "layers of global attention", 0, 64, domain="nonnegative")
n_local = count("n_local", r"n_{\mathrm{loc}}", "layers", "layers with a sliding window", 0, 64, domain="nonnegative")
n_share = count("n_share", r"n_{\mathrm{share}}", "layers", "consecutive layers that share one KV cache", 1, 8)
n_q = count("n_q", r"n_{\mathrm{q}}", "heads", "query heads in a layer", 8, 256)
n_kv = count("n_kv", r"n_{\mathrm{kv}}", "heads", "key/value heads in a layer", 1, 128)
d_h = count("d_h", "d_h", "elements", "dimension of one head", 32, 256)
d_c = count("d_c", "d_c", "elements", "dimension of the MLA latent", 128, 1024)
d_R = count("d_R", "d_R", "elements", "dimension of the MLA key that carries RoPE", 16, 128)
b_kv = symbol("b_kv", r"b_{\mathrm{kv}}", "B/element", "bytes of one stored key or value element", 0.25, 4)

# Attention kernels
b_act = symbol("b_act", r"b_{\mathrm{act}}", "B/element", "bytes of an element of queries, keys, values, scores", 1, 4)
b_acc = symbol("b_acc", r"b_{\mathrm{acc}}", "B/element", "bytes of an accumulated number (FP32: 4)", 2, 8)
B_r = count("B_r", "B_r", "tokens", "queries in a tile", 16, 256)
B_c = count("B_c", "B_c", "tokens", "keys in a tile", 16, 256)
M_sram = symbol(
    "M_sram", r"M_{\mathrm{sram}}", "B", "on-chip memory that the tiles of one thread block share", 3e4, 3e5
)
n_sm = count("n_sm", r"n_{\mathrm{SM}}", "SMs", "streaming multiprocessors of the GPU", 16, 256)
n_cta = count("n_cta", r"n_{\mathrm{cta}}", "blocks/SM", "thread blocks that one SM holds at a time", 1, 8)
n_split = count("n_split", r"n_{\mathrm{split}}", "splits", "pieces into which a sequence's keys are cut", 1, 64)
m_a = symbol("m_a", "m_1", "1", "largest score of one part of the keys", 0.1, 20, domain="real")
m_b = symbol("m_b", "m_2", "1", "largest score of another part", 0.1, 20, domain="real")
l_a = symbol("l_a", r"\ell_1", "1", "sum of exp(score - m_1) over one part of the keys", 1, 1e4)
l_b = symbol("l_b", r"\ell_2", "1", "sum of exp(score - m_2) over another part", 1, 1e4)
lse_a = symbol("lse_a", r"\mathrm{lse}_1", "1", "log-sum-exp of one part's scores", 0.1, 20, domain="real")
lse_b = symbol("lse_b", r"\mathrm{lse}_2", "1", "log-sum-exp of another part's scores", 0.1, 20, domain="real")

# Adapters and context parallelism
lora_rank = count("lora_rank", "r", "elements", "rank of a LoRA adapter", 4, 256)
n_dcp = count("n_dcp", r"N_{\mathrm{dcp}}", "ranks", "ranks that share out the tokens of one sequence's cache", 1, 16)

# Formats
bits = symbol("bits", "b", "bit/element", "bits a quantized element", 1, 8, integer=True)
b_scale = symbol("b_scale", r"b_{\mathrm{scale}}", "bit/element", "bits of a group's scale", 8, 32, integer=True)
b_zero = symbol(
    "b_zero",
    r"b_{\mathrm{zero}}",
    "bit/element",
    "bits of a group's zero point",
    0,
    16,
    integer=True,
    domain="nonnegative",
)
G = count("G", "G", "elements", "elements that share a scale", 16, 256)
b_super = symbol(
    "b_super",
    r"b_{\mathrm{super}}",
    "bit/element",
    "bits that widen the scales of several groups",
    0,
    64,
    integer=True,
    domain="nonnegative",
)
n_super = count("n_super", r"n_{\mathrm{super}}", "1", "groups whose scales are widened together", 1, 256)
b_index = symbol(
    "b_index", r"b_{\mathrm{idx}}", "bit/element", "bits that say where a sparse weight sits", 8, 32, integer=True
)
b_bar = symbol("b_bar", r"\bar b", "bit/element", "bits a weight, scales and zeros counted", 1, 16)
n_levels = count("n_levels", r"n_{\mathrm{lev}}", "1", "levels of a grid, 2^b", 2, 256)
d_in = count("d_in", r"d_{\mathrm{in}}", "elements", "inputs of a linear layer", 64, 65536)
f_sparse = symbol("f_sparse", r"f_{\mathrm{sp}}", "1", "share of weights kept apart", 0, 0.05, domain="nonnegative")
w_span = symbol("w_span", r"r_w", "1", "largest minus smallest of the weights that share a scale", 1e-3, 10)
step = symbol("step", r"\Delta", "1", "distance of neighbouring levels", 1e-4, 1)
step_scaled = symbol("step_scaled", r"\Delta'", "1", "that distance after one channel was scaled up", 1e-4, 1)
s_channel = symbol("s_channel", "s", "1", "factor of an input channel", 0.1, 10)
e_round = symbol("e_round", "e", "1", "rounding error of one weight", 0, 1, domain="nonnegative")
h_inv = symbol("h_inv", r"[H^{-1}]_{qq}", "1", "a weight's entry on the diagonal of the inverse Hessian", 1e-3, 10)
x_absmax = symbol("x_absmax", "m_X", "1", "largest size of an activation channel", 0.01, 1000)
w_absmax = symbol("w_absmax", "m_W", "1", "largest size of the weights that read a channel", 0.01, 10)
migration = symbol(
    "migration", r"\alpha_{\mathrm{s}}", "1", "share of the outliers moved into weights", 0.05, 1, domain="fraction"
)

# Cache
n = symbol("n", r"n", "tokens", "tokens of one sequence, or their mean", 1, 131072)
n_max = symbol("n_max", r"n_{\mathrm{max}}", "tokens", "tokens of the longest answer in a batch", 1, 131072)
S = count("S", "S", "slots", "slots in a KV block, one token each", 1, 512)
n_keep = count("n_keep", r"n_{\mathrm{keep}}", "tokens", "tokens whose keys and values are read", 16, 8192)
L = count("L", "L", "tokens", "context tokens of a sequence", 1, 131072, domain="nonnegative")
L_hit = count(
    "L_hit", r"L_{\mathrm{hit}}", "tokens", "leading tokens found in a prefix cache", 1, 131072, domain="nonnegative"
)
W = count("W", "W", "tokens", "tokens an attention window holds, the newest included", 128, 65536)
kappa = symbol("kappa", r"\kappa", "B/token", "KV bytes a token", 1e3, 1e7, integer=True)
throughput = symbol("throughput", "X", "tok/s", "output tokens a second, all GPUs together", 1, 1e6)
u = symbol("u", "u", "1", "share of paid time spent at that throughput", 0.02, 1, domain="fraction")
t_gpu = symbol("t_gpu", r"t_{\mathrm{gpu}}", "s", "GPU time of one step", 1e-4, 0.2)
t_cpu = symbol("t_cpu", r"t_{\mathrm{cpu}}", "s", "CPU time of one step", 1e-5, 0.2, domain="nonnegative")
t_comm = symbol("t_comm", r"t_{\mathrm{comm}}", "s", "communication time of one step", 0, 0.02, domain="nonnegative")
t_launch = symbol("t_launch", r"t_{\mathrm{launch}}", "s", "launch gaps of one step", 0, 0.02, domain="nonnegative")
overhead = symbol(
    "overhead", r"M_{\mathrm{over}}", "B", "memory for activations, graphs and workspace", 0, 8e9, domain="nonnegative"
)

__all__ = [*TABLE, "BITS_PER_BYTE", "FLOP", "SECONDS_PER_HOUR", "TOKENS_PER_MTOK"]
