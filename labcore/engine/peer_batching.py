"""transformers' continuous batching over the weights of one of our decoders, for the GPU bench."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from labcore.core.errors import DataError
from labcore.model.llama import Llama
from labcore.model.loader import hub_name

BLOCK = 256  # tokens, transformers' default; it gets as many as the workload can use at once
LIMIT = 90.0  # s that one workload may take


class TransformersPeer:
    """transformers' ContinuousBatchingManager over the weights of `plain`, greedy, without sharing of prefixes.

    prompts, outputs: the workload, token ids and the tokens that each answer has. attention: how it attends. answers:
    token ids of the last round.
    """

    def __init__(self, plain: Llama, prompts: Sequence[list[int]], outputs: Sequence[int], tokens_a_step: int):
        import transformers
        from transformers import ContinuousBatchingConfig, GenerationConfig

        transformers.utils.logging.set_verbosity_error()
        self.requests, self.answers = list(zip(prompts, outputs, strict=True)), []
        self.model = transformers_model(plain)
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(outputs))
        blocks = sum(-(-(len(prompt) + n) // BLOCK) + 1 for prompt, n in self.requests)
        batching = ContinuousBatchingConfig(
            block_size=BLOCK,
            num_blocks=blocks,
            max_batch_tokens=tokens_a_step,
            allow_block_sharing=False,
        )
        self.manager = self.model.init_continuous_batching(
            generation_config=generation, continuous_batching_config=batching
        )
        self.manager.warmup()
        self.attention = self.model.config._attn_implementation
        self.manager.start()

    def __call__(self, chosen: slice = slice(None)) -> float:
        """Seconds from the first request to the last token. Raises DataError for an answer of another length."""
        start = time.perf_counter()
        pairs = self.requests[chosen]
        names = [self.manager.add_request(prompt, max_new_tokens=n) for prompt, n in pairs]
        done: dict[str, list[int]] = {}
        while len(done) < len(names):
            result = self.manager.get_result(timeout=1.0)
            if result is not None and result.is_finished():
                done[result.request_id] = result.generated_tokens
            elif result is None and (not self.manager.is_running() or time.perf_counter() - start > LIMIT):
                raise DataError(f"transformers answered {len(done)} of {len(names)} requests in {LIMIT:.0f} s")
        took = time.perf_counter() - start
        self.answers = [done[name] for name in names]
        if wrong := [n for answer, (_, n) in zip(self.answers, pairs, strict=True) if len(answer) != n]:
            raise DataError(f"transformers gave {len(wrong)} answers of another length than asked for")
        return took

    def close(self) -> None:
        """End its thread, whatever it is doing."""
        self.manager.stop(block=True, timeout=10, hard_stop=True)


def transformers_model(plain: Llama) -> torch.nn.Module:
    """transformers' model of the same shape, with copies of the same weights."""
    import transformers

    ours, weight = plain.config, plain.norm.weight
    config = transformers.AutoConfig.for_model(
        ours.architecture,
        vocab_size=ours.vocab,
        hidden_size=ours.hidden,
        intermediate_size=ours.intermediate,
        num_hidden_layers=ours.n_layers,
        num_attention_heads=ours.n_heads,
        num_key_value_heads=ours.n_kv_heads,
        head_dim=ours.head_dim,
        max_position_embeddings=ours.context,
        rms_norm_eps=ours.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope_theta},
        tie_word_embeddings=ours.tied_embeddings,
    )
    with torch.device(weight.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=weight.dtype, attn_implementation="sdpa")
    weights = {hub_name(name): parameter for name, parameter in plain.named_parameters()}
    missing = model.load_state_dict(weights, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        raise DataError(f"transformers' model has other weights: {missing}")
    return model.eval()
