"""`kitemesh knowledge add | list | remove`: the documents whose passages models are shown."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kitemesh_cli.arguments import add_data, folder_of, identifier
from kitemesh_cli.connections import open_cli_stores
from kitemesh_cli.failures import Failed
from kitemesh_cli.knowledge_files import Readable, find_files, name_of, read
from kitemesh_cli.output import add_json, print_json
from kitemesh_cli.progress_bar import ProgressBar
from kitemesh_cli.settings import KeysSettings, load_settings, tenant_of
from kitemesh_cli.tables import lay_out, moment
from kitemesh_runtime.knowledge import DEFAULT_BASE, Knowledge, KnowledgeDocument
from kitemesh_runtime.one_line import one_line

PAGE: Final = 200

DESCRIPTION = "Store, list and remove the documents of a tenant's knowledge base."
ADDING = """\
Store text and Markdown files; of a folder all that end in .md, .markdown, .txt or the like. A document is called what
its file is called from here, takes the place of the one that has that name, and is searched at once.

examples:
  kitemesh knowledge add handbook.md
  kitemesh knowledge add docs/ --base support     for roles of the catalog with `knowledge: [support]`
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verbs."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = verbs.add_parser("knowledge", help="store documents that models are shown", description=DESCRIPTION)
    what = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    adding = what.add_parser("add", help="store files", description=ADDING, formatter_class=raw)
    adding.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a UTF-8 text, or a folder of them")
    adding.set_defaults(run=add_files)
    listing = what.add_parser("list", help="list documents", description="List a tenant's documents by base and name.")
    listing.set_defaults(run=list_documents)
    remove = what.add_parser(
        "remove", help="remove documents", description="Remove documents, and all that was stored of them."
    )
    remove.add_argument("files", nargs="+", metavar="FILE", help="a document's name, its file or its id")
    remove.set_defaults(run=remove_documents)
    for each in (adding, listing, remove):
        default = None if each is listing else DEFAULT_BASE
        shown = "all of them" if each is listing else default
        each.add_argument(
            "--base", type=identifier, default=default, metavar="B", help=f"which base (default: {shown})"
        )
        each.add_argument(
            "--tenant",
            type=identifier,
            metavar="T",
            help="whose; the anonymous tenant's when left out (KITEMESH_ANONYMOUS_TENANT)",
        )
        add_json(each)
        add_data(each)


def add_files(arguments: argparse.Namespace) -> int:
    """Be `knowledge add`: all of the files or, if one of them cannot be read, none."""
    settings, tenant = _settings(arguments)
    files, problems = read(find_files(arguments.files))
    for problem in problems:
        sys.stderr.write(f"kitemesh: {one_line(problem)}\n")
    if problems:
        raise Failed("nothing was stored")
    if not files:
        raise Failed("there is no text or Markdown file below what was named")

    async def store() -> list[KnowledgeDocument]:
        async with open_cli_stores(settings) as stores:
            return await _store(stores.knowledge, tenant, arguments.base, files, quiet=arguments.json)

    documents = asyncio.run(store())
    if arguments.json:
        print_json([msgspec.to_builtins(document) for document in documents])
    return 0


def list_documents(arguments: argparse.Namespace) -> int:
    """Be `knowledge list`."""
    settings, tenant = _settings(arguments)

    async def gather() -> list[KnowledgeDocument]:
        async with open_cli_stores(settings) as stores:
            return await _all(stores.knowledge, tenant, arguments.base)

    documents = sorted(asyncio.run(gather()), key=lambda document: (document.base, document.name))
    if arguments.json:
        print_json([msgspec.to_builtins(document) for document in documents])
    elif not documents:
        where = f"base {arguments.base} of tenant {tenant}" if arguments.base else f"tenant {tenant}"
        print(f"{where} has no documents")
    else:
        rows = [
            (each.base, each.name, str(each.passages), str(each.characters), moment(each.updated_at_s), each.id)
            for each in documents
        ]
        print(lay_out(("BASE", "NAME", "PASSAGES", "CHARACTERS", "STORED", "ID"), rows))
    return 0


def remove_documents(arguments: argparse.Namespace) -> int:
    """Be `knowledge remove`: what is there is removed, what is not is named."""
    settings, tenant = _settings(arguments)

    async def remove() -> tuple[list[KnowledgeDocument], list[str]]:
        async with open_cli_stores(settings) as stores:
            return await _remove(stores.knowledge, tenant, arguments.base, arguments.files)

    removed, unknown = asyncio.run(remove())
    if arguments.json:
        print_json([msgspec.to_builtins(document) for document in removed])
    else:
        for document in removed:
            print(f"{one_line(document.name)}: removed")
    if unknown:
        names = ", ".join(map(one_line, unknown))
        raise Failed(f"base {arguments.base} of tenant {tenant} has no document {names}")
    return 0


async def _store(
    knowledge: Knowledge, tenant: str, base: str, files: Sequence[Readable], *, quiet: bool
) -> list[KnowledgeDocument]:
    documents: list[KnowledgeDocument] = []
    done = 0
    with ProgressBar(sum(len(each.chunks) for each in files)) as bar:
        for each in files:

            def told(passages: int, name: str = each.name, before: int = done) -> None:
                bar.show(before + passages, name)

            told(0)
            document, is_new = await knowledge.put(
                tenant, base, each.name, each.chunks, characters=each.characters, told=told
            )
            documents.append(document)
            done += len(each.chunks)
            if not quiet:
                bar.clear()
                what = "stored" if is_new else "replaced"
                print(f"{one_line(each.name)}: {what}, {_count(document.passages)}")
    return documents


async def _all(knowledge: Knowledge, tenant: str, base: str | None) -> list[KnowledgeDocument]:
    documents: list[KnowledgeDocument] = []
    last: str | None = None
    while True:
        page = await knowledge.page(tenant, base=base, before=last, limit=PAGE)
        documents += page
        if len(page) < PAGE:
            return documents
        last = page[-1].id


async def _remove(
    knowledge: Knowledge, tenant: str, base: str, wanted: Sequence[str]
) -> tuple[list[KnowledgeDocument], list[str]]:
    removed: list[KnowledgeDocument] = []
    unknown: list[str] = []
    for each in dict.fromkeys(wanted):
        document = (
            await knowledge.find(tenant, base, each)
            or await knowledge.find(tenant, base, name_of(Path(each)))
            or await knowledge.get(tenant, each)
        )
        if document is not None and await knowledge.remove(tenant, document.id):
            removed.append(document)
        else:
            unknown.append(each)
    return removed, unknown


def _settings(arguments: argparse.Namespace) -> tuple[KeysSettings, str]:
    folder = folder_of(arguments)
    settings = load_settings(KeysSettings, folder, os.environ)
    return settings, tenant_of(arguments.tenant, settings, folder)


def _count(passages: int) -> str:
    return "1 passage" if passages == 1 else f"{passages} passages"
