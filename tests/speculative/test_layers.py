"""A target's own layers as its draft: shared weights, shared or own keys and values."""

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.speculative import layer_skip  # noqa: E402
from labcore.speculative.layer_skip import SEARCHED, likeliest, recorded, search  # noqa: E402
from labcore.speculative.layer_subset import subset  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.speculative.serving import MODEL, answers, greedy  # noqa: E402
from tests.speculative.test_paged_draft import dense  # noqa: E402

TEXT = [1, 2, 3, 5, 8, 13, 21, 34]


def without(model, layer: int):
    """The same weights; one layer leaves the residual stream as it is."""
    for product in (model.layers[layer].self_attn.o_proj, model.layers[layer].mlp.down_proj):
        product.weight.zero_()
    return model


def test_all_layers_are_the_model():
    assert torch.equal(dense(subset(MODEL, [0, 1]), TEXT), dense(MODEL, TEXT))


def test_some_layers_are_the_model_without_the_others():
    four = tiny_model(n_layers=4)
    expected = dense(without(without(tiny_model(n_layers=4), 1), 2), TEXT)
    assert torch.allclose(dense(subset(four, [0, 3]), TEXT), expected, atol=1e-6)
    assert not torch.allclose(dense(subset(four, [0, 2]), TEXT), expected, atol=1e-2)


def test_nothing_is_copied():
    part = subset(MODEL, [1])
    assert {p.data_ptr() for p in part.parameters()} < {p.data_ptr() for p in MODEL.parameters()}


def test_a_vocabulary_cuts_the_head():
    tokens = list(range(0, 256, 4))
    assert torch.allclose(
        dense(subset(MODEL, [0], tokens), TEXT), dense(subset(MODEL, [0]), TEXT)[:, tokens], atol=1e-6
    )


@pytest.mark.parametrize("layers", [[], [1, 0], [0, 0], [0, 2], [-1, 0]])
def test_layers_that_do_not_exist_or_rise(layers):
    with pytest.raises(InputError, match="rising numbers from 0 to 1"):
        subset(MODEL, layers)


@pytest.mark.parametrize("tokens", [[], [3, 3, 5], [5, 3], [-1, 2], [1, 257]])
def test_draft_tokens_that_do_not_exist_or_rise(tokens):
    """A token twice would be drawn with the sum of two probabilities, and verified as if it had one of them."""
    with pytest.raises(InputError, match="draft_vocab: must be rising token ids from 0 to 256"):
        subset(MODEL, [0], tokens)


@pytest.mark.parametrize("count", [0, 2])
def test_an_early_exit_leaves_layers_out(count):
    with pytest.raises(InputError, match="runs 1 to 1 layers"):
        assemble(MODEL, speculative={"method": "early_exit", "num_layers": count})


def test_an_early_exit_stores_nothing_and_reads_the_targets_own():
    core = assemble(MODEL, speculative={"method": "early_exit", "num_layers": 1})
    assert core.runner.proposer.storage is core.runner.storage
    assert core.runner.proposer.nbytes_per_token == 0


@pytest.mark.parametrize(
    "method", [{"method": "early_exit", "num_layers": 3}, {"method": "layer_skip", "kept": [0, 1, 2]}]
)
def test_layers_that_do_nothing_are_not_missed(method):
    """Where the last layer leaves everything as it is, the draft without it is always right."""
    model = without(tiny_model(n_layers=4), 3)
    plain, _ = answers([TEXT], [greedy(21)], model=model)
    found, core = answers([TEXT], [greedy(21)], model=model, speculative=method)
    assert found == plain
    assert core.stats.total("verified") == 5 and core.stats.total("accepted") == 15


def test_a_draft_of_the_targets_layers_over_a_reduced_vocabulary():
    plain, _ = answers([TEXT], [greedy(12)])
    frequent = sorted(set(plain[0]) | set(range(40)))[:40]
    for method in ({"method": "early_exit", "num_layers": 1}, {"method": "layer_skip", "kept": [1]}):
        found, core = answers([TEXT], [greedy(12)], speculative={**method, "draft_vocab": frequent})
        assert found == plain
        assert core.stats.total("drafted") > 0


def test_a_search_leaves_out_first_what_does_least():
    model = without(without(tiny_model(n_layers=5), 3), 1)
    found = search(model, TEXT * 2, 3)
    assert {layer for layer, _ in found[:2]} == {1, 3}
    assert [agreement for _, agreement in found[:2]] == [1.0, 1.0]
    assert found[2][1] < 1
    kept = sorted(set(range(5)) - {layer for layer, _ in found})
    same = likeliest(subset(model, kept), TEXT * 2) == likeliest(model, TEXT * 2)
    assert found[2][1] == pytest.approx(same.float().mean().item())


def test_the_recorded_choice():
    assert len(recorded(30, 20)) == 20 and set(recorded(30, 24)) > set(recorded(30, 20))
    assert SEARCHED[0][0] not in recorded(30, 29)
    shares = [share for _, share in SEARCHED]
    assert shares == sorted(shares, reverse=True)
    with pytest.raises(InputError, match="no search was recorded for a model of 2 layers"):
        assemble(MODEL, speculative={"method": "layer_skip"})
    with pytest.raises(InputError, match="keeps 15 to 29 layers"):
        layer_skip.recorded(30, 3)
