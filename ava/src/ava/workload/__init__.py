"""AVA's mixed workload: what real clients would ask, over the real HTTP API."""
