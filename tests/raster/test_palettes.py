"Colours of labels: the official ones, the usual ones, and one of its own for every other word."

import colorsys
import itertools
import random

import matplotlib.pyplot as plt
import numpy as np
import pytest
import rasterio

from earthgpt_lite.data.registry import AID, DOTA, EUROSAT, RESISC45
from earthgpt_lite.data.sample.sites import SITES, ground_truth
from earthgpt_lite.data.sample.world_map import COVERS, DATA
from earthgpt_lite.raster.palettes import (
    IGBP,
    WORLDCOVER,
    _conventional,
    _spare,
    colour_distance,
    draw_classes,
    label_colour,
    label_colours,
)

# as published: Earth Engine's catalogue of MCD12Q1, LC_Type1 from 1 to 17; WorldCover's user manual
OFFICIAL_IGBP = '05450a 086a10 54a708 78d203 009900 c6b044 dcd159 dade48 fbff13 b6ff05 27ff87 c24f44'
OFFICIAL_IGBP += ' a5a5a5 ff6d4c 69fff8 f9ffa4 1c0dff'
OFFICIAL_WORLDCOVER = '006400 ffbb22 ffff4c f096ff fa0000 b4b4b4 f0f0f0 0064c8 0096a0 00cf75 fae6a0'

OBJECTS = ['lake', 'island', 'tree', 'large tree crown', 'the warm patch', 'the cold patch']
OBJECTS += ['woodland', 'open ground'] + [words for site in SITES.values() for words in site.objects.values()]


def hue(colour):  # degrees
    return 360 * colorsys.rgb_to_hls(*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0]


def test_the_official_colours_stand_under_their_classes():
    assert [IGBP[k % 17][1][1:] for k in range(1, 18)] == OFFICIAL_IGBP.split()
    assert [colour[1:] for _, colour in WORLDCOVER.values()] == OFFICIAL_WORLDCOVER.split()
    assert list(WORLDCOVER) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    with rasterio.open(DATA / 'global_landcover.tif') as file:
        tags = file.tags()
    assert [name for name, _ in IGBP.values()] == [tags[f'CLASS_{k}'] for k in range(17)]


def test_a_map_of_igbp_has_the_colours_of_igbp():
    assert label_colours(name for name, _ in IGBP.values()) == dict(IGBP.values())


@pytest.mark.parametrize(
    'label',
    ['water', 'Lake', 'the lake', 'SeaLake', 'rivers', 'a lake in grassland.', 'water, forest and desert'],
)
def test_water_is_blue(label):
    assert label_colour(label) == label_colour('water') and 220 < hue(label_colour(label)) < 260


@pytest.mark.parametrize(
    'label', ['forest', 'mangrove forest', 'trees', 'woodland', 'evergreen broadleaf forest']
)
def test_forest_is_green(label):
    assert 90 < hue(label_colour(label)) < 150


@pytest.mark.parametrize(
    'label, kind',
    [
        ('an island of forest', 'island'),
        ('body of water', 'water'),
        ('mostly water and grassland.', 'water'),
        ('large open land', 'open land'),
        ('dense_residential', 'urban'),
        ('AnnualCrop', 'cropland'),
        ('the green fields', 'green cropland'),
        ('sea ice', 'snow'),
        ('sand', 'desert'),
    ],
)
def test_free_words_find_their_kind(label, kind):
    assert label_colour(label) == label_colour(kind)


def test_a_class_of_worldcover_without_a_word_of_ours_keeps_its_colour():
    assert label_colour('Snow and ice') == WORLDCOVER[70][1] != label_colour('snow')


@pytest.mark.parametrize('labels', [COVERS, OBJECTS, *(ground_truth(name)[1] for name in SITES)])
def test_every_label_of_the_sample_has_a_usual_colour_of_its_own(labels):
    assert all(_conventional(label) for label in labels)
    colours = label_colours(labels)
    pairs = itertools.combinations(colours.values(), 2)
    assert min(colour_distance(a, b) for a, b in pairs) > 60


@pytest.mark.parametrize('label', ['ship', 'ground track field', 'вода', '', '7', '\ud800', 'airplane'])
def test_other_words_never_look_like_water_or_plants(label):
    colour = label_colour(label)
    usual = {c for _, c in (*IGBP.values(), *WORLDCOVER.values())}
    assert colour in _spare() and min(colour_distance(colour, c) for c in usual) > 80
    assert not 60 < hue(colour) < 240


@pytest.mark.parametrize('labels', [RESISC45, AID, EUROSAT, DOTA, ['lake', 'river', 'sea', 'water', 'pond']])
def test_labels_of_one_map_differ_in_whatever_order_they_come(labels):
    colours = label_colours(labels)
    assert len(set(colours.values())) == len(labels) and list(colours) == list(labels)
    for seed in range(5):
        mixed = random.Random(seed).sample(labels, len(labels))
        assert label_colours(mixed) == colours
    if 'water' in labels:
        assert colours['water'] == label_colour('water')


def test_more_labels_than_colours_still_get_one():
    assert len(label_colours(f'thing {chr(65 + i % 26)}{i}' for i in range(400))) == 400


def test_a_long_answer_is_no_burden():
    assert label_colour('nonsense ' * 20_000 + 'lake') == label_colour('lake')


def test_classes_are_drawn_in_these_colours_with_a_legend_of_those_that_occur():
    _, ax = plt.subplots()
    draw_classes(ax, np.array([[0, 4], [0, 0]]), COVERS)
    drawn = ax.images[0].get_array()
    assert tuple(drawn[0, 0]) == tuple(bytes.fromhex(label_colour('water')[1:]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ['water', 'snow']
    plt.close('all')
