"Survey of two dates: one grid, what either hides left out, pairs asked as `compare` asks them, refusals with figures."

import json
import os
import subprocess
import re
import sys
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.warp import Resampling, reproject, transform

from fixtures_app import raster
from earthgpt_lite.app import model_commands
from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.change import read_pairs, survey_change
from earthgpt_lite.app.cli import main
from earthgpt_lite.boxes.text import format_box
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.errors import BadInput

CLEARING = 210, 130, 80, 60  # column, row, width, height
ASKED = 'where was forest cleared?'


class Perfect:
    "Says where the second picture is brighter than the first, or which of two labels that is."

    name = 'perfect'

    def __init__(self, side=100, fail=10**9):
        config = SimpleNamespace(image_size=side, max_pictures=2)
        self.model, self.fail, self.words = SimpleNamespace(config=config), fail, set()

    def new(self, pair):
        self.fail -= 1
        if self.fail < 0:
            raise RuntimeError('the power failed')
        self.words.add(tuple(pair))
        one, two = pair.values()
        return (two.image.astype(int) - one.image).min(-1) > 40

    def ask(self, pairs, questions):
        return [self.answer(self.new(pair), list(pair.values()), questions[0]) for pair in pairs]

    def answer(self, new, chips, question):
        text = 'nothing.'
        if new.mean() > 0.003:
            rows, columns = np.flatnonzero(new.any(1)), np.flatnonzero(new.any(0))
            box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / len(new)
            text = format_box(box, 3)
        return Answer(text, -0.5, question, chips[-1], chips=chips)

    def classify(self, pairs, labels, question):
        answers = []
        for pair in pairs:
            label = labels[int(self.new(pair).mean() > 0.003)]
            scores = {l: 0.9 if l == label else 0.1 for l in labels}
            answers.append(Answer(label, -0.1, question, [*pair.values()][-1], scores=scores))
        return answers


def write(path, pixels, place, date=None, names=None, **more):
    raster(path, pixels, date=date, names=names, **place, **more)
    return path


def forest(cleared=False, seed=1, cloud=False):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(40, 70, (3, 320, 400)).astype('uint8')
    if cleared:
        column, row, w, h = CLEARING
        pixels[:, row : row + h, column : column + w] = 190
    if cloud:
        pixels[:, 220:300, 40:120] = 250
    return pixels


UTM = dict(crs=rasterio.CRS.from_epsg(32618), transform=Affine(10, 0, 440_000, 0, -10, 4_170_000))


def warped(pixels, code, step, west=0):
    "The same ground, without a part in the west, in another CRS with other pixels; nothing is 0."
    crs = rasterio.CRS.from_epsg(code)
    corners = [UTM['transform'] @ (x, y) for x in (400 * west, 400) for y in (0, 320)]
    x, y = transform(UTM['crs'], crs, *zip(*corners))
    step = step / (111_000 if crs.is_geographic else 1)
    size = int((max(y) - min(y)) / step), int((max(x) - min(x)) / step)
    place = dict(crs=crs, transform=Affine(step, 0, min(x), 0, -step, max(y)))
    out = np.zeros((len(pixels), *size), pixels.dtype)
    source = dict(src_crs=UTM['crs'], src_transform=UTM['transform'])
    there = dict(dst_crs=crs, dst_transform=place['transform'])
    reproject(pixels, out, resampling=Resampling.nearest, **source, **there)
    return out, place | dict(nodata=0)


@pytest.fixture
def before(tmp_path):
    return write(tmp_path / 'before.tif', forest(), UTM, '2017-01-24')


@pytest.fixture
def after(tmp_path):
    return write(tmp_path / 'after.tif', forest(True, 2), UTM, '2018-11-03')


def run(before, after, out, assistant=None, **more):
    options = dict(overlap=0, progress=False) | more
    return survey_change(assistant or Perfect(), before, after, out, ASKED, **options)


def changed(path):
    "The union of the boxes of a file of pixels."
    answers = [a for a in json.loads(path.read_text())['answers'] if a['answer'] != 'nothing.']
    return shapely.union_all([shapely.Polygon(a['polygon']) for a in answers])


def likeness(shape, column=0, row=0):
    "IoU with the clearing."
    left, top, w, h = CLEARING
    true = shapely.box(left - column, top - row, left + w - column, top + h - row)
    return shape.intersection(true).area / shape.union(true).area


# ---- one grid


def test_on_one_grid_the_clearing_is_where_it_is(before, after, tmp_path):
    helper = Perfect()
    done = run(before, after, tmp_path / 'a.json', helper)
    assert likeness(changed(tmp_path / 'a.json')) > 0.99 and done.tiles == 16 and done.warnings == []
    assert helper.words == {('before', 'after')}


@pytest.mark.parametrize('code, step', [(4326, 8), (4326, 14), (32617, 6), (3857, 10)])
def test_other_maps_and_pixels(before, tmp_path, code, step):
    pixels, place = warped(forest(True, 2), code, step)
    after = write(tmp_path / 'after.tif', pixels, place, '2018-11-03')
    run(before, after, tmp_path / 'a.json')
    assert likeness(changed(tmp_path / 'a.json')) > 0.85


def test_a_part_is_surveyed_and_the_overlap_said(before, tmp_path):
    pixels, place = warped(forest(True, 2), 32618, 10, west=0.4)
    after = write(tmp_path / 'after.tif', pixels, place, '2018-11-03')
    done = run(before, after, tmp_path / 'a.json')
    (said,) = done.warnings
    assert said == 'after.tif shows 60% of the ground of before.tif: the survey is of that part'
    assert likeness(changed(tmp_path / 'a.json'), column=160) > 0.98
    found = json.loads((tmp_path / 'a.json').read_text())
    assert found['shared_ground'] == pytest.approx(0.6, abs=0.01) and found['width'] == 240
    run(before, after, tmp_path / 'a.geojson')
    at = shapely.union_all(
        [
            shapely.geometry.shape(f['geometry'])
            for f in json.loads((tmp_path / 'a.geojson').read_text())['features']
            if f['properties']['answer'] != 'nothing.'
        ]
    )
    column, row, w, h = CLEARING
    (lon,), (lat,) = transform(UTM['crs'], 'EPSG:4326', *[[v] for v in UTM['transform'] @ (column, row)])
    assert abs(at.bounds[0] - lon) < 2e-4 and abs(at.bounds[3] - lat) < 2e-4


def test_pictures_without_a_place_are_compared_as_they_lie(tmp_path):
    one, two = write(tmp_path / 'a.tif', forest(), {}), write(tmp_path / 'b.tif', forest(True, 2), {})
    done = run(one, two, tmp_path / 'o.json')
    assert done.warnings == ['neither picture has a CRS: they are compared pixel by pixel, as they lie']
    assert likeness(changed(tmp_path / 'o.json')) > 0.98


# ---- what either hides


@pytest.mark.parametrize('which', [0, 1])
def test_a_strip_without_data_is_no_change(tmp_path, which):
    dates = [forest(), forest(True, 2)]
    dates[1 - which][:, :, 100:130] = 255  # what the other one shows there does not count
    dates[which][:, :, 100:130] = 0
    paths = [write(tmp_path / f'{k}.tif', x, UTM, nodata=0) for k, x in enumerate(dates)]
    run(*paths, tmp_path / 'a.json')
    assert likeness(changed(tmp_path / 'a.json')) > 0.98


@pytest.mark.parametrize('beside', [True, False])
def test_cloud_of_either_is_left_out_with_its_count(before, tmp_path, beside):
    pixels, mask = forest(True, 2, cloud=True), np.full((1, 320, 400), 4, 'uint8')
    mask[:, 215:305, 35:125] = 9
    clouds = (None, None)
    if beside:
        after = write(tmp_path / 'after.tif', pixels, UTM, '2018-11-03')
        coarse = dict(UTM, transform=UTM['transform'] @ Affine.scale(5))
        clouds = None, write(tmp_path / 'after_SCL.tif', mask[:, 2::5, 2::5], coarse)
    else:
        names = ('red', 'green', 'blue', 'SCL')
        after = write(tmp_path / 'after.tif', np.concatenate([pixels, mask]), UTM, '2018-11-03', names)
    done = run(before, after, tmp_path / 'a.json', size=50, clouds=clouds)
    (said,) = [w for w in done.warnings if 'bands' not in w]
    count = 4 if beside else 3  # a coarse mask grows
    assert said.startswith(f'{count} of 56 tiles are left out: less than 50% of their ground is clear')
    assert likeness(changed(tmp_path / 'a.json')) > 0.98
    found = json.loads((tmp_path / 'a.json').read_text())
    assert found.get('after_clouds') == ('after_SCL.tif' if beside else None)
    run(before, write(tmp_path / 'bare.tif', pixels, UTM), tmp_path / 'bare.json', size=50)
    assert likeness(changed(tmp_path / 'bare.json')) < 0.6, 'a cloud that nobody masks is a change'


def test_hidden_ground_is_grey_in_both(before, tmp_path):
    from earthgpt_lite.app import change as module

    pixels = forest(True, 2)
    pixels[:, :, 30:60] = 0
    after = write(tmp_path / 'after.tif', pixels, UTM, nodata=0)
    options = module.SurveyOptions()
    dates = [module._look(role, path, None, options) for role, path in zip(module.ROLES, (before, after))]
    batches = [[(0, 0, 100, 100), (100, 0, 100, 100)]]
    ((_, pairs),) = read_pairs(dates, dates[0].frame, batches, options)
    one, two = (scene.chip().image for scene in pairs[0])
    assert (one[:, 30:60] == 127).all() and (two[:, 30:60] == 127).all()
    assert np.array_equal(one[:, :30], forest().transpose(1, 2, 0)[:100, :30])


# ---- what is written


def test_both_dates_and_both_files_are_in_every_shape(before, after, tmp_path):
    run(before, after, tmp_path / 'a.geojson')
    found = json.loads((tmp_path / 'a.geojson').read_text())
    dates = dict(before_file='before.tif', before_datetime='2017-01-24')
    dates |= dict(after_file='after.tif', after_datetime='2018-11-03')
    assert dates.items() <= found.items() and found['question'] == ASKED == found['prompt']
    assert found['resampling'] == 'bilinear' and found['kind'] == 'change' and found['least_clear'] == 0.5
    for feature in found['features']:
        assert dates.items() <= feature['properties'].items() and 'datetime' not in feature['properties']
    assert {f['properties']['answer'] for f in found['features']} > {'nothing.'}


def test_a_geopackage_has_them_as_columns(before, after, tmp_path):
    geopandas = pytest.importorskip('geopandas', reason='geopandas comes with the extra geo')
    run(before, after, tmp_path / 'a.gpkg')
    table = geopandas.read_file(tmp_path / 'a.gpkg', layer='answers')
    assert set(table.before_datetime) == {'2017-01-24'} and set(table.after_file) == {'after.tif'}


def test_a_choice_of_answers_and_its_raster(before, after, tmp_path):
    options = dict(size=20, raster=tmp_path / 'c.tif', progress=False)
    survey_change(Perfect(), before, after, tmp_path / 'a.geojson', 'lost?', ['no', 'yes'], **options)
    with rasterio.open(tmp_path / 'c.tif') as file:
        classes, tags = file.read(1), file.tags()
    column, row, w, h = (n / 20 for n in CLEARING)
    true = np.ones((16, 20), int)
    true[int(row) : int(np.ceil(row + h)), int(column) : int(np.ceil(column + w))] = 2
    assert (classes == true).all() and tags['question'] == 'lost?' and tags['after_datetime'] == '2018-11-03'
    found = json.loads((tmp_path / 'a.geojson').read_text())
    assert found['kind'] == 'classify' and found['prompt'] == ['no', 'yes'] and found['question'] == 'lost?'
    assert {f['properties']['probability'] for f in found['features']} == {0.9}


# ---- stopped and resumed


def test_what_was_stopped_goes_on_to_the_same_file(before, after, tmp_path):
    more = dict(size=50, batch_size=3)
    with pytest.raises(RuntimeError):
        run(before, after, tmp_path / 'a.json', Perfect(fail=20), **more)
    assert not (tmp_path / 'a.json').exists()
    done = run(before, after, tmp_path / 'a.json', **more)
    run(before, after, tmp_path / 'b.json', **more)
    one, two = (json.loads((tmp_path / f'{n}.json').read_text())['answers'] for n in 'ab')
    assert done.resumed == 7 and one == two


def test_another_date_or_question_does_not_go_on(before, after, tmp_path):
    with pytest.raises(RuntimeError):
        run(before, after, tmp_path / 'a.json', Perfect(fail=5), batch_size=1)
    other = write(tmp_path / 'later.tif', forest(True, 3), UTM, '2019-11-03')
    with pytest.raises(BadInput, match='another survey.*files, scene differ'):
        run(before, other, tmp_path / 'a.json', batch_size=1)
    with pytest.raises(BadInput, match='another survey.*question differ'):
        survey_change(Perfect(), before, after, tmp_path / 'a.json', 'what else?', batch_size=1, overlap=0)


def import_path():
    "Where another process finds this file and the fixtures."
    here = os.path.dirname(__file__)
    return os.pathsep.join([here, os.path.dirname(here), os.environ.get('PYTHONPATH', '')])


@pytest.mark.slow
def test_two_processes_give_the_same_file(before, after, tmp_path):
    code = (
        'from test_change_survey import *\n'
        f'for n in (1, 2): run({str(before)!r}, {str(after)!r}, Path({str(tmp_path)!r}) / f"{{n}}.json", processes=n)'
    )
    words = [sys.executable, '-c', 'from pathlib import Path\n' + code]
    subprocess.run(words, check=True, env=os.environ | dict(PYTHONPATH=import_path()))
    one, two = (json.loads((tmp_path / f'{n}.json').read_text())['answers'] for n in (1, 2))
    assert one == two


# ---- what is refused, and what is said


def shifted(metres):
    return dict(UTM, transform=Affine.translation(metres, 0) @ UTM['transform'])


@pytest.mark.parametrize(
    'place, date, words',
    [
        (
            shifted(90_000),
            '2018',
            'before.tif and other.tif show different places, 89.8 km from middle to middle',
        ),
        (UTM, '2016-05-01', 'before.tif is of 2017-01-24, and other.tif of 2016-05-01: .*swap'),
        ({}, '2018', r'other.tif has no CRS, and before.tif has one \(EPSG:32618\).*give it one'),
    ],
)
def test_what_cannot_be_two_dates_of_a_place_is_refused(before, tmp_path, place, date, words):
    other = write(tmp_path / 'other.tif', forest(True, 2), place, date)
    with pytest.raises(BadInput, match=words):
        run(before, other, tmp_path / 'a.json')


def test_one_file_twice_is_refused_under_any_name(before, tmp_path):
    copy = tmp_path / 'copy.tif'
    copy.write_bytes(before.read_bytes())
    for other in (before, copy):
        with pytest.raises(BadInput, match='hold the same, byte for byte'):
            run(before, other, tmp_path / 'a.json')


def test_sizes_without_a_place_are_said(tmp_path):
    one = write(tmp_path / 'a.tif', forest(), {})
    two = write(tmp_path / 'b.tif', forest(True)[:, :300], {})
    with pytest.raises(BadInput, match='400 x 320 and 400 x 300 pixels'):
        run(one, two, tmp_path / 'o.json')
    with pytest.raises(BadInput, match='no place on Earth'):
        run(one, write(tmp_path / 'c.tif', forest(True), {}), tmp_path / 'o.geojson')


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda p: write(p, forest(True)[:1], UTM), 'bands differ: red, green, blue before, .* after'),
        (lambda p: write(p, *warped(forest(True, 2), 32618, 30)[:1], coarse(30)), 'are 3.0 times as wide'),
        (
            lambda p: write(p, forest(True)[:1], UTM, names=('VV',)),
            'sensors differ: optical before, sar after',
        ),
        (lambda p: reflectance(p), 'units differ: counts before, reflectance after'),
    ],
)
def test_what_makes_a_comparison_weaker_is_said_and_refused_if_strict(before, tmp_path, make, words):
    other = make(tmp_path / 'other.tif')
    done = run(before, other, tmp_path / 'a.json')
    assert any(re.search(words, w) for w in done.warnings), done.warnings
    with pytest.raises(BadInput, match=words):
        run(before, other, tmp_path / 'b.json', strict=True)


def coarse(step):
    return dict(UTM, transform=Affine(step, 0, 440_000, 0, -step, 4_170_000))


def reflectance(path):
    write(path, forest(True), UTM)
    with rasterio.open(path, 'r+') as file:
        file.scales = (0.004,) * 3
    return path


def test_a_model_without_the_ability_is_refused_before_any_reading(tiny, tmp_path):
    with pytest.raises(BadInput, match='2 pictures in one question.*one picture in a question'):
        survey_change(Assistant(*tiny), 'no.tif', 'file.tif', tmp_path / 'a.json', ASKED)


def test_a_question_and_labels_are_checked(before, after, tmp_path):
    for question, labels, more, words in (
        (' ', None, {}, 'the question is empty'),
        (ASKED, ['yes'], {}, 'at least two'),
        (ASKED, None, dict(raster='c.tif'), 'needs labels'),
        (ASKED, ['no', 'yes'], dict(overlap=10), 'seen once'),
    ):
        with pytest.raises(BadInput, match=words):
            survey_change(Perfect(), before, after, tmp_path / 'a.json', question, labels, **more)


# ---- with a real model


@pytest.fixture
def pair_helper(wild):
    "Large weights: it says something else about everything. As if it had been trained with pairs."
    model = deepcopy(wild[0])
    model.config.max_pictures = 2
    return Assistant(model, wild[1], 'wild')


def test_the_survey_says_what_compare_says_of_the_same_tiles(pair_helper, before, after, tmp_path):
    from earthgpt_lite.app import change as module

    options = dict(size=128, progress=False, batch_size=3)
    survey_change(pair_helper, before, after, tmp_path / 'a.json', 'what changed?', **options)
    dates = [module._look(*date, None, module.SurveyOptions()) for date in zip(module.ROLES, (before, after))]
    batch = [(128, 0, 128, 128), (256, 0, 128, 128)]
    ((_, pairs),) = read_pairs(dates, dates[0].frame, [batch], module.SurveyOptions())
    said = {}
    for answer in json.loads((tmp_path / 'a.json').read_text())['answers']:
        if answer['tiles'] == 1 and not answer['answer'].startswith('['):
            x, y, *_ = shapely.Polygon(answer['polygon']).bounds
            said[int(x), int(y)] = answer['answer']
    alone = {}
    for k, pair in pairs.items():
        alone[batch[k][:2]] = pair_helper.compare(*(scene.chip() for scene in pair), 'what changed?').text
    assert len(set(alone.values())) == 2, 'so that a mix-up would show'
    assert alone.items() <= said.items()


def test_each_picture_of_a_tile_is_encoded_once(pair_helper, before, after, tmp_path):
    counts, tower = [], pair_helper.model.vision_tower
    hook = tower.register_forward_pre_hook(lambda tower, given: counts.append(len(given[0])))
    done = survey_change(pair_helper, before, after, tmp_path / 'a.json', 'what?', size=100, progress=False)
    hook.remove()
    assert done.tiles == 16 and sum(counts) == 32


def test_radar_of_sabah_on_another_grid(pair_helper, tmp_path):
    "The real pair of the sample, its second date in another CRS: decibels stay decibels, bands stay bands."
    from earthgpt_lite.app import change as module

    first, last = (DATA / f'sentinel1_sabah_{day}.tif' for day in ('2017-01-24', '2018-11-03'))
    with rasterio.open(last) as file:
        pixels, scales, names = file.read(), file.scales, file.descriptions
        place = dict(src_crs=file.crs, src_transform=file.transform)
    there = dict(crs=rasterio.CRS.from_epsg(32650), transform=Affine(9, 0, 523_000, 0, -9, 600_000))
    (x,), (y,) = transform('EPSG:4326', 'EPSG:32650', *[[v] for v in place['src_transform'] @ (0, 0)])
    there['transform'] = Affine(9, 0, x, 0, -9, y)
    out = np.full((2, 620, 620), -32768, 'int16')
    target = dict(dst_crs=there['crs'], dst_transform=there['transform'], dst_nodata=-32768)
    reproject(pixels, out, src_nodata=-32768, resampling=Resampling.bilinear, **place, **target)
    moved = write(tmp_path / 'last.tif', out, there, '2018-11-03', names, nodata=-32768)
    with rasterio.open(moved, 'r+') as file:
        file.scales = scales
        file.update_tags(SENSOR='sar', UNIT='dB')
    options = module.SurveyOptions()
    dates = [module._look(*date, None, options) for date in (('before', last), ('after', moved))]
    ((_, pairs),) = read_pairs(dates, dates[0].frame, [[(100, 100, 64, 64)]], options)
    one, two = (scene.chip() for scene in pairs[0])
    assert one.sensor == two.sensor == 'sar' and one.about['unit'] == two.about['unit'] == 'dB'
    assert np.abs(one.image.astype(int) - two.image).mean() < 12, 'the same ground, resampled twice'
    done = survey_change(pair_helper, first, moved, tmp_path / 'a.geojson', 'what?', size=100, progress=False)
    assert done.tiles == 16 and not any('differ' in w for w in done.warnings)


# ---- the command


@pytest.fixture
def command(tmp_path, monkeypatch, before, after):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_commands, '_assistant', lambda args: Perfect())
    return lambda *words: main(['survey', 'perfect', *words])


PAIR = '--before', 'before.tif', '--after', 'after.tif'


def test_the_command_writes_and_says_how_to_look(command, capsys, tmp_path):
    assert command(*PAIR, '--change', ASKED, '--out', 'a.geojson') == 0
    told = capsys.readouterr().out
    assert 'map before.tif after.tif --answers a.geojson' in told and (tmp_path / 'a.geojson').exists()
    choice = ('--classify', 'no,yes', '--raster', 'c.tif', '--size', '20')
    assert command(*PAIR, '--change', ASKED, *choice, '--out', 'b.geojson') == 0
    assert (tmp_path / 'c.tif').exists()


@pytest.mark.parametrize(
    'words, told',
    [
        ((*PAIR, '--ask', 'what?'), '--change QUESTION'),
        (PAIR, '--change QUESTION'),
        (PAIR[:2] + ('--change', 'what?'), '--before A --after B'),
        ((*PAIR, 'before.tif', '--change', 'what?'), 'leave away SCENE'),
        (('before.tif', '--change', 'what?'), 'about two dates'),
        (('before.tif', '--ask', 'what?', '--after-clouds', 'x.tif'), 'about two dates'),
        (('--ask', 'what?'), 'no scene'),
        ((*PAIR, '--change', 'what?', '--after-clouds', 'none.tif'), 'none.tif: no such file'),
    ],
)
def test_a_command_that_mixes_both_is_told(command, capsys, words, told):
    assert command(*words, '--out', 'a.json') == 2 and told in capsys.readouterr().err


def test_a_scene_may_stand_behind_the_options_as_before(command, capsys, monkeypatch):
    from earthgpt_lite.app import survey as module

    seen = []
    monkeypatch.setattr(module, 'survey', lambda helper, scene, *a, **k: seen.append(scene) or 1 / 0)
    command('--ask', 'what?', '--out', 'a.json', 'before.tif')
    command('before.tif', '--ask', 'what?', '--out', 'a.json')
    assert seen == ['before.tif'] * 2
    assert command('--ask', 'what?', '--out', 'a.json', 'before.tif', 'after.tif') == 2
    assert 'one word too many' in capsys.readouterr().err


# ---- large scenes

MEMORY = '''
import json, sys
from pathlib import Path
from test_change_survey import Perfect
from earthgpt_lite.app.change import survey_change
from earthgpt_lite.train.throughput import peak_memory_mb
folder = Path(sys.argv[1])
start = peak_memory_mb()
facts = dict(progress=False, size=500, batch_size=4)
done = survey_change(Perfect(500), folder / 'a.tif', folder / 'b.tif', folder / 'o.json', 'lost?', ['no', 'yes'], **facts)
print(json.dumps([done.tiles, peak_memory_mb() - start]))
'''


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scenes(tmp_path):
    "Two dates of which each would take 430 MB as numbers, the second in another CRS with smaller pixels."
    small = np.random.default_rng(0).integers(40, 70, (3, 500, 500)).astype('uint8')
    used = {}
    for side in (2000, 6000):
        folder = tmp_path / str(side)
        folder.mkdir()
        for name, code, step, x in (('a', 32618, 10, 440_000), ('b', 32618, 9, 440_000)):
            place = dict(crs=f'EPSG:{code}', transform=Affine(step, 0, x, 0, -step, 4_170_000))
            width = int(side * 10 / step) // 500 * 500
            size = dict(width=width, height=width, count=3, dtype='uint8', tiled=True, blockxsize=512)
            with rasterio.open(
                folder / f'{name}.tif', 'w', driver='GTiff', blockysize=512, **size, **place
            ) as f:
                for row in range(0, width, 500):
                    f.write(np.tile(small, (1, 1, width // 500)), window=((row, row + 500), (0, width)))
        words = [sys.executable, '-c', MEMORY, str(folder)]
        told = subprocess.run(
            words, check=True, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=import_path())
        )
        used[side] = json.loads(told.stdout.splitlines()[-1])
    print(used)
    assert used[6000][0] == 144 and used[6000][1] < used[2000][1] + 150
