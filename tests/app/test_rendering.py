"One path from file to chip: in training, of a window, of a file of its own, and in a survey the same bytes."

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine

from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.survey import survey
from earthgpt_lite.data.sample.sites import RENDERING, SITES, site_examples
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.config import MODELS, check_choices, read_config, rendering_of
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools'))
from chip_files import cut  # noqa: E402


@pytest.fixture(scope='module')
def looker():
    "An Assistant that has no weights: only the way of its pictures counts."
    return Assistant(SimpleNamespace(config=read_config(MODELS / 'nano')), None, 'nano')


@pytest.mark.parametrize('name', SITES)
def test_every_chip_has_the_same_bytes_on_every_way(name, looker, tmp_path):
    examples = site_examples(name, 'test')
    assert len(examples) > 30
    for e in examples:
        window, path = e.place['window'], DATA / e.place['file']
        of_scene = looker.to_pixel_values([looker.chip(read_scene(path, window=(*window, window[2])))])
        of_file = looker.to_pixel_values([looker.chip(cut(path, window, tmp_path / 'own.tif'))])
        trained = e.image.transpose(2, 0, 1)
        assert (of_scene[0].numpy() == trained).all(), e.name
        assert (of_file[0].numpy() == trained).all(), e.name
    told = looker.chip(tmp_path / 'own.tif').about['rendering']
    assert told == dict(virginia='red 0.035 to 0.2, green 0.055 to 0.18, blue 0.085 to 0.18 reflectance').get(
        name,
        dict(alabama='thermal 266 to 299 K').get(name, 'co -20 to -5, cross -26 to -10, ratio 1 to 11 dB'),
    )


def test_a_survey_shows_the_same(looker, tmp_path):
    path, seen = DATA / 'sentinel2_virginia.tif', []

    class Watcher:
        name, model, rendering = 'watcher', looker.model, looker.rendering

        def ask(self, chips, question):
            seen.extend(chips)
            return [Answer('water.', -0.1, question, chip) for chip in chips]

    part = cut(path, (300, 900, 288), tmp_path / 'scene.tif')
    survey(Watcher(), part, tmp_path / 'out.json', ask='what?', size=96, progress=False)
    assert len(seen) == 9
    for k, chip in enumerate(seen):
        corner = 300 + 96 * (k % 3), 900 + 96 * (k // 3)
        own = looker.chip(read_scene(path, window=(*corner, 96, 96)))
        assert np.array_equal(*(looker.to_pixel_values([c])[0].numpy() for c in (chip, own)))


def test_the_packaged_model_and_its_processor_say_how_they_look():
    config = read_config(MODELS / 'nano')
    assert rendering_of(config).of('sar') == RENDERING.sar and rendering_of(config).size == 64
    said = json.loads((MODELS / 'nano/processor_config.json').read_text())
    assert said['rendering'] == config.rendering == RENDERING.to_dict()


def test_a_window_of_counts_is_stretched_as_its_whole_scene(looker, tmp_path):
    counts = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
    with rasterio.open(
        tmp_path / 'a.tif',
        'w',
        driver='GTiff',
        count=1,
        height=64,
        width=64,
        dtype='uint16',
        crs='EPSG:32618',
        transform=Affine(10, 0, 5e5, 0, -10, 4e6),
    ) as f:
        f.write(counts)
    whole = looker.chip(tmp_path / 'a.tif')
    part = looker.chip(read_scene(tmp_path / 'a.tif', window=(0, 32, 32, 32)))
    assert np.array_equal(part.image, whole.image[32:, :32])
    assert part.about['rendering'] == 'percentiles 2 to 98 of the scene'
    alone = as_chip(read_scene(tmp_path / 'a.tif', window=(0, 32, 32, 32)))  # no model: it stands for itself
    assert alone.image.min() == 0 and alone.image.max() == 255


@pytest.mark.parametrize(
    'given, words',
    [
        ([], 'it may hold'),
        ({'optical': {'limits': [[0, 1]], 'bands': ['red']}}, 'rendering.optical: the unit of the limits'),
        (
            {'sar': {'limits': [[0, 1]], 'bands': ['co', 'cross', 'ratio'], 'unit': 'dB'}},
            '1 limits for 3 bands',
        ),
        ({'infrared': {'limits': [[1, 0]], 'bands': ['thermal'], 'unit': 'K'}}, 'a low and a higher number'),
        (
            {'infrared': {'limits': [[0, float('nan')]], 'bands': ['thermal'], 'unit': 'K'}},
            'a low and a higher',
        ),
        ({'optical': {'bands': 'red'}}, 'are lists'),
        ({'resampling': 'nearest'}, 'only bicubic'),
        ({'size': True}, 'from 8 to 2048'),
    ],
)
def test_a_rendering_that_means_nothing_is_refused_with_the_file(given, words):
    said = json.loads((MODELS / 'nano/config.json').read_text())
    with pytest.raises(BadInput, match=re.escape('config.json: rendering')) as error:
        check_choices(said | dict(rendering=given), 'config.json')
    assert words in str(error.value)


def test_a_model_without_the_entry_looks_as_files_do_by_themselves(looker):
    config = read_config(MODELS / 'nano')
    config.rendering = None
    blind = Assistant(SimpleNamespace(config=config), None)
    scene = read_scene(DATA / 'landsat8_alabama_thermal.tif')
    assert blind.rendering is None and np.array_equal(blind.chip(scene).image, as_chip(scene).image)
    assert not np.array_equal(looker.chip(scene).image, as_chip(scene).image)
