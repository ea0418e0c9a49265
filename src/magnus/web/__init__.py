"""Web parts for FastAPI: they read snapshots and pass requests on; they decide nothing about the database."""
