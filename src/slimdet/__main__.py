"""`python -m slimdet` is `slimdet`."""

import sys

from slimdet.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
