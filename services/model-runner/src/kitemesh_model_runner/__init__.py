"""The kitemesh model-runner service."""
