"A model says when it is asked outside what it was trained with."

import json

import numpy as np
import pytest
import rasterio

from earthgpt_lite.app.cli import main
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.sites import site_examples
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.data.wordings import asked_words, parse_question
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.config import MODELS, read_config
from earthgpt_lite.model.scope import Scope, odd_chips, outside, outside_question, scope_of, texture
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip


@pytest.fixture(scope='module')
def nano_scope():
    return scope_of(read_config(MODELS / 'nano'))


@pytest.mark.parametrize(
    'question, task, words',
    [
        ('where is the water?', 'grounding', ['water']),
        ('Show me the largest tree in this image.', 'grounding', ['largest tree']),
        ('please detect all objects in this image.', 'detection', []),
        ('find all ships in this image', 'detection', ['ships']),
        ('is there any open land in this image?', 'presence', ['open land']),
        ('is water larger than forest in this image?', 'comparison', ['water', 'forest']),
        (
            'which of these fits this image: water, forest or sand?',
            'classification',
            ['water', 'forest', 'sand'],
        ),
        ('what does this image show?', 'caption', []),
        ('does this image show snow?', 'presence', ['snow']),
        ('what does the box [0.1,0.2,0.3,0.4] show?', 'region_caption', []),
        ('why is it dark?', '', []),
        ('', '', []),
    ],
)
def test_a_question_tells_its_task_and_what_it_is_about(question, task, words):
    assert parse_question(question)[0] == task and asked_words(question) == words


def test_nano_knows_what_it_was_trained_with(nano_scope):
    assert set(nano_scope.sensors) == {'optical', 'sar', 'infrared'}
    assert {'water', 'forest', 'woodland'} <= nano_scope.sensors['optical'].words(['classification'])
    assert nano_scope.sensors['sar'].words(['classification']) == {'water', 'forest', 'open land'}
    for sensor, pixel in (
        ('optical', 15),
        ('optical', 0.2),
        ('optical', 7000),
        ('sar', 7),
        ('infrared', 22.5),
    ):
        assert nano_scope.about_scene(sensor, pixel) == []
    assert '300 m' in nano_scope.about_scene('optical', 300)[0]
    (said,) = outside_question(
        nano_scope, 'optical', 10, labels='water,forest,cropland,marsh,sand'.split(',')
    )
    assert said.startswith("'marsh', 'sand': not among")
    assert (
        'such a question (detection)'
        in outside_question(nano_scope, 'sar', 7, 'find all ships in this image.')[0]
    )
    assert outside_question(nano_scope, 'optical', None, 'why is it dark?') == []


@pytest.mark.parametrize('name', ['virginia', 'florida', 'alabama'])
def test_no_question_of_validation_ground_is_outside(nano_scope, name):
    for e in site_examples(name, 'validation'):
        assert nano_scope.about_picture(e.sensor, e.image) == []
        for t in e.turns:
            if t.task != Task.REGION_CAPTION:
                assert outside_question(nano_scope, e.sensor, None, t.question) == [], t.question


def test_flat_and_noise(nano_scope):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for sensor in nano_scope.sensors:
        assert 'like noise' in nano_scope.about_picture(sensor, noise)[0]
        assert 'flat' in nano_scope.about_picture(sensor, np.full((64, 64, 3), 90, np.uint8))[0]
    assert texture(np.zeros((2, 2, 3), np.uint8)) == (0, 1)


@pytest.mark.parametrize(
    'given',
    [
        [],
        {},
        {'radar': {}},
        {'sar': 3},
        {'sar': {'gsd': [[2, 1]]}},
        {'sar': {'tasks': {'x': 'y'}}},
        {'sar': {'contrast': '1'}},
    ],
)
def test_an_entry_that_means_nothing_is_refused(given):
    with pytest.raises(BadInput, match='^scope'):
        Scope.from_dict(given)


@pytest.fixture
def field(tmp_path):
    "A piece of Virginia with a flat corner, 2 x 2 tiles of 64."
    scene = read_scene(DATA / 'sentinel2_virginia.tif', window=(300, 900, 128, 128))
    pixels = scene.pixels.copy()
    pixels[:, :64, :64] = 0.01
    place = dict(driver='GTiff', width=128, height=128, crs=scene.crs, transform=scene.transform)
    with rasterio.open(tmp_path / 'field.tif', 'w', count=5, dtype='float32', **place) as f:
        f.write(pixels)
        f.descriptions = scene.bands
        f.update_tags(SATELLITE='Sentinel-2', UNIT='reflectance')
    return tmp_path / 'field.tif'


def test_survey_warns_in_file_and_on_the_terminal_and_refuses_if_strict(field, tmp_path, capsys):
    command = [
        'survey',
        'nano',
        str(field),
        '--classify',
        'water,woodland,marsh',
        '--out',
        str(tmp_path / 'o.geojson'),
    ]
    assert main([*command, '--strict']) == 2 and not (tmp_path / 'o.geojson').exists()
    assert "field.tif: 'marsh': not among" in capsys.readouterr().err
    assert main(command) == 0
    said = capsys.readouterr().err
    written = (tmp_path / 'o.geojson').read_text()
    for words in ('marsh', '1 of 4 tiles are flat or like noise'):
        assert words in said and words in written
    known = [
        'survey',
        'nano',
        str(field),
        '--classify',
        'water,woodland',
        '--out',
        str(tmp_path / 'k.geojson'),
    ]
    assert main([*known, '--strict', '--json']) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)['tiles'] == 3 and 'left out' in out.err


def test_ask_warns_and_finds_the_label(field, tmp_path, capsys):
    ask = lambda question, *more: main(['ask', 'nano', str(field), question, '--device', 'cpu', *more])
    out = str(tmp_path / 'a.geojson')
    assert ask('where is the volcano?', '--json', '--out', out) == 0
    said = json.loads(capsys.readouterr().out)
    assert "'volcano': not among" in said['warnings'][0]
    facts = json.loads((tmp_path / 'a.geojson').read_text())['features'][0]['properties']
    assert (
        facts['warnings'] == said['warnings'] and facts['task'] == 'grounding' and facts['label'] == 'volcano'
    )
    assert ask('where is the volcano?', '--strict') == 2
    assert 'field.tif' in capsys.readouterr().err
    assert ask('where is the bare field?', '--json', '--strict') == 0
    said = json.loads(capsys.readouterr().out)
    assert said['labels'] == ['bare field'] * len(said['boxes']) and said['boxes'] and said['warnings'] == []


def test_the_grey_around_a_flat_picture_does_not_hide_it():
    config = read_config(MODELS / 'nano')
    for shape in ((64, 64, 3), (40, 64, 3), (64, 30, 3)):
        chip = as_chip(np.full(shape, 90, np.uint8), size=64)
        assert any('flat' in sentence for sentence in outside(config, chip, chip.image)), shape
        assert odd_chips(config, {0: chip}) == [0]
