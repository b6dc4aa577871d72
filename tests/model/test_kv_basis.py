"""Covariances of keys and values against the real model's own projections."""

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.model.kv_basis import activation_covariance, rotary, weight_covariance  # noqa: E402
from tests.model.tiny import tiny_config, tiny_model  # noqa: E402

IDS = [7, 3, 250, 19, 4, 4, 101]


def keys_and_values(model, rotated: bool):
    """What the projections of each layer say, caught by hooks: [n_layers, tokens, 2 · n_kv_heads · head_dim]."""
    caught = []
    for block in model.layers:
        for projection in (block.self_attn.k_proj, block.self_attn.v_proj):
            projection.register_forward_hook(lambda _, __, out: caught.append(out))
    found = activation_covariance(model, IDS, rotated)
    keys, values = torch.stack(caught[::2]), torch.stack(caught[1::2])
    if rotated:
        shape = model.config.n_kv_heads, model.config.head_dim
        turn = rotary(model)
        keys = torch.stack([turn(one.unflatten(1, shape), torch.arange(len(IDS))).flatten(1) for one in keys])
    return found, torch.cat((keys, values), dim=2)


@pytest.mark.parametrize("rotated", [False, True])
def test_the_covariance_is_that_of_the_projections(rotated):
    found, x = keys_and_values(tiny_model(), rotated)
    torch.testing.assert_close(found, x.transpose(1, 2) @ x / len(IDS), rtol=1e-4, atol=1e-5)


def test_rotation_changes_keys_and_leaves_values():
    before, after = (activation_covariance(tiny_model(), IDS, rotated) for rotated in (False, True))
    values = slice(before.shape[1] // 2, None)
    torch.testing.assert_close(before[0, values, values], after[0, values, values])
    assert not torch.allclose(before[0], after[0], atol=1e-3)


def test_the_weights_are_the_covariance_of_inputs_that_favour_no_direction():
    model = tiny_model()
    attention = model.layers[1].self_attn
    both = torch.cat((attention.k_proj(torch.eye(32)), attention.v_proj(torch.eye(32))), dim=1)
    torch.testing.assert_close(weight_covariance(model)[1], both.T @ both, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("change", [{"qkv_bias": True}, {"qk_norm": True}])
def test_a_model_whose_keys_are_more_than_a_projection_is_refused(change):
    with pytest.raises(InputError, match="its projections alone do not give them"):
        weight_covariance(tiny_model(**change))


def test_rotary_is_the_decoders_rotation():
    model, seen = tiny_model(), []
    positions = torch.arange(3) + 5

    def watch(layer, q, k, v):
        seen.append(k)
        return q

    for place in (positions, torch.zeros(3, dtype=torch.long)):
        model(torch.tensor([1, 2, 3]), place, watch)
    rotated, raw = seen[0], seen[tiny_config().n_layers]
    torch.testing.assert_close(rotary(model)(raw, positions), rotated)
