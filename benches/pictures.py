"""Draws what was measured: ``pictures.py [RESULTS.json] [FOLDER]``, by default the last whole run, into ``bench/``.

The background is transparent and the ink a grey in between, so that a picture can be read on light and on dark pages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from hit_ratio import OLTP, OLTP_CAPACITIES, POLICIES, title
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter
from memory import COUNTS, MEASURES, what
from section import PROJECT
from sizes import SIZES

INK = "#7f8490"
OURS = "#1f9e89"
PEER = "#e07b39"

Rows = Sequence[dict[str, Any]]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    figure, (axes,) = _panels(width, height, 1)
    return figure, axes


def _panels(width: float, height: float, count: int) -> tuple[Any, list[Any]]:
    figure, panels = plt.subplots(1, count, figsize=(width, height), layout="constrained", squeeze=False)
    for axes in panels[0]:
        _ink(axes)
    return figure, list(panels[0])


def _ink(axes: Any) -> None:
    axes.tick_params(colors=INK, which="both")
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.title.set_color(INK)


def ratios(rows: Rows, path: Path) -> None:
    """How long ours takes by how long the peer takes, a bar a row: to the left of 1 ours is faster."""
    others = ("channel", "get, bytes", "set, bytes")
    rows = [row for row in rows if row["unit"] == "ns" and not row["operation"].startswith(others)]
    figure, axes = _axes(9, 0.3 * len(rows) + 1)
    values = [row["result"] for row in rows]
    places = range(len(rows))
    axes.barh(places, [value - 1 for value in values], left=1, color=[OURS if value <= 1 else PEER for value in values])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(places, [f"{row['operation']} / {row['peer']}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time of moka-wasm by that of the peer (below 1: moka-wasm is faster)")
    for place, value in zip(places, values, strict=True):
        side = "left" if value > 1 else "right"
        axes.annotate(f" {value:.2g} ", (value, place), va="center", ha=side, color=INK, fontsize=8)
    axes.margins(x=0.12)
    figure.savefig(path, transparent=True, dpi=140)


def sizes(rows: Rows, path: Path) -> None:
    """How long ``get`` and ``set`` take by the value's size."""
    figure, axes = _axes(7, 4)
    for operation, style in (("get", "-"), ("set", "--")):
        start = f"{operation}, bytes of "
        found = [row for row in rows if row["operation"].startswith(start)]
        places = [SIZES[row["operation"].removeprefix(start)] for row in found]
        for side, name, color in (("ours", "moka-wasm, a copy", OURS), ("theirs", "moka-py, a reference", PEER)):
            times = [median(row[side]) for row in found]
            axes.plot(places, times, style, marker="o", color=color, label=f"{operation}, {name}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(SIZES.values()), list(SIZES))
    axes.set_xlabel("size of the value")
    axes.set_ylabel("nanoseconds an operation")
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path, transparent=True, dpi=140)


def entries(rows: Rows, path: Path) -> None:
    """What an entry takes, and how long the garbage collector does, by how many entries there are."""
    figure, panels = _panels(9, 3.6, 2)
    ticks = {"memory": "bytes an entry, key and value included", "gc": "milliseconds of gc.collect()"}
    for axes, (measure, label) in zip(panels, ticks.items(), strict=True):
        for side, name, color in (("ours", "moka-wasm", OURS), ("theirs", "moka-py", PEER)):
            figures = [
                median(row[side]) / (count if measure == "memory" else 1e6)
                for count in COUNTS
                for row in rows
                if row["operation"] == f"{what(count, 'list')}: {MEASURES[measure]}"
            ]
            axes.plot(COUNTS, figures, marker="o", color=color, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("entries, dicts with a list each")
        axes.set_ylabel(label)
        axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path, transparent=True, dpi=140)


def hit_ratios(rows: Rows, path: Path) -> None:
    """The hit ratio on a recorded trace, by capacity; nothing, if there was no trace."""
    if not any(row["operation"].startswith(f"hit ratio, {OLTP}") for row in rows):
        return
    figure, axes = _axes(7, 4)
    for policy, style in zip(POLICIES, ("-", "--"), strict=True):
        names = {title(OLTP, capacity, policy): capacity for capacity in OLTP_CAPACITIES}
        found = [row for row in rows if row["operation"] in names]
        places = [names[row["operation"]] for row in found]
        for side, name, color, mark in (("theirs", "moka-py", PEER, "s"), ("ours", "moka-wasm", OURS, "o")):
            ratios = [mean(row[side]) for row in found]
            axes.plot(places, ratios, style, marker=mark, color=color, label=f"{name}, {policy}")
    axes.set_xlabel(f"capacity, entries ({OLTP} trace)")
    axes.set_ylabel("hits, % of the requests")
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path, transparent=True, dpi=140)


def draw(results: Path, folder: Path) -> list[Path]:
    """Draws all pictures of these results.

    Args:
        results: What ``run.py`` wrote, of all sections.
        folder: Made if it is not there.
    """
    rows = json.loads(results.read_text())["rows"]
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"ratios": ratios, "sizes": sizes, "entries": entries, "hit-ratios": hit_ratios}
    paths = {folder / f"{name}.png": picture for name, picture in pictures.items()}
    for path, picture in paths.items():
        picture(rows, path)
    return [path for path in paths if path.exists()]


def main() -> None:
    """Draws what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", nargs="?", type=Path, default=PROJECT / "target" / "bench" / "results.json")
    parser.add_argument("folder", nargs="?", type=Path, default=PROJECT / "bench")
    arguments = parser.parse_args()
    for written in draw(arguments.results, arguments.folder):
        print(written)


if __name__ == "__main__":
    main()
