"""Every request simulated, one by one, by event loops that numba compiles.

What numba has compiled it keeps beside the source, and it does not notice a change in a function of
another file that was compiled into it: delete `fleet/**/__pycache__` after changing `random`.
"""
