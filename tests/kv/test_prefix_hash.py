from hypothesis import given
from hypothesis import strategies as st

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.kv.prefix_hash import extend_hashes, hash_block, root_hash

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=12)


def hashes(prompt, size=2, salt=""):
    request = Request("r", prompt, SamplingParams(), cache_salt=salt)
    return extend_hashes(request, size, len(prompt) // size)


@given(tokens, tokens, st.integers(1, 4), st.sampled_from(["", "s"]), st.sampled_from(["", "s", "t"]))
def test_hashes_are_equal_exactly_where_the_whole_prefix_and_the_salt_are(a, b, size, salt_a, salt_b):
    pairs = zip(hashes(a, size, salt_a), hashes(b, size, salt_b), strict=False)
    for index, (mine, other) in enumerate(pairs, 1):
        assert (mine == other) == (salt_a == salt_b and a[: index * size] == b[: index * size])


@given(tokens, st.integers(1, 4), st.lists(st.integers(0, 12), max_size=4))
def test_hashes_grow_with_the_request_and_are_never_computed_anew(prompt, size, stops):
    request = Request("r", prompt, SamplingParams())
    for stop in sorted(stops):
        extend_hashes(request, size, min(stop, len(prompt) // size))
    assert extend_hashes(request, size, len(prompt) // size)[: len(prompt) // size] == hashes(prompt, size)


def test_token_ids_that_print_alike_differ():
    root = root_hash("")
    assert len({hash_block(root, ids) for ids in ([1, 2], [12], [1, 2, 0], [0, 1, 2], [2, 1], [258])}) == 6
    assert len(root) == 32
