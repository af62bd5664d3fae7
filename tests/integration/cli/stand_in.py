"""`kitemesh` with a stand-in for each service."""

import signal
import sys

from kitemesh_cli import __main__ as command
from kitemesh_cli import cluster
from kitemesh_cli.servers import free_port


def list_services(_settings: object, _catalog: object, port: int) -> list[cluster.Service]:
    """List the stand-ins."""
    return [
        cluster.Service("gateway", "stand_in_service", free_port(), {"STAND_IN_PORT": str(port)}),
        cluster.Service("orchestrator", "stand_in_service", free_port(), {}),
    ]


if __name__ == "__main__":
    # Whoever runs the tests may ignore it, as under `nohup`, and children inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    cluster.list_services = list_services
    sys.exit(command.main())
