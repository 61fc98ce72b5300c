"The page of the server in a real browser, on a desk and on a phone; nothing comes from another host."

import shutil
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip('fastapi')
openai = pytest.importorskip('openai')
CHROME = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p), None)
pytestmark = pytest.mark.skipif(
    CHROME is None, reason='Chromium is missing (Debian: apt-get install chromium)'
)

from test_serve import EXAMPLES, SCENE, running, until

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.gate import Guard
from earthgpt_lite.app.intake import Limits
from earthgpt_lite.model.loading import load

FLAGS = ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1']
PHONE = dict(viewport=dict(width=390, height=800), has_touch=True, is_mobile=True, color_scheme='dark')


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROME, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    asker = Assistant(*load('nano', 'cpu'), 'nano')
    with running(asker, Limits(root=str(SCENE.parent)), Guard('secret')) as found:
        until(lambda: found.service.batcher)
        yield found


def opened(browser, server, **how):
    "The page, and what went wrong in it"
    page, faults = browser.new_context(**how).new_page(), []
    page.on('console', lambda message: faults.append(message.text) if message.type == 'error' else None)
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.on(
        'request',
        lambda r: (
            faults.append(r.url)
            if f'127.0.0.1:{server.port}' not in r.url
            and ':' in r.url[:9]
            and not r.url.startswith(('data:', 'blob:'))
            else None
        ),
    )
    page.goto(f'http://127.0.0.1:{server.port}/')
    page.get_by_text('nano is ready').wait_for()
    return page, faults


def ask(page, question, file=None, path='', token='secret'):
    if page.locator('#token').is_hidden():
        page.get_by_text('More', exact=True).click()
    page.fill('#token', token)
    page.fill('#path', path)
    if file:
        page.set_input_files('#files', file)
    page.fill('#question', question)
    page.get_by_role('button', name='Ask').click()
    page.locator('#go:enabled').wait_for(timeout=60_000)


def shot(page, name):
    folder = Path('/tmp/serve_shots')
    if folder.is_dir():
        page.screenshot(path=folder / f'{name}.png', full_page=True)


def test_a_picture_a_question_boxes_and_a_map(browser, server, tmp_path):
    page, faults = opened(browser, server, viewport=dict(width=1100, height=800))
    example, turn = next((e, t) for e in EXAMPLES for t in e.turns if '[' in t.answer)
    picture = tmp_path / 'island <b>1.png'
    Image.fromarray(example.image).save(picture)
    shot(page, 'empty')
    ask(page, turn.question, picture)
    asker = server.service.completions.asker
    expected = asker.ask(example.image, turn.question)
    assert page.inner_text('#text') == expected.text
    assert (
        page.locator('#boxes rect').count()
        == len(expected.boxes)
        == page.locator('#list tbody tr').count()
        > 0
    )
    box, seen = page.locator('#boxes rect').first.bounding_box(), page.locator('#picture').bounding_box()
    x1, y1, x2, _ = expected.pixel_boxes[0] / 64
    assert abs((box['x'] - seen['x']) / seen['width'] - x1) < 0.02
    assert abs((box['y'] - seen['y']) / seen['height'] - y1) < 0.02
    assert abs(box['width'] / seen['width'] - (x2 - x1)) < 0.02
    assert page.locator('#geojson').is_hidden()
    shot(page, 'box')
    ask(page, 'where is the lake?', path=SCENE.name)
    assert 'EPSG:32618' in page.inner_text('#crs')
    with page.expect_download() as saved:
        page.get_by_role('button', name='GeoJSON').click()
    assert '"FeatureCollection"' in Path(saved.value.path()).read_text()
    shot(page, 'scene')
    assert faults == []
    page.context.close()


def test_what_goes_wrong_is_told_on_a_phone_in_the_dark(browser, server, tmp_path):
    page, _ = opened(browser, server, **PHONE)
    ask(page, 'where?', path='none.tif')
    assert 'none.tif: cannot be read' in page.inner_text('#text')
    ask(page, 'where?', path=SCENE.name, token='sesame')
    assert 'the token is wrong' in page.inner_text('#text')
    picture = tmp_path / 'noise.png'
    Image.effect_noise((64, 64), 90).convert('RGB').save(picture)
    ask(page, 'where is the unicorn?', picture)
    assert page.locator('.warning').count() > 0
    wide = page.evaluate('[document.documentElement.scrollWidth, innerWidth]')
    assert wide[0] <= wide[1]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == 'rgb(18, 23, 20)'
    shot(page, 'phone')
    page.context.close()
