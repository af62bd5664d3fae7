"""The port of the knowledge base: documents in named bases of a tenant, cut into passages that are found by words.

The rules of `stores` apply. It does not know how a document is cut, nor which passages are worth showing.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from kitemesh_runtime.knowledge_chunks import Chunk

DEFAULT_BASE: Final = "default"
"""Where a document goes that names no base, and what is searched where no role says otherwise."""

NAME_MAX_CHARS: Final = 255
DOCUMENT_MAX_CHARS: Final = 4 * 1024 * 1024

Told = Callable[[int], None]
"""Is told how many passages are stored so far."""


class KnowledgeDocument(Struct, frozen=True, kw_only=True):
    """A document, without its text.

    Attributes:
        id: Time-ordered; a document that is replaced keeps it.
        name: Unique within its base; what passages give as their source.
        characters: Of its text.
        passages: How many it was cut into.
        updated_at_s: When its text was stored, epoch seconds of the database's clock.

    """

    id: str
    tenant: str
    base: str
    name: str
    characters: int
    passages: int
    created_at_s: float
    updated_at_s: float


class Passage(NamedTuple):
    """A piece of a document.

    Attributes:
        source: The document's name.
        heading: The headings above it, outermost first.
        score: How well the store finds that it fits, to be compared within one search only.

    """

    text: str
    source: str
    heading: str = ""
    score: float = 0.0


class Stored(NamedTuple):
    """What `put` answered: the document as it is now, and whether there was none of that name."""

    document: KnowledgeDocument
    is_new: bool


def is_name(text: str) -> bool:
    """Tell whether a document may be called that: 1 to 255 printable characters, none of them a blank at an end."""
    return 0 < len(text) <= NAME_MAX_CHARS and text.isprintable() and text == text.strip()


def tell_nobody(_: int) -> None:
    """Be told of passages, and do nothing."""


class Knowledge(Protocol):
    """What models are shown beside a conversation."""

    async def put(
        self,
        tenant: str,
        base: str,
        name: str,
        chunks: Sequence[Chunk],
        *,
        characters: int,
        told: Told = tell_nobody,
    ) -> Stored:
        """Store a document, or put it in the place of the one of that name.

        Searches see the old passages until all the new ones are there, and never a mixture.

        Raises:
            Conflict: It was removed meanwhile (`store.stale`).
            BadRequest: It holds text that cannot be stored.

        """

    async def get(self, tenant: str, document: str) -> KnowledgeDocument | None:
        """Return the document, or `None`."""

    async def find(self, tenant: str, base: str, name: str) -> KnowledgeDocument | None:
        """Return the document of that name, or `None`."""

    async def page(
        self, tenant: str, *, base: str | None = None, before: str | None = None, limit: int
    ) -> list[KnowledgeDocument]:
        """Return documents, those last that were stored first.

        Args:
            tenant: Whose they are.
            base: Only those of this base.
            before: The id of the last one seen.
            limit: How many.

        """

    async def read(self, tenant: str, document: str) -> list[Chunk] | None:
        """Return what a document was cut into, in order; `None` when there is none."""

    async def remove(self, tenant: str, document: str) -> bool:
        """Remove a document and all that was ever stored of it; tell whether it was there."""

    async def search(self, tenant: str, query: str, *, bases: Sequence[str], limit: int) -> list[Passage]:
        """Return passages that have words of the query in them, the best of each base first.

        The query is text and nothing else: no character in it is an operator.

        Args:
            tenant: Whose bases.
            query: Any text.
            bases: Where to look.
            limit: How many of each base.

        """
