"""What the routes of the knowledge base answer, and how it is rendered. Times are ISO 8601 in UTC. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from kitemesh_gateway.instants import iso
from kitemesh_runtime.knowledge import KnowledgeDocument
from kitemesh_runtime.knowledge_chunks import Chunk


class PassageOut(Struct, frozen=True, kw_only=True):
    """A piece of a document, as searches find it.

    Attributes:
        heading: The headings above it, outermost first, parted by ` > `.

    """

    heading: str
    text: str


class DocumentOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A document of the knowledge base.

    Attributes:
        base: Which roles name as `knowledge`.
        characters: Of its text.
        passage_count: How many pieces it was cut into.
        updated_at: When its text was stored.
        passages: Not in lists.

    """

    id: str
    base: str
    name: str
    characters: int
    passage_count: int
    created_at: str
    updated_at: str
    passages: tuple[PassageOut, ...] | None = None


class DocumentPage(Struct, frozen=True, kw_only=True):
    """Documents, those last that were stored first.

    Attributes:
        next_cursor: Continues the list; `null` at its end.

    """

    data: tuple[DocumentOut, ...]
    next_cursor: str | None


class DocumentRemoved(Struct, frozen=True, kw_only=True):
    """A document is gone."""

    id: str
    deleted: bool


def document_out(document: KnowledgeDocument, chunks: Iterable[Chunk] | None = None) -> DocumentOut:
    """Render a document; its passages are left out when they are not given."""
    return DocumentOut(
        id=document.id,
        base=document.base,
        name=document.name,
        characters=document.characters,
        passage_count=document.passages,
        created_at=iso(document.created_at_s),
        updated_at=iso(document.updated_at_s),
        passages=None
        if chunks is None
        else tuple(PassageOut(heading=chunk.heading, text=chunk.text) for chunk in chunks),
    )
