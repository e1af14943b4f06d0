"""S3 services: buckets, conditional writes, files that travel in parts; for the store and for deliveries."""
