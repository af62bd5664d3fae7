"""`python -m kitemesh_gateway`."""

from kitemesh_gateway.app import serve
from kitemesh_gateway.settings import GatewaySettings
from kitemesh_runtime.lifecycle import run


def main() -> None:
    """Be the gateway."""
    run("gateway", GatewaySettings, serve)


if __name__ == "__main__":
    main()
