"""`/openapi.json`: every family of routes, put together. Pure."""

from typing import Final

from kitemesh_contracts.errors import MEANINGS
from kitemesh_gateway import (
    openapi_agents,
    openapi_approvals,
    openapi_cluster,
    openapi_completions,
    openapi_conversations,
    openapi_dead,
    openapi_executions,
    openapi_kernel2,
    openapi_keys,
    openapi_knowledge,
    openapi_reference,
    openapi_run_chat,
    openapi_run_completions,
    openapi_tenants,
    openapi_usage,
)
from kitemesh_gateway.advice import ADVICE
from kitemesh_gateway.dialects.completions_errors import CODES
from kitemesh_gateway.introduction import INTRODUCTION
from kitemesh_gateway.openapi_bodies import Schema
from kitemesh_gateway.openapi_parts import Family
from kitemesh_gateway.openapi_schemas import with_schemas

FAMILIES: Final[tuple[Family, ...]] = (
    openapi_completions.FAMILY,
    openapi_run_chat.FAMILY,
    openapi_run_completions.FAMILY,
    openapi_kernel2.FAMILY,
    openapi_agents.FAMILY,
    openapi_conversations.FAMILY,
    openapi_executions.FAMILY,
    openapi_approvals.FAMILY,
    openapi_knowledge.FAMILY,
    openapi_keys.FAMILY,
    openapi_tenants.FAMILY,
    openapi_usage.FAMILY,
    openapi_cluster.FAMILY,
    openapi_dead.FAMILY,
    openapi_reference.FAMILY,
)


def document(version: str) -> Schema:
    """Build the OpenAPI document."""
    paths, schemas = with_schemas(_paths())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kitemesh",
            "version": version,
            "description": INTRODUCTION,
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "tags": [{"name": family.tag, "description": family.about} for family in FAMILIES],
        "paths": paths,
        "x-error-codes": [
            {
                "code": CODES.get(code, code.value),
                "logged_as": code.value,
                "status": MEANINGS[code].status,
                "advice": advice,
            }
            for code, advice in ADVICE.items()
        ],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "km_…"}},
        },
    }


def _paths() -> Schema:
    paths: Schema = {}
    for family in FAMILIES:
        for path, methods in family.paths.items():
            for method, operation in methods.items():
                paths.setdefault(path, {})[method] = {"tags": [family.tag], **operation}
    return paths
