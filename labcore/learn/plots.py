"""The one look of every figure: colours with a meaning, text that survives a phone, SVG that never changes by itself.

A figure is drawn with plain matplotlib between `use_style()` and `show(fig)`. Its title states the finding, lines are
labelled where they end, every axis names its quantity and unit, and a log axis says so: `show` refuses one that does
not. Colour is never the only signal, so each meaning has a hatch and a line style as well.
Colours: Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from labcore.bench.record import provenance, rows
from labcore.bench.report import si
from labcore.bench.statistics import KINDS
from labcore.core.errors import InputError
from labcore.core.units import unit as parse_unit
from labcore.formulas import formula

PREFILL = "#D55E00"
DECODE = "#0072B2"
KV = "#009E73"
WASTE = "#8A8A8A"
HIGHLIGHT = "#CC79A7"
INK = "#1A1A1A"
PAPER = "#FFFFFF"
HATCH = {PREFILL: "//", DECODE: "", KV: "..", WASTE: "xx", HIGHLIGHT: "\\\\"}
DASH = {PREFILL: "--", DECODE: "-", KV: "-.", WASTE: ":", HIGHLIGHT: (0, (5, 1, 1, 1, 1, 1))}

WIDTH, HEIGHT = 7.0, 3.6  # inches: 504 points wide, so 15-point text is 11.1 px on a 390 px phone
TEXT = 15.0
SMALL = 12.0
TITLE_COLUMNS = 52

STYLE = {
    "figure.figsize": (WIDTH, HEIGHT),
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,  # inches; keeps the level y label clear of the title
    "savefig.facecolor": PAPER,
    "savefig.transparent": False,
    "savefig.bbox": "standard",
    "svg.hashsalt": "labcore",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.5,
    "lines.markersize": 8,
    "hatch.linewidth": 1.0,
    "axes.prop_cycle": cycler(color=list(DASH), linestyle=list(DASH.values())),
}


def use_style() -> None:
    """Make the house style the default of every figure drawn from here on."""
    mpl.rcParams.update(STYLE)


def finding(ax: Axes, text: str) -> None:
    """Title the axes with what the figure shows, as a sentence, wrapped to the figure's width.

    Raises InputError for more than three lines, which would leave no room for the plot.
    """
    lines = textwrap.wrap(text, TITLE_COLUMNS, break_on_hyphens=False)
    if not 1 <= len(lines) <= 3:
        raise InputError(
            f"the finding {text[:40]!r}… takes {len(lines)} lines of {TITLE_COLUMNS} characters; use 1 to 3"
        )
    ax.figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=TEXT, fontweight="bold")


def axis(ax: Axes, which: str, quantity: str, unit: str = "1", log: int | None = None) -> None:
    """Label the "x" or "y" axis `quantity (unit)`; `log=2` or `log=10` makes it logarithmic and says so.

    `unit` "1" is a plain number and is not printed. The y label stands level above its axis, where a phone can show it.
    Raises UnitError for a unit that core.units does not know.
    """
    parse_unit(unit)
    notes = [unit] if unit != "1" else []
    if log:
        getattr(ax, f"set_{which}scale")("log", base=log)
        ticks = getattr(ax, f"{which}axis")
        ticks.set_major_formatter(FuncFormatter(_power_of_two if log == 2 else _power_of_ten))
        ticks.set_major_locator(LogLocator(base=log, numticks=6))
        ticks.set_minor_locator(NullLocator())
        notes.append("log scale")
    text = f"{quantity} ({', '.join(notes)})" if notes else quantity
    if which == "x":
        ax.set_xlabel(text)
    else:
        ax.set_ylabel(text, rotation=0, ha="left", va="bottom")
        ax.yaxis.set_label_coords(0.0, 1.02)


def _power_of_two(value: float, _: int) -> str:
    return f"{value:,.0f}" if value >= 1 else f"1/{1 / value:,.0f}"


def _power_of_ten(value: float, _: int) -> str:
    return f"{value:g}" if 1e-4 <= value < 1e4 else si(value)


def label_line(line: Line2D, text: str, x: float | None = None, dx: float = 6, dy: float = 0, ha: str = "left") -> None:
    """Write `text` beside `line`, at its last point or at the data position `x`, in a readable shade of its colour.

    `dx` and `dy` shift the text by points. Raises InputError if `x` lies outside the line.
    """
    xs, ys = (np.asarray(values, dtype=float) for values in line.get_data())
    at = xs[-1] if x is None else x
    if not xs.min() <= at <= xs.max():
        raise InputError(f"x={at:g} lies outside the line, which runs from {xs.min():g} to {xs.max():g}")
    order = np.argsort(xs)
    y = ys[-1] if x is None else float(np.interp(at, xs[order], ys[order]))
    style = {"color": readable(line.get_color()), "ha": ha, "va": "center", "annotation_clip": False}
    line.axes.annotate(text, (at, y), (dx, dy), textcoords="offset points", **style)


def readable(colour: str, contrast: float = 4.5) -> str:
    """`colour` darkened until its WCAG contrast on white is at least `contrast`; for text, not for areas."""
    red, green, blue = mpl.colors.to_rgb(colour)
    for share in np.linspace(1.0, 0.0, 21):
        shade = np.array([red, green, blue]) * share
        if 1.05 / (_luminance(shade) + 0.05) >= contrast:
            break
    return mpl.colors.to_hex(shade)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def roofline_axes(
    ax: Axes, roofs: Mapping[str, tuple[float, float]], low: float = 0.5, high: float = 1e4, dy: float = -11
) -> list[Line2D]:
    """Log-log axes with one roof for each `{name: (peak in FLOP/s, bandwidth in B/s)}`, ridge marked and labelled.

    The x axis is arithmetic intensity from `low` to `high` FLOP/B, the y axis attainable FLOP/s; `dy` shifts the roofs'
    labels by points. Returns the roofs. Raises InputError for a ridge outside the axis. Source: Williams, Waterman and
    Patterson (2009).
    """
    axis(ax, "x", "arithmetic intensity", "FLOP/B", log=10)
    axis(ax, "y", "attainable", "FLOP/s", log=10)
    lines = []
    for colour, (name, (peak, bandwidth)) in zip(DASH, roofs.items(), strict=False):
        ridge = float(formula["roofline.ridge"](F=peak, beta=bandwidth))
        if not low < ridge < high:
            raise InputError(f"the ridge of {name} is at {ridge:g} FLOP/B, outside {low:g} to {high:g}; widen the axis")
        # two straight lines on log axes: three points draw min(peak, intensity × bandwidth) exactly
        (line,) = ax.plot([low, ridge, high], [low * bandwidth, peak, peak], color=colour, linestyle=DASH[colour])
        ax.plot([ridge], [peak], "o", color=colour)
        label_line(line, f"{name}: ridge {ridge:.0f}", x=ridge, dx=4, dy=dy)
        lines.append(line)
    ax.set_xlim(low, high)
    return lines


def recorded(ax: Axes, run: Mapping, pattern: str = "*", labels: Mapping[str, str] | None = None) -> list[dict]:
    """Draw the ratios of a recorded run: a dot at the median, a bar over its rounds, a tick at the bar "must".

    One line for each row whose key matches `pattern`; all must be of one ratio kind. `labels` renames keys. Adds the
    run's provenance under the axes and returns the rows. Raises InputError for no row, or for mixed kinds.
    """
    found = rows(run, pattern)
    kinds = {row["ratio"]["kind"] for row in found}
    if len(kinds) > 1:
        raise InputError(f"rows {pattern!r} mix the ratio kinds {', '.join(sorted(kinds))}; draw one kind a figure")
    (kind,) = kinds
    for height, row in enumerate(reversed(found)):
        share, must = row["ratio"], row["target"].get("must")
        ax.plot([share["lo"], share["hi"]], [height, height], color=DECODE, linestyle="-", linewidth=5, alpha=0.4)
        ax.plot([share["median"]], [height], "o", color=DECODE)
        right = {"textcoords": "offset points", "va": "center"}
        ax.annotate(f"{share['median']:.2f}", (share["hi"], height), (8, 0), **right)
        if must is not None:
            ax.plot([must, must], [height - 0.3, height + 0.3], color=PREFILL, linestyle="-", linewidth=2)
            under = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": SMALL}
            ax.annotate("must", (must, height - 0.3), (0, 0), color=readable(PREFILL), **under)
    names = labels or {}
    ax.set_yticks(range(len(found)), [names.get(row["key"], row["key"]) for row in reversed(found)])
    ax.set_xlim(0, 1.15 * max([row["ratio"]["hi"] for row in found] + [row["target"].get("must", 0) for row in found]))
    ax.set_ylim(-0.7, len(found) - 0.5)
    ax.set_ylabel("")
    axis(ax, "x", KINDS[kind][0], found[0]["ours"]["unit"] if kind == "value" else "1")
    provenance_line(ax.figure, run)
    return found


def provenance_line(fig: Figure, run: Mapping) -> None:
    """Write the provenance of `run` under the figure, in the smaller text size, wrapped."""
    fig.supxlabel("\n".join(textwrap.wrap(provenance(run), 76)), x=0.01, ha="left", fontsize=SMALL, color="#595959")


class Drawing:
    """A finished figure: SVG for the page, one line of text for everything else (its finding)."""

    def __init__(self, svg: str, text: str) -> None:
        self.svg, self.text = svg, text

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return self.text


def show(fig: Figure) -> Drawing:
    """The figure as a value that displays itself: deterministic SVG, and its finding as plain text. Closes `fig`.

    Raises InputError if a figure has no finding, or an axis no label, or a log axis does not say that it is one.
    """
    heading = fig.get_suptitle().replace("\n", " ")
    if not heading:
        raise InputError("the figure has no finding; call finding(ax, 'what it shows') before show(fig)")
    for ax in fig.axes:
        _check_axes(ax)
    svg = to_svg(fig)
    plt.close(fig)
    return Drawing(svg, f"Figure: {heading}")


def to_svg(fig: Figure) -> str:
    """The figure as SVG text: byte-identical for the same data and matplotlib version (no date, fixed ids)."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"], "svg.fonttype": "path"}):
        fig.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _check_axes(ax: Axes) -> None:
    if not ax.axison:
        return
    for name in ("x", "y"):
        one, label = getattr(ax, f"{name}axis"), getattr(ax, f"get_{name}label")()
        if not one.get_visible() or not _is_numeric(one):
            continue
        if not label:
            raise InputError(f"the {name} axis has no label; call axis(ax, {name!r}, 'quantity', 'unit')")
        if one.get_scale() == "log" and "log" not in label:
            raise InputError(f"the {name} axis {label!r} is logarithmic and does not say so; use axis(…, log=10)")


def _is_numeric(one: mpl.axis.Axis) -> bool:
    """False for an axis of names (bars, rows), whose tick labels already say what they are."""
    words: Sequence[str] = [tick.get_text() for tick in one.get_ticklabels()]
    return not words or any(word.replace("−", "-").replace(".", "", 1).lstrip("-").isdigit() for word in words if word)
