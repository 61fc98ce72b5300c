"The studio: every callback is a method, and every method is called here; errors appear in the panel, in words."

import json
import threading
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import time
from datetime import datetime, timezone

import numpy as np
import pytest
import rasterio
from affine import Affine
from fixtures_app import path

from earthgpt_lite.app import panel_parts, studio as module
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.panel_parts import error_text
from earthgpt_lite.app.studio import Studio
from earthgpt_lite.app.survey import survey
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.reading import read_scene


@pytest.fixture
def helper(tiny):
    return Assistant(*tiny, 'tiny')


@pytest.fixture
def studio(helper, path):
    return Studio(helper, path, background=False)


def buttons(widget):
    if hasattr(widget, 'on_click'):
        yield widget
    for child in getattr(widget, 'children', ()):
        yield from buttons(child)


def press(studio, text):
    next(b for b in buttons(studio.panel) if b.description == text).click()


def test_ask_by_enter_and_by_button(studio, helper, path):
    studio.question.value = 'what does this image show?'
    assert (
        studio.chat.turns[-1].text == helper.ask(studio.main.chip, 'what does this image show?').text
        and studio.message.value == ''
        and studio.question.value == ''
    )
    studio.question.value = '  '
    assert 'empty' in studio.message.value and len(studio.chat.turns) == 1
    studio.question.value = 'what does this image show?'
    # the same again
    assert len(studio.chat.turns) == 2 and studio.chat.turns.pop().text == studio.chat.turns[0].text
    assert (
        'what does this image show?' in studio.history.value
        and studio.live.value == ''
        and '<pre' in studio.sent.value
    )
    press(studio, 'caption')
    assert studio.answer.task == 'caption' and len(studio.chat.turns) == 2
    studio.thing.value = 'water, forest'
    press(studio, 'classify')
    assert set(studio.answer.scores) == {'water', 'forest'} and 'water' in studio.history.value
    studio.thing.value = 'the lake'
    press(studio, 'ground')
    press(studio, 'detect')
    assert [t.task for t in studio.chat.turns[-2:]] == [
        'grounding',
        'detection',
    ] and studio.message.value == ''


def test_a_box_by_sliders_and_by_mouse(studio):
    assert 'no box: drag' in studio.main.position.value
    studio.main.across.value, studio.main.down.value = (0.2, 0.6), (0.3, 0.5)
    assert 'no box' not in studio.main.position.value
    assert (
        np.allclose(studio.main.box, [0.2, 0.3, 0.6, 0.5])
        and '[0.20,0.30,0.60,0.50]' in studio.main.position.value
        and '12, 8, 36, 20' in studio.main.position.value
    )
    press(studio, 'describe box')
    assert '[0.20,0.30,0.60,0.50]' in studio.chat.turns[-1].question
    if studio.main.board is None:
        pytest.skip('anywidget comes with the extra studio')
    studio.main.board.box = [0.1004, 0.2, 0.3, 0.4]
    assert np.allclose(studio.main.box, [0.1, 0.2, 0.3, 0.4]) and studio.main.board.src.startswith(
        'data:image/png;base64,'
    )


def test_without_anywidget_there_is_still_a_picture(helper, path, monkeypatch):
    monkeypatch.setattr(panel_parts, 'drawing_board', lambda: None)
    studio = Studio(helper, path, background=False)
    assert (
        studio.main.board is None
        and bytes(studio.main.picture.value)[:4] == b'\x89PNG'
        and 'earthgpt-lite[studio]' in studio.main.position.value
    )


def test_bands_and_stretch_change_what_the_model_sees(studio):
    before = studio.main.chip.image.copy()
    studio.do(studio.ask, 'what does this image show?')
    studio.main.bands.value = 'colour_infrared'
    # the conversation goes on
    assert not np.array_equal(before, studio.main.chip.image) and len(studio.chat.turns) == 1
    one = studio.main.chip.image.copy()
    studio.main.percent.value = (20, 80)
    assert (
        not np.array_equal(one, studio.main.chip.image)
        and (studio.chat.chip.image == studio.main.chip.image).all()
    )


def test_uploads(studio, path, tmp_path):
    studio.main.file.value = (
        {
            'name': 'x.tif',
            'content': memoryview(path.read_bytes()),
            'type': '',
            'size': 1,
            'last_modified': datetime.now(timezone.utc),
        },
    )
    assert studio.message.value == '' and studio.main.scene.crs.to_epsg() == 32618 and not studio.chat.turns
    studio.do(studio.upload, [{'name': 'holiday <b>.tif', 'content': b'no image'}])
    assert 'holiday &lt;b&gt;.tif' in studio.message.value and studio.folder.name not in studio.message.value


def test_an_upload_leaves_the_file_of_the_open_scene_alone(studio, path, tmp_path):
    studio.upload([{'name': 'a.tif', 'content': path.read_bytes()}])
    open_now = Path(studio.main.scene.path)
    studio.do(studio.upload, [{'name': 'a.tif', 'content': b'no image'}])
    assert (
        'a.tif' in studio.message.value
        and studio.main.scene.path == str(open_now)
        and open_now.read_bytes() == path.read_bytes()
    )
    assert sum(p.is_file() for p in Path(studio.folder.name).rglob('*')) == 1


def test_errors_are_words_in_the_panel(helper, studio):
    empty = Studio(helper, background=False)
    for action in (
        lambda: empty.ask('a?'),
        lambda: empty.task('caption'),
        empty.describe,
        lambda: empty.survey('a,b'),
    ):
        empty.do(action)
        assert 'no picture yet' in empty.message.value
    for action, words in [
        (lambda: studio.ask(' '), 'empty'),
        (lambda: studio.task('ground', ' '), 'what to look for'),
        (lambda: studio.task('classify', 'a,a'), 'more than once'),
        (lambda: studio.open('no.tif'), 'no such file'),
        (lambda: studio.open(np.zeros((1, 1, 3), 'uint8')), 'single pixel'),
        (lambda: 1 / 0, 'ZeroDivisionError'),
    ]:
        studio.do(action)
        assert words in studio.message.value, studio.message.value
    studio.do(studio.ask, 'what does this image show?')
    assert studio.message.value == ''


def test_text_is_text(studio):
    studio.do(studio.ask, '<img src=x onerror=alert(1)>')
    assert (
        '<img src=x' not in studio.history.value + studio.sent.value + studio.live.value
        and '&lt;img src=x' in studio.history.value
        and '&lt;img src=x' in studio.sent.value
    )
    assert '<script>' not in error_text(ValueError('<script>')) + error_text(BadInput('<script>'))


def test_a_second_question_is_refused_and_the_first_can_be_stopped(helper, path, monkeypatch):
    begun = threading.Event()

    def endless(self, *a, **k):
        halt = k['stopping_criteria'][0]
        begun.set()
        import torch

        while not halt(torch.zeros(1, 3), None).all():
            time.sleep(0.01)
        raise KeyboardInterrupt

    studio = Studio(helper, path)
    monkeypatch.setattr(type(studio.chat), 'ask', endless)
    studio.do(studio.ask, 'one?')
    assert begun.wait(5)
    assert studio.halt.layout.visibility == 'visible'
    studio.do(studio.ask, 'two?')
    assert 'still being answered' in studio.message.value and studio.worker.busy
    press(studio, 'stop')
    studio.worker.wait(5)
    assert (
        not studio.worker.busy
        and 'stopped' in studio.message.value
        and studio.halt.layout.visibility == 'hidden'
    )


@pytest.mark.parametrize('meanwhile', ['open', 'show', 'draw'])
def test_an_answer_belongs_to_the_picture_that_was_asked(helper, path, monkeypatch, meanwhile):
    begun, go = threading.Event(), threading.Event()
    answer = helper.ask(path, 'what does this image show?')

    def slow(chat, question, stream=None, **k):
        stream('half')
        begun.set()
        go.wait(20)
        stream(' whole')
        chat.turns.append(answer)
        return answer

    studio = Studio(helper, path)
    monkeypatch.setattr(type(studio.chat), 'ask', slow)
    studio.do(studio.ask, 'one?')
    assert begun.wait(5) and 'half' in studio.live.value
    if meanwhile == 'open':
        studio.do(studio.open, np.full((9, 9, 3), 9, 'uint8'))
    elif meanwhile == 'show':
        studio.main.bands.value = 'colour_infrared'
    chip = studio.main.chip
    go.set()
    studio.worker.wait(20)
    assert studio.message.value == '' and studio.main.chip is chip and studio.live.value == ''
    # nothing is drawn on another picture
    assert studio.answer is (answer if meanwhile == 'draw' else None)
    # a rendering is the same conversation
    assert studio.chat.turns == ([] if meanwhile == 'open' else [answer])


def test_a_generation_stops_at_once(helper, path):
    studio = Studio(helper, path, background=False)
    studio.worker.flag.set()
    options = studio._stopping()
    assert (
        len(
            helper.tokenizer(
                helper.ask(studio.main.chip, 'what does this image show?', **options).text
            ).input_ids
        )
        <= 2
    )


def test_streams_while_it_runs(studio, monkeypatch):
    streamed = []
    studio.live.observe(lambda change: streamed.append(change['new']), 'value')
    studio.do(studio.ask, 'what does this image show?')
    assert any('what does this image show?' in s for s in streamed) and studio.live.value == ''


def test_survey_from_the_panel(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    studio.do(studio.survey, 'water,forest')
    assert (
        'polygons from 1 tiles in survey.geojson' in studio.message.value
        and (tmp_path / 'survey.geojson').exists()
    )
    studio.do(studio.survey, 'water')
    assert 'at least two' in studio.message.value
    studio.open(np.full((9, 9, 3), 9, 'uint8'))
    studio.do(studio.survey, 'a,b')
    assert 'needs a file' in studio.message.value


def test_a_survey_that_was_stopped_goes_on_or_makes_room(helper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with rasterio.open(
        'wide.tif',
        'w',
        driver='GTiff',
        width=64,
        height=64 * 6,
        count=3,
        dtype='uint8',
        crs='EPSG:32618',
        transform=Affine(10, 0, 3e5, 0, -10, 4e6),
    ) as f:
        f.write(np.random.default_rng(0).integers(1, 255, (3, 64 * 6, 64), 'uint8'))
    studio = Studio(helper, 'wide.tif', background=False)

    def stopped(labels):
        with monkeypatch.context() as m:
            m.setattr(studio.worker.flag, 'is_set', lambda: studio.progress.value >= 2)
            studio.do(studio.survey, labels)
        assert (
            'stopped' in studio.message.value
            and (tmp_path / 'survey.geojson.part').exists()
            and not (tmp_path / 'survey.geojson').exists()
        )

    stopped('water,forest')
    begun = []
    monkeypatch.setattr(module, 'survey', lambda *a, **k: begun.append(survey(*a, **k)) or begun[-1])
    studio.do(studio.survey, 'water,forest')  # the same goes on
    assert 'polygons from 6 tiles' in studio.message.value and begun.pop().resumed == 2
    (tmp_path / 'survey.geojson').unlink()
    stopped('water,forest')
    studio.do(studio.survey, 'snow,desert')  # another begins anew
    assert 'polygons from 6 tiles' in studio.message.value and begun.pop().resumed == 0
    assert json.loads((tmp_path / 'survey.geojson').read_text())['prompt'] == ['snow', 'desert']


def test_where_it_looked_and_what_it_said_on_the_ground(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for button in ('where it looked', 'save'):
        press(studio, button)
        assert 'ask something first' in studio.message.value
    studio.do(studio.ask, '<b>where</b> is the lake?')
    press(studio, 'where it looked')
    assert (
        studio.message.value == ''
        and 'data:image/png' in studio.heatmap.value
        and studio.details.selected_index == 1
    )
    press(studio, 'save')
    (saved,) = json.loads((tmp_path / 'answers.geojson').read_text())['features'][:1]
    assert (
        'answers.geojson' in studio.message.value
        and saved['properties']['question'] == '<b>where</b> is the lake?'
        and saved['geometry']['type'] == 'Polygon'
    )
    assert (
        '36.1' in studio.main.position.value
        and ' N, ' in studio.main.position.value
        and ' W' in studio.main.position.value
    )
    studio.open(np.full((9, 9, 3), 9, 'uint8'))
    studio.do(studio.ask, 'where?')
    press(studio, 'save')
    assert 'no CRS' in studio.message.value and 'middle' not in studio.main.position.value


def test_a_large_scene_is_shown_small_and_surveyed_whole(helper, tmp_path):
    with rasterio.open(
        tmp_path / 'large.tif',
        'w',
        driver='GTiff',
        width=60_000,
        height=40_000,
        count=1,
        dtype='uint8',
        crs='EPSG:32618',
        transform=Affine(10, 0, 3e5, 0, -10, 4e6),
        tiled=True,
        sparse_ok=True,
    ) as f:
        f.write(np.full((1, 4000, 4000), 99, 'uint8'), window=((0, 4000), (0, 4000)))
    studio = Studio(helper, tmp_path / 'large.tif', background=False)
    assert studio.message.value == '' and max(studio.main.scene.width, studio.main.scene.height) == 2048


# ---- two pictures


@pytest.fixture
def two(helper, path):
    "A studio of two dates, with a model as if it had been trained with pairs."
    model = deepcopy(helper.model)
    model.config.max_pictures = 2
    earlier = read_scene(path)
    earlier.pixels = earlier.pixels[:, ::-1]
    return Studio(Assistant(model, helper.tokenizer), [earlier, path], background=False)


def drawn(pane):
    source = pane.board.src if pane.board is not None else pane.picture.value
    return source


def test_a_question_is_about_both_and_its_boxes_are_in_the_last(two, monkeypatch):
    assert two.message.value == '' and two.about.value == 'both' and len(two.chat.chips) == 2
    two.question.value = 'what has changed?'
    asked = {'before': two.earlier.chip, 'after': two.main.chip}
    assert two.answer.text == two.assistant.ask(asked, 'what has changed?').text
    assert two.answer.prompt.startswith('<begin> before<image>x64 after<image>x64<user>')
    assert two.sent.value.count('<img') == 2
    clean = [drawn(pane) for pane in (two.earlier, two.main)]
    boxed = replace(two.answer, text='[0.10,0.20,0.60,0.70]')
    monkeypatch.setattr(type(two.chat), 'ask', lambda *a, **k: boxed)
    two.question.value = 'where?'
    assert drawn(two.earlier) == clean[0] and drawn(two.main) != clean[1]
    two.choose('first')
    monkeypatch.setattr(
        type(two.chat), 'ask', lambda *a, **k: replace(boxed, chip=two.earlier.chip, chips=())
    )
    two.question.value = 'where?'
    assert drawn(two.earlier) != clean[0] and drawn(two.main) == clean[1]


def test_what_is_about_one_picture_says_so_and_each_has_its_own_talk(two, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    two.do(two.ask, 'what has changed?')
    for button in ('caption', 'describe box', 'survey'):
        press(two, button)
        assert 'is about one picture: choose before or after' in two.message.value
    press(two, 'where it looked')
    assert 'answers about one picture' in two.message.value
    two.about.value = 'first'
    assert two.message.value == '' and not two.turns
    press(two, 'caption')
    assert two.answer.text == two.assistant.caption(two.earlier.chip).text and len(two.turns) == 1
    two.about.value = 'both'
    assert [t.question for t in two.turns] == ['what has changed?']
    press(two, 'save')
    saved = json.loads((tmp_path / 'answers.geojson').read_text())['features'][0]['properties']
    assert len(saved['images']) == 2


def test_a_box_chooses_its_picture(two):
    two.earlier.across.value = (0.2, 0.6)
    assert two.about.value == 'first'
    press(two, 'describe box')
    assert '[0.20,0.00,0.60,1.00]' in two.turns[-1].question
    assert (two.turns[-1].chip.image == two.earlier.chip.image).all()


def test_a_rendering_of_either_keeps_the_talk_about_both(two):
    two.do(two.ask, 'what has changed?')
    before = two.chat.pixel_values.clone()
    two.earlier.bands.value = 'colour_infrared'
    changed = (two.chat.pixel_values != before).flatten(1).any(1).tolist()
    assert changed == [True, False] and len(two.turns) == 1 and two.answer is None


def test_a_second_picture_comes_and_goes(helper, path):
    studio = Studio(helper, path, background=False)
    assert studio.earlier.widget.layout.display == 'none' and studio.about.layout.display == 'none'
    studio.two.value = True
    assert studio.earlier.widget.layout.display == '' and 'no picture yet' not in studio.message.value
    studio.do(studio.ask, 'what has changed?')
    assert 'no picture yet' in studio.message.value
    studio.earlier.path.value = str(path)
    # this model knows one picture, and says so
    assert 'trained with one picture in a question' in studio.message.value
    studio.do(studio.ask, 'what has changed?')
    assert 'trained with one picture in a question' in studio.message.value and not studio.turns
    studio.about.value = 'first'
    studio.do(studio.ask, 'what is this?')
    assert studio.message.value == '' and len(studio.turns) == 1
    studio.two.value = False
    assert studio.about.value == 'last' and not studio.turns


def test_the_same_picture_twice_is_said(helper, path):
    model = deepcopy(helper.model)
    model.config.max_pictures = 2
    studio = Studio(Assistant(model, helper.tokenizer), [path, path], background=False)
    studio.do(studio.ask, 'what has changed?')
    assert 'the same in every pixel' in studio.history.value


def test_three_pictures_or_a_missing_one(helper, path):
    with pytest.raises(BadInput, match='3 pictures: the studio shows one, or two'):
        Studio(helper, [path] * 3)
    with pytest.raises(BadInput, match='0 images'):
        Studio(helper, [])
    studio = Studio(helper, ['gone.tif', path], background=False)
    assert 'gone.tif' in studio.message.value and 'no such file' in studio.message.value
