"""What `mutirao data forget` took out stays out when sources are read again.

In: documents and rejects of one batch of `clean`. Out: the same list, in which a document of the
takedown list is a reject without its text (reason 'takedown', no damage), and a reject has lost its
snippet.
"""

from __future__ import annotations

from collections.abc import Sequence

from data_jobs.cleaning.clean_columns import Kept, source_of
from data_jobs.read.documents import Reject
from data_jobs.results.view import document_id
from data_jobs.units import Item
from mutirao.core.takedown import REASON, Takedown


def without_takedowns(
    found: Sequence[Kept | Reject], takedown: Takedown, item: Item
) -> list[Kept | Reject]:
    return [_checked(one, takedown, item) for one in found]


def _checked(one: Kept | Reject, takedown: Takedown, item: Item) -> Kept | Reject:
    if isinstance(one, Reject):
        known = document_id(item["source"], item["file"], one.position)
        if not takedown.matches(known):
            return one
        return Reject(one.position, one.offset, one.size, one.reason)
    document = one.document
    known = document_id(item["source"], item["file"], document.position)
    source = source_of(document, item)
    if takedown.matches(known, document.url, one.text, source, document.name):
        return Reject(document.position, document.offset, document.size, REASON)
    return one
