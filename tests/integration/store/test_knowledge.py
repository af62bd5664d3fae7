"""The knowledge base, on the twin and on both drivers."""

import asyncio
from unittest.mock import AsyncMock

import pytest

from kitemesh_contracts.errors import BadRequest, ErrorCode, Unavailable
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.knowledge import DEFAULT_BASE, Stored
from kitemesh_runtime.knowledge_chunks import Chunk
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores

RETURNS = Chunk("Returns", "Goods may be returned within thirty days.")
EUROPE = Chunk("Returns > Europe", "In Europe a warranty of two years covers every appliance.")
SHIPPING = Chunk("", "Parcels leave the warehouse on Mondays.")


async def put(stores: Stores, tenant: str, *chunks: Chunk, name: str = "shop.md", base: str = DEFAULT_BASE) -> Stored:
    return await stores.knowledge.put(tenant, base, name, chunks, characters=sum(len(each.text) for each in chunks))


async def found(stores: Stores, tenant: str, query: str, *bases: str) -> list[str]:
    passages = await stores.knowledge.search(tenant, query, bases=bases or (DEFAULT_BASE,), limit=10)
    return [passage.text for passage in passages]


@pytest.mark.requirement("knowledge:ranked-with-source")
async def test_what_has_more_of_the_words_comes_first_with_its_source(stores: Stores, tenant: str) -> None:
    await put(stores, tenant, RETURNS, EUROPE)
    await put(stores, tenant, SHIPPING, name="shipping.txt")
    first, *others = await stores.knowledge.search(
        tenant, "Which appliance has a warranty in Europe?", bases=(DEFAULT_BASE,), limit=10
    )
    assert (first.text, first.source, first.heading) == (EUROPE.text, "shop.md", EUROPE.heading)
    assert all(first.score > other.score for other in others)
    assert await found(stores, tenant, "warehouse") == [SHIPPING.text]
    assert await found(stores, tenant, "zebra") == []


async def test_words_are_found_in_headings_and_whatever_their_case_or_accents(stores: Stores, tenant: str) -> None:
    await put(stores, tenant, Chunk("Überführung", "Nichts weiter."), Chunk("", "Die ERSTATTUNG dauert."))
    assert await found(stores, tenant, "überführung") == ["Nichts weiter."]
    assert await found(stores, tenant, "Uberfuhrung") == ["Nichts weiter."]
    assert await found(stores, tenant, "erstattung") == ["Die ERSTATTUNG dauert."]


async def test_scripts_without_blanks_are_searched_by_pairs_of_characters(stores: Stores, tenant: str) -> None:
    refunds = Chunk("", "我们的退款政策是三十天。iPhone手机壳也一样。")
    await put(stores, tenant, refunds, SHIPPING)
    for query in ("退款需要多久?", "手机", "iPhone"):
        assert await found(stores, tenant, query) == [refunds.text]
    assert await found(stores, tenant, "保修") == []


@pytest.mark.requirement("knowledge:query-is-no-expression")
@pytest.mark.parametrize(
    "query",
    [
        "Europe -warranty",
        '"no such phrase" Europe',
        '\\"Europe',
        "-Europe",
        '"""',
        "Europe\x00",
        '{"$where": "1"} Europe $meta',
    ],
)
async def test_no_character_of_a_query_is_an_operator(stores: Stores, tenant: str, query: str) -> None:
    await put(stores, tenant, EUROPE)
    assert await found(stores, tenant, query) == ([EUROPE.text] if "Europe" in query else [])


@pytest.mark.parametrize("query", ["", " ", "?!", "\n\t"])
async def test_a_query_without_words_finds_nothing(stores: Stores, tenant: str, query: str) -> None:
    await put(stores, tenant, EUROPE)
    assert await found(stores, tenant, query) == []


async def test_no_more_are_returned_of_each_base_than_asked_for(stores: Stores, tenant: str) -> None:
    for base in ("one", "two"):
        await put(stores, tenant, *(Chunk("", f"parcel {n}") for n in range(5)), base=base)
    passages = await stores.knowledge.search(tenant, "parcel", bases=("one", "two"), limit=2)
    assert len(passages) == 4


@pytest.mark.requirement("knowledge:per-tenant-and-role")
async def test_only_the_bases_that_are_named_are_searched(stores: Stores, tenant: str) -> None:
    await put(stores, tenant, EUROPE, base="support")
    assert await found(stores, tenant, "Europe") == []
    assert await found(stores, tenant, "Europe", "other", "support") == [EUROPE.text]


async def test_a_document_of_the_same_name_is_replaced_and_keeps_its_id(stores: Stores, tenant: str) -> None:
    first = await put(stores, tenant, RETURNS, EUROPE)
    second = await put(stores, tenant, SHIPPING)
    elsewhere = await put(stores, tenant, RETURNS, base="support")
    assert (first.is_new, second.is_new, elsewhere.is_new) == (True, False, True)
    assert second.document.id == first.document.id != elsewhere.document.id
    assert second.document.created_at_s == first.document.created_at_s
    assert second.document.updated_at_s >= first.document.updated_at_s > 1_700_000_000
    assert second.document.passages == 1
    assert await found(stores, tenant, "Europe days warehouse") == [SHIPPING.text]
    assert await stores.knowledge.read(tenant, first.document.id) == [SHIPPING]


async def test_a_document_is_found_by_its_id_and_by_its_name(stores: Stores, tenant: str) -> None:
    stored = await put(stores, tenant, RETURNS, EUROPE)
    assert await stores.knowledge.get(tenant, stored.document.id) == stored.document
    assert await stores.knowledge.find(tenant, DEFAULT_BASE, "shop.md") == stored.document
    assert await stores.knowledge.read(tenant, stored.document.id) == [RETURNS, EUROPE]
    assert await stores.knowledge.get(tenant, "nobody") is None
    assert await stores.knowledge.read(tenant, "nobody") is None
    assert await stores.knowledge.find(tenant, "support", "shop.md") is None


async def test_documents_are_listed_last_stored_first_in_pages(stores: Stores, tenant: str) -> None:
    names = [f"{n}.md" for n in range(5)]
    for n, name in enumerate(names):
        await put(stores, tenant, SHIPPING, name=name, base="odd" if n % 2 else "even")
    listed = await stores.knowledge.page(tenant, limit=3)
    listed += await stores.knowledge.page(tenant, before=listed[-1].id, limit=3)
    assert [document.name for document in listed] == names[::-1]
    odd = await stores.knowledge.page(tenant, base="odd", limit=9)
    assert [document.name for document in odd] == ["3.md", "1.md"]


async def test_a_removed_document_is_gone_with_its_passages(stores: Stores, tenant: str) -> None:
    stored = await put(stores, tenant, RETURNS)
    assert await stores.knowledge.remove(tenant, stored.document.id) is True
    assert await stores.knowledge.remove(tenant, stored.document.id) is False
    assert await stores.knowledge.get(tenant, stored.document.id) is None
    assert await found(stores, tenant, "returned") == []
    again = await put(stores, tenant, RETURNS)
    assert again.is_new
    assert again.document.id != stored.document.id


async def test_how_far_it_is_is_told(stores: Stores, tenant: str) -> None:
    told: list[int] = []
    chunks = [Chunk("", f"passage {n}") for n in range(250)]
    await stores.knowledge.put(tenant, DEFAULT_BASE, "long.md", chunks, characters=1, told=told.append)
    assert told == sorted(told)
    assert told[-1] == 250
    document = await stores.knowledge.find(tenant, DEFAULT_BASE, "long.md")
    assert document is not None
    assert await stores.knowledge.read(tenant, document.id) == chunks


async def test_the_same_name_stored_twenty_times_at_once_is_one_document(stores: Stores, tenant: str) -> None:
    stored = await asyncio.gather(*(put(stores, tenant, Chunk("", f"edition {n} of Europe")) for n in range(20)))
    assert len({each.document.id for each in stored}) == 1
    assert [each.is_new for each in stored].count(True) == 1
    assert len(await found(stores, tenant, "Europe")) == 1


@pytest.mark.requirement("knowledge:per-tenant-and-role", "store:tenant-in-every-call")
async def test_another_tenants_knowledge_is_as_if_it_did_not_exist(stores: Stores, tenant: str, other: str) -> None:
    mine = (await put(stores, tenant, EUROPE)).document
    assert await found(stores, other, "Europe") == []
    assert await stores.knowledge.get(other, mine.id) is None
    assert await stores.knowledge.read(other, mine.id) is None
    assert await stores.knowledge.page(other, limit=9) == []
    assert await stores.knowledge.remove(other, mine.id) is False
    theirs = (await put(stores, other, SHIPPING)).document
    assert theirs.id != mine.id
    assert await stores.knowledge.find(tenant, DEFAULT_BASE, "shop.md") == mine


async def test_until_all_of_an_edition_is_there_nobody_sees_any_of_it(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        await put(stores, tenant, RETURNS)
        looking: list[asyncio.Task[list[str]]] = []
        chunks = [Chunk("", f"Europe {n}") for n in range(250)]
        await stores.knowledge.put(
            tenant,
            DEFAULT_BASE,
            "shop.md",
            chunks,
            characters=1,
            told=lambda _: looking.append(asyncio.ensure_future(found(stores, tenant, "Europe returned"))),
        )
        seen = await asyncio.gather(*looking)
    assert len(seen) == 3
    for texts in seen:
        assert texts == [RETURNS.text] or (len(texts) == 10 and all(text.startswith("Europe ") for text in texts))
    passages = database.collection("passages")
    assert await database.run(passages.count_documents({"tenant": tenant})) == 250


async def test_what_a_crash_left_behind_is_not_seen_and_goes_with_the_document(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        stored = await put(stores, tenant, RETURNS)
        documents, passages = database.collection("knowledge"), database.collection("passages")
        left = {"tenant": tenant, "base": DEFAULT_BASE, "edition": "e", "heading": "", "text": "Returned to Europe"}
        await database.run(passages.insert_many([{**left, "_id": f"{tenant}:{n}", "n": n} for n in range(20)]))
        await database.run(documents.update_one({"_id": stored.document.id}, {"$push": {"editions": "e"}}))
        begun = {"_id": f"{tenant}-begun", "tenant": tenant, "base": DEFAULT_BASE, "name": "b", "editions": ["f"]}
        await database.run(documents.insert_one(begun))
        assert await found(stores, tenant, "Europe returned") == [RETURNS.text]
        assert await stores.knowledge.page(tenant, limit=9) == [stored.document]
        assert await stores.knowledge.find(tenant, DEFAULT_BASE, "b") is None
        await put(stores, tenant, SHIPPING)
        await stores.knowledge.remove(tenant, stored.document.id)
        assert await database.run(passages.count_documents({"tenant": tenant})) == 0


@pytest.mark.parametrize("then", ["remove", "put"])
async def test_a_removal_that_broke_off_hides_the_document_and_is_completed_by_what_comes_next(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        stored = await put(stores, tenant, RETURNS)
        with monkeypatch.context() as broken:
            broken.setattr(stores.knowledge, "_forget", AsyncMock(side_effect=Unavailable(ErrorCode.STORE_DOWN, "x")))
            with pytest.raises(Unavailable):
                await stores.knowledge.remove(tenant, stored.document.id)
        assert await stores.knowledge.page(tenant, limit=9) == []
        assert await found(stores, tenant, "returned") == []
        if then == "put":
            assert (await put(stores, tenant, SHIPPING)).is_new
        else:
            assert await stores.knowledge.remove(tenant, stored.document.id) is False
    for collection in ("knowledge", "passages"):
        left = await database.run(database.collection(collection).count_documents({"tenant": tenant}))
        assert left == (then == "put")


async def test_a_document_that_is_removed_while_it_is_stored_is_gone_or_there_and_never_half(
    stores: Stores, tenant: str
) -> None:
    chunks = [Chunk("", f"Europe {n}") for n in range(150)]
    removing: list[asyncio.Task[bool]] = []
    first = (await put(stores, tenant, RETURNS)).document

    def told(_: int) -> None:
        removing.append(asyncio.ensure_future(stores.knowledge.remove(tenant, first.id)))

    storing = stores.knowledge.put(tenant, DEFAULT_BASE, "shop.md", chunks, characters=1, told=told)
    await asyncio.gather(storing, return_exceptions=True)
    await asyncio.gather(*removing)
    document = await stores.knowledge.find(tenant, DEFAULT_BASE, "shop.md")
    assert document is None or await stores.knowledge.read(tenant, document.id) == chunks
    assert len(await found(stores, tenant, "Europe")) == (0 if document is None else 10)


async def test_text_that_cannot_be_stored_is_refused_and_changes_nothing(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        stored = await put(stores, tenant, RETURNS)
        with pytest.raises(BadRequest):
            await put(stores, tenant, EUROPE, Chunk("", "half \ud800 a pair"))
        assert await stores.knowledge.page(tenant, limit=9) == [stored.document]
        assert await found(stores, tenant, "Europe") == []


async def test_a_search_reads_only_what_has_the_words_in_its_base(database: Database, tenant: str) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        await put(stores, tenant, *(Chunk("", f"Europe {n}") for n in range(200)), base="other")
        await put(stores, tenant, EUROPE, *(Chunk("", f"nothing {n}") for n in range(200)))
    match = {"tenant": tenant, "base": DEFAULT_BASE, "$text": {"$search": "Europe"}}
    find = {"find": "passages", "filter": match, "sort": {"score": {"$meta": "textScore"}}, "limit": 10}
    explained = await database.command({"explain": find, "verbosity": "executionStats"})
    stats = explained["executionStats"]
    assert (stats["totalDocsExamined"], stats["nReturned"]) == (1, 1)
    assert stats["totalKeysExamined"] <= 2
