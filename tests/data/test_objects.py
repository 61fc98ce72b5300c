"Islands and lakes: which may be asked for."

import numpy as np

from earthgpt_lite.data.sample.objects import find_object
from earthgpt_lite.data.sample.world_map import LandCoverChip, SIDE


def test_a_thing_on_the_edge_or_two_alike_is_not_asked():
    def chip(*squares):
        cover = np.zeros((SIDE, SIDE), 'uint8')
        for y, x, n in squares:
            cover[y : y + n, x : x + n] = 1
        return LandCoverChip(
            np.where(cover[..., None] > 0, 200, 20).repeat(3, -1).astype('uint8'),
            cover,
            (0, 0, 1, 1),
            'train',
        )

    box, land = find_object(chip((10, 20, 20)), 'island')
    assert (box * SIDE == [20, 10, 40, 30]).all() and land == 'forest'
    for squares in (
        [(0, 20, 20)],
        [(10, 44, 20)],
        [(5, 5, 20), (35, 35, 18)],
        [(20, 20, 5)],
        [(2, 2, 60)],
        [],
    ):
        assert find_object(chip(*squares), 'island') is None, squares
    dull = chip((10, 20, 20))
    dull.image[:] = 90
    assert find_object(dull, 'island') is None
