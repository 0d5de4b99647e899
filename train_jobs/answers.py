"""Which tokens count where `train.loss_on` is `answers`: of conversations, what the assistant says.

In: a token stream whose pack names the markers of turns (info.chat). Out: weights of the labels of
a sequence: 1 after `<|assistant|>` up to and with `<|end_of_turn|>`, 0 elsewhere in a conversation.
A document without markers is plain text and counts whole, its end of text too: replayed text is
learned as before. A sequence may begin inside a turn; then the stream is read backwards to the last
marker or end of text, at most LOOK_BACK tokens at a time, so memory does not grow with anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mutirao.core.errors import RecipeError

if TYPE_CHECKING:
    from train_jobs.loader import TokenStream

LOOK_BACK = 1 << 16  # tokens; the first look is 256 times shorter
NOTHING, COUNTS, SILENT = 0, 1, 2  # what a token says about those after it


class Answers:
    """The rule for one pack, from its `info`. Raises RecipeError for one without markers.

    plain: documents without markers count, as they do in training; else answers alone."""

    def __init__(self, info: dict[str, Any], plain: bool = True):
        if not (chat := info.get("chat")):
            raise no_markers()
        roles = [number for name, number in chat.items() if name != "end_of_turn"]
        self.is_role = np.zeros(info["vocab_size"], dtype=bool)
        self.is_role[roles] = True
        self.says = np.full(info["vocab_size"], NOTHING, np.uint8)
        self.says[list(chat.values())] = SILENT
        self.says[chat["assistant"]] = COUNTS
        self.plain = COUNTS if plain else SILENT
        self.says[info["eos_id"]] = self.plain

    def weights(self, stream: TokenStream, start: int, tokens: np.ndarray) -> np.ndarray:
        """float32[n - 1]: of the labels tokens[1:], where tokens (n ids) stand at `start`."""
        says = self._says(tokens[:-1])
        last = np.maximum.accumulate(np.where(says != NOTHING, np.arange(len(says)), -1))
        counts = says[last] == COUNTS
        if last[0] < 0:
            counts[last < 0] = self.counts_after(stream, start)
        return (counts & ~self.is_role.take(tokens[1:], mode="clip")).astype(np.float32)

    def counts_after(self, stream: TokenStream, position: int) -> bool:
        """Does a token at `position` count, by the last marker or end of text before it? At the
        beginning of a stream a document begins."""
        size = LOOK_BACK >> 8
        while position > 0:
            first = max(0, position - size)
            says = self._says(stream.read(first, position - first))
            found = np.flatnonzero(says)
            if len(found):
                return bool(says[found[-1]] == COUNTS)
            position, size = first, min(2 * size, LOOK_BACK)
        return self.plain == COUNTS

    def _says(self, tokens: np.ndarray) -> np.ndarray:
        # An id beyond the vocabulary is not refused here: the loader names what is damaged.
        return self.says.take(tokens, mode="clip")


def no_markers() -> RecipeError:
    return RecipeError(
        "train.loss_on is answers, but no token of this text marks an answer",
        "train.loss_on",
        "Give a source with `kind: instruction`, and a tokenizer with spare ids for its markers "
        "(tokenizer.spare_ids, 5 at least); or set train.loss_on to all.",
        "no-answers",
    )
