"""The dashboard: one page that shows a pool and its server, live; mounted in a service or run by itself."""
