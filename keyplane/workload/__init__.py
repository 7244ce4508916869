"""Load for a cluster: who asks for what, what came of it, and whether all of it held."""
