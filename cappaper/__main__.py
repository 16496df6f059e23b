"""The command ``cappaper``, or ``python -m cappaper``; the book's commands need its extra."""

import sys


def main() -> int:
    """Run the command line, or say in one sentence what to install."""
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
