"""The proposers on the real model's compiled path: parts of the stack over the same packed weights."""

import pytest

torch = pytest.importorskip("torch")

from labcore.kernels.cpu.library import why_unavailable  # noqa: E402
from labcore.kv.contiguous import ContiguousKVCache  # noqa: E402
from labcore.model.compiled import serve_blocks, split_at  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.speculative.layer_subset import subset  # noqa: E402
from tests.speculative.serving import answers, greedy  # noqa: E402

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable())),
]
METHODS = {
    "early exit": {"method": "early_exit", "num_layers": 24, "draft_vocab": [*range(0, 4096)]},
    "layer skip": {"method": "layer_skip", "num_layers": 27},
    "lookahead": {"method": "lookahead"},
    "draft model": {"method": "draft_model"},
}


@pytest.fixture(scope="module")
def checkpoint(smollm2_path):
    return open_checkpoint(smollm2_path)


@pytest.fixture(scope="module")
def fast(checkpoint):
    return load_model(checkpoint, dtype=torch.float32, transform=serve_blocks)


@pytest.fixture(scope="module")
def prompts(checkpoint):
    texts = "The capital of France is", "def add(a, b):\n    return a + b\n\ndef subtract(a, b):\n"
    return [checkpoint.tokenizer().encode(text) for text in texts]


@pytest.fixture(scope="module")
def plain(fast, prompts):
    return answers(prompts, [greedy(12)] * 2, model=fast)[0]


@pytest.mark.parametrize("name", METHODS)
def test_the_compiled_path_says_the_same(fast, prompts, plain, name):
    found, core = answers(prompts, [greedy(12)] * 2, model=fast, speculative=METHODS[name])
    assert found == plain
    assert core.stats.total("drafted") > 0


def test_all_layers_but_three_are_mostly_right(fast, prompts):
    """With a few layers left out the draft is a good one; it would be as bad as chance had they been mixed up."""
    _, core = answers(prompts, [greedy(12)] * 2, model=fast, speculative=METHODS["layer skip"])
    assert core.stats.acceptance_length > 1.8


@torch.inference_mode()
def test_a_part_of_the_stack_is_what_the_whole_passes_through(fast, prompts):
    ids, config = torch.tensor(prompts[1]), fast.config

    def attend():
        shape = config.n_layers, config.n_kv_heads, config.head_dim
        return ContiguousKVCache(*shape, slots=1, capacity=len(ids)).extend([(0, len(ids))])

    tapped = subset(fast, range(config.n_layers))
    split_at(tapped, [11])
    positions = torch.arange(len(ids))
    _, features = tapped.run(ids, positions, attend(), [11])
    expected = fast.lm_head(fast.norm(features[11]))
    assert torch.equal(subset(fast, range(12))(ids, positions, attend()), expected)
    assert not torch.equal(subset(fast, range(13))(ids, positions, attend()), expected)
