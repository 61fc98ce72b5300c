"Drawings that a page can hold: boxes in two colours, all of it as text."

import numpy as np

from earthgpt_lite.eval.drawings import draw_boxes


def test_boxes_are_drawn_in_two_colours():
    drawn = draw_boxes(
        np.zeros((50, 50, 3), np.uint8), '[0.0,0.0,0.5,0.5]', 'at [0.5,0.5,0.9,0.9] or [9,9,nan,1]', side=100
    )
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 3
