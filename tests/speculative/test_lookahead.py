"""The two branches of a Lookahead draft against the model without any cache."""

from random import Random

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.speculative.lookahead import Lookahead, NgramPool, Trajectories, add_window, trie  # noqa: E402
from labcore.speculative.proposer import SpeculationRow  # noqa: E402
from tests.speculative.serving import MODEL, OTHER, answers, greedy, serve  # noqa: E402
from tests.speculative.test_paged_draft import dense  # noqa: E402

PROMPT = [1, 2, 3, 4]


def likeliest(tokens) -> int:
    return int(dense(MODEL, tokens)[-1].argmax())


def recorded(option):
    core, drafts = assemble(MODEL, speculative=option), []
    propose = core.runner.proposer.propose

    def watched(step):
        found = propose(step)
        drafts.extend(type(one)(list(one.token_ids), one.parents) for one in found.values())
        return found

    core.runner.proposer.propose = watched
    return core, drafts


def test_the_window_is_a_tree():
    tokens, parents = [70, 71], [-1, 0]  # one guess before it
    add_window([[10, 11, 12], [20, 21, 22]], tokens, parents)
    assert tokens == [70, 71, 10, 11, 12, 20, 21, 22]
    assert parents == [-1, 0, -1, 2, 3, 2, 3, 4]


def test_guesses_share_their_beginnings():
    assert trie([(1, 2, 3), (1, 2, 4), (5, 2, 3)]) == ([1, 2, 3, 4, 5, 2, 3], [-1, 0, 1, 1, -1, 4, 5])
    assert trie([]) == ([], [])


def test_the_pool_keeps_the_latest_of_each_token():
    pool = NgramPool(2)
    for continuation in [(1, 2), (3, 4), (1, 2), (5, 6)]:
        pool.add(0, continuation)
    assert pool.behind(0) == [(5, 6), (1, 2)]
    assert pool.behind(9) == []


def test_columns_keep_their_places_as_the_text_moves_on():
    """Number 10 l + c is what was said at level l behind place c of the first guesses."""
    proposer = Lookahead(None, window=3, ngram=4, guesses=2)
    mine = Trajectories([[1, 2, 3, 4, 5]], NgramPool(2), Random(0), first=1)

    def advance(answers, accepted=0):
        chosen = [99] * (1 + mine.first + mine.num_nodes - len(answers)) + answers
        kept = list(range(1 + accepted))
        proposer._advance(mine, SpeculationRow("0", [7, 7], 1, greedy(), 0, len(chosen), kept, [], chosen, 9))

    advance([11, 12, 13, 14, 15])
    assert mine.levels == [[2, 3, 4, 5], [12, 13, 14, 15]]
    advance([22, 23, 24, 25])
    assert mine.levels == [[3, 4, 5], [13, 14, 15], [23, 24, 25]]
    advance([33, 34, 35], accepted=1)
    assert mine.pool.behind(3) == [(13, 23, 33)] and mine.pool.behind(5) == [(15, 25, 35)]
    assert mine.levels == [[14, 15, 7], [24, 25, 7], [34, 35, 7]]
    advance([44, 45, 47], accepted=5)
    assert mine.levels == [[7, 7, 7]] * 3


def test_plain_jacobi_is_one_level_and_no_guesses():
    """Guesses are replaced by what the model says behind them, and move up by the tokens that were found."""
    core, drafts = recorded({"method": "lookahead", "window": 4, "ngram": 2, "guesses": 0})
    answer = serve(core, [PROMPT], [greedy(16)])[0]
    known = PROMPT + answer[:1]
    guesses = drafts[0].token_ids
    for draft in drafts[1:]:
        said = [likeliest(known + guesses[:place]) for place in range(5)]
        accepted = next((i for i in range(4) if guesses[i] != said[i]), 4)
        known += said[: accepted + 1]
        carried = said[1 + accepted :]  # what was said behind the guesses that stay ahead
        room = len(draft.token_ids)
        assert draft.token_ids[: min(room, len(carried))] == carried[:room]
        guesses = draft.token_ids
        if room < 4:
            break
    assert known[4:] == answer[: len(known) - 4]


def test_every_ngram_is_what_the_model_said_along_its_column():
    seen = []
    core = assemble(MODEL, speculative={"method": "lookahead", "window": 3, "ngram": 4, "guesses": 2})
    proposer = core.runner.proposer
    advance = proposer._advance

    def watched(mine, row):
        known = row.token_ids[: len(row.token_ids) - len(row.kept)]
        seen.append((known, [list(level) for level in mine.levels]))
        advance(mine, row)
        seen[-1] += ([gram for token in mine.pool.continuations for gram in mine.pool.behind(token)],)

    proposer._advance = watched
    serve(core, [PROMPT], [greedy(14)])
    full = [(known, levels, grams) for known, levels, grams in seen if len(levels) == 3]
    assert len(full) >= 5
    for known, levels, grams in full[:5]:
        for column in range(3):
            trajectory = levels[0][: column + 1] + [level[column] for level in levels[1:]]
            said = likeliest(known + trajectory)
            assert (*(level[column] for level in levels[1:]), said) in grams


def test_a_text_in_a_loop_is_found_in_the_pool():
    """Once the answer repeats itself the n-grams are right, and a pass yields more; Jacobi gains nothing."""
    gains = {}
    plain, _ = answers([PROMPT], [greedy(43)], model=OTHER)
    assert plain[0][-9:-6] == plain[0][-6:-3]
    for name, option in {"pool": {}, "jacobi": {"ngram": 2, "guesses": 0}}.items():
        option = {"method": "lookahead", **option}
        found, core = answers([PROMPT], [greedy(43)], model=OTHER, speculative=option)
        assert found == plain
        gains[name] = core.stats.acceptance_length
    assert gains["pool"] > 1.5 and gains["jacobi"] < 1.1


@pytest.mark.parametrize("option", [{"window": 0}, {"ngram": 1}, {"guesses": -1}])
def test_options_that_make_no_sense(option):
    with pytest.raises(InputError, match="must be"):
        assemble(MODEL, speculative={"method": "lookahead", **option})
