"""The whole promise in one run, on real processes: what `scripts/demo` shows."""
