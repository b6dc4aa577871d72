"""Byte-pair encoding: merge the adjacent pair that training merged first, until no known pair is left.

Source: Sennrich et al., arXiv:1508.07909, on bytes as in GPT-2. Ties go to the leftmost pair.
"""

import heapq


class BytePairEncoder:
    """Turns the bytes of one word into token ids.

    byte_ids: the id of each of the 256 single bytes, None for a byte outside the vocabulary;
    merges: (left id, right id) -> (rank, merged id), rank 0 first.
    """

    def __init__(self, byte_ids: list[int | None], merges: dict[tuple[int, int], tuple[int, int]]):
        self.byte_ids, self.merges = byte_ids, merges
        self._words: dict[bytes, list[int]] = {}  # words recur; unbounded growth is stopped below

    def encode(self, word: bytes) -> list[int]:
        """Token ids of `word`. Bytes that the vocabulary lacks are dropped, as the reference tokenizer does."""
        ids = self._words.get(word)
        if ids is None:
            ids = self._merge([self.byte_ids[b] for b in word if self.byte_ids[b] is not None])
            if len(self._words) < 50_000 and len(word) < 64:
                self._words[word] = ids
        return ids

    def _merge(self, ids: list[int]) -> list[int]:
        """O(n log n): a heap of candidate pairs over a linked list of the tokens still standing."""
        n = len(ids)
        after, before = list(range(1, n + 1)), list(range(-1, n - 1))  # neighbours; n and -1 are the ends
        heap: list[tuple[int, int, int, int, int]] = []  # rank, position of the left token, left, right, merged

        def consider(i: int) -> None:
            if 0 <= i and after[i] < n:
                pair = ids[i], ids[after[i]]
                if pair in self.merges:
                    rank, merged = self.merges[pair]
                    heapq.heappush(heap, (rank, i, *pair, merged))

        for i in range(n):
            consider(i)
        while heap:
            _, i, left, right, merged = heapq.heappop(heap)
            j = after[i]
            if ids[i] != left or j == n or ids[j] != right:
                continue  # one of the two has been merged into something else since
            ids[i], ids[j] = merged, GONE
            after[i] = after[j]
            if after[i] < n:
                before[after[i]] = i
            consider(before[i])
            consider(i)
        return [token for token in ids if token != GONE]


GONE = -1  # marks a position whose token was merged into its left neighbour
