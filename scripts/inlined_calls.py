"""Writes where LLVM is to inline a function that it would not, as its own remarks tell what it inlined.

    inlined_calls.py STD.ll

moka asks ``std::time::Instant::elapsed`` for the time in every operation. That calls ``Timespec::sub_timespec``, which
calls itself with both sides exchanged where the first is the earlier one, and LLVM inlines no function that calls
itself. Its inliner takes these lines by ``-cgscc-inline-replay`` (LLVM's ``lib/Analysis/ReplayInlineAdvisor.cpp``). A
call is named by what ``formatCallSiteLocation`` (``lib/Analysis/InlineAdvisor.cpp``) makes of its debug location: each
function that it was inlined through, the lines from where that begins, and the column.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

CALLER, CALLEE = "7Instant7elapsed", "8Timespec12sub_timespec"

Nodes = dict[str, str]
"""The text of each node of metadata by its name, as ``!7``."""


def field(node: str, name: str) -> str | None:
    """What a node says of that name: a number, a string without its quotes or the name of another node."""
    found = re.search(rf"\b{name}: (!?\d+|\"[^\"]*\")", node)
    return found and found[1].strip('"')


def subprogram(nodes: Nodes, scope: str | None) -> str:
    """The function that a scope is in."""
    while scope is not None and "DISubprogram(" not in nodes[scope]:
        scope = field(nodes[scope], "scope")
    if scope is None:
        raise ValueError("a scope is in no function")
    return nodes[scope]


def call_site(nodes: Nodes, location: str | None) -> Iterator[str]:
    """The places of a call, from the innermost function outwards."""
    while location is not None:
        node = nodes[location]
        function = subprogram(nodes, field(node, "scope"))
        lines = int(field(node, "line") or 0) - int(field(function, "line") or 0)
        yield f"{field(function, 'linkageName') or field(function, 'name')}:{lines}:{field(node, 'column') or 0}"
        location = field(node, "inlinedAt")


def remarks(lines: list[str]) -> Iterator[str]:
    """A line for each call of the callee in the caller."""
    nodes = {found[1]: found[2] for line in lines if (found := re.match(r"(!\d+) = (.*)", line))}
    function = ""
    for line in lines:
        if found := re.match(r"define .*?@\"?([\w.$]+)", line):
            function = found[1]
        call = re.search(r"call .*?@\"?([\w.$]+)\"?\(.*!dbg (!\d+)", line)
        if call and CALLER in function and CALLEE in call[1]:
            places = " @ ".join(call_site(nodes, call[2]))
            yield f"remark: '{call[1]}' inlined into '{function}' at callsite {places};"


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    found = list(remarks(Path(sys.argv[1]).read_text().splitlines()))
    print(*found, sep="\n", end="\n" if found else "")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
