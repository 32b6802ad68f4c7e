"""Measures moka_wasm beside other caches: ``make bench``, or ``python benches/run.py --help``.

Prints the machine and the versions, then one row a comparison, and writes all of it, with the figures of every round,
to ``target/bench/``. A whole run also draws the pictures in ``bench/``. With MOKA_WASM_PURE=1 in the environment it
measures the package without its native extension, and draws none.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import channels
import hit_ratio
import machine
import memory
import operations
import peers
import pictures
import sizes
import startup
import threads
from section import PROJECT, Options, Section, progress
from table import Row, markdown

SECTIONS: dict[str, Section] = {
    "operations": operations.section,
    "sizes": sizes.section,
    "threads": threads.section,
    "channels": channels.section,
    "memory": memory.section,
    "hit-ratio": hit_ratio.section,
    "peers": peers.section,
    "startup": startup.section,
}


LEGEND = """\
ratio: ours by the peer's, below 1 where ours is faster or smaller; the median of rounds in which both took turns.
spread: the lowest and the highest of the rounds' ratios. native goal: for the package with its native extension."""


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="NAME", help=f"one of {', '.join(SECTIONS)}; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="rough figures within a minute: not to be quoted")
    parser.add_argument("--runs", type=int, default=5, help="how often each hit ratio is measured (default: 5)")
    parser.add_argument(
        "--traces",
        type=Path,
        default=Path(os.environ.get("MOKA_TRACES", PROJECT.parent / "shared" / "traces")),
        help="folder of recorded traces (default: $MOKA_TRACES, or ../shared/traces beside the project)",
    )
    parser.add_argument("--output", type=Path, default=PROJECT / "target" / "bench", help="default: target/bench")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    options = Options(arguments.quick, arguments.traces, arguments.runs)
    chosen = arguments.only or list(SECTIONS)

    facts = machine.describe()
    heading = "\n".join(f"{name + ':':<14}{fact}" for name, fact in facts.items())
    print(f"{heading}\n\n{LEGEND}", flush=True)
    started = time.monotonic()
    rows: list[Row] = []
    documents = [f"```\n{heading}\n```", LEGEND]
    for name in SECTIONS:
        if name not in chosen:
            continue
        found = list(SECTIONS[name](options))
        rows += found
        documents.append(f"{SECTIONS[name].__doc__}\n\n{markdown(found)}")
        print(f"\n{documents[-1]}", flush=True)
    minutes = (time.monotonic() - started) / 60
    missed = sum(row.reached(row.goal.now) is False for row in rows)
    missed_native = sum(row.reached(row.goal.native) is False for row in rows)
    summary = (
        f"{len(rows)} rows, {missed} goals and {missed_native} native goals not reached, {minutes:.1f} minutes"
        + ("; --quick: rough figures" if options.quick else "")
    )
    print(f"\n{summary}")

    arguments.output.mkdir(parents=True, exist_ok=True)
    # Rough or partial results replace no whole ones.
    stem = "quick" if options.quick else "results" if arguments.only is None else "results-" + "-".join(sorted(chosen))
    results = {"quick": options.quick, "facts": facts, "minutes": minutes, "rows": [row.as_json() for row in rows]}
    (arguments.output / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.output / f"{stem}.md").write_text("\n\n".join([*documents, summary]) + "\n")
    progress(f"written: {arguments.output / stem}.json and .md")
    if stem == "results" and not os.environ.get("MOKA_WASM_PURE"):
        for path in pictures.draw(arguments.output / "results.json", PROJECT / "bench"):
            progress(f"drawn: {path}")


if __name__ == "__main__":
    main()
