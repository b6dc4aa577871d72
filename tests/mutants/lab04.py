"""Wrong answers to the speculation lab that people give in earnest. Each must be rejected with its own sentence."""

from __future__ import annotations

import math

import torch

from labcore.learn.labs import lab04_references as ref
from labcore.learn.labs.lab04_candidates import candidates_of
from labcore.learn.labs.lab04_cost import bias_of
from labcore.learn.labs.lab04_drafts import best, search, tokens
from labcore.learn.labs.lab04_rule import chain_of, first_that_reaches, one, point
from labcore.learn.labs.lab04_tree import tree
from labcore.sampling.rejection import accept_candidates, accept_chain, residual
from tests.mutants.registry import mutant

# ---- keep or replace -------------------------------------------------------------------------------------------------


@mutant("spec.accept", says="the ratio is upside down")
def divides_the_wrong_way(p, q, token, u, w):
    return one(p, q, token, u, w, keep=lambda p, q, t, u: u < q[t] / p[t])


@mutant("spec.accept", says="its cumulative probability has to exceed w")
def searches_from_the_left(p, q, token, u, w):
    return first_that_reaches(p, q, token, u, w)


@mutant("spec.accept", says="divide by its sum before you draw")
def does_not_normalise(p, q, token, u, w):
    return one(p, q, token, u, w, instead=lambda p, q: (p - q).clamp(min=0))


@mutant("spec.accept", says="that draw is from p")
def resamples_from_the_target(p, q, token, u, w):
    return one(p, q, token, u, w, instead=lambda p, q: p)


@mutant("spec.accept", says="draw with w")
def uses_one_number_twice(p, q, token, u, w):
    return one(p, q, token, u, w, number=u)


@mutant("spec.accept", says="not what the draft has more of")
def takes_the_other_residual(p, q, token, u, w):
    return one(p, q, token, u, w, instead=lambda p, q: residual(q, p))


@mutant("spec.accept", says="negative differences count as 0")
def takes_absolute_differences(p, q, token, u, w):
    return one(p, q, token, u, w, instead=lambda p, q: (p - q).abs() / (p - q).abs().sum())


@mutant("spec.accept", says="is never kept, not even for u = 0: strictly <")
def keeps_at_equality(p, q, token, u, w):
    return one(p, q, token, u, w, keep=lambda p, q, t, u: u <= p[t] / q[t])


@mutant("spec.accept", says="expected (False, 1)")
def keeps_what_the_target_likes_most(p, q, token, u, w):
    return one(p, q, token, u, w, keep=lambda p, q, t, u: bool(p[t] == p.max()))


# ---- chains ----------------------------------------------------------------------------------------------------------


@mutant("spec.chain", says="draw it from p[K], not from q")
def takes_the_bonus_from_the_draft(p, q, token_ids, uniforms):
    return chain_of(p, q, token_ids, uniforms, bonus=lambda p, q: q if len(q) else p)


@mutant("spec.chain", says="nothing behind a rejection counts")
def counts_what_comes_later(p, q, token_ids, uniforms):
    return chain_of(p, q, token_ids, uniforms, stops=False)


@mutant("spec.chain", says="the residual is p[i] − q[i]")
def is_one_row_off(p, q, token_ids, uniforms):
    return chain_of(p, q, token_ids, uniforms, place=1)


@mutant("spec.chain", says="the number that rejected a token is not random any more")
def draws_with_the_number_that_rejected(p, q, token_ids, uniforms):
    return chain_of(p, q, token_ids, uniforms, number=None)


@mutant("spec.chain", says="comes from the residual, not from p[i]")
def draws_from_the_target_after_a_rejection(p, q, token_ids, uniforms):
    return chain_of(p, q, token_ids, uniforms, instead=lambda p, q: p)


@mutant("spec.chain", says="the first number counts the drafts that were kept")
def counts_the_next_token(p, q, token_ids, uniforms):
    kept, following = accept_chain(p, q, token_ids, uniforms)
    return kept + 1, following


@mutant("spec.chain", says="expected (2, 2)")
def stops_without_a_bonus(p, q, token_ids, uniforms):
    kept, following = accept_chain(p, q, token_ids, uniforms)
    return (kept - 1, token_ids[-1]) if kept and kept == len(token_ids) else (kept, following)


@mutant("spec.chain", says="no draft at all is a plain draw from p[0]")
def says_token_0_without_a_draft(p, q, token_ids, uniforms):
    return accept_chain(p, q, token_ids, uniforms) if token_ids else (0, 0)


# ---- the test --------------------------------------------------------------------------------------------------------


def distance(tokens, p):
    return float((torch.bincount(tokens, minlength=len(p)) / len(tokens) - p).abs().sum() / 2)


@mutant("spec.biased", says="50 honest draws from p were called biased")
def has_a_fixed_tolerance(tokens, p):
    return distance(tokens, p) > 0.02


@mutant("spec.biased", says="100,000 tokens from a law 0.03 away from p passed")
def has_a_tolerance_for_small_samples(tokens, p):
    return bool((torch.bincount(tokens, minlength=len(p))[p == 0] > 0).any()) or distance(tokens, p) > 2 / math.sqrt(
        min(len(tokens), 3_000)
    )


@mutant("spec.biased", says="100,000 honest draws from p were called biased")
def falls_with_n_and_not_its_root(tokens, p):
    return distance(tokens, p) > 40 / len(tokens)


@mutant("spec.biased", says="compare each token")
def compares_the_means(tokens, p):
    ids = torch.arange(len(p), dtype=torch.float64)
    mean = float((ids * p).sum())
    spread = math.sqrt(float(((ids - mean) ** 2 * p).sum()) / len(tokens))
    return abs(float(tokens.double().mean()) - mean) > 6 * spread


@mutant("spec.biased", says="passed for [0.1, 0.5, 0.3, 0.1]")
def looks_at_the_likeliest_alone(tokens, p):
    if bool((torch.bincount(tokens, minlength=len(p))[p == 0] > 0).any()):
        return True
    share, n = float(p.max()), len(tokens)
    return abs(float((tokens == int(p.argmax())).double().mean()) - share) > 6 * math.sqrt(share * (1 - share) / n)


@mutant("spec.biased", says="a sampler passed that keeps every draft")
def believes_everybody(tokens, p):
    return False


@mutant("spec.biased", says="what cannot happen is proof")
def knows_no_impossible_token(tokens, p):
    return distance(tokens, p) > math.sqrt(math.log(1e6) / (2 * len(tokens))) + float(
        (p * (1 - p) / len(tokens)).sqrt().sum() / 2
    )


@mutant("spec.biased", says="expected True or False")
def returns_the_distance(tokens, p):
    return distance(tokens, p)


# ---- how many --------------------------------------------------------------------------------------------------------


@mutant("spec.plan", says="those are the accepted drafts")
def forgets_the_bonus(alpha, c, longest):
    return best(longest, lambda K: (tokens(alpha, K) - 1) / (1 + c * K))


@mutant("spec.plan", says="the drafts take time as well")
def counts_tokens_only(alpha, c, longest):
    return best(longest, lambda K: tokens(alpha, K))


@mutant("spec.plan", says="the exponent in the closed form is K + 1")
def is_one_power_short(alpha, c, longest):
    return best(longest, lambda K: tokens(alpha, K - 1) / (1 + c * K))


@mutant("spec.plan", says="a later draft counts only if all before it were kept")
def multiplies_alpha_by_k(alpha, c, longest):
    return best(longest, lambda K: (1 + alpha * K) / (1 + c * K))


@mutant("spec.plan", says="K of them take cK, not c")
def drafts_in_parallel(alpha, c, longest):
    return best(longest, lambda K: tokens(alpha, K) / (1 + c))


@mutant("spec.plan", says="so draft nothing")
def always_drafts(alpha, c, longest):
    speedup = lambda K: tokens(alpha, K) / (1 + c * K)  # noqa: E731
    K = max(range(1, longest + 1), key=speedup)
    return K, speedup(K)


@mutant("spec.plan", says="the shortest of several")
def takes_the_longest_of_several(alpha, c, longest):
    return best(longest, lambda K: tokens(alpha, K) / (1 + c * K) + 1e-12 * K)


@mutant("spec.plan", says="nothing is faster")
def drafts_for_nothing(alpha, c, longest):
    K, speedup = best(longest, lambda K: tokens(alpha, K) / (1 + c * K))
    return (1, 1.0) if not K and alpha == c else (K, speedup)


@mutant("spec.plan", says="raised ZeroDivisionError")
def divides_by_one_minus_alpha(alpha, c, longest):
    return best(longest, lambda K: (1 - alpha ** (K + 1)) / (1 - alpha) / (1 + c * K))


# ---- prompt lookup ---------------------------------------------------------------------------------------------------


@mutant("spec.lookup", says="the longest suffix first")
def takes_the_shortest_suffix(token_ids, count, min_n, max_n):
    return search(token_ids, count, min_n, max_n, order=range(min_n, min(max_n, len(token_ids) - 1) + 1))


@mutant("spec.lookup", says="that is the first occurrence")
def takes_the_first_occurrence(token_ids, count, min_n, max_n):
    return search(token_ids, count, min_n, max_n, place=0)


@mutant("spec.lookup", says="go on with what was just copied")
def stops_with_the_text(token_ids, count, min_n, max_n):
    return search(token_ids, count, min_n, max_n, wrap=False)


@mutant("spec.lookup", says="suffixes shorter than min_n do not count")
def looks_up_single_tokens(token_ids, count, min_n, max_n):
    return search(token_ids, count, 1, max_n)


@mutant("spec.lookup", says="the suffix itself does not count")
def finds_the_suffix_itself(token_ids, count, min_n, max_n):
    suffix = token_ids[-min_n:]
    places = [i for i in range(len(token_ids)) if token_ids[i : i + min_n] == suffix]
    return token_ids[places[-1] + min_n :][:count] if places else []


@mutant("spec.lookup", says="a text of one token has no earlier occurrence")
def repeats_a_single_token(token_ids, count, min_n, max_n):
    return token_ids * count if len(token_ids) == 1 else search(token_ids, count, min_n, max_n)


# ---- trees -----------------------------------------------------------------------------------------------------------


@mutant("spec.tree", says="a node's position is known + its depth")
def numbers_positions_by_slot(parents, known):
    return tree(parents, known, position=lambda node, branch: node)


@mutant("spec.tree", says="that is the causal mask")
def masks_causally(parents, known):
    return tree(parents, known, sees=lambda node, branch: range(node + 1))


@mutant("spec.tree", says="a node attends to itself, too")
def sees_ancestors_only(parents, known):
    return tree(parents, known, sees=lambda node, branch: branch[:-1])


@mutant("spec.tree", says="follow the parents up to the root")
def sees_the_parent_only(parents, known):
    return tree(parents, known, sees=lambda node, branch: branch[-2:])


@mutant("spec.tree", says="the first node stands at position known")
def starts_one_late(parents, known):
    return tree(parents, known, position=lambda node, branch: len(branch))


@mutant("spec.tree", says="returned shape (2, 2), expected (2, 4)")
def forgets_the_known_tokens(parents, known):
    positions, mask = ref.tree_inputs(parents, known)
    return positions, mask[:, known:]


@mutant("spec.rollback", says="node 1 must be read before node 3 is written over it")
def copies_from_the_leaf(path, known, table, block_size):
    return ref.slot_copies(path, known, table, block_size)[::-1]


@mutant("spec.rollback", says="a node may stand in its place already")
def copies_everything(path, known, table, block_size):
    slot = lambda place: table[place // block_size] * block_size + place % block_size  # noqa: E731
    return [(slot(known + node), slot(known + depth)) for depth, node in enumerate(path)]


@mutant("spec.rollback", says="place 6 is slot 3·4 + 2")
def ignores_the_table(path, known, table, block_size):
    return [(known + node, known + depth) for depth, node in enumerate(path) if node != depth]


@mutant("spec.rollback", says="expected node 2: node 2 lies in place 5")
def copies_nothing(path, known, table, block_size):
    return []


@mutant("spec.rollback", says="overwrites known token 1")
def forgets_what_is_known(path, known, table, block_size):
    return ref.slot_copies(path, 0, table, block_size)


@mutant("spec.rollback", says="first the slot that is read")
def turns_source_and_target_round(path, known, table, block_size):
    return [(target, source) for source, target in ref.slot_copies(path, known, table, block_size)]


# ---- candidates ------------------------------------------------------------------------------------------------------


@mutant("spec.candidates", says="p would be paid twice")
def holds_each_against_the_target(p, qs, token_ids, uniforms):
    return candidates_of(p, qs, token_ids, uniforms, left_of=lambda p, left: p)


@mutant("spec.candidates", says="comes from what is left in the end, not from p")
def draws_from_the_target_in_the_end(p, qs, token_ids, uniforms):
    return candidates_of(p, qs, token_ids, uniforms, last=lambda p: p)


@mutant("spec.candidates", says="what is left has to sum to 1")
def leaves_what_is_left_unscaled(p, qs, token_ids, uniforms):
    return candidates_of(p, qs, token_ids, uniforms, scale=False)


@mutant("spec.candidates", says="the numbers of a rejected candidate are spent")
def uses_the_first_number_throughout(p, qs, token_ids, uniforms):
    return candidates_of(p, qs, token_ids, uniforms[:1].expand(len(uniforms)))


@mutant("spec.candidates", says="each rejection takes off its own row")
def takes_off_the_first_row_each_time(p, qs, token_ids, uniforms):
    return candidates_of(p, qs, token_ids, uniforms, row=0)


@mutant("spec.candidates", says="it is not kept, not even for u = 0: strictly <")
def keeps_what_is_used_up(p, qs, token_ids, uniforms):
    return candidates_of(p, qs, token_ids, uniforms, keep=lambda p, q, t, u: u * float(q[t]) <= float(p[t]))


@mutant("spec.candidates", says="expected (index or None, token)")
def returns_the_token_alone(p, qs, token_ids, uniforms):
    return accept_candidates(p, qs, token_ids, uniforms)[1]


@mutant("spec.candidates", says="the residual is (0, 1, 0)")
def counts_none_as_minus_one(p, qs, token_ids, uniforms):
    index, token = accept_candidates(p, qs, token_ids, uniforms)
    return (-1 if index is None else index), token


@mutant("spec.candidates", says="no candidate: a plain draw from p")
def needs_a_candidate(p, qs, token_ids, uniforms):
    return accept_candidates(p, qs, token_ids, uniforms) if token_ids else (None, 0)


# ---- measuring -------------------------------------------------------------------------------------------------------


@mutant("spec.typical", says="half the sum of |difference|")
def forgets_the_half(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, half=1.0)


@mutant("spec.typical", says="the bar is the smaller of")
def takes_the_larger_bar(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, smaller=max)


@mutant("spec.typical", says="H in bits lowers the bar")
def measures_entropy_in_bits(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, entropy=lambda p: torch.special.entr(p).sum() / math.log(2))


@mutant("spec.typical", says="that share of p is part of the output")
def drops_what_does_not_pass(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, refill=False)


@mutant("spec.typical", says="exp(−H), not exp(+H)")
def raises_the_bar_with_entropy(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, sign=1.0)


@mutant("spec.typical", says="a token on the bar is not above it")
def keeps_what_lies_on_the_bar(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, above=torch.ge)


@mutant("spec.typical", says="must not become nan")
def takes_the_logarithm_of_zero(p, q, epsilon, delta):
    return bias_of(p, q, epsilon, delta, entropy=lambda p: -(p * p.log()).sum())


@mutant("spec.estimate", says="counts drafts that nobody tested")
def divides_by_the_drafted(accepted, length):
    return sum(accepted) / (length * len(accepted))


@mutant("spec.estimate", says="a verification that kept everything contains no rejection")
def counts_a_rejection_each(accepted, length):
    return sum(accepted) / (sum(accepted) + len(accepted))


@mutant("spec.estimate", says="the token that the target adds is not a draft")
def counts_the_bonus(accepted, length):
    return (sum(accepted) + len(accepted)) / ((length + 1) * len(accepted))


@mutant("spec.estimate", says="the mean of the shares is not the share")
def averages_shares(accepted, length):
    return sum(kept / min(kept + 1, length) for kept in accepted) / len(accepted)


@mutant("spec.estimate", says="expected 0.75")
def looks_at_the_first_draft_only(accepted, length):
    return sum(kept > 0 for kept in accepted) / len(accepted)


# ---- the mutation attack ---------------------------------------------------------------------------------------------


@mutant("spec.chain", says="gave (1, 2), expected (0, 1): p(x) = 0")
def keeps_in_a_chain_at_equality(p, q, token_ids, uniforms):
    for i, token in enumerate(token_ids):
        if uniforms[i] * q[i][token] > p[i][token]:
            return i, point(residual(p[i], q[i]), float(uniforms[-1]))
    return len(token_ids), point(p[-1], float(uniforms[-1]))


@mutant("spec.chain", says="gave (0, 0), expected (0, 1): p(x) = 0")
def searches_a_chain_from_the_left(p, q, token_ids, uniforms):
    kept, _ = accept_chain(p, q, token_ids, uniforms)
    law = p[-1] if kept == len(token_ids) else residual(p[kept], q[kept])
    return kept, int(torch.searchsorted(law.cumsum(0), float(uniforms[-1])))


@mutant("spec.lookup", says="max_n is 2: (2, 3) is looked up")
def looks_up_any_length(token_ids, count, min_n, max_n):
    return search(token_ids, count, min_n, len(token_ids))


@mutant("spec.biased", says="what has p = 0 never came, as it should be")
def distrusts_every_zero(tokens, p):
    return bool((p == 0).any()) or ref.is_biased(tokens, p)


@mutant("spec.biased", says="does not match the shape of the indexed tensor")
def counts_what_came(tokens, p):
    shares = torch.bincount(tokens) / len(tokens)
    return bool(shares[p == 0].any()) or ref.is_biased(tokens, p)


@mutant("spec.biased", says="passed for [0.0, 0.5, 0.5]")
def stops_at_a_zero(tokens, p):
    if (p == 0).any():
        return bool((torch.bincount(tokens, minlength=len(p))[p == 0] > 0).any())
    return ref.is_biased(tokens, p)


@mutant("spec.candidates", says="returned (None, None), expected (index or None, token)")
def draws_nothing_in_the_end(p, qs, token_ids, uniforms):
    index, token = accept_candidates(p, qs, token_ids, uniforms)
    return index, None if index is None else token
