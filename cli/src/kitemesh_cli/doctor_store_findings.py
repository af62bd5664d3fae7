"""What is wrong with MongoDB, and with what an operator keeps: the catalog and the secret of the keys. Pure."""

from typing import Final

from kitemesh_cli.doctor_facts import Facts, StoreFacts
from kitemesh_cli.doctor_judgements import Judgement, Untold, doubted, failed

USAGE_LAG_MOST_S: Final = 900.0
PEPPER_LEAST: Final = 16


def reachable(facts: Facts) -> Judgement:
    """Judge whether MongoDB answers."""
    store = facts.store
    if store.reach != "unreachable":
        return ()
    return (
        failed(
            store.address,
            f"MongoDB does not answer: {store.why}",
            "start it, or correct KITEMESH_MONGO_URL; look whether a network policy or firewall is in between",
        ),
    )


def known(facts: Facts) -> Judgement:
    """Judge whether MongoDB lets the operator in."""
    store = facts.store
    if store.reach == "unreachable":
        return Untold("MongoDB does not answer")
    if store.reach != "refused":
        return ()
    return (
        failed(
            store.address,
            f"MongoDB refuses the user of KITEMESH_MONGO_URL: {store.why}",
            "correct user, password and authSource; the operator may read and change the database and its users",
        ),
    )


def primary(facts: Facts) -> Judgement:
    """Judge whether a server takes writes."""
    store = facts.store
    if store.reach == "unreachable":
        return Untold("MongoDB does not answer")
    if store.primary:
        return ()
    name = store.replica_set or store.address
    return (
        failed(
            name,
            "the replica set has no primary: nothing can be written, and no turn accepted",
            "start the members that are down; more than half of them elect a primary",
        ),
    )


def replica_set(facts: Facts) -> Judgement:
    """Judge whether what is acknowledged survives the loss of a machine."""
    store = facts.store
    if store.reach == "unreachable":
        return Untold("MongoDB does not answer")
    if store.replica_set or store.loopback:
        return ()
    return (
        doubted(
            store.address,
            "MongoDB stands alone: what it acknowledged is lost with its disk",
            "make it a replica set of three, as production needs",
        ),
    )


def indexes(facts: Facts) -> Judgement:
    """Judge whether every index is there and is what it should be."""
    if missing := _untold(facts.store):
        return missing
    return [
        *(failed(each, "the index does not exist", "run `kitemesh bootstrap`") for each in facts.store.missing),
        *(
            failed(
                each,
                "the index is not what this release needs",
                "run `kitemesh bootstrap`; one that it refuses has to be dropped before",
            )
            for each in facts.store.differing
        ),
    ]


def usage(facts: Facts) -> Judgement:
    """Judge whether the count of usage keeps up."""
    if missing := _untold(facts.store):
        return missing
    lag_s = facts.store.usage_lag_s
    if lag_s is None or lag_s <= USAGE_LAG_MOST_S:
        return ()
    return (
        doubted(
            "usage",
            f"turns are counted up to {lag_s / 60:.0f} minutes ago",
            "look at the orchestrators' logs for usage.*; whoever counts is down or slow",
        ),
    )


def pepper(facts: Facts) -> Judgement:
    """Judge whether keys can be made here that gateways know."""
    characters = facts.pepper_characters
    if characters >= PEPPER_LEAST:
        return ()
    if not characters:
        return (
            doubted(
                "KITEMESH_KEY_PEPPER",
                "it is not set here: no key can be made or rotated from here",
                "set it to what the gateways have; a gateway without it does not start",
            ),
        )
    return (
        failed(
            "KITEMESH_KEY_PEPPER",
            f"it has {characters} characters and must have at least {PEPPER_LEAST}: no gateway starts with it",
            "set what the gateways have; for a new installation `openssl rand -hex 32`",
        ),
    )


def catalog(facts: Facts) -> Judgement:
    """Judge whether services could start with the catalog."""
    return [
        failed(
            facts.catalog.path,
            each,
            "correct the file; until then services that run keep the one before, and none starts",
        )
        for each in facts.catalog.problems
    ]


def _untold(store: StoreFacts) -> Untold | None:
    if store.reach:
        return Untold("nobody could sign in to MongoDB")
    return None if store.primary else Untold("MongoDB has no primary")
