"""One scenario asked many times: over a grid, or in search of the best."""
