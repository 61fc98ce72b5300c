"Survey: each object once, wherever the seams lie; killed and resumed to the same file; memory bounded by tile and batch."

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings, strategies as st
from rasterio.features import shapes
from rasterio.shutil import copy
from rasterio.warp import transform

from earthgpt_lite.app import model_commands, survey_files as module
from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.cli import main
from earthgpt_lite.app.survey import SurveyOptions, plan_tiles, survey
from earthgpt_lite.app.survey_files import Journal, TileGrid
from earthgpt_lite.boxes.text import format_detection, to_unit
from earthgpt_lite.errors import BadInput

UTM = dict(crs='EPSG:32756', transform=Affine(10, 0, 334_000, 0, -10, 6_252_000))


class Perfect:
    "Says where a picture is white, or what its first pixel is."

    name = 'perfect'

    def __init__(self, side=100, fail=10**9):
        self.model, self.fail = SimpleNamespace(config=SimpleNamespace(image_size=side)), fail

    def _step(self):
        self.fail -= 1
        if self.fail < 0:
            raise RuntimeError('the power failed')

    def detect(self, chips, label):
        self._step()
        return [
            Answer(
                format_detection([(label or 'object', b) for b in self.white(v)], decimals=3), -1.0, 'find', v
            )
            for v in chips
        ]

    def ask(self, chips, question):
        self._step()
        return [
            Answer('bright <b>' if self.inside(v).mean() > 100 else 'dark', -0.5, question, v) for v in chips
        ]

    def classify(self, chips, labels):
        self._step()
        texts = [labels[int(self.inside(v).mean() > 100)] for v in chips]
        return [
            Answer(t, -0.1, 'class?', v, scores={l: 0.9 if l == t else 0.1 for l in labels})
            for t, v in zip(texts, chips)
        ]

    def inside(self, v):
        f = v.frame
        return v.image[f.pad_y : f.pad_y + f.height, f.pad_x : f.pad_x + f.width]

    def white(self, v):
        image = self.inside(v).min(-1) > 200
        return [
            to_unit(shapely.geometry.shape(g).bounds, v.frame.width, v.frame.height)
            for g, _ in shapes(image.astype('uint8'), mask=image)
        ]


def harbour(path, ships, width=300, height=300, **place):
    sea = np.full((3, height, width), 40, 'uint8')
    for x1, y1, x2, y2 in ships:
        sea[:, y1:y2, x1:x2] = 255
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with rasterio.open(
            path, 'w', driver='GTiff', width=width, height=height, count=3, dtype='uint8', **place
        ) as f:
            f.write(sea)
    return path


def pixels(path):
    return sorted(
        tuple(np.round(shapely.Polygon(a['polygon']).bounds).astype(int).tolist())
        for a in json.loads(path.read_text())['answers']
    )


def settled(path):
    "What a file says, but for when it was made and how long that took."
    found = json.loads(path.read_text())
    assert found.pop('created') and found.pop('seconds') >= 0
    return found


SHIPS = [
    (20, 20, 50, 40),
    (90, 30, 115, 50),
    (60, 180, 85, 215),
    (150, 150, 250, 175),
    (270, 270, 300, 300),
    (0, 100, 12, 112),
]


def run(path, out, assistant=None, **more):
    return survey(
        assistant or Perfect(), path, out, **(dict(detect='ship', overlap=40, progress=False) | more)
    )


# Seams


def test_an_object_on_a_seam_is_reported_once(tmp_path):
    run(harbour(tmp_path / 'a.tif', SHIPS), tmp_path / 'a.json')
    assert pixels(tmp_path / 'a.json') == sorted(SHIPS)


@settings(max_examples=25)
@given(
    st.integers(0, 240),
    st.integers(0, 240),
    st.integers(6, 39),
    st.integers(6, 39),
    st.sampled_from([60, 100, 128]),
    st.sampled_from([1, 7, 64]),
)
def test_wherever_it_lies(tmp_path_factory, x, y, w, h, size, batch):
    folder = tmp_path_factory.mktemp('s')
    ship = (x, y, min(x + w, 283), min(y + h, 271))
    run(harbour(folder / 'a.tif', [ship], 283, 271), folder / 'a.json', size=size, batch_size=batch)
    assert pixels(folder / 'a.json') == [ship]


@given(st.integers(1, 900), st.integers(1, 700), st.integers(1, 200), st.integers(0, 199), st.integers(1, 70))
def test_every_pixel_is_in_a_tile_and_every_tile_in_the_scene(width, height, size, overlap, batch):
    overlap %= size
    if width / (size - overlap) * height / (size - overlap) > 3000:
        return
    covered = np.zeros((height, width), bool)
    for part in plan_tiles(TileGrid(width, height, size, overlap), batch):
        assert 1 <= len(part) <= batch and len({t[1] for t in part}) == 1
        for x, y, w, h in part:
            assert x >= 0 <= y and x + w <= width and y + h <= height and max(w, h) <= size
            covered[y : y + h, x : x + w] = True
    assert covered.all()


# What is written


@pytest.mark.parametrize(
    'code, t',
    [
        (32756, UTM['transform']),
        (32701, Affine(900, 0, 156_000, 0, -900, 8_160_000)),
        (32633, Affine.translation(5e5, 5e6) @ Affine.rotation(25) @ Affine.scale(10, -10)),
    ],
)
def test_geojson_is_valid_and_in_place(tmp_path, code, t):
    path = harbour(tmp_path / 'a.tif', SHIPS, crs=f'EPSG:{code}', transform=t)
    done = run(path, tmp_path / 'a.geojson')
    found = json.loads((tmp_path / 'a.geojson').read_text())
    assert (
        found['type'] == 'FeatureCollection'
        and found['prompt'] == 'ship'
        and found['model'] == 'perfect'
        and done.features == len(found['features']) == len(SHIPS)
    )
    for f in found['features']:
        shape = shapely.geometry.shape(f['geometry'])
        assert shape.is_valid and f['properties']['label'] == 'ship' and f['properties']['logprob'] == -1
        for p in getattr(shape, 'geoms', [shape]):
            assert p.exterior.is_ccw and -180 <= p.bounds[0] and p.bounds[2] <= 180
    whole = [shapely.geometry.shape(f['geometry']) for f in found['features']]
    points = np.concatenate([np.asarray(p.exterior.coords) for w in whole for p in getattr(w, 'geoms', [w])])
    for x1, y1, x2, y2 in SHIPS:
        lon, lat = transform(f'EPSG:{code}', 'EPSG:4326', *[[v] for v in t @ (x1, y1)])
        assert (
            np.abs((points - [lon[0], lat[0]] + [180, 0]) % [360, 1e9] - [180, 0]).max(1).min()
            < 0.02 * abs(t.a) / 1000
            or np.hypot(*(points - [lon[0], lat[0]]).T).min() < 0.02 * abs(t.a) / 1000
        )


def test_geopackage_opens_in_geopandas(tmp_path):
    geopandas = pytest.importorskip('geopandas', reason='geopandas comes with the extra geo')
    run(harbour(tmp_path / 'a.tif', SHIPS, **UTM), tmp_path / 'a.gpkg')
    table = geopandas.read_file(tmp_path / 'a.gpkg', layer='answers')
    assert (
        table.crs.to_epsg() == 32756
        and len(table) == len(SHIPS)
        and {'label', 'logprob', 'answer', 'area_m2', 'tiles', 'datetime', 'gsd'} <= set(table.columns)
    )
    assert np.allclose(
        sorted(table.geometry.area),
        sorted((x2 - x1) * (y2 - y1) * 100 for x1, y1, x2, y2 in SHIPS),
        rtol=0.02,
    )
    run(tmp_path / 'a.tif', tmp_path / 'a.geojson')
    same = geopandas.read_file(tmp_path / 'a.geojson')
    assert (
        same.crs.to_epsg() == 4326
        and same.geometry.is_valid.all()
        and np.allclose(np.sort(same.to_crs(32756).area), np.sort(table.area), rtol=1e-4)
    )
    run(harbour(tmp_path / 'b.tif', [], **UTM), tmp_path / 'b.gpkg')
    empty = geopandas.read_file(tmp_path / 'b.gpkg', layer='answers')
    assert len(empty) == 0 and [*empty.columns] == [*table.columns]
    import pyogrio

    # or QGIS would draw none
    assert pyogrio.read_info(tmp_path / 'b.gpkg', layer='answers')['geometry_type'] == 'Polygon'


def test_a_geopackage_asks_for_its_extra_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'geopandas', None)
    with pytest.raises(BadInput, match=r'earthgpt-lite\[geo\]'):
        run(harbour(tmp_path / 'a.tif', SHIPS, **UTM), tmp_path / 'a.gpkg')


def test_classes_as_polygons_and_raster(tmp_path):
    path = harbour(tmp_path / 'a.tif', [(0, 0, 200, 100), (200, 200, 250, 230)], 250, 230, **UTM)
    done = survey(
        Perfect(),
        path,
        tmp_path / 'a.geojson',
        classify=['dark', 'bright'],
        size=50,
        raster=tmp_path / 'c.tif',
        progress=False,
    )
    found = json.loads((tmp_path / 'a.geojson').read_text())
    assert (
        {f['properties']['label'] for f in found['features']} == {'dark', 'bright'}
        and found['prompt'] == ['dark', 'bright']
        and done.tiles == 25
    )
    with rasterio.open(tmp_path / 'c.tif') as f:
        classes = f.read(1)
        assert (
            classes.shape == (5, 5)
            and f.crs.to_epsg() == 32756
            and f.tags(1)['CLASS_2'] == 'bright'
            and f.nodata == 0
            and f.transform == UTM['transform'] @ Affine.scale(50)
        )
    assert (classes[:2, :4] == 2).all() and (classes[:, 4] == 1)[:3].all() and (classes[2:4, :4] == 1).all()
    area = sum(
        shapely.transform(
            shapely.geometry.shape(f['geometry']),
            lambda p: np.stack(transform('EPSG:4326', 'EPSG:32756', *p.T), 1),
        ).area
        for f in found['features']
    )
    assert area == pytest.approx(250 * 230 * 100, rel=1e-4)  # no gap, nothing beyond the scene
    assert all(f['properties']['probability'] == 0.9 for f in found['features'])


def test_classes_of_a_scene_without_a_place(tmp_path):
    path = harbour(tmp_path / 'a.tif', SHIPS)
    options = dict(classify=['dark', 'bright'], size=50, raster=tmp_path / 'c.tif', progress=False)
    survey(Perfect(), path, tmp_path / 'a.json', **options)  # and warns of nothing
    answers = json.loads((tmp_path / 'a.json').read_text())['answers']
    assert {'class_id', 'label', 'probability', 'tiles'} <= set(answers[0]) and 'area_m2' not in answers[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'a.json',
        'a.tif',
        'c.qml',
        'c.tif',
        'c.tif.aux.xml',
    ]


def test_free_answers_are_regions_of_one_text(tmp_path):
    run(
        harbour(tmp_path / 'a.tif', [(0, 0, 150, 300)], **UTM),
        tmp_path / 'a.geojson',
        detect=None,
        ask='bright?',
        overlap=None,
        size=50,
    )
    found = json.loads((tmp_path / 'a.geojson').read_text())['features']
    assert sorted(f['properties']['answer'] for f in found) == ['bright <b>', 'dark']


def test_tiles_without_data_are_left_out(tmp_path):
    path = harbour(tmp_path / 'a.tif', [], **UTM, nodata=0)
    with rasterio.open(path, 'r+') as f:
        f.write(np.zeros((3, 300, 150), 'uint8'), window=((0, 300), (0, 150)))
    done = survey(
        Perfect(),
        path,
        tmp_path / 'a.geojson',
        classify=['dark', 'bright'],
        size=50,
        raster=tmp_path / 'c.tif',
        progress=False,
    )
    with rasterio.open(tmp_path / 'c.tif') as f:
        assert (f.read(1)[:, :3] == 0).all() and (f.read(1)[:, 3:] > 0).all()
    assert done.tiles == 18


# Stopped, killed, resumed


def test_resumed_gives_the_same_file(tmp_path):
    path, options = (
        harbour(tmp_path / 'a.tif', SHIPS, **UTM),
        dict(detect='ship', overlap=40, batch_size=2, progress=False),
    )
    with pytest.raises(RuntimeError):
        survey(Perfect(fail=5), path, tmp_path / 'a.geojson', **options)
    assert not (tmp_path / 'a.geojson').exists() and (tmp_path / 'a.geojson.part').exists()
    with open(tmp_path / 'a.geojson.part', 'a') as f:
        f.write('[[["torn')
    assert (
        survey(Perfect(), path, tmp_path / 'a.geojson', **options).resumed == 5
        and not (tmp_path / 'a.geojson.part').exists()
    )
    assert survey(Perfect(), path, tmp_path / 'b.geojson', **options).resumed == 0
    assert settled(tmp_path / 'a.geojson') == settled(tmp_path / 'b.geojson')


@pytest.mark.parametrize(
    'spoil',
    [
        lambda lines: lines.insert(2, lines[1]),
        lambda lines: lines.extend(lines[:0:-1]),
        lambda lines: lines.pop(2),
        lambda lines: lines.__setitem__(2, b'\0' * 40 + b'\n'),
        lambda lines: lines.__setitem__(slice(1, 5), lines[4:0:-1]),
        lambda lines: lines.insert(1, b'[99, [null]]\n'),
        lambda lines: lines.insert(1, b'[1, 7]\n'),
    ],
)
def test_doubled_missing_and_disordered_lines_are_mended(tmp_path, spoil):
    "As two surveys at once would leave them"
    path, options = harbour(tmp_path / 'a.tif', SHIPS, **UTM), dict(ask='what?', size=60, batch_size=1)
    survey(Perfect(), path, tmp_path / 'whole.geojson', progress=False, **options)
    out, part = tmp_path / 'a.geojson', tmp_path / 'a.geojson.part'
    with pytest.raises(RuntimeError, match='power'):
        survey(Perfect(fail=8), path, out, progress=False, **options)
    lines = part.read_bytes().splitlines(True)
    assert len(lines) == 9
    spoil(lines)
    part.write_bytes(b''.join(lines))
    survey(Perfect(), path, out, progress=False, **options)
    assert settled(out) == settled(tmp_path / 'whole.geojson') and not part.exists()


ROW = ['water', -0.1, [[0, 0, 5, 5]], ['ship'], [-0.2]]


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        (0, 5), (0, 'desert'), (1, 'high'), (1, float('nan')), (1, True), (2, [[0, 0, 5]]), (2, [[0, 0, 5, 'x']]),
        (2, 'x'), (3, []), (3, [7]), (4, ['x']), (4, [float('inf')]), (4, [1, 2]), (slice(4, 5), []), (slice(5, 6), [1]),
    ],
)  # fmt: skip
def test_a_row_that_no_survey_wrote_is_asked_again(tmp_path, place, value):
    head = dict(scene='a.tif', kind='classify', prompt=['water', 'forest'])
    row = [*ROW]
    row[place] = value
    lines = [head, [0, [ROW], 0.5, 0], [1, [row], 0.5, 0], [2, [None], 0.5, 0]]
    (tmp_path / 'a.part').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    journal = Journal(tmp_path / 'a.part', head, {k: ['a tile'] for k in range(3)})
    assert journal.rows == {0: [ROW], 2: [None]} and list(journal.missing) == [1]


@pytest.mark.unix
@pytest.mark.parametrize('resume', [True, False])
def test_a_journal_is_no_link(tmp_path, resume):
    path = harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    (tmp_path / 'mine').write_text('{"scene": "mine"}\n')
    for out, target in (('a.geojson', 'mine'), ('b.geojson', 'nowhere')):
        (tmp_path / f'{out}.part').symlink_to(target)
        with pytest.raises(BadInput, match='another survey|it is a link'):
            survey(Perfect(), path, tmp_path / out, ask='what?', progress=False, resume=resume)
    assert (tmp_path / 'mine').read_text() == '{"scene": "mine"}\n' and not (tmp_path / 'nowhere').exists()


@pytest.mark.parametrize('resume', [True, False])
@pytest.mark.parametrize('text', ['my notes', 'my notes\n', '{"a": 1}\n', '{"scene": \n'])
def test_a_file_that_no_survey_wrote_is_no_journal(tmp_path, text, resume):
    path = harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    (tmp_path / 'a.geojson.part').write_text(text)
    with pytest.raises(BadInput, match='no survey wrote it'):
        survey(Perfect(), path, tmp_path / 'a.geojson', ask='what?', progress=False, resume=resume)
    assert (tmp_path / 'a.geojson.part').read_text() == text


def test_a_clock_that_is_set_back(tmp_path, monkeypatch):
    path, clock = harbour(tmp_path / 'a.tif', SHIPS, **UTM), iter(range(10**9, 0, -3600))
    monkeypatch.setattr('time.time', lambda: next(clock))
    assert survey(Perfect(), path, tmp_path / 'a.json', ask='what?', progress=False).seconds >= 0


def test_another_question_does_not_go_on(tmp_path):
    path = harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    with pytest.raises(RuntimeError):
        survey(Perfect(fail=3), path, tmp_path / 'a.geojson', detect='ship', batch_size=1, progress=False)
    with pytest.raises(BadInput, match='prompt differ.*--force'):
        survey(Perfect(), path, tmp_path / 'a.geojson', detect='plane', batch_size=1, progress=False)
    assert (
        survey(
            Perfect(),
            path,
            tmp_path / 'a.geojson',
            detect='plane',
            batch_size=1,
            progress=False,
            resume=False,
        ).resumed
        == 0
    )


@pytest.fixture
def command(tmp_path, monkeypatch):
    "The command, on a small scene; the model fails after so many tiles."
    monkeypatch.chdir(tmp_path)
    harbour('a.tif', SHIPS, **UTM)

    def run(*words, fail=10**9):
        monkeypatch.setattr(model_commands, '_assistant', lambda args: Perfect(fail=fail))
        words = ['--classify', 'dark,bright', '--size', '60', '--batch-size', '1', *words]
        return main(['survey', 'perfect', 'a.tif', '--out', 'o.json', *words])

    return run


def begin(command, *words):
    assert command(*words, fail=4) == 1 and os.path.exists('o.json.part')


def test_a_survey_that_goes_on_writes_over_nothing_that_it_did_not_write(tmp_path, command, capsys):
    begin(command)
    for name in ('t2.tif', 'o.json'):
        (tmp_path / name).write_text('mine')
        assert command('--raster', 't2.tif') == 2 and 'exists already' in capsys.readouterr().err
        assert (tmp_path / name).read_text() == 'mine'
        (tmp_path / name).unlink()
    assert command('--raster', 't2.tif') == 0 and not (tmp_path / 'o.json.part').exists()


@pytest.mark.parametrize('name', ['o.json.part0of9', 'o.json.part1of2', 'o.json.part'])
def test_a_journal_of_another_is_no_leave_to_write(tmp_path, command, name):
    (tmp_path / 'o.json').write_text('mine')
    (tmp_path / name).write_text('{"scene": "x"}\n')
    assert command() == 2 and (tmp_path / 'o.json').read_text() == 'mine'
    lines = ['{"scene": "x"}', json.dumps(['writes', str(tmp_path / 'o.json')]), '']
    (tmp_path / name).write_text('\n'.join(lines))
    assert command() == 2 and (tmp_path / 'o.json').read_text() == 'mine'


def test_what_was_allowed_once_goes_on_without_force(tmp_path, command):
    (tmp_path / 'o.json').write_text('old')
    assert command() == 2
    begin(command, '--force')
    assert (tmp_path / 'o.json').read_text() == 'old' and command() == 0
    assert len(json.loads((tmp_path / 'o.json').read_text())['answers'])


@pytest.mark.unix
@pytest.mark.parametrize('words', [[], ['--force']])
def test_a_pipe_is_no_journal(tmp_path, command, capsys, words):
    os.mkfifo(tmp_path / 'o.json.part')
    assert command(*words) == 2 and 'o.json.part is there, and no survey wrote it' in capsys.readouterr().err


def test_a_scene_whose_sources_changed_does_not_go_on(tmp_path):
    scene, options = harbour(tmp_path / 'a.tif', SHIPS, **UTM), dict(batch_size=1, allow_vrt=True)
    with rasterio.open(scene) as f:
        copy(f, tmp_path / 'b.vrt', driver='VRT')
    (tmp_path / 'c.vrt').write_text((tmp_path / 'b.vrt').read_text().replace('a.tif', 'b.vrt'))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'c.vrt', tmp_path / 'o.json', stop=lambda: True, **options)
    date = os.stat(scene).st_mtime_ns
    harbour(scene, SHIPS[:1], **UTM)
    os.utime(scene, ns=(date, date))
    with pytest.raises(BadInput, match='files differ'):
        run(tmp_path / 'c.vrt', tmp_path / 'o.json', **options)


def test_another_model_does_not_go_on(tiny, tmp_path):
    "Not even one with numbers of the same size, or with other words alone"
    model, tokenizer = tiny
    path, labels = harbour(tmp_path / 'a.tif', SHIPS, 150, 130, **UTM), ['water', 'forest']
    options = dict(classify=labels, batch_size=1, progress=False)
    with pytest.raises(KeyboardInterrupt):
        survey(Assistant(*tiny, 'tiny'), path, tmp_path / 'a.json', stop=lambda: True, **options)
    turned, other_chat = deepcopy(model), deepcopy(model)
    with torch.no_grad():
        turned.language.lm_head.weight.view(-1)[-1] *= -1
    other_chat.config.chat = other_chat.config.chat | dict(between='<user>')
    for other in (turned, other_chat):
        with pytest.raises(BadInput, match='fingerprint differ'):
            survey(Assistant(other, tokenizer, 'tiny'), path, tmp_path / 'a.json', **options)
    assert (
        survey(Assistant(deepcopy(model), tokenizer, 'tiny'), path, tmp_path / 'a.json', **options).tiles == 9
    )


def test_stop_and_progress(tmp_path):
    told, path = [], harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    with pytest.raises(KeyboardInterrupt):
        run(
            path,
            tmp_path / 'a.geojson',
            batch_size=1,
            progress=lambda n, total: told.append((n, total)),
            stop=lambda: len(told) == 3,
        )
    assert told[-1] == (3, 25) and run(path, tmp_path / 'a.geojson', batch_size=1).resumed == 3


KILL = '''
import os, signal, sys; sys.path[:0] = [%r]
from test_survey import Perfect
from earthgpt_lite.app.survey import survey
class Shot(Perfect):
    def _step(self):
        if self.fail == 0: os.kill(os.getpid(), signal.SIGKILL)
        super()._step()
survey(Shot(fail=6), sys.argv[1], sys.argv[2], detect='ship', overlap=40, batch_size=1, progress=False)
'''


@pytest.mark.unix
def test_sigkill(tmp_path):
    path, out = harbour(tmp_path / 'a.tif', SHIPS, **UTM), tmp_path / 'a.geojson'
    process = subprocess.run([sys.executable, '-c', KILL % os.path.dirname(__file__), str(path), str(out)])
    assert (
        process.returncode == -signal.SIGKILL and (tmp_path / 'a.geojson.part').exists() and not out.exists()
    )
    options = dict(detect='ship', overlap=40, batch_size=1, progress=False)
    assert survey(Perfect(), path, out, **options).resumed == 6
    survey(Perfect(), path, tmp_path / 'b.geojson', **options)
    assert settled(out) == settled(tmp_path / 'b.geojson')


@pytest.mark.slow
def test_two_processes_give_the_same_file_also_when_one_fails(tmp_path):
    path, options = (
        harbour(tmp_path / 'a.tif', SHIPS, **UTM),
        dict(detect='ship', overlap=40, batch_size=1, progress=False),
    )
    survey(Perfect(), path, tmp_path / 'one.geojson', **options)
    with pytest.raises(Exception, match='the power failed'):
        survey(Perfect(fail=4), path, tmp_path / 'two.geojson', processes=2, **options)
    assert sorted(p.name for p in tmp_path.glob('*.part*')) == [
        'two.geojson.part1of2',
        'two.geojson.part2of2',
    ]
    done = survey(Perfect(), path, tmp_path / 'two.geojson', processes=2, **options)
    assert done.resumed >= 4 and done.tiles == 25 and not list(tmp_path.glob('*.part*'))
    assert settled(tmp_path / 'one.geojson') == settled(tmp_path / 'two.geojson')


def test_nothing_is_left_of_a_write_that_fails(tmp_path, monkeypatch):
    "Not of the answers, and not of what belongs to them, whichever of them it is that fails."
    path, out = harbour(tmp_path / 'a.tif', SHIPS, **UTM), tmp_path / 'b.geojson'
    asked = dict(classify=['dark', 'bright'], raster=tmp_path / 'c.tif', progress=False)
    files = ['b.geojson', 'b.qml', 'c.qml', 'c.tif', 'c.tif.aux.xml']
    for name in files:

        def fail(check, part, whole):
            if whole.name == name:
                raise BadInput('no space left')

        monkeypatch.setattr(module, 'check_written', fail)
        with pytest.raises(BadInput, match='no space'):
            survey(Perfect(), path, out, **asked)
        assert sorted(p.name for p in tmp_path.iterdir()) == ['a.tif', 'b.geojson.part']
    monkeypatch.undo()
    survey(Perfect(), path, out, **asked)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.tif', *files]
    assert [p.name for p in module.output_files(out, tmp_path / 'c.tif')] == [
        files[k] for k in (0, 3, 4, 1, 2)
    ]


def test_what_a_gis_wants_to_know(tmp_path):
    "The same in all three files: of each shape once, and of the survey once."
    geopandas = pytest.importorskip('geopandas', reason='geopandas comes with the extra geo')
    path = harbour(tmp_path / 'a.tif', [(0, 0, 200, 100), (210, 210, 290, 280)], **UTM)
    with rasterio.open(path, 'r+') as f:
        f.update_tags(datetime='2024-01-08T10:14:01Z', platform='sentinel-2b')
    labels, model = ['dark', 'bright'], Perfect()
    model.model.config.rendering = dict(optical=dict(limits=[0, 0.3]))
    asked = dict(classify=labels, size=50, min_score=0.5, raster=tmp_path / 'c.tif', progress=False)
    survey(model, path, tmp_path / 'a.geojson', **asked)
    survey(model, path, tmp_path / 'a.gpkg', **asked)
    found = json.loads((tmp_path / 'a.geojson').read_text())
    rows = sorted((f['properties'] for f in found['features']), key=lambda row: row['area_m2'])
    keys = ['class_id', 'label', 'probability', 'tiles', 'datetime', 'gsd', 'area_m2']
    assert all([*row] == keys for row in rows)
    assert [(row['class_id'], row['label'], row['tiles']) for row in rows] == [
        (2, 'bright', 4), (2, 'bright', 8), (1, 'dark', 24)
    ]  # fmt: skip
    assert all(row['datetime'] == '2024-01-08T10:14:01Z' and row['gsd'] == 10 for row in rows)
    assert sum(row['area_m2'] for row in rows) == pytest.approx(300 * 300 * 100, rel=1e-3)
    table = geopandas.read_file(tmp_path / 'a.gpkg', layer='answers').sort_values('area_m2')
    assert table[keys].to_dict('records') == rows
    told = dict(prompt=labels, kind='classify', model='perfect', scene='a.tif', sensor='optical', gsd=10)
    told |= dict(rendering=dict(optical=dict(limits=[0, 0.3])), platform='sentinel-2')
    told |= dict(tile_size=50, thresholds=dict(min_probability=0.5), datetime='2024-01-08T10:14:01Z')
    assert {key: found[key] for key in told} == told and found['seconds'] >= 0
    import pyogrio

    with rasterio.open(tmp_path / 'c.tif') as f:
        tags = f.tags()
    for texts in (pyogrio.read_info(tmp_path / 'a.gpkg', layer='answers')['layer_metadata'], tags):
        assert {key: texts[key] for key in told} == {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in found.items()
            if key in told
        }
        assert texts['created'] and float(texts['seconds']) >= 0


def test_the_run_time_counts_what_was_done_before(tmp_path, monkeypatch):
    path, out = harbour(tmp_path / 'a.tif', SHIPS, **UTM), tmp_path / 'a.geojson'
    clock = iter(np.arange(0, 1e6, 100.0).tolist())
    monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(RuntimeError):
        run(path, out, batch_size=1, assistant=Perfect(fail=5))
    run(path, out, batch_size=1)
    assert json.loads(out.read_text())['seconds'] == 25 * 100


def test_a_style_of_somebody_is_never_written_over(tmp_path, command, capsys):
    "Neither with --force, nor that of the scene; ours is, where it is allowed."
    for style, words in (('o.qml', ['--out', 'o.geojson']), ('c.qml', ['--raster', 'c.tif'])):
        (tmp_path / style).write_text('<qgis>my own</qgis>')
        assert command(*words) == 2 and f'{style} exists already' in capsys.readouterr().err
        assert command(*words, '--force') == 2 and 'no style of ours' in capsys.readouterr().err
        assert (tmp_path / style).read_text() == '<qgis>my own</qgis>'
        (tmp_path / style).unlink()
    assert command('--out', 'a.geojson') == 0 and 'pipe' not in (tmp_path / 'a.qml').read_text()
    assert command('--out', 'a.geojson') == 2 and 'exists already' in capsys.readouterr().err
    (tmp_path / 'a.geojson').unlink()
    assert command('--out', 'a.geojson') == 2 and 'a.qml exists already' in capsys.readouterr().err
    assert command('--out', 'a.geojson', '--force') == 0
    with pytest.raises(BadInput, match='no style of ours'):
        run(harbour(tmp_path / 'port.qml', SHIPS, **UTM), tmp_path / 'port.geojson')
    assert (
        command('--raster', 'a.tiff', '--force') == 2
        and 'would be that of a.tif too' in capsys.readouterr().err
    )


# Refused


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(ask='a', detect='b'), '2 of ask'),
        (dict(), '0 of ask'),
        (dict(ask=' '), 'empty'),
        (dict(classify=[]), 'at least two'),
        (dict(classify=['a', 'A']), 'more than once'),
        (dict(detect='a', raster='c.tif'), 'needs classify'),
        (dict(classify=['a', 'b'], raster='c.png'), 'name it .tif'),
        (dict(detect='a', overlap=100), 'overlap'),
        (dict(classify=['a', 'b'], overlap=5), 'no overlap'),
        (dict(detect='a', out='a.shp'), 'geojson'),
        (dict(detect='a', max_tiles=3), 'tiles'),
        (dict(detect='a', processes=0), '0 processes'),
        (dict(detect='a', processes=2, stop=print), 'functions of this process'),
    ],
)
def test_refused_before_anything_is_computed(tmp_path, options, words):
    path = harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    with pytest.raises(BadInput, match=words):
        survey(Perfect(fail=0), path, tmp_path / options.pop('out', 'a.geojson'), progress=False, **options)
    assert [p.name for p in tmp_path.iterdir()] == ['a.tif']


def test_a_raster_that_cannot_be_written_is_refused_at_once(tmp_path):
    path = harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    (tmp_path / 'folder.tif').mkdir()
    (tmp_path / 'file').write_text('')
    for raster in (tmp_path / 'folder.tif', tmp_path / 'file/c.tif'):
        with pytest.raises(BadInput, match=raster.name):
            survey(
                Perfect(fail=0),
                path,
                tmp_path / 'a.geojson',
                classify=['a', 'b'],
                raster=raster,
                progress=False,
            )
    survey(
        Perfect(),
        path,
        tmp_path / 'a.geojson',
        classify=['dark', 'bright'],
        raster=tmp_path / 'new/c.tif',
        progress=False,
    )
    # a folder is made, as for the answers
    assert (tmp_path / 'new/c.tif').exists()


def test_scenes_that_cannot_be_surveyed(tmp_path):
    harbour(tmp_path / 'a.tif', SHIPS)
    with warnings.catch_warnings(), pytest.raises(BadInput, match='name the output .json'):
        # the sentence, and nothing beside it
        warnings.simplefilter('error')
        run(tmp_path / 'a.tif', tmp_path / 'a.geojson')
    with pytest.raises(BadInput, match='single pixel'):
        run(harbour(tmp_path / 'b.tif', [], 1, 1, **UTM), tmp_path / 'a.geojson')
    with pytest.raises(BadInput, match='no such file'):
        run(tmp_path / 'none.tif', tmp_path / 'a.geojson')
    (tmp_path / 'text.tif').write_text('hello')
    with pytest.raises(BadInput, match='text.tif'):
        run(tmp_path / 'text.tif', tmp_path / 'a.geojson')


def test_a_hundred_gigapixels_are_refused_with_their_number(tmp_path):
    with rasterio.open(
        tmp_path / 'a.tif',
        'w',
        driver='GTiff',
        width=400_000,
        height=250_000,
        count=1,
        dtype='uint8',
        tiled=True,
        blockxsize=4096,
        blockysize=4096,
        sparse_ok=True,
        BIGTIFF='YES',
        **UTM,
    ) as f:
        f.write(np.full((1, 4096, 4096), 9, 'uint8'), window=((0, 4096), (0, 4096)))
    with pytest.raises(BadInput, match='400,000 x 250,000 pixels are 24,4'):
        survey(Perfect(64), tmp_path / 'a.tif', tmp_path / 'a.geojson', classify=['a', 'b'], progress=False)


def test_options_are_one_thing_or_keywords(tmp_path):
    path = harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    options = SurveyOptions(overlap=40, progress=False)
    survey(Perfect(), path, tmp_path / 'a.geojson', detect='ship', options=options)
    run(path, tmp_path / 'b.geojson')
    assert settled(tmp_path / 'a.geojson') == settled(tmp_path / 'b.geojson')
    assert (
        survey(Perfect(), path, tmp_path / 'c.geojson', detect='ship', options=options, size=300).tiles == 1
    )
    with pytest.raises(TypeError, match='overlaps'):
        run(path, tmp_path / 'd.geojson', overlaps=40)


# The real thing


def test_with_a_real_model(tiny, tmp_path):
    helper, path = Assistant(*tiny, 'tiny'), harbour(tmp_path / 'a.tif', SHIPS, 150, 130, **UTM)
    done = survey(helper, path, tmp_path / 'a.geojson', classify=['water', 'forest'], progress=False)
    assert done.tiles == 9 and done.features >= 1
    for kind in (dict(detect='island'), dict(ground='the island'), dict(ask='what does this image show?')):
        assert (
            survey(helper, path, tmp_path / f'{next(iter(kind))}.geojson', progress=False, **kind).tiles >= 9
        )


MEMORY = '''
import json, sys, time, numpy as np, rasterio, torch
torch.set_num_threads(1)
from rasterio.transform import from_origin
from rasterio.windows import Window
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.train.throughput import peak_memory_mb
from earthgpt_lite.raster.sources import read_tiles
from earthgpt_lite.app.survey import survey
folder, model, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
helper = Assistant.from_pretrained(model, 'cpu')
done = survey(helper, f'{folder}/big.tif', f'{folder}/big.geojson', classify=['water', 'forest', 'grassland', 'cropland', 'snow', 'desert'], size=size, progress=False)
peak = peak_memory_mb()
chips = [t.chip() for _, t in zip(range(256), read_tiles(f'{folder}/big.tif', size))]
labels = ['water', 'forest', 'grassland', 'cropland', 'snow', 'desert']
start = time.time()
for i in range(0, 256, 64): helper.classify(chips[i:i + 64], labels)
print(json.dumps(dict(peak_mb=peak, tiles=done.tiles, rate=done.tiles / done.seconds, memory_rate=256 / (time.time() - start))))
'''


@pytest.mark.slow
def test_ten_thousand_squared_under_one_and_a_half_gigabytes(saved, tmp_path):
    rng = np.random.default_rng(0)
    with rasterio.open(
        tmp_path / 'big.tif', 'w', driver='GTiff', width=10_000, height=10_000, count=3, dtype='uint8', **UTM
    ) as f:
        for row in range(0, 10_000, 500):
            f.write(rng.integers(1, 255, (3, 500, 10_000), 'uint8'), window=((row, row + 500), (0, 10_000)))
    out = subprocess.run(
        [sys.executable, '-c', MEMORY, str(tmp_path), str(saved), '128'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = json.loads(out.splitlines()[-1])
    print(found)
    assert found['tiles'] == 79**2 and found['peak_mb'] < 1500


def test_a_survey_of_an_address_goes_on_with_a_new_signature(tmp_path):
    harbour(tmp_path / 'a.tif', SHIPS, **UTM)
    out = tmp_path / 'out.geojson'
    data = (tmp_path / 'a.tif').read_bytes()

    class Ranges(http.server.BaseHTTPRequestHandler):
        log_message = lambda *_: None

        def do_GET(self):
            start, _, stop = self.headers.get('Range', 'bytes=0-').removeprefix('bytes=').partition('-')
            part = data[int(start) : int(stop or len(data)) + 1]
            self.send_response(206 if 'Range' in self.headers else 200)
            self.send_header('Accept-Ranges', 'bytes')
            self.send_header('Content-Length', str(len(part)))
            if 'Range' in self.headers:
                self.send_header('Content-Range', f'bytes {start}-{int(start) + len(part) - 1}/{len(data)}')
            self.end_headers()
            self.wfile.write(part if self.command == 'GET' else b'')

        do_HEAD = do_GET

    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Ranges)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{web.server_address[1]}/a.tif?sig='
    options = dict(detect='ship', overlap=40, batch_size=2, progress=False)
    with pytest.raises(RuntimeError):
        survey(Perfect(fail=3), address + 'OLD', out, **options)
    assert b'OLD' not in (tmp_path / 'out.geojson.part').read_bytes()
    assert survey(Perfect(), address + 'NEW', out, **options).resumed == 3
    assert 'sig=' not in out.read_text() and 'NEW' not in out.read_text()
    web.shutdown()
    web.server_close()
