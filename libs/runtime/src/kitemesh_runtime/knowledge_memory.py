"""The memory twin of `Knowledge`. It counts words where MongoDB weighs them, so only clear cases rank alike."""

from collections.abc import Sequence

from msgspec.structs import replace

from kitemesh_runtime.clock import Clock
from kitemesh_runtime.knowledge import KnowledgeDocument, Passage, Stored, Told, tell_nobody
from kitemesh_runtime.knowledge_chunks import Chunk
from kitemesh_runtime.knowledge_words import roots_of, searched_words


class MemoryKnowledge:
    """The `Knowledge` port in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._documents: dict[str, KnowledgeDocument] = {}
        self._chunks: dict[str, tuple[Chunk, ...]] = {}

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
        """Store a document, or put it in the place of the one of that name."""
        before = await self.find(tenant, base, name)
        now_s = self._clock.now_ms() / 1000
        document = KnowledgeDocument(
            id=self._clock.new_id(),
            tenant=tenant,
            base=base,
            name=name,
            characters=characters,
            passages=len(chunks),
            created_at_s=now_s,
            updated_at_s=now_s,
        )
        if before is not None:
            document = replace(document, id=before.id, created_at_s=before.created_at_s)
        self._documents[document.id] = document
        self._chunks[document.id] = tuple(chunks)
        told(len(chunks))
        return Stored(document, before is None)

    async def get(self, tenant: str, document: str) -> KnowledgeDocument | None:
        """Return the document, or `None`."""
        found = self._documents.get(document)
        return found if found is not None and found.tenant == tenant else None

    async def find(self, tenant: str, base: str, name: str) -> KnowledgeDocument | None:
        """Return the document of that name, or `None`."""
        wanted = (tenant, base, name)
        return next((each for each in self._documents.values() if (each.tenant, each.base, each.name) == wanted), None)

    async def page(
        self, tenant: str, *, base: str | None = None, before: str | None = None, limit: int
    ) -> list[KnowledgeDocument]:
        """Return documents, those last that were stored first."""
        ids = list(self._documents)
        known = ids[: ids.index(before)] if before in self._documents else ids
        mine = [
            document
            for id_ in reversed(known)
            if (document := self._documents[id_]).tenant == tenant and base in (None, document.base)
        ]
        return mine[:limit]

    async def read(self, tenant: str, document: str) -> list[Chunk] | None:
        """Return what a document was cut into, in order; `None` when there is none."""
        return None if await self.get(tenant, document) is None else list(self._chunks[document])

    async def remove(self, tenant: str, document: str) -> bool:
        """Remove a document and all that was ever stored of it; tell whether it was there."""
        if await self.get(tenant, document) is None:
            return False
        del self._documents[document], self._chunks[document]
        return True

    async def search(self, tenant: str, query: str, *, bases: Sequence[str], limit: int) -> list[Passage]:
        """Return passages that have words of the query in them, the best of each base first."""
        wanted = roots_of(" ".join(searched_words(query)))
        found: list[Passage] = []
        for base in bases:
            fit = [
                Passage(chunk.text, document.name, chunk.heading, float(score))
                for document in self._documents.values()
                if (document.tenant, document.base) == (tenant, base)
                for chunk in self._chunks[document.id]
                if (score := len(wanted & roots_of(f"{chunk.heading} {chunk.text}")))
            ]
            found += sorted(fit, key=lambda passage: passage.score, reverse=True)[:limit]
        return found
