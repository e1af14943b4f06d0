"""Behind ``register``: ways to convert, tried in turn; other precisions; the draft of a version."""
