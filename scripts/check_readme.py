"""Runs the Python code of a Markdown file: what the README shows must work.

    check_readme.py README.md

Its ``python`` blocks run from top to bottom in one namespace, as a reader would type them, in an empty folder. A block
right after the comment ``<!-- not run -->`` is passed over.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"^(<!-- not run -->\s*)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(document: Path) -> int:
    """Runs the blocks of ``document`` and returns how many there were."""
    text = document.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    count = 0
    for block in BLOCK.finditer(text):
        if block[1]:
            continue
        # Empty lines in front, so that a traceback has the document's line numbers.
        source = "\n" * text.count("\n", 0, block.start(2)) + block[2]
        exec(compile(source, str(document), "exec"), namespace)
        count += 1
    return count


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        blocks = run(path)
    print(f"check_readme: {blocks} blocks of {path.name} run")
