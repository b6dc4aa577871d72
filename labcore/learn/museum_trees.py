"""The annex of the bug museum: what goes wrong when a draft has branches. See `labcore.learn.museum`."""

from labcore.engine import shadow
from labcore.learn.museum import Exhibit

TREE_EXHIBITS = [
    Exhibit(
        "siblings_seen",
        "A draft tree is verified under the mask of a chain",
        "what the tree mask of FasterDecoding/Medusa, medusa/model/utils.py generate_medusa_buffers(), is there for",
        "Under the causal triangle a node attends to everything before it, its siblings and cousins included. Their "
        "logits are those of a text that nobody wrote. Nothing fails: fewer drafts are accepted, or wrong ones are.",
        shadow,
        "step_branches",
        "enumerate(branches(parents), end - one.num_draft_tokens)",
        "enumerate([range(node + 1) for node in range(len(parents))], end - one.num_draft_tokens)",
        "E6",
        trees=True,
    ),
    Exhibit(
        "accepted_branch_left",
        "The accepted branch stays where the tree put it",
        "the copy that FasterDecoding/Medusa, medusa/model/utils.py update_inference_inputs(), makes of select_indices",
        "The tokens of the answer go on behind the known ones, but the keys and values there are those of rejected "
        "siblings. Every later token attends to words that are not in the text, and the prefix cache hands them on.",
        shadow,
        "accepted_slots",
        "if node != depth",
        "if node > len(slots)",
        "A5",
        trees=True,
    ),
]
