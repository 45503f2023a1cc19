"""HTTP to services that are given a credential, and what can be wrong with a connection."""
