"""Drafted tokens come out with the target's law: to 1e-12 by integration, and as fast as sampling theory says."""

import math
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.sampling import rejection  # noqa: E402
from labcore.sampling.rejection import (  # noqa: E402
    accept_candidates,
    accept_chain,
    acceptance_rate,
    residual,
    without_replacement,
)
from labcore.sampling.sampler import draw, law, pick  # noqa: E402
from tests.sampling.laws import cuts_of, integral  # noqa: E402

EXACT = 1e-12


def random_laws(rows: int, vocab: int, seed: int, zeros: bool = False):
    """float64 [rows, vocab]; with `zeros` about a third of the tokens are impossible."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(rows, vocab, generator=generator, dtype=torch.float64) ** 2 + 1e-3
    if zeros:
        weights *= torch.rand(rows, vocab, generator=generator) > 0.35
        weights[torch.arange(rows), torch.randint(vocab, (rows,), generator=generator)] += 0.1
    return weights / weights.sum(-1, keepdim=True)


laws = st.builds(random_laws, st.just(2), st.integers(1, 5), st.integers(0, 9999), st.booleans())


# ---- one place -------------------------------------------------------------------------------------------------------


def output_law(p, q, accept=accept_chain):
    """The law of the first token that a draft of one token from q produces, integrated exactly."""
    vocab, found = len(p), torch.zeros(len(p), dtype=torch.float64)
    target = torch.stack((p, torch.ones_like(p) / vocab))  # the place behind the draft does not matter here
    cuts = cuts_of(p, q, residual(p, q))
    for token in range(vocab):
        if q[token] == 0:
            continue

        def first(numbers, token=token):
            kept, following = accept(target, q[None], [token], numbers)
            return token if kept else following

        for outcome, probability in integral(first, [cuts, cuts]).items():
            found[outcome] += q[token] * probability
    return found


@settings(max_examples=30, deadline=None)
@given(laws)
def test_one_drafted_token_has_the_targets_law(two):
    p, q = two
    torch.testing.assert_close(output_law(p, q), p, rtol=0, atol=EXACT)


@settings(max_examples=60, deadline=None)
@given(laws)
def test_the_proof_term_by_term(two):
    """min(p, q) + (1 - alpha) residual = p, and alpha = 1 - total variation."""
    p, q = two
    alpha = acceptance_rate(p, q)
    torch.testing.assert_close(alpha, 1 - (p - q).abs().sum() / 2, rtol=0, atol=EXACT)
    torch.testing.assert_close(torch.minimum(p, q) + (1 - alpha) * residual(p, q), p, rtol=0, atol=EXACT)


# ---- chains ----------------------------------------------------------------------------------------------------------


class Process:
    """A draft and a target over a few tokens, each with a law for every text of up to K tokens."""

    def __init__(self, vocab: int, length: int, seed: int, zeros: bool = False) -> None:
        texts = [text for n in range(length + 1) for text in product(range(vocab), repeat=n)]
        table = random_laws(2 * len(texts), vocab, seed, zeros)
        self.vocab, self.length = vocab, length
        self.p = dict(zip(texts, table[::2], strict=True))
        self.q = dict(zip(texts, table[1::2], strict=True))

    def laws(self, draft):
        """p [K+1, vocab] and q [K, vocab] along the draft."""
        prefixes = [draft[:i] for i in range(self.length + 1)]
        return torch.stack([self.p[t] for t in prefixes]), torch.stack([self.q[t] for t in prefixes[:-1]])

    def drafts(self):
        """Every text of K tokens with the probability that the draft writes it."""
        for draft in product(range(self.vocab), repeat=self.length):
            probability = math.prod(float(self.q[draft[:i]][token]) for i, token in enumerate(draft))
            if probability:
                yield draft, probability

    def cuts(self, draft):
        p, q = self.laws(draft)
        rows = [cuts_of(p[i], q[i]) for i in range(self.length)]
        last = [residual(p[i], q[i]) for i in range(self.length)] + [p[-1]]
        return [*rows, sorted({c for one in last for c in cuts_of(one)})]


@pytest.mark.parametrize(("vocab", "length", "zeros"), [(3, 2, False), (3, 2, True), (2, 3, True), (4, 1, False)])
def test_a_chain_continues_as_the_target_would(vocab, length, zeros):
    """Over all drafts: given the tokens before, the next one has the target's law, at every place up to K + 1."""
    process = Process(vocab, length, seed=vocab + length, zeros=zeros)
    texts: dict[tuple, float] = {}
    for draft, probability in process.drafts():
        p, q = process.laws(draft)

        def said(numbers, p=p, q=q, draft=draft):
            kept, following = accept_chain(p, q, draft, numbers)
            return (*draft[:kept], following)

        for text, weight in integral(said, process.cuts(draft)).items():
            texts[text] = texts.get(text, 0.0) + probability * weight
    assert math.isclose(sum(texts.values()), 1, abs_tol=EXACT)

    def reached(prefix):
        """The probability that the output has `prefix` and goes on."""
        return sum(
            weight for text, weight in texts.items() if len(text) > len(prefix) and text[: len(prefix)] == prefix
        )

    for n in range(length + 1):
        for prefix in product(range(vocab), repeat=n):
            total = reached(prefix)
            if total < 1e-9:
                continue
            for token in range(vocab):
                text = (*prefix, token)
                share = texts.get(text, 0.0) + reached(text)
                assert abs(share / total - float(process.p[prefix][token])) < EXACT / total


def test_every_draft_of_the_targets_own_law_is_kept():
    p = random_laws(4, 50, 1)
    for number in (0.0, 0.5, math.nextafter(1.0, 0)):
        kept, following = accept_chain(p, p[:3], [3, 1, 4], [number] * 4)
        assert (kept, following) == (3, int(pick(p[3:], torch.tensor([number], dtype=torch.float64))))


def test_disjoint_laws_reject_at_once_and_draw_from_the_target():
    p, q = torch.tensor([[0.5, 0.5, 0, 0]] * 2).double(), torch.tensor([[0, 0, 0.3, 0.7]]).double()
    for number in (0.0, 0.3, 0.999):
        assert accept_chain(p, q, [2], [number, number]) == (0, int(number >= 0.5))
    assert acceptance_rate(p[0], q[0]) == 0 and torch.equal(residual(p[0], q[0]), p[0])


@settings(max_examples=25, deadline=None)
@given(laws, st.integers(0, 99))
def test_a_token_of_probability_zero_is_never_said(two, seed):
    p, q = two
    numbers = [0.0, *torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()]
    for token in range(len(p)):
        for first, second in product(numbers, numbers):
            kept, following = accept_chain(torch.stack((p, p)), q[None], [token], [first, second])
            assert p[following] > 0 and (kept == 0 or p[token] > 0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 6))
def test_a_certain_draft_is_sampling_from_the_target_and_comparing(seed, vocab):
    """q is one token: it is kept with probability p(x), and the output has the law p."""
    (p,) = random_laws(1, vocab, seed)
    for token in range(vocab):
        q = torch.zeros(vocab, dtype=torch.float64)
        q[token] = 1
        kept = integral(lambda u: accept_chain(torch.stack((p, p)), q[None], [token], [u[0], 0.5])[0], [cuts_of(p, q)])  # noqa: B023
        assert abs(kept[1] - float(p[token])) < EXACT
        torch.testing.assert_close(output_law(p, q), p, rtol=0, atol=EXACT)


def test_no_draft_is_a_plain_draw():
    p, number = random_laws(1, 9, 3), 0.77
    expected = int(pick(p, torch.tensor([number], dtype=torch.float64)))
    assert accept_chain(p, p[:0], [], [number]) == (0, expected)


def test_laws_equal_to_within_rounding_leave_no_residual_and_no_nan():
    p = random_laws(2, 7, 5).float()
    q = p[:1] * (1 + 1e-7)
    assert torch.equal(residual(p[0], q[0]), p[0])
    kept, following = accept_chain(p, q, [2], [1 - 2**-53, 0.4])
    assert kept == 0 and 0 <= following < 7


@pytest.mark.parametrize(
    ("p", "q", "tokens", "numbers"),
    [((2, 5), (2, 5), 2, 3), ((3, 5), (2, 6), 2, 3), ((3, 5), (2, 5), 1, 3), ((3, 5), (2, 5), 2, 2)],
)
def test_arguments_that_do_not_fit_are_refused(p, q, tokens, numbers):
    with pytest.raises(InputError, match="do not fit: for 2 tokens p has 3 rows of the same vocabulary"):
        accept_chain(torch.ones(p), torch.ones(q), [0] * tokens, [0.5] * numbers)


# ---- several candidates for one place --------------------------------------------------------------------------------


def candidates_law(p, draws, numbers):
    """The law of the token over `draws`: (probability, tokens, qs)."""
    found = torch.zeros(len(p), dtype=torch.float64)
    for probability, tokens, qs in draws:
        left, axes = p, []
        for q in qs:
            axes.append(cuts_of(left, q))
            left = residual(left, q)

        def said(u, tokens=tokens, qs=qs):
            return accept_candidates(p, qs, tokens, u)[1]

        for token, weight in integral(said, [*axes, cuts_of(left)]).items():
            found[token] += probability * weight
    return found


def with_replacement(qs):
    for tokens in product(range(qs.shape[1]), repeat=len(qs)):
        probability = math.prod(float(q[t]) for q, t in zip(qs, tokens, strict=True))
        if probability:
            yield probability, tokens, qs


def distinct(q, count):
    """All ordered draws of `count` different tokens from q."""
    for tokens in product(range(len(q)), repeat=count):
        if len(set(tokens)) == count and all(q[t] > 0 for t in tokens):
            qs = without_replacement(q, tokens)
            yield math.prod(float(qs[i, t]) for i, t in enumerate(tokens)), tokens, qs


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 3), st.integers(1, 3), st.booleans(), st.booleans())
def test_candidates_have_the_targets_law(seed, vocab, count, same, zeros):
    """Drawn from one q or from as many different ones, with tokens that may come twice."""
    table = random_laws(count + 1, vocab, seed, zeros)
    qs = table[1:2].expand(count, -1) if same else table[1:]
    found = candidates_law(table[0], with_replacement(qs), count + 1)
    torch.testing.assert_close(found, table[0], rtol=0, atol=EXACT)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 9999), st.integers(3, 4), st.integers(1, 2))
def test_candidates_without_replacement_have_the_targets_law(seed, vocab, count):
    p, q = random_laws(2, vocab, seed)
    found = candidates_law(p, distinct(q, count), count + 1)
    torch.testing.assert_close(found, p, rtol=0, atol=EXACT)


def test_different_candidates_are_kept_more_often_than_repeated_ones():
    p, q = random_laws(2, 4, 11)

    def kept(draws):
        total = 0.0
        for probability, tokens, qs in draws:
            axes = [cuts_of(p, qs[0]), cuts_of(residual(p, qs[0]), qs[1])]
            hit = integral(lambda u: accept_candidates(p, qs, tokens, [*u, 0.5])[0] is not None, axes)  # noqa: B023
            total += probability * hit[True]
        return total

    one = float(acceptance_rate(p, q))
    assert one < kept(with_replacement(q.expand(2, -1))) < kept(distinct(q, 2)) <= 1


def test_one_candidate_is_a_chain_of_one():
    p, q = random_laws(2, 5, 8)
    for u, w, token in product((0.1, 0.6, 0.95), (0.2, 0.9), range(5)):
        index, said = accept_candidates(p, q[None], [token], [u, w])
        kept, following = accept_chain(torch.stack((p, p)), q[None], [token], [u, w])
        assert (index is None) == (kept == 0) and said == (token if kept else following)


def test_a_candidate_that_cannot_be_drawn_is_refused():
    q = torch.tensor([0.5, 0.5, 0.0])
    for tokens in ([2], [0, 0]):
        with pytest.raises(InputError, match=f"token {tokens[-1]} cannot be drawn here"):
            without_replacement(q, tokens)


# ---- warped laws -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 999),
    st.floats(0.2, 3),
    st.integers(0, 6),
    st.sampled_from([1.0, 0.4, 0.9]),
    st.sampled_from([0, 0.1]),
)
def test_law_is_what_is_drawn(seed, temperature, top_k, top_p, min_p):
    """10,000 evenly spaced numbers: each token's share is its probability to within one draw."""
    params, n = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p), 10_000
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(seed)) * 3
    tokens = draw(logits.expand(n, -1), [params] * n, (torch.arange(n, dtype=torch.float64) + 0.5) / n)
    share = torch.bincount(tokens, minlength=6).double() / n
    torch.testing.assert_close(share, law(logits, [params])[0], rtol=0, atol=1.5 / n)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.5, 1.0, 2.0]), st.integers(0, 3), st.sampled_from([1.0, 0.3, 0.8]))
def test_both_laws_warped_alike_give_the_warped_target(seed, temperature, top_k, top_p):
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed)) * 2
    p, q = law(logits, [params] * 2)
    torch.testing.assert_close(output_law(p, q), p, rtol=0, atol=EXACT)


def test_greedy_is_the_limit_of_cold():
    logits = torch.tensor([[1.0, 3.0, 2.0], [2.0, 1.0, 0.0]])
    greedy = law(logits, [SamplingParams(temperature=0)] * 2)
    assert greedy.tolist() == [[0, 1, 0], [1, 0, 0]]
    torch.testing.assert_close(law(logits, [SamplingParams(temperature=1e-3)] * 2), greedy, rtol=0, atol=EXACT)
    target, draft = torch.stack((greedy[0], greedy[0])), greedy[1:]
    for number in (0.0, 0.5, 0.999):
        assert accept_chain(target, draft, [0], [number, number]) == (0, 1)  # not the argmax: replaced by it
        assert accept_chain(target, greedy[:1], [1], [number, number]) == (1, 1)  # the argmax: kept


def test_a_batch_may_mix_greedy_and_sampled_rows():
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    params = [SamplingParams(temperature=0), SamplingParams(top_k=3), SamplingParams(temperature=0)]
    together = law(logits, params)
    for i in range(3):
        assert torch.equal(together[i], law(logits[i : i + 1], params[i : i + 1])[0])
    assert (together[1] > 0).sum() == 3 and together[0].max() == 1
    torch.testing.assert_close(together.sum(-1), torch.ones(3, dtype=torch.float64), rtol=0, atol=EXACT)


# ---- mistakes, and how they show -------------------------------------------------------------------------------------


def unnormalised(p, q, token_ids, uniforms):
    """Takes a number to point into max(0, p - q) as if that summed to 1; beyond it the last token."""
    for i, token in enumerate(token_ids):
        if not rejection.accepts(p[i], q[i], token, uniforms[i]):
            left = (p[i] - q[i]).clamp(min=0)
            return i, min(int((left.cumsum(0) <= uniforms[-1]).sum()), len(left) - 1)
    return len(q), int(pick(p[-1:], torch.tensor(uniforms[-1:], dtype=torch.float64)))


def swapped(p, q, token_ids, uniforms):
    """Accepts with min(1, q/p)."""
    for i, token in enumerate(token_ids):
        if not rejection.accepts(q[i], p[i], token, uniforms[i]):
            return i, int(pick(residual(p[i], q[i])[None], torch.tensor(uniforms[-1:], dtype=torch.float64)))
    return len(q), int(pick(p[-1:], torch.tensor(uniforms[-1:], dtype=torch.float64)))


def resamples_from_the_target(p, q, token_ids, uniforms):
    """Draws from p after a rejection, where the residual is due."""
    for i, token in enumerate(token_ids):
        if not rejection.accepts(p[i], q[i], token, uniforms[i]):
            return i, int(pick(p[i : i + 1], torch.tensor(uniforms[-1:], dtype=torch.float64)))
    return len(q), int(pick(p[-1:], torch.tensor(uniforms[-1:], dtype=torch.float64)))


def bonus_from_the_draft(p, q, token_ids, uniforms):
    """Takes the token behind a whole kept draft from the draft's last law."""
    kept, following = accept_chain(p, q, token_ids, uniforms)
    return (kept, following) if kept < len(q) else (kept, int(pick(q[-1:], torch.tensor(uniforms[-1:]).double())))


P, Q = random_laws(2, 5, 21)
BEHIND = random_laws(1, 5, 22)[0]


@pytest.mark.parametrize("wrong", [unnormalised, swapped, resamples_from_the_target])
def test_integration_rejects_the_mistakes(wrong):
    assert (output_law(P, Q, wrong) - P).abs().sum() / 2 > 0.01


def behind_law(accept):
    """The law of the token behind a kept draft of one token."""
    target, found = torch.stack((P, BEHIND)), torch.zeros(5, dtype=torch.float64)
    for token in range(5):
        cuts = [cuts_of(P, Q), cuts_of(P, Q, BEHIND, residual(P, Q))]
        for (kept, following), weight in integral(lambda u: accept(target, Q[None], [token], u), cuts).items():  # noqa: B023
            if kept:
                found[following] += Q[token] * weight
    return found / found.sum()


def test_integration_rejects_a_bonus_from_the_draft():
    torch.testing.assert_close(behind_law(accept_chain), BEHIND, rtol=0, atol=EXACT)
    assert (behind_law(bonus_from_the_draft) - BEHIND).abs().sum() / 2 > 0.1


def test_integration_rejects_truncating_one_law_only():
    """top-p applied to p, while the draft's tokens came from its whole law: what comes out is still the truncated p,
    because the rule knows the law that was used. Claiming a truncated q that was not drawn from is the mistake."""
    logits = torch.stack((P, Q)).log().float()
    whole, cut = [SamplingParams()] * 2, [SamplingParams(top_p=0.6)] * 2
    p, drawn, claimed = law(logits, cut)[0], law(logits, whole)[1], law(logits, cut)[1]
    torch.testing.assert_close(output_law(p, drawn), p, rtol=0, atol=EXACT)
    assert (said_law(p, drawn, claimed) - p).abs().sum() / 2 > 0.05
    assert (output_law(law(logits, cut)[0], drawn) - law(logits, whole)[0]).abs().sum() / 2 > 0.05


def said_law(p, drawn, claimed):
    """The output's law if tokens come from `drawn` and the rule is told `claimed`."""
    found, target = torch.zeros_like(p), torch.stack((p, p))
    cuts = cuts_of(p, claimed, residual(p, claimed))
    for token in range(len(p)):

        def first(u, token=token):
            kept, following = accept_chain(target, claimed[None], [token], u)
            return token if kept else following

        for outcome, weight in integral(first, [cuts, cuts]).items():
            found[outcome] += drawn[token] * weight
    return found


# ---- samples ---------------------------------------------------------------------------------------------------------


CUTS = [cuts_of(P, Q), cuts_of(BEHIND, residual(P, Q), residual(Q, P), P, (P - Q).clamp(min=0))]


def first_token(accept, token: int, numbers) -> int:
    """What a draft of one token becomes."""
    kept, following = accept(torch.stack((P, BEHIND)), Q[None], [token], numbers)
    return token if kept else following


def sampled(accept, count: int, seed: int = 0):
    """Token ids [count]: the first token of `count` drafts of one token, with seeded random numbers.

    An outcome is constant between cuts, so each cell is computed once and every sample looks its own up.
    """
    numbers = torch.rand(3, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drafted = pick(Q.expand(count, -1), numbers[0])
    middles = [[(a + b) / 2 for a, b in pairwise([*axis[:-1], 1.0])] for axis in CUTS]
    table = torch.tensor([[[first_token(accept, t, (u, w)) for w in middles[1]] for u in middles[0]] for t in range(5)])
    cell = [
        torch.searchsorted(torch.tensor(axis[1:-1], dtype=torch.float64), row, right=True)
        for axis, row in zip(CUTS, numbers[1:], strict=True)
    ]
    said = table[drafted, cell[0], cell[1]]
    for i in range(0, count, count // 50):
        assert said[i] == first_token(accept, int(drafted[i]), numbers[1:, i].tolist())
    return said


def distance(tokens, p) -> float:
    """Total variation between the tokens' shares and p."""
    return float((torch.bincount(tokens, minlength=len(p)) / len(tokens) - p).abs().sum() / 2)


def expected_distance(p, n: int) -> float:
    """The mean distance of n samples from their own law p, at most: half the sum of the standard deviations."""
    return float((p * (1 - p) / n).sqrt().sum() / 2)


def bound(p, n: int, failure: float = 1e-9) -> float:
    """What the distance of n samples exceeds with probability `failure` at most.

    McDiarmid: a sample moves it by 1/n at most.
    """
    return expected_distance(p, n) + math.sqrt(math.log(1 / failure) / (2 * n))


def test_100_000_samples_approach_the_target_as_theory_says():
    tokens = sampled(accept_chain, 100_000)
    for n in (1_000, 10_000, 100_000):
        assert distance(tokens[:n], P) < bound(P, n)
    # the mean over disjoint batches falls as 1/√n: with the mean absolute deviation of a normal law, √(2/π) σ
    for n, batches in ((250, 400), (1_000, 100), (4_000, 25)):
        mean = sum(distance(part, P) for part in tokens.split(n)) / batches
        theory = expected_distance(P, n) * math.sqrt(2 / math.pi)
        spread = math.sqrt(1 / (4 * n * batches))  # the variance of one distance is at most 1/(4n) (Efron-Stein)
        assert abs(mean - theory) < 5 * spread


@pytest.mark.parametrize("wrong", [unnormalised, swapped, resamples_from_the_target])
def test_samples_reject_the_mistakes(wrong):
    n = 100_000
    assert distance(sampled(wrong, n), P) > 2 * bound(P, n)
    assert distance(sampled(accept_chain, n, seed=1), P) < bound(P, n)
