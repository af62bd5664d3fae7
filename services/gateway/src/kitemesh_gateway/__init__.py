"""The kitemesh gateway service."""
