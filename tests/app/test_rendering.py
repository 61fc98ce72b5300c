"One path from file to chip: in training, of a window, of a file of its own, and in a survey the same bytes."

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.survey import survey
from earthgpt_lite.data.sample.sites import RENDERING, SITES, site_examples
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.model.config import MODELS, read_config, rendering_of
from earthgpt_lite.raster.reading import read_scene


@pytest.fixture(scope='module')
def looker():
    "An Assistant that has no weights: only the way of its pictures counts."
    return Assistant(SimpleNamespace(config=read_config(MODELS / 'nano')), None, 'nano')


def cut(path, window, out, units=True):
    "A window of a file as a file of its own, with all that the file says, or with counts alone."
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as f:
            w = Window(window[0], window[1], window[2], window[2])
            counts, place = f.read(window=w), f.transform @ Affine.translation(*window[:2])
            facts = dict(count=f.count, dtype=f.dtypes[0], crs=f.crs, nodata=f.nodata)
            told = f.tags(), f.descriptions, f.scales, f.offsets, f.units
        with rasterio.open(out, 'w', width=window[2], height=window[2], transform=place, **facts) as g:
            g.write(counts)
            g.descriptions = told[1]
            if units:
                g.update_tags(**told[0])
                g.scales, g.offsets, g.units = told[2:]
    return out


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
