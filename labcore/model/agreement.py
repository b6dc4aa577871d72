"""How far one distribution over the vocabulary is from another, token by token."""

from torch import Tensor


def kl_divergence(exact: Tensor, other: Tensor) -> Tensor:
    """KL(exact ‖ other) in nats, over the last dimension of two sets of log-probabilities that broadcast."""
    return (exact.exp() * (exact - other)).sum(-1)


def same_first(exact: Tensor, other: Tensor) -> Tensor:
    """Whether both rank the same candidate first, over the last dimension; they broadcast."""
    return exact.argmax(-1) == other.argmax(-1)
