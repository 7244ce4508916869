"""The seeded world: every part of Keyplane in one process, in virtual time, from one seed.

The routers, storage nodes, Metadata Store and clients in here are the real ones; only what they
touch is simulated: time, the network, memcached, disks, and the life and death of processes.
"""
