"""HTTP to services that get a credential, and the faults of a connection."""
