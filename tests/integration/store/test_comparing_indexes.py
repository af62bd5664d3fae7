"""Which indexes are missing or wrong, told without changing any."""

from kitemesh_runtime.driver_mongo import Database
from kitemesh_runtime.indexes_mongo import compare_indexes, ensure_indexes, indexes


async def test_missing_and_wrong_indexes_are_told_and_left_as_they_are(database: Database) -> None:
    await database.command({"dropDatabase": 1})
    missing, differing = await compare_indexes(database)
    assert (len(missing), differing) == (len(indexes()), [])
    await ensure_indexes(database)
    assert await compare_indexes(database) == ([], [])
    turns = database.collection("turns")
    await database.run(turns.drop_index("due"))
    await database.run(turns.drop_index("by_status"))
    await database.run(turns.create_index("tenant", name="by_status"))
    kept = {"name": "retention_touched_at", "expireAfterSeconds": 7}
    await database.command({"collMod": "budgets", "index": kept})
    for _ in range(2):
        assert await compare_indexes(database) == (["turns.due"], ["turns.by_status", "budgets.retention_touched_at"])
