"""The kitemesh orchestrator service."""
