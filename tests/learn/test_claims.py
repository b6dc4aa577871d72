"""A figure in prose is either what was computed, quoted with a source, or given; everything else is refused."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import nbformat
import numpy as np
import pytest
import sympy as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labcore.core.units import Quantity
from labcore.learn import claims, claims_check
from labcore.learn.claims import ClaimError, claim, quoted

RIGHT = [
    ("2.684 GB", 2_684_354_560),
    ("2.5 GiB", 2_684_354_560),
    ("99.5 %", 0.994538),
    ("99.5%", 0.994538),
    ("7.5 tokens", 7.5),
    ("−0.23 GB", -0.2304e9),
    ("-0.23 GB", -0.2304e9),
    ("327,680 B/token", 327_680),
    ("USD 5.00", 5),
    ("USD 0.139/Mtok", 0.1389e-6),
    ("USD 0.139 per Mtok", 0.1389e-6),
    ("0.139 USD/Mtok", 0.1389e-6),
    ("295.3 FLOP/B", 989.4e12 / 3.35e12),
    ("about 295 FLOP/B", 295.34),
    ("about 20,000 tokens", 19_366),
    ("~150 GB/s", 148e9),
    ("8×", 8.04),
    ("41.9 GB", Quantity(39.0625, "GiB")),
    ("3.2 ms", Quantity(0.0032, "s")),
    ("1.2 × 10⁹ FLOP", 1.23e9),
    ("1.2 × 10^9 FLOP", 1.23e9),
    ("1.2e9 FLOP", 1.23e9),
    ("60–80 %", (0.604, 0.797)),
    ("7 to 8 GB", (7.2e9, 8.4e9)),
    ("0.33", sp.Rational(1, 3)),
    ("0.33", Fraction(1, 3)),
    ("0.10 s", Decimal("0.1")),
    ("12 %", np.float32(0.12)),
    ("4 heads", np.int64(4)),
    # halfway values may be shown as either neighbour, and double precision does not decide
    ("2.68", 2.675),
    ("2.67", 2.675),
    ("0.13", 0.125),
    ("0.12", 0.125),
    ("15 %", 0.145),
    ("14 %", 0.145),
    ("29 %", 0.285),
    ("0 %", 0.0),
]


@pytest.mark.parametrize(("text", "value"), RIGHT, ids=lambda v: str(v))
def test_right_figures(text, value):
    assert repr(claim(text, value, id="t")) == f"✓ {text}"


WRONG = [
    ("2.685 GB", 2_684_354_560, "computed 2.684 GB"),
    ("2.684 GiB", 2_684_354_560, "computed 2.500 GiB"),
    ("2.69 GB", 2_684_354_560, "computed 2.68 GB"),
    ("99.6 %", 0.994538, "computed 99.5 %"),
    ("0.23 GB", -0.2304e9, "computed -0.23 GB"),
    ("2.68", 2.674999, "computed 2.67"),
    ("2.67", 2.675001, "computed 2.68"),
    ("20,000 tokens", 19_366, "computed 19,366 tokens"),
    ("about 20,000 tokens", 18_400, "computed 18,400 tokens"),
    ("about 296 FLOP/B", 295.34, "computed 295 FLOP/B"),
    ("60–80 %", (0.604, 0.81), "computed 81 %"),
    ("60–80 %", 0.7, "shows 2 numbers and was given 1"),
    ("60 %", (0.6, 0.8), "shows 1 numbers and was given 2"),
    ("3 GB", Quantity(3, "GB/s"), "does not measure GB"),
    ("3 GB", float("nan"), "not a finite number"),
    ("3 GB", float("inf"), "not a finite number"),
    ("3 GB", "3e9", "not a number"),
    ("3 GB", None, "not a number"),
    ("3 parsecs", 3, "unit 'parsecs' is unknown"),
    ("many GB", 3, "is not a figure"),
    ("USD 5.00", 5.006, "computed 5.01 USD"),
]


@pytest.mark.parametrize(("text", "value", "words"), WRONG, ids=lambda v: str(v))
def test_wrong_figures_name_both(text, value, words):
    with pytest.raises(ClaimError) as error:
        claim(text, value, id="t")
    assert words in str(error.value) and text in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=300, deadline=None)
@given(value=st.floats(-1e15, 1e15, allow_nan=False), decimals=st.integers(0, 4))
@example(value=0.5, decimals=0)
def test_what_python_prints_is_accepted_and_a_step_away_refused(value, decimals):
    shown = f"{value:,.{decimals}f} s"
    claim(shown, value, id="t")
    step = Decimal(1).scaleb(-decimals)
    for direction in (-1, 1):
        off = Decimal(f"{value:.{decimals}f}") + direction * 2 * step
        if abs(value) * 1e-12 < float(step) / 4:  # the value still has digits behind the shown ones
            with pytest.raises(ClaimError):
                claim(f"{off:,.{decimals}f} s", value, id="t")


def test_the_registry_counts_equal_ids():
    claims.start_notebook("03_demo")
    claim("1 GB", 1e9, id="P1")
    claim("2 GB", 2e9, id="P1")
    quoted("96.3 %", source="kwon2023", verdict="right")
    claims.given("80 GB", "8,192 tokens")
    entries = claims.registry()
    assert [(e.kind, e.id, e.ordinal) for e in entries[:2]] == [("claim", "P1", 1), ("claim", "P1", 2)]
    assert {e.notebook for e in entries} == {"03_demo"} and len(entries) == 5
    assert repr(entries[2]) == "❝ 96.3 % [kwon2023]"
    claims.start_notebook("04_demo")
    assert claims.registry() == []


def test_a_quotation_needs_a_source_and_a_known_verdict():
    with pytest.raises(ClaimError, match="no source"):
        quoted("96.3 %", source="")
    with pytest.raises(ClaimError, match="'true' of the quotation"):
        quoted("96.3 %", source="kwon2023", verdict="true")


# -- prose ----------------------------------------------------------------------------------------------------------

FIGURES = [
    ("It needs 2.684 GB, or 2.5 GiB.", ["2.684GB", "2.5GiB"]),
    ("A card with 80\u00a0GB and 2,039 GB/s", ["80GB", "2039GB/s"]),
    ("60–80 % of it", ["60–80%"]),
    ("from 60 to 80 %", ["60–80%"]),
    ("−0.23 GB", ["-0.23GB"]),
    ("USD 5.00 and USD 0.14/Mtok and 2.50 USD/h", ["5.00USD", "0.14USD/Mtok", "2.50USD/h"]),
    ("8× less, 1.5x faster", ["8×", "1.5xfaster"]),
    ("a ridge of 295.3 FLOP/B at 989.4 TFLOP/s", ["295.3FLOP/B", "989.4TFLOP/s"]),
    ("wastes 7.5 tokens of 16 tokens", ["7.5tokens"]),
    ("at 91 tok/s, 3.2 ms a step, 400 Gb/s", ["91tok/s", "3.2ms", "400Gb/s"]),
    ("327,680 B/token", ["327680B/token"]),
    ("an 8B model, a Llama 3 70B, FP16, item 3.5, 2 × 3 layers, A100 80", []),
    ("`2.684 GB` in code, $$2.684 GB$$", []),
    ("inline $2.684\\ \\text{GB}$ counts", ["2.684GB"]),
    ("[3 GB](https://example.org/80GB)", ["3GB"]),
    ("```\n80 GB\n```", []),
    ("1.2 × 10⁹ B", ["1.2×10⁹B"]),
]


@pytest.mark.parametrize(("text", "found"), FIGURES)
def test_figures_are_found_in_prose(text, found):
    assert claims_check.figures(claims_check.prose(text)) == found


def notebook(*cells):
    return new_notebook(cells=[new_markdown_cell(c) if prose else new_code_cell(c) for prose, c in cells])


def test_every_figure_needs_one_of_the_three():
    page = notebook(
        (True, "It needs 2.684 GB of 80 GB, 96.3 % [source] and 7 ms."),
        (False, 'claim("2.684 GB", x, id="a"); given("80 GB")\nquoted("96.3 %", source="kwon2023")'),
        (False, "%timeit nonsense("),
    )
    assert claims_check.unsupported(page, "p") == ["p, cell 0: 7ms has no claim(), quoted() or given()"]
    page.cells[1].source += '\ngiven("7 ms")'
    assert claims_check.unsupported(page, "p") == []


def test_a_figure_spelled_otherwise_is_the_same_but_another_precision_is_not():
    page = notebook((True, "327680 B/token, 2.68 GB"), (False, 'given("327,680 B/token", "2.684 GB")'))
    assert claims_check.unsupported(page, "p") == ["p, cell 0: 2.68GB has no claim(), quoted() or given()"]


def test_sources_must_be_in_the_bibliography(tmp_path):
    (tmp_path / "r.bib").write_text("@misc{kwon2023,\n title={x}}\n@article{ yu2022orca, }\n")
    keys = claims_check.citation_keys(tmp_path / "r.bib")
    assert keys == {"kwon2023", "yu2022orca"}
    page = notebook((False, 'quoted("1 %", source="kwon2023"); quoted("2 %", source="kwon2032")'))
    found = claims_check.unknown_sources(claims_check.entries(page, "p"), keys)
    assert found == ["p: quoted('2 %') cites 'kwon2032', which is not in references.bib"]


def test_the_ledger_lists_notebooks_in_reading_order(tmp_path, capsys):
    path = tmp_path / "01_page.ipynb"
    page = notebook((True, "7 ms"), (False, 'claim("1 GB", 1e9, id="a")\nclaim("2 GB", 2e9, id="a")'))
    path.write_text(nbformat.writes(page))
    assert [(e.notebook, e.id, e.ordinal) for e in claims_check.ledger([path])] == [
        ("01_page", "a", 1),
        ("01_page", "a", 2),
    ]
    assert claims_check.main([str(path)]) == 1
    out, err = capsys.readouterr()
    assert "✓ 2 GB" in out and "7ms has no claim" in err
