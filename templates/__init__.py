"""Jinja templates of the bundles, one folder a target kind."""
