"""What was deployed, when, by whom, why and with which outcome: append-only, the truth."""
