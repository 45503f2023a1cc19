"""The demonstration: real servers here, a real deployment, and a search for the key afterwards."""
