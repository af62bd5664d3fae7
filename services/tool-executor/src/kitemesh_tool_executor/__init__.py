"""The kitemesh tool-executor service."""
