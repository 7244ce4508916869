"""Every request simulated, one by one, by event loops that numba compiles."""
