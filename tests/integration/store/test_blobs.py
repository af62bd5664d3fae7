"""Blobs and the parcels that travel by them, on the twin and on both drivers."""

import asyncio
import os
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from kitemesh_contracts import codec
from kitemesh_contracts.commands import INLINE_MAX_BYTES, Generate, Parcel
from kitemesh_contracts.content import TextPart, UserMessage
from kitemesh_contracts.errors import ContractViolation
from kitemesh_runtime.blobs_mongo import BUCKET, COLLECTION
from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import ensure_indexes
from kitemesh_runtime.parcels import Parcels, pack_small
from kitemesh_runtime.stores import Stores
from kitemesh_runtime.stores_mongo import open_stores

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 10, MIB, 8 * MIB, 8 * MIB + 1, 9 * MIB])
async def test_bytes_come_back_as_they_were_stored(stores: Stores, tenant: str, other: str, size: int) -> None:
    data = os.urandom(size)
    blob = await stores.blobs.put(tenant, data, keep_s=60)
    found = await stores.blobs.get(tenant, blob)
    assert type(found) is bytes
    assert found == data
    assert await stores.blobs.get(other, blob) is None
    assert await stores.blobs.get(tenant, "unknown") is None


@pytest.mark.parametrize("size", [10, 9 * MIB])
async def test_everything_that_a_blob_left_in_the_database_goes_in_time(
    database: Database, tenant: str, size: int
) -> None:
    await ensure_indexes(database)
    async with open_stores(database) as stores:
        blob = await stores.blobs.put(tenant, bytes(size), keep_s=3600)
    kept = {COLLECTION: {"_id": blob}}
    if size > 8 * MIB:
        file = (await database.run(database.collection(COLLECTION).find_one({"_id": blob})))["file"]
        kept |= {f"{BUCKET}.chunks": {"files_id": file}, f"{BUCKET}.files": {"_id": file, "filename": blob}}
    for name, mine in kept.items():
        collection = database.collection(name)
        total = await database.run(collection.count_documents(mine))
        dated = await database.run(collection.count_documents({**mine, "expires_at": {"$type": "date"}}))
        assert dated == total > 0
        indexes = await database.run(collection.index_information())
        assert indexes["retention_expires_at"]["expireAfterSeconds"] == 0


@pytest.mark.parametrize("size", [10, 9 * MIB])
async def test_the_same_name_is_stored_once_whoever_stores_it_and_however_often(
    stores: Stores, tenant: str, size: int
) -> None:
    data, name = bytes(size), f"{tenant}-file"
    blobs = await asyncio.gather(*(stores.blobs.put(tenant, data, keep_s=60, name=name) for _ in range(3)))
    blobs.append(await stores.blobs.put(tenant, data, keep_s=60, name=name))
    assert blobs == [name] * 4
    assert await stores.blobs.get(tenant, name) == data


async def test_a_name_that_is_stored_again_is_kept_for_longer(database: Database, tenant: str) -> None:
    data, name = bytes(9 * MIB), f"{tenant}-file"
    async with open_stores(database) as stores:
        for keep_s in (60, 3600):
            await stores.blobs.put(tenant, data, keep_s=keep_s, name=name)
        in_half_an_hour = {"$gt": datetime.now(UTC) + timedelta(seconds=1800)}
        for collection, mine in (
            (COLLECTION, {"_id": name}),
            (f"{BUCKET}.chunks", {}),
            (f"{BUCKET}.files", {"filename": name}),
        ):
            kept = database.collection(collection)
            assert await database.run(kept.count_documents({**mine, "expires_at": in_half_an_hour})) > 0
        assert await database.run(database.collection(f"{BUCKET}.files").count_documents({"filename": name})) == 1


@pytest.mark.requirement("conversation:deleted-with-its-files")
@pytest.mark.parametrize("size", [10, 9 * MIB])
async def test_what_belongs_to_something_is_forgotten_with_it_and_nothing_else(
    stores: Stores, tenant: str, other: str, size: int
) -> None:
    put, data = stores.blobs.put, bytes(size)
    mine = [await put(tenant, data, keep_s=60, about="talk", name=f"{tenant}-a"), await put(tenant, b"x", keep_s=60)]
    kept = [
        (tenant, await put(tenant, data, keep_s=60, about="other", name=f"{tenant}-b")),
        (tenant, await put(tenant, b"y", keep_s=60)),
        (other, await put(other, b"z", keep_s=60, about="talk")),
    ]
    for _ in range(2):
        await stores.blobs.forget(tenant, "talk", [mine[1], kept[2][1]])
        assert [await stores.blobs.get(tenant, blob) for blob in mine] == [None, None]
        assert all([await stores.blobs.get(owner, blob) is not None for owner, blob in kept])


async def test_a_forgotten_file_leaves_nothing_in_the_database(database: Database, tenant: str) -> None:
    async with open_stores(database) as stores:
        await stores.blobs.put(tenant, bytes(9 * MIB), keep_s=60, about="talk", name=tenant)
        files = database.collection(f"{BUCKET}.files")
        file = await database.run(files.find_one({"filename": tenant}))
        await stores.blobs.forget(tenant, "talk")
    chunks = database.collection(f"{BUCKET}.chunks")
    assert await database.run(chunks.count_documents({"files_id": file["_id"]})) == 0
    assert await database.run(files.count_documents({"filename": tenant})) == 0


def _message(tenant: str, text: str) -> Generate:
    return Generate(
        turn="t",
        tenant=tenant,
        gateway="g",
        mode="classic",
        step=1,
        attempt=1,
        models=("scripted",),
        messages=(UserMessage(parts=(TextPart(text=text),)),),
        budget_s=60,
    )


async def test_a_small_message_travels_by_itself(stores: Stores, tenant: str) -> None:
    message, parcels = _message(tenant, "Hi"), Parcels(stores.blobs)
    data = await parcels.pack(tenant, message)
    assert data == pack_small(message) == codec.encode(message)
    assert await parcels.unpack(codec.GENERATE, data) == message


@pytest.mark.requirement("classic:large-messages-are-parcels")
async def test_a_large_message_travels_as_a_parcel(stores: Stores, tenant: str) -> None:
    message, parcels = _message(tenant, "x" * INLINE_MAX_BYTES), Parcels(stores.blobs)
    assert pack_small(message) is None
    data = await parcels.pack(tenant, message)
    assert len(data) < 500
    assert isinstance(codec.decode(codec.GENERATE, data), Parcel)
    assert await parcels.unpack(codec.GENERATE, data) == message


async def test_a_parcel_whose_blob_is_gone_or_foreign_is_a_violation(stores: Stores, tenant: str, other: str) -> None:
    parcels = Parcels(stores.blobs)
    data = await parcels.pack(tenant, _message(tenant, "x" * INLINE_MAX_BYTES))
    parcel = msgspec.json.decode(data, type=Parcel)
    stolen = codec.encode(msgspec.structs.replace(parcel, tenant=other))
    gone = codec.encode(msgspec.structs.replace(parcel, blob="unknown"))
    for bad in (stolen, gone):
        with pytest.raises(ContractViolation):
            await parcels.unpack(codec.GENERATE, bad)


@pytest.mark.requirement("store:tenant-in-every-call")
async def test_a_parcel_holds_neither_a_parcel_nor_another_tenants_message(
    stores: Stores, tenant: str, other: str
) -> None:
    parcels = Parcels(stores.blobs)
    inner = codec.encode(Parcel(tenant=tenant, blob="any", size=1))
    for content in (inner, codec.encode(_message(other, "Hi")), b"nonsense"):
        blob = await stores.blobs.put(tenant, content, keep_s=60)
        with pytest.raises(ContractViolation):
            await parcels.unpack(codec.GENERATE, codec.encode(Parcel(tenant=tenant, blob=blob, size=len(content))))
