"The report opens alone, escapes what models say, and shows right and wrong."

import re

import numpy as np
import pytest

from earthgpt_lite.eval.report import (
    is_ahead,
    results_markdown,
    results_table,
    table_html,
    write_page,
    write_report,
)

ROW = dict(
    task='presence',
    sensor='optical',
    metric='accuracy',
    n=200,
    score=0.9,
    interval=[0.86, 0.94],
    prior=0.5,
    shuffled=0.6,
    blind=0.55,
)


@pytest.mark.parametrize(
    'change, ahead',
    [
        ({}, True),
        ({'blind': 0.87}, False),
        ({'n': 99}, None),
        ({'prior': None, 'shuffled': None, 'blind': None}, None),
        ({'metric': 'MAE', 'interval': [0.1, 0.2]}, True),
        ({'metric': 'MAE'}, False),
    ],
)
def test_ahead(change, ahead):
    assert is_ahead(ROW | change) is ahead


def test_a_pool_is_ahead_only_if_one_of_its_sources_is(tmp_path):
    "Two sources, each with a rival of its own: neither is ahead, the two together seem to be."
    pool, a, b = (
        ROW | dict(prior=0.6, shuffled=0.6),
        ROW | dict(source='a', prior=0.89),
        ROW | dict(source='b', shuffled=0.89),
    )
    assert is_ahead(pool) is True and is_ahead(pool, sources=[a, b]) is False
    assert is_ahead(pool, sources=[a, ROW | dict(source='b')]) is True
    # none of them is ranked: the pool decides
    assert is_ahead(pool, sources=[a | dict(n=99), b | dict(n=99)]) is True
    assert (
        is_ahead(pool, sources=[r | {k: 'other'} for r in (a, b) for k in ('task', 'sensor', 'metric')])
        is True
    )
    assert results_table([pool], [a, b]).endswith('not ahead') and results_markdown([pool], [a, b]).endswith(
        'not ahead |'
    )
    page = write_report(
        tmp_path / 'r.html', dict(results=[pool], sources=[a, b], test=[pool], test_sources=[a, b])
    ).read_text()
    assert 'class="ahead"' not in page and page.count('not ahead') == 6


def test_tables():
    text = results_table([ROW, ROW | dict(task='counting', n=12, prior=None)]).splitlines()
    assert (
        len(text) == 4
        and 'ahead' in text[2]
        and 'n < 100' in text[3]
        and text[2].index('0.900') == text[3].index('0.900')
    )
    assert (
        results_markdown([ROW]).splitlines()[2]
        == '| presence | optical | accuracy | 200 | 0.900 | 0.860 to 0.940 | 0.500 | 0.600 | 0.550 | ahead |'
    )


def test_report_stands_alone_and_escapes(tmp_path):
    image = np.full((32, 32, 3), 90, np.uint8)
    evil = '<script src="http://x.y/z.js"></script><img onerror=alert(1)>'
    item = dict(
        image=image,
        turns=[
            dict(task='presence', question=evil, answer=evil, truth='yes'),
            dict(task='presence', question='q', answer='Yes.', truth='yes'),
            dict(task='grounding', question='where?', answer='[0.1,0.1,0.5,0.5]', truth='[0.2,0.2,0.6,0.6]'),
        ],
    )
    path = write_report(
        tmp_path / 'report.html',
        dict(train={'seconds': 3}, results=[ROW], test=[ROW], versions={'torch': '2'}, machine=evil),
        [(0, 4.0), (10, 2.0)],
        [item],
    )
    page = path.read_text()
    assert '<script' not in page and '<img onerror' not in page and '&lt;script' in page
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:)|url\(|@import', page)
    assert (
        'turn wrong' in page and 'turn right' in page and page.count('data:image/png') == 1 and '<svg' in page
    )
    assert [p.name for p in tmp_path.iterdir()] == ['report.html']


def test_what_no_template_made_is_escaped(tmp_path):
    "Also a part of a page, a name and a value that somebody forgot to escape"
    evil = '<script>alert(1)</script>'
    parts = {evil: evil, 'table': table_html([{evil: evil}])}
    page = write_page(tmp_path / 'p.html', evil, parts).read_text()
    assert '<script' not in page and page.count('&lt;script') == 6 and '<td>&lt;script' in page


def test_report_of_little(tmp_path):
    page = write_report(tmp_path / 'r.html', {}).read_text()
    assert 'No results' in page and 'No loss' in page


def test_a_column_for_the_source_if_there_is_one():
    text = results_table([ROW | {'source': 'trees'}, ROW | {'source': 'global'}]).splitlines()
    assert (
        text[0].split()[:4] == ['task', 'source', 'sensor', 'metric']
        and text[2].split()[:2] == ['presence', 'trees']
        and 'source' not in results_table([ROW])
    )
    bare = {k: v for k, v in ROW.items() if k != 'sensor'}
    assert 'sensor' not in results_table([bare]) and results_markdown([bare]).splitlines()[2].startswith(
        '| presence | accuracy | 200 |'
    )


def test_a_table_by_source(tmp_path):
    rows = [ROW | {'source': s, 'n': n} for s, n in (('trees<b>', 99), ('global', 100))]
    page = write_report(tmp_path / 'r.html', dict(results=[ROW], sources=rows)).read_text()
    assert 'By source' in page and 'trees&lt;b&gt;' in page and page.count('<th>source</th>') == 1
    assert (
        page.count('<tr class="few">') == 1
        and page.count('few (n &lt; 100)') == 1
        and page.count('<tr class="ahead">') == 2
    )
    assert 'By source' not in write_report(tmp_path / 'r.html', dict(results=[ROW])).read_text()


def test_any_rows_as_a_table():
    page = table_html([{'class': '<b>', 'AP': 0.5, 'interval': [0.25, 0.75], 'n': 3, 'left_out': None}])
    assert (
        '<td>&lt;b&gt;</td><td class=num>0.500</td><td>0.250 to 0.750</td><td class=num>3</td><td></td>'
        in page
        and '<th>left out</th>' in page
    )
