"""The data plane under load: Keyplane, the same on grpcio, dynalite, and a bare echo."""
