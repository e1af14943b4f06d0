"""Where bundles go: one module a sort of destination, all performing the same steps."""
