"""The route of the cluster in `/openapi.json`. Pure."""

from typing import Final

from kitemesh_gateway.dialects.cluster_answers import ClusterOut
from kitemesh_gateway.openapi_codes import SCOPED_CODES
from kitemesh_gateway.openapi_parts import Family, lookup
from kitemesh_gateway.openapi_refusals import PROBLEMS

FAMILY: Final = Family(
    "Cluster",
    "Who is there, what waits, what is well.",
    {
        "/v1/cluster": {
            "get": {
                **lookup("readCluster", "Show the cluster", ClusterOut, SCOPED_CODES, refusal=PROBLEMS),
                "description": (
                    "From what every replica says every two seconds; any server answers the same. It tells nothing of "
                    "any tenant. Needs the scope `admin` or `operator`."
                ),
            },
        },
    },
)
