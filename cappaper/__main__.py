"""The command ``cappaper`` as ``python -m cappaper``."""

import sys

from cappaper.paper.cli import main

if __name__ == "__main__":
    sys.exit(main())
