"Tools for agents: answers as by hand, work that is followed and stopped, one folder and nothing else, one sentence for each error."

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from fixtures_app import raster, refused, run_cli  # noqa: F401
from PIL import Image

mcp = pytest.importorskip('mcp')

from earthgpt_lite.app import mcp as command
from earthgpt_lite.app.agent_desk import Desk
from earthgpt_lite.app.agent_tools import MOST_LISTED, AgentTools
from earthgpt_lite.app.model_commands import answer_record
from earthgpt_lite.app.agents import make_server
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.change import survey_change
from earthgpt_lite.app.survey import survey
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.loading import load

# rasterio's is kept quiet where files are read, and in several threads at once that does not hold
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')

LABELS = ['water', 'forest', 'cropland']
PLACE = dict(crs='EPSG:32618', transform=Affine(10, 0, 440_000, 0, -10, 4_170_000))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def nano():
    return Assistant(*load('nano', 'cpu'), 'nano')


@pytest.fixture
def root(tmp_path):
    "A folder with a scene of 16 tiles, its second date, a photo, and what is none; a file outside of it"
    folder = tmp_path / 'root'
    (folder / 'deep').mkdir(parents=True)
    with rasterio.open(DATA / 'sentinel2_virginia.tif') as f:
        for name, row in (('scene', 700), ('later', 1000)):
            window = ((row, row + 256), (600, 856))
            place = dict(crs=f.crs, transform=f.transform @ Affine.translation(600, 700))
            raster(folder / f'{name}.tif', f.read(window=window), names=f.descriptions, **place)
    Image.fromarray(np.full((40, 60, 3), (18, 40, 110), 'uint8')).save(folder / 'deep' / 'photo.png')
    (folder / 'broken.tif').write_bytes((folder / 'scene.tif').read_bytes()[:2000])
    (folder / 'notes.txt').write_text('a lake')
    (tmp_path / 'secret.tif').write_bytes((folder / 'scene.tif').read_bytes())
    return folder


class Talk:
    "A server for an assistant, and what its client hears; calls are made one after the other, or all at once"

    def __init__(self, assistant, root, mode='legacy'):
        self.desk = Desk(AgentTools(lambda: assistant, root))
        self.server, self.mode = make_server(self.desk, 'nano'), mode

    def run(self, work):
        async def connected():
            async with mcp.Client(self.server, mode=self.mode) as client:
                return await work(client)

        return asyncio.run(asyncio.wait_for(connected(), 120))

    def calls(self, *calls):
        async def work(client):
            return await asyncio.gather(*(client.call_tool(name, facts) for name, facts in calls))

        return self.run(work)

    def facts(self, name, **facts):
        (answer,) = self.calls((name, facts))
        assert not answer.is_error, answer.content
        assert json.loads(answer.content[0].text) == answer.structured_content
        return answer.structured_content

    def error(self, name, **facts):
        "The sentence of a refusal"
        (answer,) = self.calls((name, facts))
        (part,) = answer.content
        assert answer.is_error and part.text.isprintable() and 'Error executing' not in part.text
        return part.text


@pytest.fixture
def talk(nano, root):
    with_desk = Talk(nano, root)
    yield with_desk
    with_desk.desk.close()


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*'))


def features(path):
    "What a survey found, without when and how fast"
    found = json.loads(Path(path).read_text())
    assert found['type'] == 'FeatureCollection'
    return {key: value for key, value in found.items() if key not in ('created', 'seconds')}


def plain(value):
    return json.loads(json.dumps(value))


# ---- what an agent reads


def test_tools_are_listed_with_words_for_all_they_take(talk):
    async def work(client):
        return (await client.list_tools()).tools, client.instructions

    tools, instructions = talk.run(work)
    asked = {'rasters', 'look', 'ask', 'classify', 'ground', 'detect', 'compare', 'survey', 'survey_change'}
    assert {tool.name for tool in tools} == asked and 'root' in instructions
    for tool in tools:
        assert len(tool.description) > 30 and '\n' not in tool.description, tool.name
        fields = tool.input_schema['properties']
        assert 'context' not in fields
        bare = [name for name, field in fields.items() if len(field.get('description', '')) < 15]
        assert not bare, (tool.name, bare)
        assert tool.annotations.read_only_hint is not tool.name.startswith('survey')
    schema = next(tool for tool in tools if tool.name == 'survey').input_schema
    assert schema['properties']['how']['enum'] == ['classify', 'ask', 'ground', 'detect']
    assert schema['required'] == ['path', 'output', 'how', 'what']


def test_a_raster_is_looked_at_without_a_model(root):
    talk = Talk(None, root)
    (answer,) = talk.calls(('look', dict(path='scene.tif', side=128)))
    facts, (_, picture) = answer.structured_content, answer.content
    with rasterio.open(root / 'scene.tif') as f:
        assert (facts['width'], facts['height'], facts['bounds']) == (f.width, f.height, list(f.bounds))
        assert facts['bands'] == list(f.descriptions) and facts['crs'] == f.crs.to_string()
    west, south, east, north = facts['lonlat_bounds']
    assert -76 < west < east < -75 and 37 < south < north < 38 and facts['gsd'] == pytest.approx(10, rel=0.01)
    assert picture.mime_type == 'image/jpeg'
    import base64

    shown = Image.open(io.BytesIO(base64.b64decode(picture.data)))
    assert shown.size == (128, 128) and np.asarray(shown).std() > 5
    facts = talk.facts('look', path='deep/photo.png')
    assert facts['crs'] is None and 'bounds' not in facts and facts['width'] == 60
    talk.desk.close()


def test_bounds_across_the_date_line(tmp_path):
    "West is east of east, as in RFC 7946; what goes around the Earth, or a pole, has all longitudes"
    from earthgpt_lite.app.agent_tools import raster_facts

    places = dict(
        across=('EPSG:32601', Affine(1000, 0, 130_000, 0, -1000, 1_000_000)),
        world=('EPSG:4326', Affine(9, 0, -180, 0, -4.5, 90)),
        pacific=('EPSG:4326', Affine(9, 0, 0, 0, -4.5, 90)),
        pole=('EPSG:3413', Affine(1000, 0, -20_000, 0, -1000, 20_000)),
        beside=('EPSG:4326', Affine(0.1, 0, 176, 0, -0.1, 10)),
    )
    found = {}
    for name, (crs, transform) in places.items():
        pixels = np.ones((1, 40, 40), 'uint8')
        with rasterio.open(raster(tmp_path / f'{name}.tif', pixels, crs=crs, transform=transform)) as file:
            found[name] = raster_facts(file)['lonlat_bounds']
    west, south, east, north = found['across']
    assert 179 < west < 180 and -180 < east < -179 and 8 < south < north < 10
    assert found['world'][::2] == found['pacific'][::2] == found['pole'][::2] == [-180, 180]
    assert 89 < found['pole'][1] and found['pole'][3] == 90
    assert found['beside'] == [176, 6, 180, 10]


def test_rasters_are_listed_by_the_names_that_the_tools_take(talk, root):
    found = talk.facts('rasters')
    assert found == dict(rasters=['broken.tif', 'later.tif', 'scene.tif', 'deep/photo.png'], more=False)
    assert talk.facts('rasters', folder='deep')['rasters'] == ['deep/photo.png']
    (root / 'many').mkdir()
    for k in range(MOST_LISTED + 1):
        (root / 'many' / f'{k}.tif').touch()
    found = talk.facts('rasters', folder='many')
    assert len(found['rasters']) == MOST_LISTED and found['more']
    assert 'no folder' in talk.error('rasters', folder='gone')


# ---- answers as by hand


@pytest.mark.parametrize('mode', ['legacy', 'auto'])
def test_answers_are_those_of_the_assistant(nano, root, mode):
    talk, path = Talk(nano, root, mode), root / 'scene.tif'
    question = 'what covers most of this image?'
    by_hand = dict(
        ask=(dict(question=question), nano.ask(path, question)),
        classify=(dict(labels=LABELS), nano.classify(path, LABELS)),
        ground=(dict(phrase='the lake'), nano.ground(path, 'the lake')),
        detect=(dict(label='lake'), nano.detect(path, 'lake')),
    )
    for name, (facts, answer) in by_hand.items():
        told = talk.facts(name, path='scene.tif', **facts)
        assert told == plain(answer_record(answer)), name
        assert told['text'] == answer.text and told['geojson'] == plain(answer.to_geojson()), name
        if name == 'ground':
            assert len(told['box_scores']) == len(told['map_polygons']) == 1
    assert (
        by_hand['classify'][1].scores
        == talk.facts('classify', path='scene.tif', labels=LABELS)['probabilities']
    )
    talk.desk.close()


def test_how_a_file_is_read_reaches_the_model(talk, nano, root):
    question = 'what does this image show?'
    told = talk.facts('ask', path='scene.tif', question=question, bands=['B08', 3, 'green'], sensor='optical')
    chip = nano.chip(root / 'scene.tif', bands=['B08', 3, 'green'], sensor='optical')
    assert told['score'] == nano.ask(chip, question).score != nano.ask(root / 'scene.tif', question).score


def test_a_survey_is_that_of_the_command(talk, nano, root, tmp_path):
    done = talk.facts('survey', path='scene.tif', output='deep/out.geojson', how='classify', what=LABELS)
    by_hand = survey(nano, root / 'scene.tif', tmp_path / 'by_hand.geojson', classify=LABELS, progress=False)
    assert features(root / 'deep' / 'out.geojson') == features(by_hand.out)
    assert (done['output'], done['tiles']) == ('deep/out.geojson', 16)
    rows = [shape['properties'] for shape in features(by_hand.out)['features']]
    assert (
        done['places'] == by_hand.features == len(rows) == sum(c['places'] for c in done['labels'].values())
    )
    area = sum(row['area_m2'] for row in rows)
    assert sum(count['area_m2'] for count in done['labels'].values()) == pytest.approx(area)
    assert names(root / 'deep') == ['out.geojson', 'out.qml', 'photo.png']
    for how, what in (
        ('ask', 'is there any water in this image?'),
        ('ground', 'the lake'),
        ('detect', 'lake'),
    ):
        talk.facts('survey', path='scene.tif', output=f'{how}.geojson', how=how, what=what, tile_size=128)
        out = tmp_path / f'{how}.geojson'
        survey(nano, root / 'scene.tif', out, **{how: what}, size=128, progress=False)
        assert features(root / f'{how}.geojson') == features(out)


@pytest.fixture(scope='module')
def pairs(tiny):
    "An assistant that takes two pictures"
    model, tokenizer = deepcopy(tiny[0]), tiny[1]
    model.config.max_pictures = 2
    return Assistant(model, tokenizer, 'pairs')


def test_two_dates_are_compared_as_by_hand(pairs, root, tmp_path):
    talk, dates = Talk(pairs, root), (root / 'scene.tif', root / 'later.tif')
    asked = dict(before='scene.tif', after='later.tif')
    told = talk.facts('compare', **asked, question='what is new?')
    assert told == plain(answer_record(pairs.compare(*dates, 'what is new?')))
    assert told['images'] == ['scene.tif', 'later.tif']
    told = talk.facts('compare', **asked, labels=['yes', 'no'])
    assert told['probabilities'] == pairs.compare(*dates, labels=['yes', 'no']).scores
    asked |= dict(output='new.geojson', question='is a lake new?', labels=['yes', 'no'])
    done = talk.facts('survey_change', **asked)
    by_hand = survey_change(
        pairs, *dates, tmp_path / 'new.geojson', 'is a lake new?', ['yes', 'no'], progress=False
    )
    assert features(root / 'new.geojson') == features(by_hand.out) and done['tiles'] == by_hand.tiles
    talk.desk.close()


def test_a_model_without_pairs_says_so(talk):
    assert 'one picture' in talk.error('compare', before='scene.tif', after='later.tif')
    asked = dict(before='scene.tif', after='later.tif', output='a.geojson', question='is a lake new?')
    assert 'one picture' in talk.error('survey_change', **asked)


# ---- at once, followed, stopped


class Gated(Assistant):
    "Waits at a gate before each batch, and counts them"

    def __init__(self, *args):
        super().__init__(*args)
        self.gate, self.begun, self.at_once = threading.Event(), [], 0

    def classify(self, images, labels, *more, **facts):
        self.begun.append(labels)
        assert self.gate.wait(60)
        return super().classify(images, labels, *more, **facts)


@pytest.fixture
def gated(nano):
    return Gated(nano.model, nano.tokenizer, 'nano')


def test_calls_at_once_are_not_mixed_up(talk, nano, root):
    pictures = ['scene.tif', 'later.tif', 'deep/photo.png']
    sets = [LABELS, LABELS[::-1], ['grassland', 'built-up'], ['snow', 'water']]
    asked = [(path, labels) for path in pictures for labels in sets]
    answers = talk.calls(*(('classify', dict(path=path, labels=labels)) for path, labels in asked))
    for (path, labels), answer in zip(asked, answers):
        assert answer.structured_content['probabilities'] == nano.classify(root / path, labels).scores


def test_the_server_listens_while_the_model_computes(gated, root):
    talk = Talk(gated, root)

    async def work(client):
        first = asyncio.create_task(client.call_tool('classify', dict(path='scene.tif', labels=LABELS)))
        while not gated.begun:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(client.call_tool('classify', dict(path='later.tif', labels=LABELS)))
        look = await client.call_tool('look', dict(path='scene.tif'))
        tools = await client.list_tools()
        open_still = first.done(), second.done(), len(gated.begun)
        gated.gate.set()
        return (
            look.is_error,
            len(tools.tools),
            open_still,
            [(await task).is_error for task in (first, second)],
        )

    assert talk.run(work) == (False, 9, (False, False, 1), [False, False])
    talk.desk.close()


@pytest.mark.parametrize('mode', ['legacy', 'auto'])
def test_progress_is_told_in_order_and_before_the_answer(nano, root, mode):
    talk = Talk(nano, root, mode)

    async def work(client):
        async def heard(done, total, message):
            told.append((done, total, message))

        asked = dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS)
        told = []
        answer = await client.call_tool('survey', asked, progress_callback=heard)
        return answer.is_error, list(told)

    failed, told = talk.run(work)
    assert not failed and [step[:2] for step in told] == [(k, 4) for k in range(1, 5)]
    assert told[0][2] == '1 of 4 strips of tiles'
    talk.desk.close()


@pytest.mark.parametrize('mode', ['legacy', 'auto'])
def test_a_survey_is_stopped_in_the_middle_and_goes_on_with_the_same_call(gated, nano, root, tmp_path, mode):
    talk, asked = (
        Talk(gated, root, mode),
        dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS),
    )
    gated.gate.set()

    async def stopped(client):
        async def heard(done, total, message):
            gated.gate.clear()
            task.cancel()

        task = asyncio.create_task(client.call_tool('survey', asked, progress_callback=heard))
        waiting = dict(path='later.tif', labels=['never', 'asked'])
        other = asyncio.create_task(client.call_tool('classify', waiting))
        with pytest.raises(asyncio.CancelledError):
            await task
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        await asyncio.sleep(0.2)
        gated.gate.set()
        return await client.call_tool('classify', dict(path='scene.tif', labels=LABELS))

    assert not talk.run(stopped).is_error
    assert 2 <= len(gated.begun) < 6 and ['never', 'asked'] not in gated.begun
    assert [name for name in names(root) if 'geojson' in name] == ['a.geojson.part']
    assert 'something else' in talk.error('survey', **asked | dict(what=['snow', 'water']))
    begun = len(gated.begun)
    talk.facts('survey', **asked)
    assert len(gated.begun) - begun < 4
    survey(nano, root / 'scene.tif', tmp_path / 'whole.geojson', classify=LABELS, progress=False)
    assert features(root / 'a.geojson') == features(tmp_path / 'whole.geojson')
    assert not (root / 'a.geojson.part').exists()
    talk.desk.close()


def test_a_client_that_leaves_stops_its_survey(gated, root):
    talk, asked = Talk(gated, root), dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS)

    async def left(client):
        task = asyncio.create_task(client.call_tool('survey', asked))
        while not gated.begun:
            await asyncio.sleep(0.01)
        task.cancel()

    talk.run(left)
    gated.gate.set()
    talk.desk.close()
    assert len(gated.begun) < 3 and not (root / 'a.geojson').exists()


# ---- one folder, and nothing else


def outside(root):
    "(tool, what it is given) that would read or write elsewhere"
    (root / 'link.tif').symlink_to(root.parent / 'secret.tif')
    (root / 'away').symlink_to(root.parent)
    (root / 'beside.tif').write_bytes((root / 'scene.tif').read_bytes())
    (root / 'beside.tif.ovr').symlink_to(root.parent / 'secret.tif')
    secret = root.parent / 'secret.tif'
    vrt = f'<VRTDataset rasterXSize="256" rasterYSize="256"><VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>'
    (root / 'points.vrt').write_text(vrt)
    (root / 'vrt.tif').write_text(vrt)
    (root / 'item.json').write_text(json.dumps(dict(type='Feature', assets=dict(a=dict(href=str(secret))))))
    bad = ['../secret.tif', str(secret), 'link.tif', 'away/secret.tif', 'beside.tif', 'points.vrt', 'vrt.tif']
    bad += ['item.json', 'deep/../../secret.tif', f'/vsizip/{secret}', 'https://example.org/a.tif', '..', '']
    bad += [f'file://{secret}', 'scene.tif\0', f'GTIFF_DIR:1:{secret}', f'vrt://{secret}']
    for path in bad:
        yield 'look', dict(path=path)
        yield 'ask', dict(path=path, question='what is this?')
        yield 'survey', dict(path=path, output='out.geojson', how='ask', what='what is this?')
        yield (
            'survey_change',
            dict(before=path, after='later.tif', output='out.geojson', question='what is new?'),
        )
    for output in ('../out.geojson', str(root.parent / 'out.geojson'), 'away/out.geojson', 'away', '..', ''):
        yield 'survey', dict(path='scene.tif', output=output, how='ask', what='what is this?')
    yield 'rasters', dict(folder='..')
    yield 'rasters', dict(folder='away')


@pytest.mark.unix
def test_nothing_outside_of_the_root_is_read_or_written(pairs, root):
    talk = Talk(pairs, root)
    cases = list(outside(root))
    before = names(root.parent), (root.parent / 'secret.tif').read_bytes()
    for name, facts in cases:
        said = talk.error(name, **facts)
        assert str(root) not in said and 'should not happen' not in said, (name, facts, said)
    assert (names(root.parent), (root.parent / 'secret.tif').read_bytes()) == before
    assert 'secret.tif' not in str(talk.facts('rasters', folder=''))
    talk.desk.close()


@pytest.mark.unix
def test_what_a_survey_writes_beside_its_file_leads_nowhere_else(talk, root):
    (root.parent / 'mine.qml').write_text('mine')
    (root / 'a.qml').symlink_to(root.parent / 'mine.qml')
    (root / 'b.geojson.part').symlink_to(root.parent / 'mine.part')
    for output in ('a.geojson', 'b.geojson'):
        talk.error('survey', path='scene.tif', output=output, how='classify', what=LABELS)
    assert (root.parent / 'mine.qml').read_text() == 'mine' and not (root.parent / 'mine.part').exists()


def test_no_file_is_written_over(talk, root):
    (root / 'there.geojson').write_text('mine')
    (root / 'styled.qml').write_text('mine')
    before = {name: (root / name).read_bytes() for name in names(root) if (root / name).is_file()}
    for output in ('scene.tif', 'there.geojson', 'styled.geojson', 'notes.txt', 'deep', 'new.tif', 'a.gpkg'):
        talk.error('survey', path='scene.tif', output=output, how='classify', what=LABELS)
    assert {name: (root / name).read_bytes() for name in names(root) if (root / name).is_file()} == before


def test_no_file_that_comes_while_a_survey_runs_is_written_over(gated, root):
    talk, asked = Talk(gated, root), dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS)

    async def work(client):
        task = asyncio.create_task(client.call_tool('survey', asked))
        while not gated.begun:
            await asyncio.sleep(0.01)
        for name in ('a.geojson', 'a.qml'):
            (root / name).write_text('mine')
        gated.gate.set()
        return await task

    assert 'there already and stays' in talk.run(work).content[0].text
    assert 'there already and stays' in talk.error('survey', **asked)
    assert (root / 'a.geojson').read_text() == (root / 'a.qml').read_text() == 'mine'
    for name in ('a.geojson', 'a.qml'):
        (root / name).unlink()
    assert talk.facts('survey', **asked)['tiles'] == 16 and len(gated.begun) == 4  # nothing is asked twice
    talk.desk.close()


def test_no_file_that_comes_while_the_model_is_loaded_is_written_over(nano, root):
    def load():
        (root / 'a.geojson').write_text('mine')
        return nano

    with pytest.raises(BadInput, match='there already and stays'):
        AgentTools(load, root).survey('scene.tif', 'a.geojson', 'classify', LABELS)
    assert (root / 'a.geojson').read_text() == 'mine'
    assert 'a.geojson.part' not in names(root)


@pytest.mark.unix
def test_metadata_behind_the_fence_are_not_read_by_a_survey(root):
    from earthgpt_lite.app.survey import _prefetch
    from earthgpt_lite.raster.products import _inside, fenced

    with fenced(root):
        seen = list(_prefetch(lambda: (_inside(path) for path in (root, root.parent))))
    assert seen == [True, False]


# ---- what goes wrong is one sentence, and the server goes on


def slips(root):
    yield 'ask', dict(path='broken.tif', question='what is this?'), 'broken.tif'
    yield 'look', dict(path='broken.tif'), 'broken.tif'
    yield 'survey', dict(path='broken.tif', output='o.geojson', how='ask', what='a?'), 'broken.tif'
    yield 'ask', dict(path='notes.txt', question='what is this?'), 'not an image'
    yield 'ask', dict(path='gone.tif', question='what is this?'), 'gone.tif'
    yield 'ask', dict(path='deep', question='what is this?'), 'folder'
    yield 'ask', dict(path='scene.tif', question=' '), 'empty'
    yield 'ask', dict(path='scene.tif'), 'question'
    yield 'ask', dict(path='scene.tif', question=7), 'question'
    yield 'ask', dict(path='scene.tif', question='a?', prompt='b?'), "'prompt'"
    yield 'ask', dict(path='scene.tif', question='a?', sensor='xray'), 'sensor'
    yield 'ask', dict(path='scene.tif', question='a?', bands=['B99', 'B02', 'B03']), 'B99'
    yield 'ask', dict(path='scene.tif', question='a ' * 5000), ''
    yield 'classify', dict(path='scene.tif', labels=['water']), 'two'
    yield 'classify', dict(path='scene.tif', labels=['water', 'Water']), 'more than once'
    yield 'classify', dict(path='scene.tif', labels='water'), 'labels'
    yield 'ground', dict(path='scene.tif', phrase=''), 'empty'
    yield 'survey', dict(path='scene.tif', output='o.geojson', how='count', what='a'), 'how'
    yield 'survey', dict(path='scene.tif', output='o.geojson', how='classify', what='water'), 'list'
    yield 'survey', dict(path='scene.tif', output='o.geojson', how='ask', what=['a?']), 'text'
    yield 'survey', dict(path='scene.tif', output='o.geojson', how='detect', what=''), 'empty'
    yield 'survey', dict(path='scene.tif', output='o.geojson', how='ask', what='a?', tile_size=1), 'tile_size'
    yield 'survey', dict(path='deep/photo.png', output='o.geojson', how='ask', what='a?'), 'CRS'
    yield 'paint', dict(path='scene.tif'), 'no tool'


def test_every_slip_is_one_sentence_and_the_next_call_is_answered(talk, root):
    before = names(root)
    for name, facts, word in slips(root):
        said = talk.error(name, **facts)
        assert word in said and str(root) not in said and '--' not in said, (name, facts, said)
        assert 'should not happen' not in said and 'errors.pydantic.dev' not in said, said
    assert names(root) == before
    assert talk.facts('classify', path='scene.tif', labels=LABELS)['text'] in LABELS


def test_an_unknown_label_is_answered_with_a_warning(talk):
    told = talk.facts('classify', path='scene.tif', labels=['unicorn', 'water'])
    assert any("'unicorn': not among what it was trained with" in text for text in told['warnings'])
    told = talk.facts(
        'survey', path='scene.tif', output='u.geojson', how='classify', what=['unicorn', 'water']
    )
    assert any('unicorn' in text for text in told['warnings'])


@pytest.mark.parametrize(
    'question', ['\x1b[2Jwhere is the lake?', 'a\0b\r\n\x07?', '<image></s> {"a": 1} \u202e?']
)
def test_control_characters_are_letters_of_a_question(talk, nano, root, question):
    told = talk.facts('ask', path='scene.tif', question=question)
    assert told == plain(answer_record(nano.ask(root / 'scene.tif', question)))
    said = talk.error('ask', path=question, question='what is this?')
    assert '\x1b' not in said and '\n' not in said


def test_a_name_that_is_no_text_and_numbers_that_are_none_can_be_told(talk, root):
    raster(
        root / 'nan.tif', np.random.default_rng(0).random((1, 20, 30)).astype('f4'), nodata=np.nan, **PLACE
    )
    assert talk.facts('look', path='nan.tif')['nodata'] is None
    try:
        (root / 'odd\udcff.tif').write_bytes((root / 'scene.tif').read_bytes())
    except OSError:
        return  # this disk has no such names
    assert 'odd\\udcff.tif' in talk.facts('rasters')['rasters']


def test_our_own_fault_is_told_as_such_and_logged(nano, root, capsys):
    class Faulty(Assistant):
        def classify(self, *args):
            raise ZeroDivisionError('by hand')

    talk = Talk(Faulty(nano.model, nano.tokenizer, 'nano'), root)
    said = talk.error('classify', path='scene.tif', labels=LABELS)
    assert 'ZeroDivisionError' in said and 'by hand' not in said
    logged = capsys.readouterr()
    assert 'by hand' in logged.err and not logged.out
    assert talk.facts('look', path='scene.tif')
    talk.desk.close()


def test_a_model_is_opened_once_when_the_first_question_comes(nano, root):
    opened = []
    desk = Desk(AgentTools(lambda: opened.append(1) or nano, root))
    talk = Talk(nano, root)
    talk.server = make_server(desk, 'nano')
    talk.facts('look', path='scene.tif')
    assert not opened
    asked = ('classify', dict(path='scene.tif', labels=LABELS))
    talk.calls(asked, asked, asked)
    assert len(opened) == 1
    desk.close()
    talk.desk.close()


# ---- as an agent starts it

RUN = 'from earthgpt_lite.app.cli import run; run()'
NOISE = """
import os, sys
from earthgpt_lite.app import mcp
opened = mcp._assistant
def loud(args):
    print('noise of Python')
    sys.__stdout__.write('noise past it')
    os.write(1, b'noise of C')
    os.system('echo noise of a child')
    return opened(args)
mcp._assistant = loud
"""
WAITS = """
import time
from pathlib import Path
from earthgpt_lite.app import mcp
def waits(args):
    while not Path(args.root, 'go').exists():
        time.sleep(0.05)
mcp._check_model = waits
"""


def started(root, code='', model='nano'):
    words = ['-c', code + RUN, 'mcp', model, '--root', str(root), '--device', 'cpu']
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    return mcp.StdioServerParameters(
        command=sys.executable, args=words, env=dict(os.environ, PYTHONPATH=path)
    )


def test_a_real_process_answers_as_by_hand(nano, root):
    async def work():
        async with mcp.Client(started(root)) as client:
            start = time.monotonic()
            tools = (await client.list_tools()).tools
            look = await client.call_tool('look', dict(path='scene.tif'))
            calls = [dict(path=path, labels=LABELS) for path in ('scene.tif', 'later.tif')]
            answers = await asyncio.gather(*(client.call_tool('classify', facts) for facts in calls))
            bad = await client.call_tool('ask', dict(path='../secret.tif', question='what?'))
            steps = []

            async def heard(*step):
                steps.append(step[:2])

            asked = dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS)
            done = await client.call_tool('survey', asked, progress_callback=heard)
            return tools, look, answers, bad, steps, done

    tools, look, answers, bad, steps, done = asyncio.run(asyncio.wait_for(work(), 120))
    assert len(tools) == 9 and [part.type for part in look.content] == ['text', 'image'] and bad.is_error
    for path, answer in zip(('scene.tif', 'later.tif'), answers):
        assert answer.structured_content['probabilities'] == pytest.approx(
            nano.classify(root / path, LABELS).scores, abs=1e-6
        )
    assert steps == [(k, 4) for k in range(1, 5)] and done.structured_content['tiles'] == 16
    assert features(root / 'a.geojson')['features']


def test_a_client_of_a_process_stops_a_survey(root):
    async def work():
        async with mcp.Client(started(root)) as client:

            async def heard(*step):
                task.cancel()

            asked = dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS, tile_size=16)
            task = asyncio.create_task(client.call_tool('survey', asked, progress_callback=heard))
            with pytest.raises(asyncio.CancelledError):
                await task
            return await client.call_tool('rasters')  # it goes on

    assert not asyncio.run(asyncio.wait_for(work(), 120)).is_error
    assert (root / 'a.geojson.part').exists() and not (root / 'a.geojson').exists()


def test_it_answers_while_the_model_is_looked_for(root):
    async def work():
        async with mcp.Client(started(root, WAITS)) as client:
            assert len((await client.list_tools()).tools) == 9
            assert not (await client.call_tool('look', dict(path='scene.tif'))).is_error
            task = asyncio.create_task(client.call_tool('classify', dict(path='scene.tif', labels=LABELS)))
            await asyncio.sleep(0.5)
            assert not task.done()
            (root / 'go').touch()
            return await task

    assert not asyncio.run(asyncio.wait_for(work(), 120)).is_error


def spoken(root, lines, code='', model='nano'):
    "A process that is given lines and then nothing more: its status, the lines that it writes, and its log"
    words = started(root, code, model)
    text = ''.join(line if isinstance(line, str) else json.dumps(line) + '\n' for line in lines)
    done = subprocess.run(
        [sys.executable, *words.args], input=text, env=words.env, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def message(number, method, **params):
    return dict(jsonrpc='2.0', id=number, method=method, params=params)


HELLO = message(
    1, 'initialize', protocolVersion='2025-06-18', capabilities={}, clientInfo=dict(name='test', version='1')
)
READY = dict(jsonrpc='2.0', method='notifications/initialized')


def conversation(root, lines, code=''):
    "Replies by their numbers: each line is sent when the one before it is answered, as agents do"
    words = started(root, code)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process = subprocess.Popen([sys.executable, *words.args], env=words.env, text=True, **pipes)
    written = []
    for line in lines:
        process.stdin.write(line if isinstance(line, str) else json.dumps(line) + '\n')
        process.stdin.flush()
        while not isinstance(line, str) and 'id' in line:
            written.append(process.stdout.readline())
            if json.loads(written[-1]).get('id') == line['id']:
                break
    rest, log = process.communicate(timeout=60)
    return process.returncode, written + rest.splitlines(), log


def test_nothing_but_the_protocol_is_written_to_standard_output(root):
    asked = dict(name='classify', arguments=dict(path='scene.tif', labels=LABELS))
    surveyed = dict(path='scene.tif', output='a.geojson', how='classify', what=LABELS)
    lines = [HELLO, READY, 'no JSON\n', '{"jsonrpc": "2.0"}\n', '\n', message(2, 'tools/call', **asked)]
    lines += [message(3, 'tools/call', name='survey', arguments=surveyed), message(4, 'no/such/method')]
    status, written, log = conversation(root, lines, NOISE)
    replies = [json.loads(line) for line in written]
    assert status == 0 and all(reply['jsonrpc'] == '2.0' for reply in replies)
    by_number = {reply.get('id'): reply for reply in replies}
    assert by_number[2]['result']['structuredContent']['text'] in LABELS and 'error' in by_number[4]
    assert not by_number[3]['result'].get('isError')
    for noise in ('noise of Python', 'noise past it', 'noise of C', 'noise of a child'):
        assert noise in log, log


def test_a_model_that_is_none_is_told_to_the_agent_and_at_the_end(root, run_cli, monkeypatch):
    async def work():
        async with mcp.Client(started(root, model='no-such-folder/m/n')) as client:
            assert not (await client.call_tool('look', dict(path='scene.tif'))).is_error
            return await client.call_tool('ask', dict(path='scene.tif', question='what is this?'))

    answer = asyncio.run(asyncio.wait_for(work(), 120))
    assert answer.is_error and 'no-such-folder' in answer.content[0].text
    monkeypatch.setattr(sys, 'stdin', io.StringIO(''))
    status, out, err = run_cli('mcp', 'no-such-folder/m/n', '--root', root)
    assert status == 2 and not out and 'no-such-folder' in err.splitlines()[-1]


def test_a_root_that_is_none_and_a_missing_extra_are_told(root, run_cli, monkeypatch):
    refused(run_cli('mcp', 'nano', '--root', root / 'gone'), 'gone', '--root')
    for name in [name for name in sys.modules if name.split('.')[0] == 'mcp' or name.endswith('app.agents')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, 'earthgpt_lite.app.agent_desk', raising=False)
    monkeypatch.setitem(sys.modules, 'mcp', None)
    refused(run_cli('mcp', 'nano', '--root', root), 'pip install "earthgpt-lite[mcp]"')


@pytest.mark.unix
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_though_the_client_still_holds_on(root, number):
    code = 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
    words = started(root, code)
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process = subprocess.Popen([sys.executable, *words.args], env=words.env, text=True, **pipes)
    process.stdin.write(json.dumps(HELLO) + '\n')
    process.stdin.flush()
    assert 'protocolVersion' in process.stdout.readline()
    process.send_signal(number)
    process.wait(60)
    assert process.returncode == 130 and 'stopped' in process.stderr.read()
    process.communicate()


def test_the_configuration_of_the_page_starts_it(root):
    whole = (ROOT / 'docs' / 'ecosystem.md').read_text(encoding='utf-8')
    page = whole.partition('\n## Agents\n')[2].partition('\n## ')[0]
    (server,) = json.loads(re.search(r'```json\n(.*?)```', page, re.S)[1])['mcpServers'].values()
    assert server['command'] == 'earthgpt-lite' and server['args'][:2] == ['mcp', 'nano']
    at = server['args'].index('--root') + 1
    parameters = started(root)
    parameters.args = ['-c', RUN, *server['args'][:at], str(root), *server['args'][at + 1 :]]

    async def work():
        async with mcp.Client(parameters) as client:
            return {tool.name for tool in (await client.list_tools()).tools}

    listed = asyncio.run(asyncio.wait_for(work(), 120))
    told = set(re.findall(r'^\| `(\w+)` \|', page, re.M))
    assert listed == told
