"""How a release becomes live: the plan, its one executor, recovery after a crash and the mirror in MLflow."""
