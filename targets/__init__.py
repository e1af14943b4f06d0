"""How a version is packaged (one module a target kind) and how a bundle is delivered."""
