"""The `kitemesh` command: one module for each verb, and `dev`, the supervisor of a cluster on one machine."""
