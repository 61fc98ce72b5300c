"Asking a model with tiles: one picture to whoever asks, and boxes in the whole picture and on the map."

from copy import deepcopy

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image

from earthgpt_lite.app import asking as module
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.boxes.layout import fit_picture, split_views
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.processor import to_pixel_values
from earthgpt_lite.model.scope import outside

QUESTION = 'what does this image show?'


@pytest.fixture(scope='module')
def helper(wild):
    model = deepcopy(wild[0])
    model.config.tiles, model.config.max_pictures = 4, 2
    return Assistant(model, wild[1], 'tiled')


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    "A GeoTIFF of 200 x 120 pixels of ten metres."
    path = tmp_path_factory.mktemp('scene') / 'scene.tif'
    place = dict(crs='EPSG:32618', transform=Affine(10, 0, 300_000, 0, -10, 4_000_000))
    pixels = np.random.default_rng(0).integers(1, 255, (3, 120, 200), 'uint8')
    with rasterio.open(
        path, 'w', driver='GTiff', width=200, height=120, count=3, dtype='uint8', **place
    ) as f:
        f.write(pixels)
    return path


def test_a_file_is_asked_as_its_canvas(helper, scene):
    answer = helper.ask(scene, QUESTION, max_new_tokens=8)
    pixels = helper.chip(scene).image[40:160]
    canvas = fit_picture(pixels, 64, 4)
    assert canvas.shape == (78, 128, 3)
    ((text, score),) = generate_answers(
        helper.model, helper.tokenizer, [to_pixel_values(canvas)], [(0, QUESTION)], 8
    )
    assert (answer.text, answer.score) == (text, pytest.approx(score, abs=1e-4))
    assert 'whole, 2 rows of 2 tiles<image>x64 row 1, column 1<image>x64' in answer.prompt
    assert (answer.model_input == split_views(canvas, 64, 4)[1][0]).all()


def test_boxes_are_in_the_whole_picture_and_on_its_map(helper, scene, monkeypatch):
    "The middle of the padded square is the middle of the picture, whatever tile it lies in."
    text = '[0.25,0.40,0.75,0.60]'
    answers = lambda *a, **k: [(text, -0.1, [(text, -0.1)])]
    monkeypatch.setattr(module, 'generate_answers', answers)
    answer = helper.ask(scene, 'where is the lake?')
    assert np.allclose(answer.pixel_boxes, [[50, 40, 150, 80]])
    x, y = answer.map_polygons[0].T
    assert np.allclose([x.min(), x.max()], [300_500, 301_500])
    assert np.allclose([y.min(), y.max()], [3_999_200, 3_999_600])
    assert len(answer.to_geojson()['features']) == 1


def test_photos_many_and_alone(helper, tmp_path):
    rng = np.random.default_rng(1)
    paths = []
    for k, shape in enumerate(((50, 60), (100, 200), (300, 90))):
        paths.append(tmp_path / f'{k}.png')
        Image.fromarray(rng.integers(0, 255, (*shape, 3), 'uint8')).save(paths[-1])
    together = helper.ask(paths, [QUESTION] * 3, max_new_tokens=8)
    assert [a.text for a in together] == [helper.ask(p, QUESTION, max_new_tokens=8).text for p in paths]
    assert together[0].prompt.startswith('<begin><image>x64<user>'), 'a small one is one view'
    labels = ['forest', 'water', 'sand']
    many = helper.classify(paths, labels)
    alone = [helper.classify(p, labels) for p in paths]
    for a, b in zip(many, alone):
        assert list(a.scores.values()) == pytest.approx(list(b.scores.values()), abs=1e-4)
    turn = helper.chat(paths[1]).ask(QUESTION, max_new_tokens=8)
    assert turn.text == together[1].text and turn.prompt == together[1].prompt


def test_small_pictures_are_classified_as_without_tiles(helper, wild):
    image = np.random.default_rng(2).integers(0, 255, (64, 64, 3), 'uint8')
    labels = ['forest', 'water']
    plain = Assistant(*wild).classify([image] * 3, labels)
    for a, b in zip(helper.classify([image] * 3, labels), plain):
        assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_two_tiled_pictures_of_one_question(helper, scene):
    other = 255 - helper.chip(scene).image[40:160]
    answer = helper.ask({'before': scene, 'after': other}, 'what has changed?', max_new_tokens=8)
    assert answer.prompt.count('whole, 2 rows of 2 tiles') == 2 and len(answer.chips) == 2
    assert ' before, whole' in answer.prompt and ' after, whole' in answer.prompt
    turned = helper.ask({'before': other, 'after': scene}, 'what has changed?', max_new_tokens=8)
    assert turned.text != answer.text


def test_a_pair_that_does_not_fit_says_by_how_much(wild, scene):
    model = deepcopy(wild[0])
    model.config.tiles, model.config.max_pictures = 9, 2
    with pytest.raises(
        BadInput, match=r'1,\d+ tokens with 18 pictures, \d+ more than the 1,024.*fewer pictures, tiles'
    ):
        Assistant(model, wild[1]).ask([scene, scene.as_posix()], 'what has changed?')


def test_the_scope_knows_how_fine_a_model_with_tiles_looks(helper, scene):
    "Ten metres at full resolution is nothing strange, three times as coarse in one view is."
    chip, config = helper.chip(scene), deepcopy(helper.model.config)
    config.scope = dict(optical=dict(gsd=[[5, 6]], tasks={}, contrast=0, likeness=-1))
    image = helper.to_pixel_values([chip])[0].permute(1, 2, 0).numpy()
    assert '15.6 m' in ' '.join(outside(config, chip, image))
    config.tiles = 0
    assert '31.2 m' in ' '.join(outside(config, chip, image))
