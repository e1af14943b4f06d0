"""What a model version is, what is live where, and the command line over both."""
