"""The house style: deterministic SVG, readable colours, and axes that say what they show."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import InputError, UnitError
from labcore.learn import plots

matplotlib.use("Agg")

DRAW = """
import matplotlib; matplotlib.use("Agg")
import matplotlib.pyplot as plt
from labcore.learn import plots
plots.use_style()
fig, ax = plt.subplots()
plots.roofline_axes(ax, {"H100 bf16": (989.4e12, 3.35e12), "T4 fp16": (65e12, 320e9)})
ax.bar([1, 10], [1e12, 1e13], color=plots.KV, hatch=plots.HATCH[plots.KV])
plots.finding(ax, "Decode sits far left of every ridge")
print(plots.show(fig)._repr_svg_())
"""


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def drawn():
    fig, ax = plt.subplots()
    (line,) = ax.plot([1, 10, 100], [1.0, 2.0, 4.0], color=plots.DECODE)
    plots.axis(ax, "x", "batch", "sequences", log=10)
    plots.axis(ax, "y", "step time", "ms")
    plots.finding(ax, "Time doubles for each tenfold batch")
    return fig, ax, line


def test_svg_is_byte_identical_in_two_processes():
    one, two = (
        subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, check=True, timeout=120).stdout
        for _ in range(2)
    )
    assert one == two and one.startswith("<?xml")
    assert "<dc:date>" not in one and "Matplotlib v" not in one


def test_size_and_opaque_background():
    fig, _, _ = drawn()
    root = ET.fromstring(plots.show(fig).svg)
    assert (root.get("width"), root.get("height")) == ("504pt", "259.2pt")
    background = root.find(".//{*}g[@id='patch_1']/{*}path")
    assert "fill: #ffffff" in background.get("style") and "opacity" not in background.get("style")


def test_every_text_is_fifteen_points():
    fig, _, line = drawn()
    plots.label_line(line, "decode")
    fig.canvas.draw()
    texts = [text for text in fig.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]
    assert len(texts) > 5 and {text.get_fontsize() for text in texts} == {15.0}


def test_a_figure_shows_itself_and_is_closed():
    fig, _, _ = drawn()
    shown = plots.show(fig)
    assert repr(shown) == "Figure: Time doubles for each tenfold batch"
    assert shown._repr_svg_() == shown.svg and not plt.fignum_exists(fig.number)


def without_finding():
    return plt.figure()


def without_label():
    fig, ax, _ = drawn()
    ax.set_ylabel("")
    return fig


def silent_log():
    fig, ax, _ = drawn()
    ax.set_xlabel("batch (sequences)")
    return fig


@pytest.mark.parametrize(
    ("figure", "says"),
    [(without_finding, "no finding"), (without_label, "the y axis has no label"), (silent_log, "does not say so")],
)
def test_a_figure_that_breaks_the_style_is_refused(figure, says):
    with pytest.raises(InputError, match=says):
        plots.show(figure())


def test_axes_of_names_and_hidden_axes_need_no_label():
    fig, ax = plt.subplots()
    ax.bar(["prefill", "decode"], [1.0, 2.0])
    plots.axis(ax, "y", "time", "ms")
    plots.finding(ax, "Decode takes longer")
    plots.show(fig)
    fig, ax = plt.subplots()
    ax.axis("off")
    plots.finding(ax, "A diagram")
    plots.show(fig)


def test_axis_labels_carry_unit_and_scale():
    _, ax, _ = drawn()
    assert ax.get_xlabel() == "batch (sequences, log scale)" and ax.get_xscale() == "log"
    assert ax.get_ylabel() == "step time (ms)" and ax.yaxis.label.get_rotation() == 0
    plots.axis(ax, "y", "speed-up")
    assert ax.get_ylabel() == "speed-up"
    with pytest.raises(UnitError, match="'furlongs' is unknown"):
        plots.axis(ax, "y", "length", "furlongs")


def test_powers_of_two_are_written_as_numbers():
    fig, ax, _ = drawn()
    plots.axis(ax, "x", "batch", "sequences", log=2)
    ax.set_xlim(0.25, 65536)
    fig.canvas.draw()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert "65,536" in labels or "16,384" in labels or "4,096" in labels
    assert not any("mathdefault" in label for label in labels)


def test_a_finding_wraps_and_has_a_limit():
    _, ax, _ = drawn()
    plots.finding(ax, "word " * 25)
    title = ax.figure.get_suptitle()
    assert title.count("\n") == 2 and max(map(len, title.split("\n"))) <= plots.TITLE_COLUMNS
    plots.finding(ax, "word " * 8 + "compute-bound")
    assert ax.figure.get_suptitle().endswith("\ncompute-bound")
    for text in ("", "word " * 60):
        with pytest.raises(InputError, match="use 1 to 3"):
            plots.finding(ax, text)


def test_a_label_stands_on_its_line():
    _, ax, line = drawn()
    plots.label_line(line, "end")
    plots.label_line(line, "middle", x=10)
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("end", (100.0, 4.0)), ("middle", (10, 2.0))]
    with pytest.raises(InputError, match="outside the line"):
        plots.label_line(line, "nowhere", x=1000)


def contrast(colour):
    return 1.05 / (plots._luminance(np.array(matplotlib.colors.to_rgb(colour))) + 0.05)


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_text_colours_reach_the_contrast_of_wcag_aa(rgb):
    assert contrast(plots.readable(matplotlib.colors.to_hex(rgb))) >= 4.45  # 4.5, up to rounding to 8-bit hex


def test_luminance_is_that_of_wcag():
    assert contrast("#FFFFFF") == pytest.approx(1.0) and contrast("#000000") == pytest.approx(21.0)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01)


def test_colour_is_never_the_only_signal():
    meanings = [plots.PREFILL, plots.DECODE, plots.KV, plots.WASTE, plots.HIGHLIGHT]
    for signals in (plots.HATCH, plots.DASH):
        assert set(signals) == set(meanings) and len(set(signals.values())) == len(meanings)


def test_roofs_are_straight_lines_that_meet_at_the_ridge():
    _, ax = plt.subplots()
    (line,) = plots.roofline_axes(ax, {"A100": (312e12, 2.039e12)})
    xs, ys = line.get_data()
    assert list(ys) == [min(312e12, x * 2.039e12) for x in xs] and xs[1] == pytest.approx(153, abs=0.1)
    assert ax.texts[0].get_text() == "A100: ridge 153"
    assert ax.get_xlabel() == "arithmetic intensity (FLOP/B, log scale)"
    with pytest.raises(InputError, match="widen the axis"):
        plots.roofline_axes(ax, {"A100": (312e12, 2.039e12)}, high=100)


def recorded_run():
    ratio = {"median": 3.4, "lo": 3.1, "hi": 3.6, "kind": "speedup"}
    row = {"key": "cpu.decode.peer", "ratio": ratio, "target": {"must": 3.0}, "ours": {"unit": "s"}}
    return {
        "run_id": "20261124T022430Z-cpu-1d343ac",
        "git": "1d343ac" * 5,
        "dirty": False,
        "device": {"kind": "cpu", "name": "AMD EPYC"},
        "threads": 2,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "ceilings": [{"drift": 0.012}],
        "stable": True,
        "rows": [row, row | {"key": "cpu.memory", "ratio": ratio | {"kind": "overhead"}}],
    }


def test_recorded_rows_are_drawn_with_interval_bar_and_provenance():
    fig, ax = plt.subplots()
    run = recorded_run()
    assert plots.recorded(ax, run, "cpu.decode.*", {"cpu.decode.peer": "decode"}) == run["rows"][:1]
    plots.finding(ax, "Three times the peer")
    interval, dot, must = (line.get_xdata() for line in ax.lines)
    assert list(interval) == [3.1, 3.6] and list(dot) == [3.4] and list(must) == [3.0, 3.0]
    assert [text.get_text() for text in ax.texts] == ["3.40", "must"]
    assert "run 20261124T022430Z-cpu-1d343ac" in fig.get_supxlabel().replace("\n", " ")
    plots.show(fig)


def test_ratios_of_different_kinds_do_not_share_an_axis():
    _, ax = plt.subplots()
    with pytest.raises(InputError, match="mix the ratio kinds overhead, speedup"):
        plots.recorded(ax, recorded_run(), "*")
