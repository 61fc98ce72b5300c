"Answers and the assistant: boxes come home from any transform, text stays text, labels are scored by the model itself."

import json
from copy import deepcopy

import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings, strategies as st
from PIL import Image
from rasterio.warp import transform

from earthgpt_lite.app import asking as module
from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.assistant import Assistant, choice_logprobs
from earthgpt_lite.boxes.text import format_box, format_detection, to_unit
from earthgpt_lite.data.records import Task, sample_question
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.detections import box_logprobs, boxes_by_label
from earthgpt_lite.model.tokens import ChatFormat
from earthgpt_lite.raster.chips import Frame
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip

RNG = np.random.default_rng(0)
NASTY = '<script>alert(1)</script> **bold** {{ 7*7 }} [0.10,0.10,0.40,0.30]'


@pytest.fixture
def helper(tiny):
    return Assistant(*tiny, 'tiny')


@pytest.fixture
def picture():
    return RNG.integers(0, 255, (40, 60, 3), 'uint8')


def raster(path, width=60, height=40, **options):
    with rasterio.open(
        path, 'w', driver='GTiff', width=width, height=height, count=3, dtype='uint8', **options
    ) as f:
        f.write(RNG.integers(1, 255, (3, height, width), 'uint8'))
    return path


# Where an answer lies

SCENES = {  # crs, transform: far apart, turned, south, over the antimeridian, feet, a pole
    'utm north': (32618, Affine(10, 0, 282_000, 0, -10, 4_158_000)),
    'utm south, turned': (
        32756,
        Affine.translation(334_000, 6_252_000) @ Affine.rotation(33) @ Affine.scale(10, -10),
    ),
    'degrees south': (4326, Affine(0.01, 0, -70.3, 0, -0.01, -33.2)),
    'north down': (32633, Affine(5, 0, 5e5, 0, 5, 5.5e6)),
    'antimeridian': (32701, Affine(900, 0, 156_000, 0, -900, 8_160_000)),
    'antimeridian, degrees beyond 180': (4326, Affine(0.1, 0, 177.5, 0, -0.1, 60)),
    'feet': (2263, Affine(1.5, 0, 1e6, 0, -1.5, 2e5)),
    'Swiss, sheared': (2056, Affine(2, 0.6, 2_600_000, 0.4, -2, 1_200_000)),
    'Arctic': (3413, Affine(2000, 0, 3e5, 0, -2000, -3e5)),
    'web mercator': (3857, Affine(30, 0, -8e6, 0, -30, -3e6)),
}


@pytest.mark.parametrize('name', SCENES)
@pytest.mark.parametrize('size', [(60, 40), (37, 80), (50, 50)])
def test_a_box_comes_home_within_one_text_unit(tmp_path, name, size):
    "GeoTIFF, chip, text, parse, frame, transform, WGS84: each corner within a step of the text, measured on the ground by rasterio and pyproj."
    pyproj = pytest.importorskip('pyproj', reason='pyproj comes with the extra geo')
    code, t = SCENES[name]
    w, h = size
    path = raster(tmp_path / 'scene.tif', w, h, crs=f'EPSG:{code}', transform=t)
    x1, y1, x2, y2 = box = np.array([0.21 * w, 0.13 * h, 0.77 * w, 0.84 * h])
    chip = read_scene(path).chip()
    answer = Answer(format_box(to_unit(box, chip.frame.width, chip.frame.height)), 0.0, 'where?', chip)
    with rasterio.open(path) as file:
        true = np.array([file.transform @ p for p in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))])
    step = max(w, h) / 100 * max(np.hypot(t.a, t.d), np.hypot(t.b, t.e))
    assert np.linalg.norm(answer.map_polygons[0] - true, axis=1).max() <= step
    shape = shapely.geometry.shape(answer.to_geojson()['features'][0]['geometry'])
    points = np.concatenate([np.asarray(p.exterior.coords) for p in getattr(shape, 'geoms', [shape])])
    assert (np.abs(points) <= [180, 90]).all() and all(
        p.exterior.is_ccw for p in getattr(shape, 'geoms', [shape])
    )
    geod, lon, lat = (
        pyproj.Geod(ellps='WGS84'),
        *pyproj.Transformer.from_crs(code, 4326, always_xy=True).transform(*true.T),
    )
    far = np.array(
        [
            geod.line_length([lon[0], lon[1]], [lat[0], lat[1]]),
            geod.line_length([lon[1], lon[2]], [lat[1], lat[2]]),
        ]
    )
    unit = max(far[0] / (x2 - x1), far[1] / (y2 - y1)) * max(w, h) / 100  # metres of a text unit
    for a, b in zip(lon, lat):
        apart = geod.inv(np.full(len(points), a), np.full(len(points), b), *points.T)[2]
        assert apart.min() <= unit, (name, apart.min() / unit)
    assert ('antimeridian' in name) == (shape.geom_type == 'MultiPolygon') or size != (60, 40)


@settings(max_examples=60)
@given(
    st.integers(2, 3000),
    st.integers(2, 3000),
    st.floats(0, 360),
    st.floats(0.1, 1000),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_any_frame_and_turn(w, h, angle, gsd, edges):
    t = Affine.translation(5e5, -3e5) @ Affine.rotation(angle) @ Affine.scale(gsd, -gsd)
    side = max(w, h)
    x1, x2 = sorted(edges[:2])
    y1, y2 = sorted(edges[2:])
    if (x2 - x1) * w < 0.02 * side or (y2 - y1) * h < 0.02 * side:
        return
    frame = Frame(w, h, t, 'EPSG:32633')
    chip = as_chip(np.full((2, 2, 3), 9, 'uint8'))
    chip.frame = frame
    box = np.array([x1 * w, y1 * h, x2 * w, y2 * h])
    found = Answer(format_box(to_unit(box, w, h)), 0.0, '', chip).map_polygons[0]
    true = frame.to_map(np.array([[box[i], box[j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3))]))
    assert np.linalg.norm(found - true, axis=1).max() <= side / 100 * gsd


def test_tilted_boxes_keep_their_corners():
    chip = as_chip(np.full((50, 50, 3), 9, 'uint8'))
    answer = Answer('[0.50,0.10,0.90,0.50,0.50,0.90,0.10,0.50]', 0.0, '', chip)
    assert (
        answer.polygons.shape == (1, 4, 2)
        and np.allclose(answer.boxes, [[0.1, 0.1, 0.9, 0.9]])
        and np.allclose(answer.pixel_boxes, [[5, 5, 45, 45]])
    )


def test_geojson_without_a_box_is_the_picture_and_without_a_crs_is_refused(tmp_path, picture):
    chip = as_chip(
        raster(tmp_path / 'a.tif', crs='EPSG:32618', transform=Affine(10, 0, 282_000, 0, -10, 4_158_000))
    )
    row = Answer(
        'mostly water.', -0.2, 'what?', chip, task='caption', model='m', scores=dict(water=0.8)
    ).to_geojson()
    assert (
        len(row['features']) == 1
        and row['features'][0]['properties']['scores'] == {'water': 0.8}
        and row['features'][0]['properties']['model'] == 'm'
    )
    assert json.loads(json.dumps(row)) == row
    with pytest.raises(BadInput, match='no CRS'):
        Answer('mostly water.', -0.2, 'what?', as_chip(picture)).to_geojson()
    with pytest.raises(BadInput, match='no CRS'):
        Answer(NASTY, -0.2, 'what?', as_chip(picture)).map_polygons


# What it looks like


def test_model_text_is_shown_as_text(picture):
    answer = Answer(
        NASTY,
        -0.2,
        '<img src=x onerror=alert(2)>',
        as_chip(picture),
        scores={'<b>': 0.5},
        default_label='<i>',
    )
    page = answer._repr_html_()
    for bad in ('<script', '<img src=x', '<b>:', '<i>'):
        assert bad not in page
    assert '&lt;script&gt;' in page and '&lt;img' in page and 'data:image/png;base64,' in page
    answer.show()  # dollars and markup are no mathematics
    Answer('$x_{', -0.2, '$', as_chip(picture)).show().figure.canvas.draw()


def test_boxes_are_drawn_where_they_are():
    chip = as_chip(np.zeros((100, 100, 3), 'uint8'))
    drawn = np.asarray(Answer('[0.20,0.30,0.60,0.70]', 0.0, '', chip).picture(100)).astype(int)
    rows, columns = np.nonzero((drawn[..., 0] > 150) & (drawn[..., 1] < 120))
    assert (
        abs(columns.min() - 20) <= 2
        and abs(columns.max() - 60) <= 2
        and abs(rows.min() - 30) <= 2
        and abs(rows.max() - 70) <= 2
    )


def test_five_hundred_boxes(tmp_path):
    chip = as_chip(
        raster(tmp_path / 'a.tif', crs='EPSG:32618', transform=Affine(10, 0, 282_000, 0, -10, 4_158_000))
    )
    corners = RNG.uniform(0, 0.9, (500, 2))
    answer = Answer(
        format_detection([('ship', [*p, *(p + 0.05)]) for p in corners], decimals=3),
        -0.5,
        'find all ships.',
        chip,
    )
    assert len(answer.boxes) == len(answer.labels) == len(answer.to_geojson()['features']) == 500 and set(
        answer.labels
    ) == {'ship'}
    page = answer._repr_html_()
    assert len(page) < 300_000 and 'and 495 more boxes' in page


def test_a_cut_answer_says_so(helper, picture):
    answer = Answer('[0.10,0.20,0.30', -0.2, 'where?', as_chip(picture))
    assert not len(answer.boxes) and 'cut off' in answer.unread[0] and 'not read' in answer._repr_html_()
    assert (
        helper.ask(picture, 'what does this image show?', max_new_tokens=1).truncated
        and 'cut off' in helper.ask(picture, 'what does this image show?', max_new_tokens=1)._repr_html_()
    )


# Asking


def test_anything_that_can_be_looked_at(helper, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / 'a.png')
    answers = [
        helper.ask(x, 'what does this image show?')
        for x in (
            picture,
            Image.fromarray(picture),
            tmp_path / 'a.png',
            str(tmp_path / 'a.png'),
            as_chip(picture),
            read_scene(tmp_path / 'a.png'),
        )
    ]
    assert len({a.text for a in answers}) == 1 and all(a.model == 'tiny' for a in answers)


def test_lists_in_order_and_a_picture_passes_once(helper, picture, monkeypatch):
    other, asked = (
        255 - picture,
        ['what does this image show?', 'is there any water in this image?', 'where is the lake?'],
    )
    single = [[helper.ask(p, q).text for q in asked] for p in (picture, other)]
    calls = []
    monkeypatch.setattr(
        module,
        'generate_answers',
        lambda model, tok, pixels, questions, *a, **k: (
            calls.append((len(pixels), questions)) or [('x', 0.0, [])] * len(questions)
        ),
    )
    helper.ask(picture, asked)
    assert calls[0] == (1, [(0, q) for q in asked])
    helper.ask([picture, other, picture], asked)
    assert calls[1] == (2, [(0, asked[0]), (1, asked[1]), (0, asked[2])])
    monkeypatch.undo()
    assert [a.text for a in helper.ask(picture, asked)] == single[0]
    assert [a.text for a in helper.ask([picture, other], asked[:1])] == [single[0][0], single[1][0]]


def test_refusals_of_ask(helper, picture, tmp_path):
    for call, words in [
        (lambda: helper.ask(picture, '  '), 'empty'),
        (lambda: helper.ask([picture] * 2, ['a'] * 3), '2 images and 3 questions'),
        (lambda: helper.ask([], 'a'), '0 images'),
        (lambda: helper.ask(np.zeros((1, 1, 3), 'uint8'), 'a'), 'single pixel'),
        (lambda: helper.ask(tmp_path / 'no.tif', 'a'), 'no such file'),
        (lambda: helper.ask([picture] * 2, ['a'], stream=print), 'one answer at a time'),
        (lambda: helper.ask([picture] * 2, 'a'), '2 pictures in one question.* one picture in a question'),
    ]:
        with pytest.raises(BadInput, match=words):
            call()


@pytest.fixture
def pair_helper(helper):
    "As if the model had been trained with pairs."
    model = deepcopy(helper.model)
    model.config.max_pictures = 2
    return Assistant(model, helper.tokenizer)


def test_a_single_question_is_about_all_pictures(pair_helper, picture):
    other = 255 - picture
    one = pair_helper.ask([picture, other], 'has anything changed?')
    assert isinstance(one, Answer) and len(one.chips) == 2 and one.warnings == ()
    assert one.prompt.startswith('<begin><image>x128<user>')
    assert (one.chip.image == as_chip(other).image).all() and one._repr_html_().count('<img') == 2
    named = pair_helper.ask({'before': picture, 'after': other}, ['has anything changed?', 'where?'])
    assert [a.question for a in named] == ['has anything changed?', 'where?']
    assert named[0].prompt.startswith('<begin> before<image>x64 after<image>x64<user>')
    model, tokenizer = pair_helper.model, pair_helper.tokenizer
    pixels = pair_helper.to_pixel_values([picture, other])
    words = [('', ''), ('before', 'after')]
    asked = [((0, 1), 'has anything changed?')] * 2
    by_hand = module.generate_answers(model, tokenizer, pixels, asked, words=words)
    assert [one.text, named[0].text] == [text for text, _ in by_hand]
    each = pair_helper.ask([[picture, other], picture], ['has anything changed?', 'what is this?'])
    assert [len(a.chips) for a in each] == [2, 1] and each[0].text == one.text
    pieces = []
    streamed = pair_helper.ask([picture, other], 'has anything changed?', stream=pieces.append)
    assert ''.join(pieces).strip() == streamed.text == one.text


def test_what_is_odd_about_several_pictures_is_said(pair_helper, picture, tmp_path):
    (same,) = pair_helper.ask([picture, picture.copy()], 'has anything changed?').warnings
    assert same.startswith('pictures 1 and 2 are the same in every pixel')
    with pytest.raises(BadInput, match='3 pictures in one question.*at most 2'):
        pair_helper.ask([picture] * 3, 'has anything changed?')
    chips = [as_chip(picture), as_chip(255 - picture)]
    for chip, east in zip(chips, (0, 10 * picture.shape[1] // 2)):
        chip.frame = Frame(*picture.shape[1::-1], Affine(10, 0, 500000 + east, 0, -10, 4000000), 'EPSG:32633')
    (apart,) = pair_helper.ask(chips, 'has anything changed?').warnings
    assert 'pictures 1 and 2 share 50% of their ground' in apart


def test_tasks_ask_each_picture_of_a_list_alone(helper, picture):
    assert [len(a.chips) for a in helper.caption([picture, 255 - picture])] == [1, 1]


def test_what_was_sent(helper, picture):
    answer = helper.ask(picture, 'where is <image> the lake?')
    assert (
        answer.prompt.startswith('<begin><image>x64<user>')
        and answer.prompt.endswith('<assistant>')
        and answer.model_input.shape == (64, 64, 3)
    )
    assert (answer.model_input == as_chip(picture, size=64).image).all()


def test_streaming_gives_the_same_words(helper, picture):
    pieces = []
    answer = helper.ask(picture, 'what does this image show?', stream=pieces.append)
    assert ''.join(pieces).strip() == answer.text == helper.ask(picture, 'what does this image show?').text


def test_tasks_are_worded_as_in_training(helper, picture):
    assert helper.caption(picture).question == 'describe this image.'
    assert 'described as:the lake in' in helper.ground(picture, 'the lake').question
    assert (
        helper.detect(picture, 'storage tank').question == 'please detect all storage tanks in this image.'
        and 'all objects' in helper.detect(picture).question
    )
    assert helper.describe_region(picture, [0, 0, 30, 20]).question.endswith('[0.00,0.17,0.50,0.50]')
    assert (
        len(helper.caption([picture, picture])) == 2
        and helper.ground([picture], 'the lake')[0].default_label == 'the lake'
    )


def test_a_region_in_three_ways(helper, tmp_path, picture):
    path = raster(
        tmp_path / 'a.tif', crs='EPSG:32618', transform=Affine.translation(3e5, 4e6) @ Affine.scale(10, -10)
    )
    ways = [
        helper.describe_region(path, box, where).question
        for box, where in (
            ([6, 4, 30, 20], 'pixels'),
            ([0.1, 14 / 60, 0.5, 0.5], 'unit'),
            ([300_060, 3_999_800, 300_300, 3_999_960], 'map'),
        )
    ]
    assert len(set(ways)) == 1, ways
    place = shapely.geometry.shape(
        helper.describe_region(path, [6, 4, 30, 20]).to_geojson()['features'][0]['geometry']
    )
    corners = np.stack(transform('EPSG:4326', 'EPSG:32618', *np.asarray(place.exterior.coords).T), 1)
    # the region, not the whole picture
    assert np.allclose([corners.min(0), corners.max(0)], [[300_060, 3_999_800], [300_300, 3_999_960]], atol=1)
    for call, words in [
        (lambda: helper.describe_region(path, [1, 2, 3]), 'shape'),
        (lambda: helper.describe_region(path, [900, 900, 950, 950]), 'nothing of this box'),
        (lambda: helper.describe_region(path, [0, 0, 9, 9], 'inch'), 'inch'),
        (lambda: helper.describe_region(picture, [0, 0, 9, 9], 'map'), 'no CRS'),
    ]:
        with pytest.raises(BadInput, match=words):
            call()


# Scores


def test_labels_are_scored_by_the_models_own_probabilities(helper, picture):
    model, tokenizer = helper.model, helper.tokenizer
    labels, question = (
        ['water', 'mostly forest and water.', 'snow', 'a'],
        'what is the main class of this image?',
    )
    answer, pixels = helper.classify(picture, labels), helper.to_pixel_values([as_chip(picture)])
    chat = ChatFormat(**model.config.chat)
    prompt, sums = (
        module.picture_prefix(model.config, tokenizer) + chat.encode_question(tokenizer, question),
        [],
    )
    for label in labels:
        reply = chat.encode_answer(tokenizer, label)
        with torch.no_grad():
            logits = (
                model(input_ids=torch.tensor([prompt + reply]), pixel_values=pixels).logits[0].log_softmax(-1)
            )
        sums.append(sum(float(logits[len(prompt) + i - 1, t]) for i, t in enumerate(reply)))
    true = np.exp(np.array(sums) - max(sums))
    true /= true.sum()
    assert (
        np.allclose([answer.scores[l] for l in labels], true, atol=1e-4)
        and answer.text == labels[int(np.argmax(sums))]
    )
    assert answer.score == pytest.approx(
        max(sums) / len(chat.encode_answer(tokenizer, answer.text)), abs=1e-4
    )
    batch = helper.classify([picture, 255 - picture, picture], labels, batch_size=2)
    assert np.allclose([batch[2].scores[l] for l in labels], true, atol=1e-4) and len(batch) == 3


@pytest.mark.parametrize('labels', [[], ['a'], ['a', 'a'], ['a', ' A '], ['a', ''], 'water'])
def test_bad_label_lists_are_refused(helper, picture, labels):
    with pytest.raises(BadInput):
        helper.classify(picture, labels)


def test_classify_nothing_is_refused(helper):
    with pytest.raises(BadInput, match='no image'):
        helper.classify([], ['a', 'b'])


def test_each_box_has_its_own_score(helper, picture):
    pixels, text = (
        helper.to_pixel_values([as_chip(picture)])[0],
        'There are <p>2 lakes</p>[0.10,0.10,0.20,0.20;0.40,0.30,0.75,0.80].',
    )
    (logs,) = choice_logprobs(helper.model, helper.tokenizer, pixels[None], 'where is the lake?', [text])
    words = [
        helper.tokenizer.decode([i])
        for i in ChatFormat(**helper.model.config.chat).encode_answer(helper.tokenizer, text)
    ]
    tokens, start = list(zip(words, logs[0].tolist())), words.index('0.40')
    found = box_logprobs(tokens)
    assert (
        len(found) == 2
        and found[1] == pytest.approx(float(logs[0][start : start + 7].mean()), abs=1e-5)
        and found[0] != found[1]
    )


@pytest.mark.parametrize(
    'text', ['<p>2 ships</p>[0.1,0.1,0.2,0.2;0.8,0.3,1.2,0.7]', '[0.3,0.3,0.3,0.6]', '[2,2,3,3]']
)
def test_an_answer_has_the_boxes_that_are_measured_and_scored(picture, text):
    "Cut at the frame, widened where they are a line, or none, in all three."
    answer = Answer(text, -0.5, 'where?', as_chip(picture), confidence=box_logprobs([(text, -0.5)]))
    measured = [box for boxes, _ in boxes_by_label(text).values() for box in boxes]
    assert np.allclose(answer.boxes, np.reshape(measured, (-1, 4)))
    assert len(box_logprobs([(text, -0.5)])) == len(answer.boxes) == len(answer.confidence)


def test_the_scores_of_boxes_cost_no_second_pass(helper, picture, monkeypatch):
    text = 'There is <p>1 lake</p>[0.10,0.10,0.20,0.20].'
    words = helper.tokenizer.tokenize(text)
    monkeypatch.setattr(
        module,
        'generate_answers',
        lambda *a, tokens, **k: [(text, -0.5, [(w, -float(i)) for i, w in enumerate(words)])],
    )
    monkeypatch.setattr(module, 'choice_logprobs', None)
    a = helper.ground(picture, 'the lake')
    assert len(a.confidence) == 1 and a.confidence[0] < -1 and a.confidence[0] != a.score
    assert helper.ask(picture, 'where is the lake?').confidence.tolist() == a.confidence.tolist()


# Conversations and dates


def test_first_turn_equals_ask_and_memory_is_in_the_prompt(helper, picture):
    talk = helper.chat(picture)
    assert talk.ask('where is the lake?').text == helper.ask(picture, 'where is the lake?').text
    talk.ask('is there any water in this image?')
    assert talk.turns[0].text in talk.turns[1].prompt and talk.turns[1].prompt.count('<user>') == 2
    assert 'where is the lake?' in talk._repr_html_()
    talk.clear()
    assert not talk.turns and helper.chat(picture, memory=False).ask('a?').prompt.count('<user>') == 1


def test_a_dialogue_is_what_the_whole_prompt_says(helper, picture):
    "The remembered picture and history give the same as one prompt from the beginning."
    talk, model, tokenizer = helper.chat(picture), helper.model, helper.tokenizer
    for q in ('what does this image show?', 'where is the lake?', 'is there any forest?'):
        talk.ask(q)
    ids = tokenizer(
        talk.turns[2].prompt.replace('<image>x64', '<image>' * 64), add_special_tokens=False
    ).input_ids
    out = model.generate(
        input_ids=torch.tensor([ids]),
        pixel_values=talk.pixel_values,
        do_sample=False,
        max_new_tokens=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    assert tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip() == talk.turns[2].text


def test_the_oldest_turns_are_forgotten_and_a_long_question_is_refused(helper, picture):
    talk = helper.chat(picture)
    for k in range(3):
        talk.turns.append(Answer('forest ' * 300, 0.0, f'question {k}?', talk.chip))
    sent = talk.ask('and now?').prompt
    assert 'question 0' not in sent and 'question 2' in sent
    with pytest.raises(BadInput, match='shorten'):
        talk.ask('why ' * 2000)
    with pytest.raises(BadInput, match='empty'):
        talk.ask(' ')


def test_two_dates_are_one_question(pair_helper, tmp_path):
    places = [dict(crs='EPSG:32618', transform=Affine(10, 0, east, 0, -10, 4e6)) for east in (3e5, 3e5, 4e5)]
    a, b, c = (raster(tmp_path / f'{n}.tif', **place) for n, place in zip('abc', places))
    told = pair_helper.compare(a, b)
    assert isinstance(told, Answer) and [chip.name for chip in told.chips] == ['a.tif', 'b.tif']
    assert told.question == sample_question(Task.CAPTION, change=True)
    assert told.prompt.startswith('<begin> before<image>x64 after<image>x64<user>')
    chips = [pair_helper.chip(x) for x in (a, b)]
    asked = pair_helper.ask(dict(zip(('before', 'after'), chips)), told.question)
    assert (told.text, told.score) == (asked.text, asked.score)
    with pytest.raises(BadInput, match=r'a.tif and c.tif show different places, \d+\.\d km'):
        pair_helper.compare(a, c)


def test_a_pair_is_announced_as_it_was_taught_and_its_order_is_checked(pair_helper, tmp_path):
    here = dict(crs='EPSG:32618', transform=Affine(10, 0, 3e5, 0, -10, 4e6))
    a, b = (raster(tmp_path / f'{n}.tif', **here) for n in 'ab')
    for path, date in ((a, '2017-01-24'), (b, '2018-11-03')):
        with rasterio.open(path, 'r+') as file:
            file.update_tags(DATE=date)
    prompt = pair_helper.compare(a, b, 'has anything changed?').prompt
    assert prompt.index('before') < prompt.index('after') and '2017' not in prompt.replace(' ', '')
    with pytest.raises(BadInput, match='b.tif is of 2018-11-03, and a.tif of 2017-01-24.*swap'):
        pair_helper.compare(b, a)


def test_a_model_of_one_picture_says_that_it_compares_nothing(helper):
    with pytest.raises(BadInput, match='2 pictures in one question.*one picture in a question: take a model'):
        helper.compare('no.tif', 'file.tif')


def test_a_choice_about_pairs(pair_helper, picture):
    "Each pair alone, all together, and each answer by a plain forward pass."
    model, tokenizer, labels = pair_helper.model, pair_helper.tokenizer, ['yes', 'no', 'a lake.']
    pairs = [{'before': picture, 'after': 255 - picture}, {'before': picture, 'after': picture}]
    question = 'what has changed between these images?'
    together = pair_helper.classify(pairs, labels, question, batch_size=2)
    alone = [pair_helper.compare(*pair.values(), question, labels) for pair in pairs]
    for one, other in zip(together, alone):
        assert one.scores == pytest.approx(other.scores, abs=1e-5) and one.prompt == other.prompt
        assert len(one.chips) == 2 and one.prompt.count('<image>x64') == 2
    assert 'the same in every pixel' in together[1].warnings[0]
    pixels = pair_helper.to_pixel_values(list(pairs[0].values()))
    chat = ChatFormat(**model.config.chat)
    prompt = module.picture_prefix(model.config, tokenizer, ('before', 'after'))
    prompt = prompt + chat.encode_question(tokenizer, question)
    sums = []
    for label in labels:
        ids = chat.encode_answer(tokenizer, label)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + ids]), pixel_values=pixels).logits[0]
        logprobs = logits[len(prompt) - 1 : -1].log_softmax(-1)
        sums.append(float(logprobs.gather(1, torch.tensor(ids)[:, None]).sum()))
    by_hand = dict(zip(labels, torch.tensor(sums).softmax(0).tolist()))
    assert together[0].scores == pytest.approx(by_hand, abs=1e-4)
    with pytest.raises(BadInput, match='announced alike'):
        pair_helper.classify([pairs[0], picture], labels, question)


def test_a_picture_without_a_place_beside_one_with_it(pair_helper, tmp_path, picture):
    here = raster(tmp_path / 'a.tif', crs='EPSG:32618', transform=Affine(10, 0, 3e5, 0, -10, 4e6))
    told = pair_helper.ask([here, picture], 'has anything changed?').warnings
    assert any('one of pictures 1 and 2 has no CRS' in text for text in told)
