"The parts of a panel: renderings that a scene can show, boxes on a picture, errors as text, uploads, and one job at a time."

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_app import path
from PIL import Image

from earthgpt_lite.app.panel_parts import StopOnFlag, Worker, chip_with_boxes, error_text, read_upload
from earthgpt_lite.app.panel_parts import render_scene, renderings
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip


def test_only_what_a_scene_can_show_is_offered(path):
    scene = read_scene(path)
    assert [v for _, v in renderings(scene)] == [None, 'true', 'colour_infrared', 'B02', 'B03', 'B04', 'B08']
    a, b = render_scene(scene, 'true', (0, 100)), render_scene(scene, 'true', (20, 80))
    assert not np.array_equal(a.image, b.image) and render_scene(scene, 'B08').image.shape == (60, 60, 3)


def test_boxes_are_drawn(tmp_path):
    (tmp_path / 'b.png').write_bytes(
        chip_with_boxes(as_chip(np.full((40, 60, 3), 9, 'uint8')), None, [0.25, 0.25, 0.75, 0.75], 100)
    )
    image = np.asarray(Image.open(tmp_path / 'b.png').convert('RGB')).astype(int)
    rows, columns = np.nonzero((image[..., 0] > 240) & (image[..., 2] < 30))
    assert abs(columns.min() - 25) < 3 and abs(rows.max() - 75) < 3


def test_an_upload_has_a_folder_of_its_own_and_a_name_that_is_ours(path, tmp_path):
    inside = Path(read_upload('../../etc/x.TIF', path.read_bytes(), tmp_path).path)
    assert inside.name == 'upload.tif' and inside.parent.parent == tmp_path
    with pytest.raises(BadInput, match='holiday.tif'):
        read_upload('holiday.tif', b'no image', tmp_path)
    assert sum(p.is_file() for p in tmp_path.rglob('upload*')) == 1


def test_an_error_is_text():
    assert 'pink &lt;b&gt;' in error_text(BadInput('pink <b>')) and '<details' not in error_text(
        BadInput('x')
    )
    assert error_text(KeyboardInterrupt()) == '<span>stopped</span>'
    assert '<script>' not in error_text(ValueError('<script>'))


def test_one_job_at_a_time_and_its_error_is_told():
    errors, ended = [], []
    worker = Worker(errors.append, lambda: ended.append(1))
    worker.run(lambda: worker.flag.wait(20))
    with pytest.raises(BadInput, match='still being answered'):
        worker.run(print)
    ids = torch.ones(2, 5)
    assert not StopOnFlag(worker.flag)(ids, None).any()
    worker.stop()
    assert StopOnFlag(worker.flag)(ids, None).tolist() == [True, True]
    worker.wait(5)
    worker.run(lambda: 1 / 0)
    worker.wait(5)
    assert not worker.busy and len(ended) == 2 and isinstance(errors[0], ZeroDivisionError)
