"""`python -m bench NAME [OPTIONS]`: runs one benchmark, on compiled modules where there are any."""

import runpy
import sys

from keyplane import native


def main() -> None:
    native.activate_or_exit()
    name = sys.argv.pop(1)
    sys.argv[0] = f"scripts/bench {name}"
    runpy.run_module(f"bench.{name.replace('-', '_')}", run_name="__main__")


if __name__ == "__main__":
    main()
