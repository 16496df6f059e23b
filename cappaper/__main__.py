"""The command ``cappaper``, or ``python -m cappaper``; some commands need the extra ``paper``."""

import sys


def main() -> int:
    """Run the command line, or say what to install; returns the exit status."""
    try:
        from cappaper.paper.cli import main as run

        return run()
    except ModuleNotFoundError as error:
        if (error.name or "cappaper").startswith("cappaper"):
            raise
        print(f'cappaper: {error.name} is missing: pip install "cappaper[paper]"', file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
