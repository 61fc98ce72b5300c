"The table of readers."

import pytest
from fixtures_readers import BUILD

from earthgpt_lite.data.registry import (
    CHECKED,
    READERS,
    find_reader,
    list_readers,
    mmrs1m_table,
    readers_table,
)
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Sensor


def test_every_reader_has_a_fixture():
    assert set(BUILD) == set(READERS)


def test_misspelt_reader_gets_a_proposal():
    with pytest.raises(BadInput, match='did you mean.*hrsid'):
        find_reader('HRSDI')
    with pytest.raises(BadInput, match='data list'):
        find_reader('qqqqqqq')


def test_tables_name_every_reader_and_the_34_sets():
    assert all(f'`{r.name}`' in readers_table() for r in list_readers())
    assert set(READERS) >= set(CHECKED) and all(READERS[name].verified for name in CHECKED)
    rows = mmrs1m_table().splitlines()[2:]
    states = ('checked against a file', 'layout documented', '**unverified**')
    assert len(rows) == 34 and all(sum(state in r for state in states) == 1 for r in rows)
    assert sum('| sar |' in r for r in rows) == 3 and sum('| infrared |' in r for r in rows) == 6
    assert all(('**unverified**' in r) == (not READERS[r.split('`')[1]].verified) for r in rows)


def test_the_page_is_in_step_with_the_table():
    from pathlib import Path

    page = (Path(__file__).parents[2] / 'docs/mmrs1m.md').read_text(encoding='utf-8')
    assert mmrs1m_table() in page and readers_table() in page


def test_sensors_of_the_table():
    assert {r.sensor for r in list_readers()} == set(Sensor)
