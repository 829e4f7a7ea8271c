"""Text from local files, and who trains on which sample of it."""
