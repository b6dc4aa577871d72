"""Distillation: a split that shares no topic, examples that say what the target said, training that learns."""

import pytest

torch = pytest.importorskip("torch")

from labcore.model.chat import SMOLLM2_TEMPLATE  # noqa: E402
from labcore.speculative.distill import train_draft, train_eagle, train_medusa  # noqa: E402
from labcore.speculative.distill.attention import UnrolledAttention  # noqa: E402
from labcore.speculative.distill.data import batch, coverage, draft_vocabulary  # noqa: E402
from labcore.speculative.distill.fit import Recipe  # noqa: E402
from labcore.speculative.distill.generate import examples, generate  # noqa: E402
from labcore.speculative.distill.prompts import DOMAINS, DomainPrompt, prompts  # noqa: E402
from labcore.speculative.eagle_head import EagleHead, eagle_config, tap_layers  # noqa: E402
from labcore.speculative.reduced_head import ReducedHead  # noqa: E402
from tests.model.tiny import tiny_model, tiny_tokenizer  # noqa: E402
from tests.speculative.serving import answers, greedy  # noqa: E402

TARGET = tiny_model(n_layers=6, context=512)
RECIPE = Recipe(epochs=8, examples=2, rate=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Examples of a tiny target, computed in two goes."""
    path = tmp_path_factory.mktemp("examples")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = SMOLLM2_TEMPLATE
    some = [DomainPrompt("chat", word, held_out=word == "go") for word in ("a", "to", "go", "why")]
    generate(TARGET, tokenizer, some[:2], path)
    first = (path / "00000.npz").stat().st_mtime_ns
    generate(TARGET, tokenizer, some, path)
    assert (path / "00000.npz").stat().st_mtime_ns == first, "what is there is not computed again"
    return path


@pytest.fixture(scope="module")
def some(folder):
    return list(examples(folder))


def test_no_topic_is_on_both_sides_of_the_split():
    made = prompts(["The Danube is long.", "Fiji has islands.", *(f"Passage {i}." for i in range(60))])
    for domain in DOMAINS:
        inside = [one for one in made if one.domain == domain]
        held = [one for one in inside if one.held_out]
        assert 250 <= len(inside) <= 320 and len(held) >= 5
    assert len({one.text for one in made}) == len(made)
    palindromes = [one.held_out for one in made if "whether a word is a palindrome" in one.text]
    assert len(palindromes) == 5 and len(set(palindromes)) == 1


def test_examples_are_the_targets_answers_and_its_features(some):
    assert [one.held_out for one in some] == [False, False, True, False]
    assert [one.temperature for one in some] == [0.0, 0.7, 0.0, 0.7]
    for one in some[::2]:
        prompt = one.token_ids[: one.num_prompt_tokens]
        [alone], _ = answers([prompt], [greedy(128)], model=TARGET, eos=[256])
        assert one.token_ids[one.num_prompt_tokens :] == alone
    for one in some:
        assert one.features.shape == (len(one.token_ids) - 1, 4, 32) and one.features.dtype == torch.float16
        taps = _features(one.token_ids[:-1])
        assert torch.allclose(one.features.float(), taps, atol=4e-3)


def _features(ids):
    from labcore.kv.contiguous import ContiguousKVCache

    attend = ContiguousKVCache(6, 2, 8, slots=1, capacity=512).extend([(0, len(ids))])
    x, taps = TARGET.run(torch.tensor(ids), attend.positions, attend, tap_layers(6))
    return torch.stack([*(taps[tap] for tap in tap_layers(6)), TARGET.norm(x)], dim=1)


def test_a_batch_pairs_every_token_with_what_follows_it(some):
    one = batch(some[:2], ahead=2)
    assert len(one.token_ids) == sum(one.lengths) and one.token_ids.shape[1] == 4
    begin = max(0, some[0].num_prompt_tokens - 64)
    row = one.firsts[0]
    t = begin + row
    assert t == some[0].num_prompt_tokens - 1, "the first state from which the target speaks"
    assert one.learns[row] and not one.learns[row - 1]
    assert one.token_ids[row].tolist() == some[0].token_ids[t : t + 4] and one.positions[row] == t
    assert torch.equal(one.features[row], some[0].features[t].float())
    assert torch.equal(one.following[row], some[0].features[t + 1, 3].float())
    assert one.token_ids[one.lengths[0] - 1].tolist() == [*some[0].token_ids[-3:], -1]


def test_draft_vocabulary_is_the_frequent_tokens_then_the_low_ids(some):
    answered = {token for one in some for token in one.token_ids[one.num_prompt_tokens :]}
    vocabulary = draft_vocabulary(some, 200, 257)
    assert len(vocabulary) == 200 and vocabulary.tolist() == sorted(vocabulary.tolist())
    assert answered <= set(vocabulary.tolist()) and coverage(some, vocabulary) == 1.0
    rest = set(vocabulary.tolist()) - answered
    assert rest == set(sorted(set(range(257)) - answered)[: len(rest)])


def test_unrolled_rows_see_their_past_and_their_own_chain():
    """Against one sequence for each row: tokens up to it as step 0 stored them, then what the row put out itself."""
    lengths, firsts = [5, 3], [2, 0]
    generator = torch.Generator().manual_seed(0)
    draw = lambda rows, heads: torch.randn(rows, heads, 8, generator=generator)  # noqa: E731
    attend, stored = UnrolledAttention(lengths, firsts), []
    rows = [(s, t) for s, length in enumerate(lengths) for t in range(firsts[s], length)]
    for step in range(3):
        count = sum(lengths) if step == 0 else len(rows)
        q, k, v = draw(count, 4), draw(count, 2), draw(count, 2)
        stored.append((k, v))
        out = attend(0, q, k, v)
        if step == 0:
            continue
        for i, (s, t) in enumerate(rows):
            past = slice(s * lengths[0], s * lengths[0] + t + 1)
            own = [(keys[i : i + 1], values[i : i + 1]) for keys, values in stored[1:]]
            keys, values = (torch.cat([stored[0][kv][past], *(one[kv] for one in own)]) for kv in (0, 1))
            keys, values = (part.repeat_interleave(2, dim=1) for part in (keys, values))
            weights = (torch.einsum("hd,khd->hk", q[i], keys) / 8**0.5).softmax(-1)
            assert torch.allclose(out[i], torch.einsum("hk,khd->hd", weights, values), atol=1e-5)


@pytest.mark.parametrize("kind", ["medusa", "eagle", "eagle3", "draft"])
def test_training_lowers_the_loss_and_what_is_learnt_is_measured(kind, some):
    head = ReducedHead(TARGET, torch.arange(256))
    if kind == "medusa":
        module, losses = train_medusa.train_medusa(head, some, 2, RECIPE)
        measured = train_medusa.accuracies(module, head, some)[0][0]
    elif kind == "draft":
        module, losses = train_draft.train_draft(TARGET, head, some, RECIPE)
        measured = train_draft.agreement(module, TARGET, head, some)[0]
    else:
        module, losses = train_eagle.train_eagle(TARGET, head, some, kind == "eagle3", RECIPE)
        measured = train_eagle.chain_accuracies(module, TARGET, head, some)[0]
    assert len(losses) == 16 and sum(losses[-3:]) < sum(losses[:3]) - 0.3
    assert measured > 0.02, "256 tokens by chance: 0.004"


@pytest.mark.parametrize("fused", [False, True])
def test_one_unrolled_step_is_the_layer_over_the_whole_sequence(fused, some):
    """Step 0 of an unrolled EAGLE and the layer called plainly agree, batched or alone."""
    torch.manual_seed(0)
    draft = EagleHead(eagle_config(TARGET.config, 32), fused).eval().requires_grad_(False)
    together, alone = batch(some[:2], 1), batch(some[1:2], 1)
    (out, _), (single, _) = (next(train_eagle.unroll(draft, TARGET, one)) for one in (together, alone))
    assert torch.allclose(out[together.lengths[0] :], single, atol=1e-5)
