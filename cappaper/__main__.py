"""The command ``cappaper`` as ``python -m cappaper``."""

from cappaper.paper.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
