"""A decoder of a few thousand parameters and a tokenizer of single bytes: generation tests in milliseconds."""

import torch

from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.tokenizer import Tokenizer, byte_alphabet

CONTEXT = 48
END = 256  # the one special token


def tiny_config(**changes) -> DecoderConfig:
    """Two layers, four query heads on two key-value heads, a byte vocabulary and one end token."""
    shape = {"n_layers": 2, "hidden": 32, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "intermediate": 48}
    rest = {"vocab": 257, "context": CONTEXT, "rope_theta": 10_000.0, "norm_eps": 1e-5}  # an untied head: high entropy
    return DecoderConfig("llama", **(shape | rest | changes))


def tiny_model(seed: int = 0, **changes) -> Llama:
    torch.manual_seed(seed)
    return Llama(tiny_config(**changes)).eval().requires_grad_(False)


def tiny_tokenizer() -> Tokenizer:
    return Tokenizer([*byte_alphabet(), "<end>"], [], {"<end>": END}, [], hidden=[END], eos_ids=[END])


class Scripted(torch.nn.Module):
    """A stand-in model whose greedy continuation is always the given tokens, after a prompt of `prompt_length`."""

    def __init__(self, tokens: list[int], prompt_length: int = 2, context: int = CONTEXT):
        super().__init__()
        self.config, self.tokens, self.prompt_length = tiny_config(context=context), tokens, prompt_length
        self.norm = torch.nn.LayerNorm(1)

    def forward(self, token_ids, positions, attend, wanted):
        chosen = [self.tokens[position + 1 - self.prompt_length] for position in positions[wanted].tolist()]
        return torch.nn.functional.one_hot(torch.tensor(chosen), self.config.vocab).float()
