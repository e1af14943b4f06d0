"""``deploy.yaml``: what it may hold, how it is read, and the project that it describes."""
