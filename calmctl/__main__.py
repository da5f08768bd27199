"""`python -m calmctl`: the same as the `calmctl` command."""

import sys

from calmctl.cli.main import script

if __name__ == "__main__":
    sys.exit(script())
