"""The service before and after, measured: the same operations of AVA on a plain asyncpg pool and on Magnus."""
