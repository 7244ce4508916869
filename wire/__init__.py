"""How processes reach the world: ports, and their live and in-memory implementations."""

import os

# gRPC's C core writes notes of its own between our log lines. It reads this when it is imported,
# which happens below this package.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
