"How a large picture is cut: every pixel once, never too many tiles, the finest grid, and boxes there and back."

import numpy as np
import pytest
from hypothesis import given, strategies as st

from earthgpt_lite.boxes.layout import (
    canvas_size,
    fit_picture,
    layout_words,
    picture_grid,
    read_picture,
    split_views,
    tile_windows,
    view_words,
    without_padding,
)
from earthgpt_lite.boxes.text import to_pixels, to_unit
from earthgpt_lite.raster.chips import Chip, Frame, letterbox
from earthgpt_lite.raster.rendering import Rendering
from earthgpt_lite.raster.sources import as_chip

EDGE, SIDES, TILES = st.integers(1, 3000), st.sampled_from([8, 64, 448]), st.integers(0, 24)


def held(width, height, side, rows, columns):
    "How large a grid of squares holds a picture."
    scale = min(1, columns * side / width, rows * side / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@given(EDGE, EDGE, SIDES, TILES)
def test_the_grid_is_the_finest_that_is_allowed_and_the_smallest_of_these(width, height, side, tiles):
    rows, columns = picture_grid(width, height, side, tiles)
    assert 1 <= rows * columns <= max(1, tiles)
    mine = held(width, height, side, rows, columns)
    for r in range(1, tiles + 1):
        for c in range(1, tiles // r + 1):
            other = held(width, height, side, r, c)
            assert max(other) <= max(mine) and min(other) <= min(mine)
            assert other != mine or r * c >= rows * columns


@given(EDGE, EDGE, SIDES, TILES)
def test_a_picture_no_larger_than_the_model_looks_is_one_view(width, height, side, tiles):
    grid = picture_grid(width, height, side, tiles)
    if max(width, height) <= side or tiles < 2:
        assert grid == (1, 1)
    if grid == (1, 1):
        assert canvas_size(width, height, side, tiles) == (side, side)


@given(EDGE, EDGE, SIDES, TILES)
def test_tiles_cover_every_pixel_once_row_by_row(width, height, side, tiles):
    size, grid = canvas_size(width, height, side, tiles), picture_grid(width, height, side, tiles)
    assert canvas_size(*size, side, tiles) == size, 'a picture that was read is read as it is'
    assert picture_grid(*size, side, tiles) == grid
    windows = tile_windows(*size, grid)
    covered = np.zeros(size[::-1], int)
    for x1, y1, x2, y2 in windows:
        assert 0 < x2 - x1 <= side and 0 < y2 - y1 <= side
        covered[y1:y2, x1:x2] += 1
    assert (covered == 1).all()
    assert [tuple(w) for w in windows] == sorted(map(tuple, windows), key=lambda w: (w[1], w[0]))
    sizes = windows[:, 2:] - windows[:, :2]
    assert (sizes == sizes[0]).all(), 'pieces of one size'
    assert sizes[0].max() == side, 'that fill their squares in one direction'


@given(EDGE, EDGE, st.sampled_from([64, 448]), TILES, st.integers(0, 10**6))
def test_a_box_goes_into_its_tile_and_back(width, height, side, tiles, seed):
    "Pixels of the picture, units of a tile, pixels, units of the whole, and the canvas means the same box."
    rng = np.random.default_rng(seed)
    size, grid = canvas_size(width, height, side, tiles), picture_grid(width, height, side, tiles)
    if grid == (1, 1):
        return
    x1, y1, x2, y2 = window = tile_windows(*size, grid)[rng.integers(grid[0] * grid[1])]
    box = np.sort(rng.uniform(window[:2], window[2:], (2, 2)), 0).ravel()
    in_tile = to_unit(box - [x1, y1, x1, y1], x2 - x1, y2 - y1)
    assert (in_tile >= 0).all() and (in_tile <= 1).all()
    again = to_pixels(in_tile, x2 - x1, y2 - y1) + [x1, y1, x1, y1]
    assert np.allclose(again, box, atol=1e-6)
    in_picture = box * np.tile([width / size[0], height / size[1]], 2)
    step = 0.01 + 1 / min(max(size), max(width, height))
    assert abs(to_unit(in_picture, width, height) - to_unit(box, *size)).max() < step


def test_the_tiles_put_together_are_the_picture():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 192, 3), 'uint8')
    grid, views = split_views(image, 32, 12)
    assert grid == (2, 6) and len(views) == 13 and all(v.shape == (32, 32, 3) for v in views)
    rows = [np.concatenate(views[1 + 6 * r : 7 + 6 * r], 1) for r in range(2)]
    assert (np.concatenate(rows) == image).all()
    assert (views[0] == letterbox(image, Frame(192, 64), 32)).all()


def test_without_tiles_everything_is_as_before():
    rng = np.random.default_rng(0)
    for shape in ((40, 60), (50, 50), (64, 64), (200, 90)):
        image = rng.integers(0, 255, (*shape, 3), 'uint8')
        square = as_chip(image, size=64).image
        assert (read_picture(image, 64) == square).all() and (
            read_picture(image, 64, Rendering()) == square
        ).all()
        assert (fit_picture(image, 64) == square).all()
    small = rng.integers(0, 255, (30, 64, 3), 'uint8')
    assert (read_picture(small, 64, Rendering(tiles=9)) == as_chip(small, size=64).image).all()


def test_the_grey_of_a_chip_is_no_part_of_its_picture():
    image = np.random.default_rng(0).integers(0, 255, (37, 80, 3), 'uint8')
    assert (without_padding(as_chip(image)) == image).all()
    coarse = Chip(np.zeros((100, 100, 3), 'uint8'), Frame(1000, 370))
    assert without_padding(coarse).shape == (37, 100, 3)
    assert read_picture(image, 32, Rendering(tiles=4)).shape == (*canvas_size(80, 37, 32, 4)[::-1], 3)


def test_words_say_the_layout_in_the_order_of_the_views():
    assert view_words((2, 3)) == (
        'whole, 2 rows of 3 tiles',
        *(f'row {r}, column {c}' for r in (1, 2) for c in (1, 2, 3)),
    )
    assert view_words((1, 2), 'after')[0] == 'after, whole, 1 row of 2 tiles'
    assert view_words((1, 1), 'after') == ('after',)
    known = layout_words(6)
    assert not layout_words(0) and not layout_words(1) and len(known) == len(set(known))
    assert set(view_words((2, 3))) <= set(known) and view_words((3, 3))[0] not in known


def test_the_rendering_carries_tiles_and_refuses_what_is_no_number():
    from earthgpt_lite.errors import BadInput

    assert 'tiles' not in Rendering().to_dict()
    assert Rendering.from_dict(Rendering(tiles=6).to_dict()) == Rendering(tiles=6)
    assert 'up to 6 tiles' in Rendering(tiles=6).text
    for wrong in (-1, 1.5, '6', True, 1000):
        with pytest.raises(BadInput, match='tiles'):
            Rendering.from_dict(dict(tiles=wrong))
