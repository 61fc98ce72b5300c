"Maps and studio in a real browser, as a learner uses them: a page of its own, and the lessons in JupyterLab. Nothing may come from the network."

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROME = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p), None)
pytestmark = pytest.mark.skipif(
    CHROME is None, reason='Chromium is missing (Debian: apt-get install chromium)'
)
FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    # whatever asks for another host fails, and is seen to fail
    '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
]


@contextmanager
def lab(root, home):
    "A JupyterLab server on 127.0.0.1 with folders of its own."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    token, names = (
        secrets.token_hex(8),
        (
            'JUPYTER_CONFIG_DIR',
            'JUPYTER_DATA_DIR',
            'JUPYTER_RUNTIME_DIR',
            'JUPYTERLAB_SETTINGS_DIR',
            'JUPYTERLAB_WORKSPACES_DIR',
            'IPYTHONDIR',
            'MPLCONFIGDIR',
        ),
    )
    env = (
        {k: v for k, v in os.environ.items() if k != 'MPLBACKEND'}
        | {n: str(home / n.lower()) for n in names}
        | {'PYTHONPATH': str(ROOT), 'EARTHGPT_LITE_FAST': '1', 'HF_HUB_OFFLINE': '1'}
    )
    command = [
        sys.executable,
        '-m',
        'jupyterlab',
        '--no-browser',
        '--allow-root',
        '--ip=127.0.0.1',
        f'--port={port}',
        '--ServerApp.port_retries=0',
        f'--IdentityProvider.token={token}',
        f'--ServerApp.root_dir={root}',
        '--expose-app-in-browser',
        '--LabApp.news_url=',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
        '--LabApp.extension_manager=readonly',
    ]
    with open(home / 'lab.log', 'w') as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(240):
            if process.poll() is not None:
                raise RuntimeError((home / 'lab.log').read_text()[-3000:])
            try:
                urllib.request.urlopen(f'http://127.0.0.1:{port}/api/status?token={token}', timeout=2)
                break
            except OSError:
                time.sleep(0.25)
        yield f'http://127.0.0.1:{port}', token
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope='module')
def chromium():
    sync = pytest.importorskip('playwright.sync_api', reason='playwright is missing (pip install playwright)')
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROME, headless=True, args=FLAGS)
        yield browser
        browser.close()


def watched(browser, **viewport):
    "A page that keeps what it asked for, what failed and what went wrong."
    page = browser.new_page(viewport=viewport)
    page.asked, page.failed, page.wrong = [], [], []
    page.on('request', lambda r: page.asked.append(r.url))
    # JupyterLab takes back a picture's relative or attached address and asks for the right one
    page.on(
        'requestfailed',
        lambda r: (
            None
            if r.url.startswith('attachment:') or '/lab/tree/' in r.url and 'ABORTED' in r.failure
            else page.failed.append(r.url)
        ),
    )
    page.on('console', lambda m: page.wrong.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: page.wrong.append(str(e)))
    return page


def clean(page, *known):
    "Nothing was asked of the network, nothing failed, no error was said but the known ones."
    assert not [
        u
        for u in page.asked
        if not u.startswith(
            ('http://127.0.0.1', 'ws://127.0.0.1', 'file:', 'data:', 'blob:', 'about:', 'attachment:')
        )
    ], page.asked
    assert not page.failed and not [m for m in page.wrong if not any(k in m for k in known)], (
        page.failed,
        page.wrong,
    )


@pytest.fixture(scope='module')
def open_lesson(chromium, tmp_path_factory):
    "Open a lesson and run all of it; the page, and what went wrong in it."
    home, root = tmp_path_factory.mktemp('home'), tmp_path_factory.mktemp('root')
    (root / 'nbs/7_app').mkdir(parents=True)
    (root / 'earthgpt_lite').symlink_to(ROOT / 'earthgpt_lite')
    if (ROOT / 'runs').exists():
        (root / 'runs').symlink_to(ROOT / 'runs')
    with lab(root, home) as (base, token):

        def start(name):
            shutil.copy(ROOT / 'nbs' / name, root / 'nbs' / name)
            page = watched(chromium, width=1400, height=1600)
            page.set_default_timeout(240_000)  # of a machine that has much else to do
            page.goto(f'{base}/lab/tree/nbs/{name}?reset&token={token}')
            page.wait_for_selector('.jp-Notebook .jp-Cell', timeout=240_000)
            page.wait_for_function(
                "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
                timeout=240_000,
            )
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
            page.wait_for_function(
                """() => { const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code' && w.model.sharedModel.getSource().trim());
                return cells.every(w => w.model.executionCount !== null && w.model.executionState !== 'running')
                    || cells.some(w => [...Array(w.model.outputs.length).keys()].some(i => w.model.outputs.get(i).type === 'error')) }""",
                timeout=400_000,
            )
            bad = page.evaluate("""() => window.jupyterapp.shell.currentWidget.content.widgets.flatMap((w, k) => w.model.type !== 'code' ? [] : [...Array(w.model.outputs.length).keys()]
                .map(i => w.model.outputs.get(i).toJSON()).filter(o => o.output_type === 'error').map(o => `cell ${k}: ${o.ename}: ${o.evalue}`))""")
            assert not bad, bad
            return page

        yield start


def scroll_to(page, words):
    "Bring the cell that holds some words into view, so that its output is drawn."
    page.evaluate(
        """words => { const nb = window.jupyterapp.shell.currentWidget.content;
        const k = nb.widgets.findIndex(w => w.model.type === 'code' && w.model.sharedModel.getSource().trim().endsWith(words)); nb.activeCellIndex = k; nb.scrollToItem(k, 'start'); }""",
        words,
    )
    page.wait_for_timeout(800)


LOADED = "() => document.querySelectorAll('img.leaflet-image-layer').length >= 2 && [...document.querySelectorAll('img.leaflet-image-layer')].every(i => i.complete && i.naturalWidth > 50)"
NASTY = '<img src=x onerror="window.hacked=1">'


def said(label, text, *box):
    "A feature as `survey` writes it, with text that wants to be code."
    west, south, east, north = box
    return dict(
        type='Feature',
        geometry=dict(
            type='Polygon',
            coordinates=[[[west, south], [east, south], [east, north], [west, north], [west, south]]],
        ),
        properties=dict(label=label, logprob=-0.5, answer=text, tiles=1),
    )


def test_a_map_page_without_a_network(chromium, tmp_path):
    "A page as `earthgpt-lite map` writes it, opened from the disk: overlay, popups, layers, a box that is drawn and saved."
    from earthgpt_lite.app.maps import write_map
    from earthgpt_lite.data.sample.world_map import DATA
    from earthgpt_lite.raster.reading import read_scene

    answers = dict(
        type='FeatureCollection',
        features=[
            said('island', 'an island', 79.7, 5.9, 81.9, 9.8),
            said('<script>window.hacked=1</script>', f'{NASTY} *bold* {{{{ 6*7 }}}}', 78.3, 9.3, 79, 10),
        ],
    )
    path = write_map(
        tmp_path / 'map.html', read_scene(DATA / 'global_optical.tif', window=(3870, 1190, 60, 70)), answers
    )
    page = watched(chromium, width=900, height=850)
    page.goto(path.as_uri())
    page.wait_for_selector('.leaflet-container', timeout=20_000)
    page.wait_for_function(LOADED, timeout=20_000)
    assert '<script>window.hacked=1</script>' in page.locator('.legend').inner_text()
    for k in range(2):
        page.locator('path.leaflet-interactive').nth(k).dispatch_event(
            'click', {'clientX': 300, 'clientY': 300}
        )
        page.wait_for_function(
            "t => document.querySelector('.leaflet-popup-content')?.innerText.includes(t)",
            arg=('an island', f'{NASTY} *bold* {{{{ 6*7 }}}}')[k],
            timeout=10_000,
        )
    assert (
        page.locator('.leaflet-popup-content img').count() == 0
        and page.evaluate('() => window.hacked') is None
    )
    page.locator('.leaflet-popup-close-button').last.click()
    page.wait_for_timeout(500)
    page.locator('.leaflet-draw-draw-rectangle').click()
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(380, 360)
    page.mouse.move(400, 380)
    page.mouse.up()
    page.wait_for_function(
        "() => document.querySelectorAll('path.leaflet-interactive').length === 3", timeout=5_000
    )
    with page.expect_download() as saved:
        page.locator('#export').click()
    ring = json.loads(Path(saved.value.path()).read_text())['features'][0]['geometry']['coordinates'][0]
    assert all(70 < lon < 90 and 0 < lat < 15 for lon, lat in ring)
    page.locator('.leaflet-control-layers').hover()
    boxes = page.locator('.leaflet-control-layers-overlays input')
    names = page.locator('.leaflet-control-layers-overlays').inner_text()
    assert boxes.count() >= 3 and 'Blue Marble' in names and 'global_optical' in names
    boxes.nth(names.split('\n').index(next(n for n in names.split('\n') if 'answers' in n))).uncheck()
    assert page.locator('path.leaflet-interactive').count() == 1  # only what was drawn
    clean(page)
    page.close()


CUTS = """() => [...document.querySelectorAll('img.leaflet-image-layer[src^="data:image/webp"]')].slice(-2).map(i => {
    const sides = getComputedStyle(i).clipPath.match(/inset\\((.*)\\)/)[1].split(' ').map(parseFloat);
    const r = i.getBoundingClientRect(); const [top, right, bottom, left] = [0, 1, 2, 3].map(k => sides[k] ?? sides[k % 2] ?? sides[0]);
    return [r.left, r.left + left, r.right - right, r.right]; })"""


@pytest.mark.parametrize('width', [1000, 360])
def test_two_dates_under_a_slider_without_a_network(chromium, tmp_path, width):
    "The left is one date and the right the other, wherever finger, mouse or keys put the line."
    from earthgpt_lite.app.maps import write_map
    from earthgpt_lite.data.sample.world_map import DATA

    dates = [DATA / f'sentinel1_sabah_{d}.tif' for d in ('2017-01-24', '2018-11-03')]
    page = watched(chromium, width=width, height=720)
    page.goto(write_map(tmp_path / 'two.html', dates).as_uri())
    page.wait_for_selector('.swipe-slider', timeout=20_000)
    page.wait_for_function(LOADED, timeout=20_000)
    page.wait_for_timeout(500)
    assert '2017-01-24' in page.locator('.swipe-name').first.inner_text()

    def line():
        "Where the line stands; both pictures end there."
        box = page.locator('.swipe-line').bounding_box()
        x = box['x'] + box['width'] / 2
        (left, _, first_ends, right), (_, second_begins, _, _) = page.evaluate(CUTS)
        cut = min(max(x, left), right)  # the line may stand beside the pictures
        assert abs(first_ends - cut) < 1.5 and abs(second_begins - cut) < 1.5
        return x

    assert abs(line() - width / 2) < 1.5
    handle = 360
    page.mouse.move(width / 2, handle)
    page.mouse.down()
    page.mouse.move(0.6 * width, handle, steps=4)
    page.mouse.up()
    assert abs(line() - 0.6 * width) < 2
    before = page.evaluate(CUTS)
    page.locator('body').press('Tab')
    for _ in range(30):  # the slider is reached by keys alone
        if page.evaluate("() => document.activeElement.matches('.swipe-slider')"):
            break
        page.keyboard.press('Tab')
    page.keyboard.press('ArrowLeft')
    assert abs(line() - 0.58 * width) < 2
    page.keyboard.press('Home')
    assert line() < 2
    page.keyboard.press('End')
    assert line() > width - 2
    page.keyboard.press('PageDown')
    assert abs(line() - 0.9 * width) < 2
    # the map moves below the line, and the slider has not moved the map
    where = "() => document.querySelectorAll('img.leaflet-image-layer')[1].getBoundingClientRect().left"
    left = page.evaluate(where)
    page.mouse.move(0.3 * width, 500)
    page.mouse.down()
    page.mouse.move(0.3 * width + 40, 520, steps=5)
    page.wait_for_timeout(300)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert page.evaluate(where) > left + 20 and abs(line() - 0.9 * width) < 2 and before
    page.locator('.leaflet-control-zoom-in').click()
    page.wait_for_timeout(700)
    assert abs(line() - 0.9 * width) < 2
    page.screenshot(path=tmp_path / 'swipe.png')
    clean(page)
    page.close()


@pytest.mark.slow
def test_the_map_lesson(open_lesson, tmp_path):
    page = open_lesson('7_app/06_maps.ipynb')
    scroll_to(page, '\nm')
    frame = page.locator('iframe').first.element_handle().content_frame()
    frame.wait_for_selector('.leaflet-container', timeout=20_000)
    frame.wait_for_function(
        "() => [...document.querySelectorAll('img.leaflet-image-layer')].length >= 2 && [...document.querySelectorAll('img.leaflet-image-layer')].every(i => i.complete && i.naturalWidth > 50)",
        timeout=20_000,
    )
    assert (
        frame.locator('path.leaflet-interactive').count() == 2
        and frame.locator('.leaflet-control-layers').count() == 1
    )
    legend = frame.locator('.legend').inner_text()
    assert 'island' in legend and '<script>window.hacked=1</script>' in legend
    for k in range(2):
        frame.locator('path.leaflet-interactive').nth(k).dispatch_event(
            'click', {'clientX': 100, 'clientY': 100}
        )
        frame.wait_for_selector('.leaflet-popup-content', timeout=10_000)
        page.wait_for_timeout(400)
    assert (
        '<img src=x onerror="window.hacked=1">' in frame.locator('.leaflet-popup-content').last.inner_text()
    )
    assert (
        frame.evaluate('() => window.hacked') is None
        and frame.locator('.leaflet-popup-content img').count() == 0
    )
    clean(page)
    page.close()


@pytest.mark.slow
def test_the_studio_lesson(open_lesson):
    page = open_lesson('7_app/08_studio.ipynb')
    scroll_to(page, '\nlive') if page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.some(w => w.model.sharedModel.getSource().endsWith('\\nlive'))"
    ) else scroll_to(page, 'live')
    picture = page.locator('.studio-picture img').last
    picture.wait_for(timeout=30_000)
    picture.scroll_into_view_if_needed()
    before = page.locator('.studio-answer').count()
    question = page.get_by_placeholder('a question, and Enter').last
    question.fill('where is the island?')
    question.press('Enter')
    page.wait_for_function(
        'n => document.querySelectorAll(".studio-answer").length > n', arg=before, timeout=60_000
    )
    src = picture.get_attribute('src')
    handle = (
        picture.locator('xpath=ancestor::*[contains(@class, "widget-vbox")][1]')
        .locator('.noUi-handle')
        .nth(1)
    )
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(3):
        page.keyboard.press('ArrowLeft')
    page.wait_for_function('([e, s]) => e.src !== s', arg=[picture.element_handle(), src], timeout=30_000)
    picture.scroll_into_view_if_needed()
    box, count = picture.bounding_box(), page.locator('.studio-answer').count()
    page.mouse.move(box['x'] + 0.2 * box['width'], box['y'] + 0.3 * box['height'])
    page.mouse.down()
    page.mouse.move(box['x'] + 0.5 * box['width'], box['y'] + 0.5 * box['height'])
    page.mouse.move(box['x'] + 0.6 * box['width'], box['y'] + 0.7 * box['height'])
    page.mouse.up()
    page.wait_for_function(
        "() => /box \\[0.(19|20|21),0.(29|30|31),0.(59|60|61),0.(69|70|71)\\]/.test(document.body.innerText)",
        timeout=20_000,
    )
    page.get_by_role('button', name='describe box').last.click()
    page.wait_for_function(
        'n => document.querySelectorAll(".studio-answer").length > n', arg=count, timeout=60_000
    )
    assert re.search(
        r'\[0\.\d\d,0\.\d\d,0\.\d\d,0\.\d\d\]',
        page.locator('.jp-OutputArea-output').last.inner_text() + page.inner_text('body'),
    )
    clean(page, 'ERR_UNKNOWN_URL_SCHEME')  # of a picture that is attached, before JupyterLab finds it
    page.close()


@pytest.mark.slow
def test_two_panes_stand_side_by_side_or_below_each_other(open_lesson, tmp_path):
    page = open_lesson('7_app/08_studio.ipynb')
    scroll_to(page, 'both')
    page.evaluate(
        "() => { const nb = window.jupyterapp.shell.currentWidget.content; nb.activeCell.node.id = 'two'; }"
    )
    panel = page.locator('#two')
    pictures = panel.locator('.studio-picture img')
    page.wait_for_function("() => document.querySelectorAll('#two .studio-picture img').length === 2")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#two .studio-picture img')].every(i => i.naturalWidth > 50)"
    )
    first, last = (pictures.nth(k).bounding_box() for k in range(2))
    assert first['x'] + first['width'] < last['x'] and abs(first['y'] - last['y']) < 3
    page.screenshot(path=tmp_path / 'wide.png')
    # a box drawn on the first is a question about the first
    panel.get_by_role('button', name='after', exact=True).click()
    box = pictures.nth(0).bounding_box()
    page.mouse.move(box['x'] + 0.2 * box['width'], box['y'] + 0.3 * box['height'])
    page.mouse.down()
    page.mouse.move(box['x'] + 0.6 * box['width'], box['y'] + 0.7 * box['height'], steps=3)
    page.mouse.up()
    page.wait_for_function("() => /box \\[0.(19|20|21),0/.test(document.querySelector('#two').innerText)")
    chosen = panel.locator('.widget-toggle-button.mod-active')
    assert chosen.inner_text().strip() == 'before'
    count = panel.locator('.studio-answer').count()
    panel.get_by_role('button', name='describe box').click()
    page.wait_for_function(
        'n => document.querySelectorAll("#two .studio-answer").length > n', arg=count, timeout=60_000
    )
    # a model of one picture says so
    panel.get_by_role('button', name='both', exact=True).click()
    page.wait_for_function(
        "() => document.querySelector('#two').innerText.includes('trained with one picture in a question')"
    )
    page.set_viewport_size(dict(width=520, height=1900))
    page.wait_for_timeout(1500)
    panel.scroll_into_view_if_needed()
    first, last = (pictures.nth(k).bounding_box() for k in range(2))
    assert last['y'] > first['y'] + first['height'] and abs(first['x'] - last['x']) < 3
    page.screenshot(path=tmp_path / 'narrow.png')
    clean(page, 'ERR_UNKNOWN_URL_SCHEME')
    page.close()
