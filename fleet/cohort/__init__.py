"""Fleets as masses: cohorts of routers, their caches as shares of keys, requests as rates.

Time goes in steps of at most 10 ms. What comes in during a step leaves it as served, failed or
still waiting, exactly: the layer has no other place for a request to go.
"""
