"""``make size``: lines and files of each part, against the limits that keep them readable."""

import re
import sys
from pathlib import Path

# Lines of the Python files in a folder, without those of a folder within.
LIMITS = {
    "take home": ("cappaper", "cappaper/paper", 3600),
    "this book": ("cappaper/paper", "", 3200),
    "tests": ("tests", "", 8000),
}
FILE_LINES = 300
PRIVATE = re.compile(r"torch\._C|torch\.ops\.|cpuinfo|_functorch")


def faults(root: Path) -> list[str]:
    """Print lines and files of each part; a sentence for each limit that is broken."""
    wrong = []
    for part, (folder, without, limit) in LIMITS.items():
        paths = sorted((root / folder).rglob("*.py"))
        paths = [p for p in paths if not (without and p.is_relative_to(root / without))]
        texts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in paths}
        lines = {path: text.count("\n") for path, text in texts.items()}
        total = sum(lines.values())
        print(f"{part}: {total} lines of at most {limit}, {len(paths)} files")
        wrong += [f"{part} has {total} lines, more than {limit}"] * (total > limit)
        wrong += [
            f"{p} has {n} lines, more than {FILE_LINES}" for p, n in lines.items() if n > FILE_LINES
        ]
        if folder != "tests":
            private = [path for path, text in texts.items() if PRIVATE.search(text)]
            wrong += [f"{path} uses private names of torch" for path in private]
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(faults(Path.cwd())) or None)
