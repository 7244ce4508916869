"""`python -m keyplane`: the `keyplane` command, where it is not on the PATH."""

import sys

from keyplane.cli.main import main

sys.exit(main())
