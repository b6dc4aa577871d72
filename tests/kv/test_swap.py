from hypothesis import given
from hypothesis import strategies as st

from labcore.core.step_plan import BlockMove, Move
from labcore.kv.swap import HostPool


def test_out_and_in_again_keeps_every_position():
    host = HostPool(3)
    assert host.swap_out("a", 5, [7, 8, 9], block_size=2) == [
        BlockMove(Move.SWAP_OUT, 7, 0),
        BlockMove(Move.SWAP_OUT, 8, 1),
        BlockMove(Move.SWAP_OUT, 9, 2),
    ]
    assert host.num_tokens("a") == 5 and not host.free_blocks
    assert host.swap_in("a", [4, 5, 6, 3], first_block=1) == [
        BlockMove(Move.SWAP_IN, 1, 5),
        BlockMove(Move.SWAP_IN, 2, 6),
    ]
    assert host.num_tokens("a") == 0 and sorted(host.free_blocks) == [0, 1, 2]


def test_only_computed_blocks_are_kept_and_forgotten_ones_stay_forgotten():
    host = HostPool(8)
    moves = host.swap_out("a", 5, [0, 8, 9, 10, 11], block_size=2)  # 0: behind the sliding window; 10, 11: not computed
    assert [move.source for move in moves] == [8, 9]
    assert [move.target for move in host.swap_in("a", [0, 5, 6], first_block=0)] == [5, 6]


def test_nothing_is_brought_back_to_where_a_window_has_passed():
    host = HostPool(8)
    host.swap_out("a", 6, [7, 8, 9], block_size=2)
    moves = host.swap_in("a", [0, 5, 6], first_block=0)  # the window passed the first block meanwhile: the null block
    assert [move.target for move in moves] == [5, 6] and len(host.free_blocks) == 8


def test_a_request_that_does_not_fit_changes_nothing():
    host = HostPool(1)
    assert host.swap_out("a", 4, [7, 8], block_size=2) is None
    assert host.refused == 1 and host.free_blocks == [0] and not host.saved
    assert host.swap_in("a", [1], 0) == [] and host.num_tokens("a") == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 6)), max_size=30), st.integers(0, 8))
def test_host_blocks_are_never_lost_or_owned_twice(events, size):
    host = HostPool(size)
    for name, out, tokens in events:
        if out and name not in host.saved:
            moves = host.swap_out(name, tokens, list(range(1, tokens + 1)), block_size=1)
            assert (moves is None) == (name not in host.saved)
        elif tokens % 2:
            host.swap_in(name, list(range(tokens)), 0)
        else:
            host.drop(name)
        owned = [block for _, kept in host.saved.values() for block in kept]
        assert sorted(owned + host.free_blocks) == list(range(size))
