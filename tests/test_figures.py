"Figures can be read: the stored ones of every notebook, and what the package draws."

import io
import itertools
import re

import figures
import matplotlib.pyplot as plt
import nb
import numpy as np
import pytest
from PIL import Image

from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.maps import static_map
from earthgpt_lite.app.monitor import loss_curve
from earthgpt_lite.data.convert import show_records
from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.data.sample.sites import contact_sheet
from earthgpt_lite.data.sample.world_map import COVERS, DATA, Example, land_cover
from earthgpt_lite.data.store import write_rows
from earthgpt_lite.model.token_view import KINDS, draw_tokens
from earthgpt_lite.raster.palettes import draw_classes
from earthgpt_lite.raster.reading import read_scene

BOOKS = [pytest.param(path, id=nb.short(path)) for path in nb.notebooks()]


@pytest.mark.parametrize('path', BOOKS)
def test_stored_figures_show_something_at_a_size_to_be_seen(path):
    for i, cell, picture in figures.stored(path):
        pixels = np.asarray(picture)
        assert pixels.std() > 5, f'cell {i} ({cell}): blank'
        assert min(picture.size) >= 50 and max(picture.size) <= 1700, f'cell {i} ({cell}): {picture.size}'


@pytest.mark.parametrize('path', BOOKS)
def test_type_is_set_at_seven_points_or_more(path):
    "A notebook stores 72 pixels an inch, so a point is a pixel."
    for i, cell in enumerate(nb.load(path)['cells']):
        sizes = re.findall(r'(?:fontsize|labelsize)=(\d[\d.]*)', ''.join(cell['source']))
        assert all(float(size) >= 7 for size in sizes), f'cell {i} ({cell["id"]})'


def faults(figure):
    "Words of a figure that reach beyond it, lie on each other, or are too small."
    figure.canvas.draw()
    drawn, page = figure.get_tightbbox(), figure.bbox_inches
    if min(drawn.x0, drawn.y0, page.x1 - drawn.x1, page.y1 - drawn.y1) < -0.02:
        yield f'cut: {drawn.extents} inches on {page.extents}'
    texts = [text for ax in figure.axes for text in (*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label)]
    boxes = {text: text.get_window_extent() for text in texts if text.get_text().strip()}
    for text in figure.findobj(plt.Text):
        if text.get_text() and text.get_fontsize() < 7:
            yield f'{text.get_text()!r}: {text.get_fontsize()} points'
    for (a, box), (b, other) in itertools.combinations(boxes.items(), 2):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        if across > 2 and min(box.y1, other.y1) - max(box.y0, other.y0) > 2:
            yield f'{a.get_text()!r} lies on {b.get_text()!r}'


def sheet_of_records(folder):
    Image.new('RGB', (64, 48), 'navy').save(folder / 'a.png')
    turns = [Turn('please detect all ships and all other things in this image.', 'nothing here. ' * 30)] * 6
    rows = [Record('a.png', turns).to_json(), {'image': '../../out of the root', 'conversations': []}] * 2
    write_rows(rows, folder / 'records.jsonl')
    return show_records(folder / 'records.jsonl')


def drawn_tokens(folder):
    words = ['there', 'are', ' ships', '<image>', '0.25'] * 30
    return draw_tokens([(word, KINDS['prompt']) for word in words])


def sheet_of_questions(folder):
    turn = Turn(
        'what does the box [0.20,0.30,0.60,0.70] show in this remote sensing image?', 'a lake in forest.'
    )
    contact_sheet([Example(np.zeros((8, 8, 3), 'uint8'), [turn], 'x', 'train')] * 10)
    return plt.gcf()


def map_with_answers(folder):
    scene = read_scene(DATA / 'global_optical.tif', window=(4839, 1920, 120, 120))
    answer = Answer('[0.20,0.30,0.60,0.70]', -0.1, 'where is it?', scene.chip(), default_label='island')
    return static_map(scene, answer).figure


def shown_answer(folder):
    scene = read_scene(DATA / 'global_optical.tif', window=(4839, 1920, 120, 120))
    answer = Answer('[0.20,0.30,0.60,0.70]', -0.1, 'where is the island?', scene.chip())
    return answer.show().figure


def land_cover_of_the_world(folder):
    figure, ax = plt.subplots(figsize=(6, 3.4), layout='compressed')
    draw_classes(ax, land_cover()[::20, ::20], COVERS, loc='upper center', bbox_to_anchor=(0.5, 0), ncols=6)
    return figure


DRAWN = [sheet_of_records, drawn_tokens, sheet_of_questions, map_with_answers, land_cover_of_the_world]


@pytest.mark.parametrize('draw', [*DRAWN, shown_answer])
def test_words_of_a_figure_are_whole_and_apart(draw, tmp_path):
    figure = draw(tmp_path)
    assert list(faults(figure)) == []
    plt.close('all')


def test_the_loss_curve_keeps_its_words_inside():
    picture = np.asarray(Image.open(io.BytesIO(loss_curve([1, 200_000], [12_000.0, 3.0]))).convert('RGB'))
    edge = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    assert all((line == 255).all() for line in edge)


def test_a_question_on_the_sheet_is_whole():
    examples = [
        Example(np.zeros((8, 8, 3), 'uint8'), [Turn(f'{k} and ' * 30 + k, 'yes')], 'x', 'train')
        for k in 'abc'
    ]
    contact_sheet(examples, 1, 3)
    shown = {ax.get_title().replace('\n', ' ') for ax in plt.gcf().axes}
    assert shown == {f'{e.turns[0].question} yes' for e in examples}
    plt.close('all')


def test_contact_sheets_hold_every_stored_figure(tmp_path):
    path = nb.ROOT / 'nbs' / '1_raster' / '11_palettes.ipynb'
    figures.main(tmp_path, path)
    (sheet,) = tmp_path.glob('*.png')
    with Image.open(sheet) as image:
        shown = np.asarray(image.convert('RGB')).astype(int)
    (_, _, swatches) = list(figures.stored(path))[-1]
    corner = np.asarray(swatches)[100:140, 5:60].reshape(-1, 3)
    colour = corner[np.ptp(corner, 1).argmax()]
    assert (shown == colour).all(-1).sum() > 100
