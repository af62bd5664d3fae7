"""`kitemesh dev`: a whole cluster on one machine, in the foreground, behind `make up`.

Only what a person may ask for and what must hold before anything starts; `supervisor` does the rest.
"""

import argparse
import asyncio
import errno
import os
from collections.abc import Mapping
from typing import Final

from kitemesh_cli import dev_lock
from kitemesh_cli.arguments import add_data, folder_of
from kitemesh_cli.data_folder import shown
from kitemesh_cli.dev_catalog import check_environment
from kitemesh_cli.dev_key import PEPPER_BYTES
from kitemesh_cli.failures import Failed
from kitemesh_cli.ports import binding_error, owner_of
from kitemesh_cli.servers import LOOPBACK, free_port
from kitemesh_cli.settings import DEV_PORT, DevSettings
from kitemesh_cli.start_up import Plan
from kitemesh_cli.supervisor import supervise
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_model_runner.settings import RunnerSettings
from kitemesh_orchestrator.settings import OrchestratorSettings
from kitemesh_runtime import catalog_file
from kitemesh_runtime.settings import Settings, SettingsError, load
from kitemesh_tool_executor.settings import ExecutorSettings

SERVICES: Final[tuple[type[Settings], ...]] = (GatewaySettings, OrchestratorSettings, RunnerSettings, ExecutorSettings)

DESCRIPTION = """\
Run a whole cluster on this machine, in the foreground: nats-server, mongod and the four services.

When everything is ready it prints the URL, a key and lines to paste. What dies is started again. Ctrl-C, SIGTERM and
`kitemesh down` stop everything in order; a second Ctrl-C does it at once. Data, key and logs are kept under --data.

  KITEMESH_NATS_URL, KITEMESH_MONGO_URL   use these servers and do not start any
  KITEMESH_CATALOG                        use this catalog and not the packaged one
  OPENAI_API_KEY, OPENAI_BASE_URL         add the models of this OpenAI-compatible endpoint
  OPENAI_MODEL                            the one that answers for the group and the assistant
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "dev",
        help="run a whole cluster on this machine, in the foreground",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_data(parser, "folder of data, key and logs")
    parser.add_argument(
        "--port", metavar="N", help=f"the gateway's port, 0 for a free one (KITEMESH_PORT; default: {DEV_PORT})"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb."""
    environ = dict(os.environ)
    if arguments.port is not None:
        environ["KITEMESH_PORT"] = arguments.port
    settings = _load(environ)
    if "catalog" in settings.model_fields_set:
        catalog_file.read(settings.catalog)
    folder = folder_of(arguments)
    folder.create()
    port = settings.port or free_port()
    reachable = LOOPBACK if settings.host in {"", "0.0.0.0", "::"} else settings.host
    url = f"http://{reachable}:{port}"
    lock = dev_lock.acquire(folder.lock, url)
    try:
        _check_port(settings.host, port)
        folder.rotate_logs()
        print(f"starting kitemesh, data in {shown(folder.root)}", flush=True)
        asyncio.run(supervise(Plan(settings, folder, port, url, environ)))
    finally:
        folder.forget_environments()
        lock.release()
    return 0


def _load(environ: Mapping[str, str]) -> DevSettings:
    """Read the settings, and see to it that every service will accept its own.

    Raises:
        SettingsError: With every problem found.

    """
    # Where no pepper is set, the supervisor makes one.
    told = {**environ, "KITEMESH_KEY_PEPPER": environ.get("KITEMESH_KEY_PEPPER") or "x" * PEPPER_BYTES}
    problems = set(check_environment(environ))
    models: tuple[type[Settings], ...] = (DevSettings, *SERVICES)
    for model in models:
        try:
            load(model, told)
        except SettingsError as exc:
            problems.update(exc.problems)
    if problems:
        raise SettingsError(sorted(problems))
    return load(DevSettings, environ)


def _check_port(host: str, port: int) -> None:
    error = binding_error(host, port)
    if error is None:
        return
    if error.errno != errno.EADDRINUSE:
        raise Failed(f"cannot listen on {host}:{port}: {error.strerror}")
    owner = owner_of(port)
    who = f"process {owner.pid} ({owner.command})" if owner else "a process that cannot be seen from here"
    other = next((each for each in range(port + 1, 65536) if binding_error(host, each) is None), 0)
    raise Failed(f"port {port} is taken by {who}; choose another: make up PORT={other}, or --port {other}")
