"""The store: files by content, bundles by digest, version records and the ledger's documents."""
