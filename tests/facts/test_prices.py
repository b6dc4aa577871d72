"""Prices are dated and sourced, and API prices are what the named table says."""

import csv
import dataclasses
import gzip

import pytest

from labcore import facts
from labcore.core.errors import DataError, InputError
from labcore.core.files import data_dir
from labcore.facts import ApiPrice, GpuPrice


def prices(kind):
    return [p for p in map(facts.price, facts.price_ids()) if isinstance(p, kind)]


@pytest.mark.parametrize("price", prices(GpuPrice), ids=lambda p: p.id)
def test_gpu_prices(price):
    assert 0.1 < price.usd_per_hour < 20 and price.terms and price.source and price.as_of
    assert price.id.endswith(f".{facts.hardware(price.hardware).id}")


@pytest.mark.parametrize("price", prices(ApiPrice), ids=lambda p: p.id)
def test_api_prices(price):
    assert "litellm 1.106.2" in price.source and price.as_of
    assert 0 < price.input <= price.output
    assert (price.cache_read or 0) < price.input and (price.batch_input or 0) < price.input


def test_api_prices_are_those_of_the_table():
    folder = data_dir()
    if folder is None:
        pytest.skip("LABCORE_DATA is not set: the price table is not here")
    with gzip.open(folder / "prices/litellm_1.106.2_usd_per_mtok.csv.gz", "rt", newline="") as file:
        table = {(row["provider"], row["model"]): row for row in csv.DictReader(file)}
    fields = [f.name for f in dataclasses.fields(ApiPrice)][3:10]
    for price in prices(ApiPrice):
        row = table[price.provider, price.model]
        assert [getattr(price, name) for name in fields] == [float(row[name]) if row[name] else None for name in fields]


def test_an_unknown_id_names_close_ones():
    with pytest.raises(InputError, match=r"did you mean .*openai\.gpt-4o"):
        facts.price("openai.gpt4o")


def test_a_price_of_nothing_is_refused():
    with pytest.raises(DataError, match="usd_per_hour=0 must be above 0"):
        dataclasses.replace(facts.price("aws.t4"), usd_per_hour=0)
    with pytest.raises(InputError, match="no hardware 'h800'"):
        dataclasses.replace(facts.price("aws.t4"), hardware="h800")
