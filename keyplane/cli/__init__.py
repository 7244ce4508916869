"""The `keyplane` command."""
