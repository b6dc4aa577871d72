"""H2O and Scissorhands against their rules written out, token by token and head by head, in plain Python."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.eviction import H2OKVCache, ScissorhandsKVCache  # noqa: E402
from tests.kv.lossy_caches import (  # noqa: E402
    CAPACITY,
    DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    SHAPE,
    random_qkv,
    rope,
    run_pass,
)

GROUP = HEADS // KV_HEADS


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / sum(weights) for weight in weights]


class Head:
    """One key head of the reference: a dictionary from token to what the rule remembers of it."""

    def __init__(self, budget: int, recent: int):
        self.budget, self.recent, self.tokens = budget, recent, {}

    def step(self, token: int, queries, keys, values) -> list[torch.Tensor]:
        """Attention of the queries [GROUP, DIM] of `token`, after room was made for it."""
        if len(self.tokens) == self.budget:
            old = [t for t in self.tokens if t <= token - self.recent]
            for victim in self.victims(old):
                del self.tokens[victim]
        self.tokens[token] = 0.0
        held = list(self.tokens)
        rows = [softmax([float(keys[t] @ q) / math.sqrt(DIM) for t in held]) for q in queries]
        for t, *received in zip(held, *rows, strict=True):
            self.learn(t, sum(received) / GROUP)
        return [sum(p * values[t] for p, t in zip(row, held, strict=True)) for row in rows]


class H2OHead(Head):
    def victims(self, old):
        return [min(old, key=lambda t: self.tokens[t])]

    def learn(self, token, attention):
        self.tokens[token] += attention


class ScissorhandsHead(Head):
    def __init__(self, budget, recent, history, drop):
        super().__init__(budget, recent)
        self.history, self.drop = history, drop

    def victims(self, old):
        chosen = sorted(old, key=lambda t: (-self.tokens[t], -t))[: self.drop]
        self.tokens = dict.fromkeys(self.tokens, 0.0)
        return chosen

    def learn(self, token, attention):
        if len(self.tokens) > self.budget - self.history:
            self.tokens[token] += attention < 1 / len(self.tokens)


def check(cache, new_head, sequence) -> None:
    """The cache beside a reference head of each layer and key head: same outputs, same keep sets, at every token."""
    heads = [[new_head() for _ in range(KV_HEADS)] for _ in range(LAYERS)]
    positions = torch.arange(CAPACITY)
    rotated = [(rope(q, positions).double(), rope(k, positions).double(), v.double()) for q, k, v in sequence]
    for token in range(CAPACITY):
        found = run_pass(cache, [(0, 1)], {0: sequence})
        for layer, (q, k, v) in enumerate(rotated):
            expected = []
            for h, head in enumerate(heads[layer]):
                expected += head.step(token, q[token, h * GROUP : (h + 1) * GROUP], k[:, h], v[:, h])
                kept = cache.born[layer, 0, h, : cache.held[layer][0]].tolist()
                assert sorted(kept) == sorted(head.tokens), f"token {token}, layer {layer}, head {h}"
            torch.testing.assert_close(found[layer, 0].double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


@settings(max_examples=6)
@given(budget=st.integers(1, 10), recent=st.integers(1, 10), seed=st.integers(0, 99))
def test_h2o_is_its_rule(budget, recent, seed):
    recent = min(recent, budget)
    cache = H2OKVCache(*SHAPE, budget=budget, recent=recent, slots=1, capacity=CAPACITY)
    check(cache, lambda: H2OHead(budget, recent), random_qkv(CAPACITY, seed))


@settings(max_examples=6)
@given(data=st.data(), budget=st.integers(2, 10), seed=st.integers(0, 99))
def test_scissorhands_is_its_rule(data, budget, seed):
    recent = data.draw(st.integers(1, budget - 1))
    drop = data.draw(st.integers(1, budget - recent))
    rule = {"budget": budget, "recent": recent, "history": data.draw(st.integers(1, drop)), "drop": drop}
    cache = ScissorhandsKVCache(*SHAPE, **rule, slots=1, capacity=CAPACITY)
    check(cache, lambda: ScissorhandsHead(**rule), random_qkv(CAPACITY, seed))


@pytest.mark.parametrize(
    "new",
    [
        lambda: H2OKVCache(*SHAPE, budget=7, recent=3, slots=1, capacity=CAPACITY),
        lambda: ScissorhandsKVCache(*SHAPE, budget=7, recent=3, history=2, drop=4, slots=1, capacity=CAPACITY),
    ],
)
def test_the_budget_is_kept_and_the_recent_tokens_with_it(new):
    cache = new()
    for token in range(CAPACITY):
        run_pass(cache, [(0, 1)], {0: random_qkv(CAPACITY, seed=4)})
        for layer in range(LAYERS):
            held = cache.held[layer][0]
            assert held <= 7
            for head in range(KV_HEADS):
                kept = set(cache.born[layer, 0, head, :held].tolist())
                assert len(kept) == held and kept >= set(range(max(0, token - 2), token + 1))


@pytest.mark.parametrize(("recent", "survives"), [(3, True), (6, False)])
def test_a_token_that_everybody_attends_to_survives_unless_only_recent_ones_may(recent, survives):
    cache = H2OKVCache(*SHAPE, budget=6, recent=recent, slots=1, capacity=CAPACITY)
    _, k, v = random_qkv(CAPACITY, seed=6)[0]
    k[3] = 2 * torch.eye(DIM)[0]
    everybody = torch.eye(DIM)[0].expand(1, HEADS, DIM) * 9
    for token in range(CAPACITY):
        cache.extend([(0, 1)])(0, everybody, k[token : token + 1], v[token : token + 1])
    assert [3 in held.tolist() for held in cache.born[0, 0]] == [survives] * KV_HEADS


def test_reserved_bytes_are_the_formula_and_two_records_a_token():
    cache = H2OKVCache(*SHAPE, budget=7, recent=3, slots=2, capacity=CAPACITY)
    kappa = formula["kv.bytes_per_token"](n_layers=LAYERS, n_kv=KV_HEADS, d_h=DIM, b_kv=4)
    records = 2 * 4 * LAYERS * KV_HEADS * 7 * 2  # born and record, 4 B each
    assert cache.nbytes == formula["kv.window_bytes"](B=2, kappa=kappa, L=CAPACITY, W=7) + records


@pytest.mark.parametrize(("budget", "recent"), [(4, 0), (4, 5), (0, 0)])
def test_an_impossible_budget_is_refused(budget, recent):
    with pytest.raises(InputError, match=f"budget={budget}, recent={recent}: the budget holds the recent tokens"):
        H2OKVCache(*SHAPE, budget=budget, recent=recent, slots=1, capacity=CAPACITY)


@pytest.mark.parametrize(("history", "drop"), [(0, 2), (3, 2), (2, 6)])
def test_an_impossible_history_is_refused(history, drop):
    with pytest.raises(InputError, match=f"history={history}, drop={drop}: need 1 <= history <= drop <= 5"):
        ScissorhandsKVCache(*SHAPE, budget=8, recent=3, history=history, drop=drop, slots=1, capacity=CAPACITY)
