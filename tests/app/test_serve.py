"A server that clients of OpenAI talk to: the same answers, none lost, and every bad request told why. It goes on."

import base64
import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from fixtures_app import run_cli
from fixtures_hostile import png
from PIL import Image

openai = pytest.importorskip('openai')
pytest.importorskip('fastapi')
pytest.importorskip('uvicorn')

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.batching import Batcher, Job, answer_jobs
from earthgpt_lite.app.gate import Guard
from earthgpt_lite.app.intake import Limits, Service
from earthgpt_lite.app.routes import serve
from earthgpt_lite.app.serve import open_listener
from earthgpt_lite.data.export import export
from earthgpt_lite.data.records import Record
from earthgpt_lite.data.sample.objects import object_examples
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.predictions import read_table
from earthgpt_lite.eval.score import score_files
from earthgpt_lite.eval.statistics import results
from earthgpt_lite.model.loading import load

# rasterio's is kept quiet where files are read, and in several threads at once that does not hold
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')

ROOT = Path(__file__).parents[2]
EXAMPLES = object_examples('test', 1)
SCENE = DATA / 'sentinel2_virginia.tif'


def encoded(image):
    "A picture as the bytes of a PNG"
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, 'PNG')
    return out.getvalue()


def data_url(data, kind='image/png'):
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'


def shown(url):
    return dict(type='image_url', image_url=dict(url=url))


def said(text):
    return dict(type='text', text=text)


def asked(*parts):
    "Messages of one question; texts are texts, bytes are pictures, all else is a part"
    kinds = {str: said, bytes: lambda data: shown(data_url(data))}
    return [dict(role='user', content=[kinds.get(type(p), lambda x: x)(p) for p in parts])]


@contextmanager
def running(asker=None, limits=Limits(), guard=Guard(), make=None):
    "A server in a thread, and a client of it"
    log, listener = [], open_listener('127.0.0.1', 0)
    service = Service('nano', make or (lambda: asker), limits, log.append)
    thread = threading.Thread(target=serve, args=(service, listener, guard))
    thread.start()
    port = listener.getsockname()[1]
    client = openai.OpenAI(base_url=f'http://127.0.0.1:{port}/v1', api_key='secret', max_retries=0)
    try:
        yield SimpleNamespace(service=service, port=port, client=client, log=log)
    finally:
        service.stop()
        thread.join(60)
        client.close()
        listener.close()
        assert not thread.is_alive()


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    assert true()


@pytest.fixture(scope='module')
def nano():
    return Assistant(*load('nano', 'cpu'), 'nano')


@pytest.fixture(scope='module')
def server(nano, tmp_path_factory):
    "One for all tests that leave it as it is"
    root = tmp_path_factory.mktemp('root')
    (root / 'scene.tif').write_bytes(SCENE.read_bytes())
    (root / 'notes.png').write_text('a lake')
    with running(nano, Limits(root=str(root), most_bytes=20_000_000, seconds=60)) as found:
        until(lambda: found.service.batcher)
        yield found


def create(server, messages, **more):
    return server.client.chat.completions.create(model='nano', messages=messages, **more)


def post(server, path='/v1/chat/completions', body=b'', **headers):
    "(status, JSON) of a plain request"
    line = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
    kind = {'Content-Type': 'application/json'} if path.endswith('completions') else {}
    line.request('POST', path, body, kind | headers)
    answer = line.getresponse()
    found = answer.status, json.loads(answer.read())
    line.close()
    return found


def get(server, path, **headers):
    line = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
    line.request('GET', path, headers=headers)
    answer = line.getresponse()
    found = answer.status, answer.read().decode()
    line.close()
    return found


def works(server):
    "It still answers"
    example = EXAMPLES[0]
    return bool(
        create(server, asked(encoded(example.image), example.turns[0].question)).choices[0].message.content
    )


# ---- what it answers


def test_openai_client_gets_the_answer_of_the_assistant(server, nano):
    example = EXAMPLES[0]
    for turn in example.turns[:3]:
        found = create(server, asked(encoded(example.image), turn.question))
        expected = nano.ask(example.image, turn.question)
        message = found.choices[0].message
        assert message.content == expected.text and message.role == 'assistant'
        assert found.choices[0].finish_reason == 'stop' and found.model == 'nano'
        assert np.allclose(np.reshape(message.earthgpt['pixel_boxes'], (-1, 4)), expected.pixel_boxes)
        assert message.earthgpt['score'] == pytest.approx(expected.score, abs=1e-3)
        usage = found.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert usage.prompt_tokens > nano.model.config.visual_tokens and usage.completion_tokens >= 2


def as_vlmevalkit(row, folder, **more):
    "The body that its wrapper of OpenAI sends for a row of a table: the picture is kept as JPEG, and sent as one"
    path = folder / f'{row["index"]}.jpg'
    Image.open(io.BytesIO(base64.b64decode(row['image']))).save(path)
    out = io.BytesIO()
    Image.open(path).save(out, 'JPEG')
    shown = dict(url=data_url(out.getvalue(), 'image/jpeg'), detail='low')
    content = [dict(type='image_url', image_url=shown), said(row['question'])]
    settings = dict(n=1, temperature=0, max_tokens=512) | more
    return out, dict(model='nano', messages=[dict(role='user', content=content)], **settings)


def test_vlmevalkit_gets_the_answers_of_the_assistant_and_they_are_scored(server, nano, tmp_path):
    records = []
    for k, e in enumerate(EXAMPLES[:20]):
        Image.fromarray(e.image).save(tmp_path / f'{k}.png')
        records.append(Record(f'{k}.png', e.turns, split='test'))
    export(records, 'vlmeval', tmp_path / 'out', tmp_path)
    rows, expected = read_table(tmp_path / 'out' / 'test.tsv'), []
    for row in rows:
        jpeg, body = as_vlmevalkit(row, tmp_path)
        status, found = post(server, body=json.dumps(body).encode(), Authorization='Bearer sk-any')
        row['prediction'] = found['choices'][0]['message']['content'].strip()
        assert status == 200 and row['prediction'] == nano.ask(Image.open(jpeg), row['question']).text
        expected.append(dict(row, truth=row['answer'], answer=row['prediction']))
    assert len(rows) >= 30 and len({row['prediction'] for row in rows}) > 6
    scored = score_files(rows, tmp_path / 'out' / 'test.tsv')['results']
    by_hand = {(r['task'], r['metric']): r['score'] for r in results(expected, full=True)}
    assert {(r['task'], r['metric']): r['score'] for r in scored} == pytest.approx(by_hand)
    _, body = as_vlmevalkit(rows[0], tmp_path, max_tokens=1024)  # its default
    status, found = post(server, body=json.dumps(body).encode())
    assert status == 400 and 'max_tokens is 1024' in found['error']['message']


def crowd(server, questions, threads=64):
    "The texts of many questions, (messages, question number), asked at once"

    def one(messages):
        body = json.dumps(dict(messages=messages)).encode()
        status, found = post(server, body=body)
        assert status == 200, found
        return found['choices'][0]['message']['content']

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, questions))


def test_two_hundred_questions_get_the_same_text(server, nano):
    pairs = [(e.image, turn.question) for e in EXAMPLES[:40] for turn in (e.turns * 5)[:5]]
    assert len(pairs) == 200
    expected = [a.text for a in nano.ask([image for image, _ in pairs], [question for _, question in pairs])]
    messages = [asked(encoded(image), question) for image, question in pairs]
    random.Random(0).shuffle(order := list(range(200)))
    found = crowd(server, [messages[k] for k in order])
    assert found == [expected[k] for k in order] and len(set(expected)) > 20
    assert max(server.service.metrics.batches._buckets[k].get() for k in range(3, 7)) > 0  # not one by one


@pytest.fixture(scope='module')
def many(nano):
    "A server whose model may be asked about three pictures, though it never learned to"
    model, tokenizer = load('nano', 'cpu')
    model.config.max_pictures = 3
    with running(Assistant(model, tokenizer, 'nano'), Limits(root=str(DATA))) as found:
        until(lambda: found.service.batcher)
        yield found


def test_several_pictures_get_the_same_text(many):
    asker = many.service.completions.asker
    questions = [turn.question for e in EXAMPLES[:6] for turn in e.turns[:2]]
    tuples = [
        [EXAMPLES[k].image, EXAMPLES[k + 1].image, EXAMPLES[k + 2].image][: 2 + k % 2] for k in range(20)
    ]
    pairs = [(pictures, question) for pictures in tuples for question in questions[:10]]
    assert len(pairs) == 200
    expected = [asker.ask(*pair).text for pair in pairs[::10]]
    found = crowd(many, [asked(*map(encoded, pictures), question) for pictures, question in pairs])
    assert found[::10] == expected and len(set(found)) > 5
    # words that announce them, and a question that stands before them
    a, b = (encoded(e.image) for e in EXAMPLES[:2])
    pair = dict(before=EXAMPLES[0].image, after=EXAMPLES[1].image)
    told = create(many, asked('before', a, 'after', b, questions[0])).choices[0].message.content
    assert told == asker.ask([pair], [questions[0]])[0].text
    first = create(many, asked(questions[0], a, b)).choices[0].message.content
    assert first == asker.ask(list(pair.values()), questions[0]).text


def test_a_conversation_is_that_of_the_assistant(server, nano):
    example = EXAMPLES[0]
    one, two = (turn.question for turn in example.turns[:2])
    chat = nano.chat(example.image)
    first = chat.ask(one)
    messages = [*asked(encoded(example.image), one), dict(role='assistant', content=first.text)]
    found = create(server, [*messages, dict(role='user', content=two)])
    assert found.choices[0].message.content == chat.ask(two).text
    # several at once, each with a past of its own
    alone = [
        create(server, [*messages, dict(role='user', content=q)]).choices[0].message.content
        for q in (one, two)
    ]
    both = crowd(server, [[*messages, dict(role='user', content=q)] for q in (one, two) * 4])
    assert both == alone * 4


def test_the_system_leads_the_first_question(server, nano):
    example = EXAMPLES[0]
    question = example.turns[0].question
    system = dict(role='system', content='Answer in short.')
    found = create(server, [system, *asked(encoded(example.image), question)])
    assert found.choices[0].message.content == nano.ask(example.image, f'Answer in short.\n\n{question}').text


def test_a_stream_is_the_whole_in_pieces(server, nano):
    example = max(EXAMPLES[:40], key=lambda e: max(len(t.answer) for t in e.turns))
    question = max(example.turns, key=lambda t: len(t.answer)).question
    expected = nano.ask(example.image, question)
    options = dict(stream=True, stream_options=dict(include_usage=True))
    chunks = list(create(server, asked(encoded(example.image), question), **options))
    pieces = [c.choices[0].delta.content or '' for c in chunks if c.choices]
    assert ''.join(pieces) == expected.text and len([p for p in pieces if p]) > 1
    last = [c for c in chunks if c.choices][-1]
    assert last.choices[0].finish_reason == 'stop' and last.choices[0].delta.earthgpt['boxes'] is not None
    assert chunks[-1].usage.completion_tokens > 1 and len({c.id for c in chunks}) == 1
    stop = expected.text[3:5]
    cut = list(create(server, asked(encoded(example.image), question), stop=[stop], stream=True))
    assert ''.join(c.choices[0].delta.content or '' for c in cut) == expected.text.partition(stop)[0].strip()
    short = create(server, asked(encoded(example.image), question), stop=[stop])
    assert short.choices[0].message.content == expected.text.partition(stop)[0].strip()
    assert short.choices[0].finish_reason == 'stop'
    assert short.usage.completion_tokens < chunks[-1].usage.completion_tokens  # nothing is written behind it


def test_many_streams_at_once(server, nano):
    pairs = [(e.image, e.turns[0].question) for e in EXAMPLES[:16]]
    expected = [a.text for a in nano.ask([image for image, _ in pairs], [question for _, question in pairs])]

    def one(pair):
        return ''.join(
            c.choices[0].delta.content or ''
            for c in create(server, asked(encoded(pair[0]), pair[1]), stream=True)
        )

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, pairs)) == expected


def test_a_geotiff_as_bytes_upload_and_path(server, nano):
    question = 'what covers most of this image?'
    expected = nano.ask(SCENE, question)
    with open(SCENE, 'rb') as opened:
        file = server.client.files.create(file=opened, purpose='vision')
    assert file.filename == SCENE.name and server.client.files.retrieve(file.id).bytes == SCENE.stat().st_size
    data = data_url(SCENE.read_bytes(), 'image/tiff')
    ways = [
        shown(data),
        shown('scene.tif'),
        shown(file.id),
        dict(type='file', file=dict(file_id=file.id)),
        dict(type='file', file=dict(file_data=data, filename='S2.tif')),
    ]
    for part in ways:
        facts = create(server, asked(part, question)).choices[0].message
        assert facts.content == expected.text and facts.earthgpt['crs'] == 'EPSG:32618'
        (feature,) = facts.earthgpt['geojson']['features']
        assert feature['geometry'] == json.loads(json.dumps(expected.to_geojson()))['features'][0]['geometry']
    where = create(server, asked(shown('scene.tif'), 'where is the lake?')).choices[0].message.earthgpt
    assert len(where['map_polygons']) == len(where['pixel_boxes']) == len(where['box_scores']) > 0
    assert any(f.id == file.id for f in server.client.files.list())
    assert server.client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        create(server, asked(shown(file.id), question))


def test_uploads_have_names_that_a_disk_takes_and_are_counted(server, nano, monkeypatch):
    "A character may be four bytes of a name; an empty file costs no bytes, and yet a place"
    example, long = EXAMPLES[0], '\u6d77' * 300 + '.png'
    data, question = encoded(example.image), example.turns[0].question
    file = server.client.files.create(file=(long, data), purpose='vision')
    assert file.filename.endswith('\u6d77.png')
    expected = nano.ask(example.image, question).text
    for part in (shown(file.id), dict(type='file', file=dict(file_data=data_url(data), filename=long))):
        assert create(server, asked(part, question)).choices[0].message.content == expected
    with pytest.raises(openai.BadRequestError, match='the file is empty'):
        server.client.files.create(file=('a.tif', b''), purpose='vision')
    monkeypatch.setattr(server.service.uploads, 'most_files', 3)
    names = [server.client.files.create(file=(f'{k}.tif', b'a'), purpose='vision').id for k in range(5)]
    assert [f.id for f in server.client.files.list()] == names[2:]


def test_an_upload_is_held_until_it_is_kept(nano):
    "Its bytes count, and its time, until they are on the disk"
    with running(nano, Limits(seconds=2)) as server:
        until(lambda: server.service.batcher)
        held, go = [], threading.Event()

        def add(*args):
            held.append(server.service.held)
            go.wait(60)

        server.service.uploads.add = add
        with pytest.raises(openai.InternalServerError, match='no answer in time'):
            server.client.files.create(file=('a.tif', bytes(100_000)), purpose='vision')
        go.set()
        assert held[0] > 100_000


def test_what_waits_for_a_slow_address_holds_up_no_answer(nano, monkeypatch):
    slow, asks, go = Slow(nano), [], threading.Event()
    messages = asked(encoded(EXAMPLES[0].image), EXAMPLES[0].turns[0].question)
    with running(slow, Limits(allow_urls=True)) as server, ThreadPoolExecutor(4) as pool:
        until(lambda: server.service.batcher)
        answers = [pool.submit(create, server, messages, stream=k > 0) for k in range(2)]
        until(slow.asked.is_set)
        monkeypatch.setattr(slow, 'chip', lambda *args, **more: asks.append(1) or go.wait(60))
        far = asked(shown('https://example.org/a.tif'), 'where?')
        pool.submit(create, server, far), pool.submit(create, server, far)
        try:
            until(lambda: len(asks) == 2)
            slow.go.set()
            text = answers[0].result(30).choices[0].message.content
            assert text == ''.join(c.choices[0].delta.content or '' for c in answers[1].result(30))
        finally:
            go.set()


def test_no_address_of_the_own_network_is_asked(nano):
    with running(nano, Limits(allow_urls=True)) as server:
        until(lambda: server.service.batcher)
        for url in (f'http://127.0.0.1:{server.port}/a.tif', f'http://localhost:{server.port}/item.json'):
            with pytest.raises(openai.BadRequestError, match='leads to this machine or its network'):
                create(server, asked(shown(url), 'where?'))
        assert not any('GET' in line for line in server.log)


def test_how_a_picture_is_read_and_given_back(server, nano):
    part, question = shown('scene.tif'), 'what covers most of this image?'
    facts = create(
        server, asked(part, question), extra_body=dict(earthgpt=dict(bands=[3, 2, 1], picture=True))
    )
    message = facts.choices[0].message
    assert message.content == nano.ask(nano.chip(SCENE, bands=[3, 2, 1]), question).text
    picture = message.earthgpt['picture']
    data = base64.b64decode(picture['url'].partition(',')[2])
    assert max(Image.open(io.BytesIO(data)).size) == 640 and picture['width'] == 1664
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), 'uint8')
    warned = create(server, asked(encoded(noise), 'where is the island?')).choices[0].message.earthgpt
    assert any('noise' in warning for warning in warned['warnings']) and warned['geojson'] is None


def test_lengths_chance_and_seeds(server):
    example = next(e for e in EXAMPLES if len(e.turns[0].answer) > 12)
    messages = asked(encoded(example.image), example.turns[0].question)
    short = create(server, messages, max_tokens=3)
    assert short.choices[0].finish_reason == 'length' and short.usage.completion_tokens == 3
    assert create(server, messages, max_completion_tokens=512).choices[0].finish_reason == 'stop'
    wild = dict(temperature=2.0, seed=5, max_tokens=12)
    texts = [create(server, messages, **wild).choices[0].message.content for _ in range(2)]
    assert texts[0] == texts[1]
    after = []  # chance without a seed is another each time, also behind a seed
    for _ in range(4):
        create(server, messages, **wild)
        after.append(create(server, messages, temperature=2.0, max_tokens=12).choices[0].message.content)
    assert len(set(after)) > 1
    other = {create(server, messages, **wild | dict(seed=k)).choices[0].message.content for k in range(5)}
    assert len(other) > 1
    cold = [create(server, messages, temperature=t, top_p=0.5).choices[0].message.content for t in (0, 1e-9)]
    assert cold[0] == cold[1]


def test_models_health_metrics_page(server):
    assert (
        [m.id for m in server.client.models.list()] == ['nano'] == [server.client.models.retrieve('nano').id]
    )
    status, text = get(server, '/health')
    limits = dict(max_tokens=512, max_bytes=20_000_000, max_pictures=1)
    assert status == 200 and json.loads(text) == dict(status='ok', model='nano', limits=limits)
    assert works(server)
    status, text = get(server, '/metrics')
    assert status == 200 and 'earthgpt_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert 'earthgpt_tokens_total{kind="prompt"}' in text and 'earthgpt_waiting 0.0' in text
    status, page = get(server, '/')
    assert (
        status == 200
        and '<title>earthgpt-lite' in page
        and 'http' not in page.replace('http://www.w3.org/2000/svg', '')
    )


def test_the_log_has_a_line_for_each_request_and_no_contents(server):
    before = len(server.log)
    create(server, asked(encoded(EXAMPLES[0].image), 'where is my secret island?'))
    answered = lambda: [line for line in server.log[before:] if 'POST /v1/chat/completions 200' in line]
    until(answered)  # a line of the test before may still come
    line = answered()[-1]
    assert 'pictures 1, tokens ' in line and 'batch 1' in line
    assert not any('secret' in line or 'base64' in line for line in server.log)


# ---- what it refuses

BOMB = 40_000  # pixels of an edge


def bad_requests(folder):
    "(messages or body, status, code, what the reason says)"
    one = encoded(EXAMPLES[0].image)
    bomb = png(folder / 'bomb.png', BOMB, BOMB, interlaced=1, rows=64).read_bytes()
    text = dict(type='image_url', text='a lake')
    yield 'two pictures', asked(one, one, 'where?'), 400, 'too_many_images', 'trained with one picture'
    yield 'a text as an image', asked(text, 'where?'), 400, None, 'content[0]: a part of type image_url lacks'
    yield 'no url', asked(dict(type='image_url', image_url={}), 'where?'), 400, None, 'lacks url'
    yield 'words as url', asked(shown('a lake'), 'where?'), 400, 'invalid_image', 'a lake: cannot be read'
    plain = shown(data_url(b'a lake', 'text/plain'))
    yield 'a data URL of text', asked(plain, 'where?'), 400, 'invalid_image', "a data URL of 'text/plain'"
    yield 'text that says it is a PNG', asked(b'a lake', 'where?'), 400, 'invalid_image', 'not an image'
    yield (
        'no base64',
        asked(shown('data:image/png;base64,a lake'), 'where?'),
        400,
        'invalid_image',
        'not base64',
    )
    yield 'a cut picture', asked(one[:-40], 'where?'), 400, 'invalid_image', 'damaged or cut short'
    yield 'a bomb', asked(bomb, 'where?'), 400, 'invalid_image', 'of memory'
    yield 'up and out', asked(shown('../scene.tif'), 'where?'), 400, 'invalid_image_url', 'no path under'
    yield 'from the top', asked(shown('/etc/hostname'), 'where?'), 400, 'invalid_image_url', 'no path under'
    yield 'a folder', asked(shown('.'), 'where?'), 400, 'invalid_image', 'is a folder'
    yield (
        'no picture there',
        asked(shown('notes.png'), 'where?'),
        400,
        'invalid_image',
        'notes.png: not an image',
    )
    yield 'a null byte', asked(shown('a\0b'), 'where?'), 400, 'invalid_image_url', 'no path'
    yield (
        'an address',
        asked(shown('http://127.0.0.1:9/a.tif'), 'where?'),
        400,
        'invalid_image_url',
        'fetches nothing',
    )
    yield 'another network', asked(shown('s3://bucket/a.tif'), 'where?'), 400, 'invalid_image_url', 'https://'
    yield 'no upload', asked(shown('file-1'), 'where?'), 404, 'file_not_found', 'no file'
    yield 'no image', asked('where is the island?'), 400, 'missing_image', 'hold no image'
    yield 'no question', asked(one), 400, None, 'question is empty'
    yield 'half a character', asked(one, '\ud800'), 400, None, 'half a character'
    yield 'half a character in a path', asked(shown('\udcff'), 'where?'), 400, 'invalid_image', 'No such file'
    yield 'half a character as an id', asked(shown('file-\ud800'), 'where?'), 404, 'file_not_found', 'no file'
    yield (
        'half a character as a name',
        {'\ud800': 1, 'messages': asked(one, 'where?')},
        400,
        None,
        'half a character',
    )
    yield (
        'a number without end',
        dict(messages=asked(one, 'where?'), earthgpt=dict(nodata=10**400)),
        400,
        None,
        'nodata is a number',
    )
    yield 'too long', asked(one, 'island ' * 5000), 400, 'context_length_exceeded', 'more than the'
    yield 'sound', asked(one, dict(type='input_audio', input_audio={})), 400, None, "type 'input_audio'"
    yield 'no message', [], 400, None, 'not empty'
    yield 'an answer last', [*asked(one, 'a?'), dict(role='assistant', content='b')], 400, None, 'take turns'
    yield 'a tool', [*asked(one, 'a?'), dict(role='tool', content='b')], 400, None, "role is 'tool'"
    yield (
        'a picture of the assistant',
        [dict(role='assistant', content=[shown('a')])],
        400,
        None,
        'stand in messages of the user',
    )
    for name, value in dict(
        n=2,
        tools=[dict(type='function', function=dict(name='f'))],
        logit_bias={'5': 1},
        logprobs=True,
        response_format=dict(type='json_object'),
        frequency_penalty=1,
        temperature=-1,
        top_p='high',
        max_tokens=0,
        max_completion_tokens=10**9,
        seed=1.5,
        stop=['a'] * 5,
        stream='yes',
        stream_options=[],
        earthgpt=dict(colour='red'),
    ).items():
        yield name, dict(messages=asked(one, 'where?'), **{name: value}), 400, ..., name
    yield (
        'a sensor',
        dict(messages=asked(one, 'a?'), earthgpt=dict(sensor='x')),
        400,
        ...,
        "no sensor named 'x'",
    )
    yield (
        'a model',
        dict(model='gpt-4', messages=asked(one, 'where?')),
        404,
        'model_not_found',
        "no model 'gpt-4'",
    )
    yield 'no JSON', b'{"messages": [', 400, None, 'is not JSON'
    yield 'a list', b'[]', 400, None, 'should begin with {'
    yield 'deep JSON', b'[' * 100_000, 400, None, 'JSON'
    yield 'no UTF-8', b'\xff\xfe', 400, None, 'not UTF-8'


def test_what_cannot_be_answered_is_told_and_the_server_goes_on(server, tmp_path):
    process, seen = psutil.Process(), 0
    before = process.memory_info().rss
    for name, body, status, code, reason in bad_requests(tmp_path):
        body = (
            body
            if isinstance(body, bytes)
            else json.dumps(body if isinstance(body, dict) else dict(messages=body)).encode()
        )
        found, answer = post(server, body=body)
        error = answer.get('error') or pytest.fail(f'{name} is answered: {answer}')
        assert found == status and reason in error['message'], (name, found, answer)
        assert set(error) == {'message', 'type', 'param', 'code'} and code in (error['code'], ...), (
            name,
            error,
        )
        assert error['type'] == 'invalid_request_error' and str(tmp_path) not in error['message']
        assert 'earthgpt-lite-' not in error['message'], 'a folder of this machine is told'
        seen += 1
    assert seen > 49 and works(server)
    assert process.memory_info().rss - before < 600e6
    with pytest.raises(openai.BadRequestError, match='n is 3'):
        create(server, asked(encoded(EXAMPLES[0].image), 'where?'), n=3)


def test_what_changes_nothing_is_left_aside_with_a_note(server):
    example = EXAMPLES[0]
    plain = dict(
        n=1, tools=[], logit_bias={}, logprobs=False, frequency_penalty=0, response_format=dict(type='text')
    )
    messages = asked(encoded(example.image), example.turns[0].question)
    found = create(server, messages, user='me', metadata=dict(a='b'), extra_body=plain | dict(wonder=1))
    notes = found.choices[0].message.earthgpt['left_aside']
    assert [note.partition(' ')[0] for note in notes] == ['metadata', 'user', 'wonder']


def test_two_hundred_megabytes_are_refused_and_the_client_learns_why(server):
    before = psutil.Process().memory_info().rss
    line = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
    start, chunk, peak = b'{"messages": [{"role": "user", "content": "', b'A' * 1_000_000, 0
    line.putrequest('POST', '/v1/chat/completions')
    line.putheader('Content-Type', 'application/json')
    line.putheader('Content-Length', str(len(start) + 200 * len(chunk)))
    line.endheaders()
    line.send(start)
    for _ in range(200):
        line.send(chunk)
        peak = max(peak, psutil.Process().memory_info().rss - before)
    answer = line.getresponse()
    error = json.loads(answer.read())['error']
    assert answer.status == 413 and error['code'] == 'request_too_large' and '20 MB' in error['message']
    assert peak < 60e6
    line.close()
    image = data_url(random.Random(0).randbytes(16_000_000))
    with pytest.raises(openai.APIStatusError) as refused:  # as the client itself sends it
        create(server, asked(shown(image), 'where?'))
    assert refused.value.status_code == 413 and works(server)
    with pytest.raises(openai.APIStatusError) as refused:
        server.client.files.create(file=('a.tif', bytes(21_000_000)), purpose='vision')
    assert refused.value.status_code == 413


class Tired:
    "An Asker whose model needs a while for each token, counts them, and may be held at one"

    def __init__(self, asker):
        self.asker, self.steps, self.hold, self.go = asker, 0, None, threading.Event()
        self.model, self.tokenizer, self.chip = asker.model, asker.tokenizer, asker.chip

    def ask(self, *args, watch, **options):
        def slowly(questions, ids):
            self.steps += 1
            time.sleep(0.05)
            if self.steps == self.hold:
                self.go.wait(60)
            return watch(questions, ids)

        return self.asker.ask(*args, watch=slowly, **options)


def test_a_client_that_leaves_in_mid_stream_ends_its_answer(nano):
    tired = Tired(nano)
    example, turn = next((e, t) for e in EXAMPLES for t in e.turns if '[' in t.answer)
    messages = asked(encoded(example.image), turn.question)
    with running(tired) as server:
        until(lambda: server.service.batcher)
        whole = create(server, messages).usage.completion_tokens
        assert tired.steps == whole > 8
        tired.hold = whole + 6  # tokens that are written before the client has left
        with create(server, messages, stream=True) as stream:
            assert [next(iter(stream)), next(iter(stream))][1].choices[0].delta.content
        until(lambda: sum('POST' in line for line in server.log) == 2)
        tired.go.set()
        until(lambda: server.service.metrics.batches._sum.get() == 2)
        assert tired.steps <= tired.hold < 2 * whole
        # one that waits for a whole answer, and closes the line
        line = socket.create_connection(('127.0.0.1', server.port))
        body = json.dumps(dict(messages=messages)).encode()
        line.sendall(
            b'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
        )
        line.sendall(f'Content-Length: {len(body)}\r\n\r\n'.encode() + body[:-10])
        line.close()  # even before all was said
        assert works(server) and not any('Traceback' in text for text in server.log)


def test_names_of_hosts_and_pages(server):
    body = json.dumps(dict(messages=[])).encode()
    assert post(server, body=body, Host='evil.example')[0] == 403
    assert post(server, body=body, Origin='http://evil.example')[0] == 403
    assert post(server, body=body, Origin=f'http://127.0.0.1:{server.port}')[0] == 400
    status, text = get(server, '/v1/nothing')
    assert status == 404 and json.loads(text)['error']['code'] == 'unknown_url'
    assert get(server, '/v1/chat/completions')[0] == 405


@pytest.mark.unix
def test_no_link_leads_out_of_the_root(server, tmp_path):
    root = Path(server.service.pictures.root)
    (tmp_path / 'secret.tif').write_bytes(SCENE.read_bytes())
    (root / 'link.tif').symlink_to(tmp_path / 'secret.tif')
    (root / 'door').symlink_to(tmp_path)
    (root / 'beside.png').write_bytes(encoded(EXAMPLES[0].image))
    (root / 'beside.pgw').symlink_to(tmp_path / 'secret.tif')
    for name in ('link.tif', 'door/secret.tif', str(tmp_path / 'secret.tif'), 'beside.png'):
        status, answer = post(server, body=json.dumps(dict(messages=asked(shown(name), 'where?'))).encode())
        assert status == 400 and str(root) not in answer['error']['message'], name
    os.mkfifo(root / 'pipe.tif')
    status, answer = post(server, body=json.dumps(dict(messages=asked(shown('pipe.tif'), 'where?'))).encode())
    assert status == 400 and 'pipe' in answer['error']['message']


def test_metadata_above_the_root_are_not_read(tmp_path, monkeypatch):
    "A Landsat file asks for its MTL in its folder; a Sentinel-2 file goes up, and must stop at the root"
    from earthgpt_lite.raster import products

    root = tmp_path / 'GRANULE' / 'IMG_DATA'
    root.mkdir(parents=True)
    scene = root / 'T34VEL_20240108T101401_B04.tif'
    scene.write_bytes(SCENE.read_bytes())
    above = tmp_path / 'MTD_MSIL2A.xml'
    above.write_text(f'<a>IMG_DATA/{scene.stem}</a>')
    assert products.metadata_files(scene) == [str(above)]
    read = []
    monkeypatch.setattr(products, '_text', lambda path: read.append(path) or '')
    with products.fenced(root):
        assert products.metadata_files(scene) == []
    assert read == []


# ---- tokens, limits, beginnings and ends


def test_a_token(nano):
    with running(nano, guard=Guard('secret')) as server:
        until(lambda: server.service.batcher)
        assert works(server) and get(server, '/health')[0] == get(server, '/')[0] == 200
        assert get(server, '/metrics')[0] == get(server, '/v1/models')[0] == 401
        assert get(server, '/metrics', Authorization='Bearer secret')[0] == 200
        wrong = server.client.with_options(api_key='sesame')
        with pytest.raises(openai.AuthenticationError, match='the token is wrong'):
            wrong.models.list()
        status, answer = post(server, body=b'A' * 3_000_000)
        assert status == 401 and answer['error']['code'] == 'invalid_api_key'
        assert works(server)


def test_a_model_that_is_being_loaded(nano):
    ready = threading.Event()

    def make():
        ready.wait(60)
        return nano

    with running(make=make) as server:
        assert get(server, '/health')[0] == 503 and [m.id for m in server.client.models.list()] == ['nano']
        with pytest.raises(openai.InternalServerError, match='is being loaded') as early:
            create(server, asked(encoded(EXAMPLES[0].image), 'where?'))
        assert early.value.status_code == 503 and early.value.code == 'model_loading'
        assert early.value.response.headers['retry-after'] == '2'
        ready.set()
        until(lambda: get(server, '/health')[0] == 200)
        assert works(server)


def test_a_model_that_cannot_be_had_ends_the_server():
    def make():
        raise BadInput('runs/none: no such folder')

    listener = open_listener('127.0.0.1', 0)
    with pytest.raises(BadInput, match='no such folder'):
        serve(Service('none', make, say=lambda text: None), listener)
    listener.close()


class Slow:
    "An Asker whose model waits for a sign"

    def __init__(self, asker):
        self.asker, self.go, self.asked = asker, threading.Event(), threading.Event()
        self.model, self.tokenizer, self.chip = asker.model, asker.tokenizer, asker.chip

    def ask(self, *args, **options):
        self.asked.set()
        self.go.wait(60)
        return self.asker.ask(*args, **options)


def test_a_full_queue_refuses(nano):
    slow = Slow(nano)
    messages = asked(encoded(EXAMPLES[0].image), EXAMPLES[0].turns[0].question)
    with running(slow, Limits(most_waiting=2)) as server, ThreadPoolExecutor(8) as pool:
        until(lambda: server.service.batcher)
        waiting = [pool.submit(create, server, messages)]
        until(slow.asked.is_set)
        waiting += [pool.submit(create, server, messages) for _ in range(2)]
        until(lambda: len(server.service.batcher.waiting) == 2)
        with pytest.raises(openai.InternalServerError, match='2 questions wait already') as full:
            create(server, messages)
        assert full.value.status_code == 503 and full.value.response.headers['retry-after'] == '1'
        slow.go.set()
        assert len({w.result().choices[0].message.content for w in waiting}) == 1


def test_a_late_answer_is_given_up(nano):
    slow = Slow(nano)
    messages = asked(encoded(EXAMPLES[0].image), EXAMPLES[0].turns[0].question)
    with running(slow, Limits(seconds=2)) as server:
        until(lambda: server.service.batcher)
        with pytest.raises(openai.InternalServerError, match='no answer in time') as late:
            create(server, messages)
        assert late.value.status_code == 504 and late.value.code == 'timeout'
        with pytest.raises(openai.APIError, match='no answer in time'):
            list(create(server, messages, stream=True))
        slow.go.set()
        until(lambda: not server.service.batcher.waiting)


class Broken(Slow):
    "An Asker that fails at one question, and at any batch that holds it"

    def ask(self, pictures, questions, **options):
        if 'fail' in questions:
            raise ZeroDivisionError('a secret of the house')
        return self.asker.ask(pictures, questions, **options)


def test_one_that_fails_costs_the_others_nothing(nano):
    image = encoded(EXAMPLES[0].image)
    good = EXAMPLES[0].turns[0].question
    with running(Broken(nano)) as server, ThreadPoolExecutor(12) as pool:
        until(lambda: server.service.batcher)
        waiting = [pool.submit(create, server, asked(image, q)) for q in [good, 'fail', good, good] * 3]
        found = [w.exception() for w in waiting]
        assert [e is None for e in found] == [True, False, True, True] * 3
        assert all(e.status_code == 500 and 'secret' not in str(e) for e in found if e)
        assert any('a secret of the house' in line for line in server.log)  # the house knows
        assert len({w.result().choices[0].message.content for w, e in zip(waiting, found) if not e}) == 1


def test_what_runs_is_answered_when_the_server_ends(nano):
    slow = Slow(nano)
    messages = asked(encoded(EXAMPLES[0].image), EXAMPLES[0].turns[0].question)
    with ThreadPoolExecutor(4) as pool:
        with running(slow) as server:
            until(lambda: server.service.batcher)
            waiting = [pool.submit(create, server, messages)]
            until(slow.asked.is_set)  # alone: those that come together are one batch
            waiting += [pool.submit(create, server, messages) for _ in range(3)]
            until(lambda: len(server.service.batcher.waiting) == 3)
            server.service.stop()
            time.sleep(0.3)
            slow.go.set()
        assert all(w.result().choices[0].message.content for w in waiting)


def test_what_ends_early_is_scored_as_if_alone(nano):
    "Its row is filled up while the others of its batch are written"
    example = max(EXAMPLES[:40], key=lambda e: len(e.turns[0].answer))
    asked = nano.chip(example.image), example.turns[0].question
    batcher = Batcher(nano)
    batcher.close()
    for more in (dict(max_new_tokens=3), dict(stop=(example.turns[0].answer[2:4],))):
        alone, short, whole = (Job(*asked, **facts) for facts in (more, more, {}))
        answer_jobs(nano, [alone], batcher.end_id)
        answer_jobs(nano, [short, whole], batcher.end_id)
        assert short.ids == alone.ids == whole.ids[: len(short.ids)] and len(short.ids) < len(whole.ids)
        assert short.done.result().text == alone.done.result().text
        assert short.done.result().score == pytest.approx(alone.done.result().score, abs=1e-4)


# ---- the command


def start(*words, cwd, **env):
    "The command in a process of its own: (process, port, the lines that it printed so far)"
    code = f'import sys; from earthgpt_lite.app.cli import run; sys.argv = {["earthgpt-lite", "serve", *words]!r}; run()'
    command = [sys.executable, '-c', code]
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
        **env,
    }
    process = subprocess.Popen(command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True)
    lines = [process.stderr.readline()]
    port = int(lines[0].split('127.0.0.1:')[1].split()[0])
    threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True).start()
    return process, port, lines


@pytest.mark.unix
def test_the_command_begins_and_ends(tmp_path):
    process, port, lines = start(
        'nano', '--port', '0', '--root', str(DATA), cwd=tmp_path, EARTHGPT_LITE_TOKEN='secret\n'
    )
    try:
        server = SimpleNamespace(port=port)
        until(lambda: get(server, '/health')[0] == 200, 120)
        client = openai.OpenAI(base_url=f'http://127.0.0.1:{port}/v1', api_key='secret', max_retries=0)
        server.client = client
        answer = create(server, asked(shown(SCENE.name), 'what covers most of this image?'))
        assert answer.choices[0].message.earthgpt['crs'] == 'EPSG:32618'
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert any('is ready after' in line for line in lines) and not any(
            'Traceback' in line for line in lines
        )
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_wrong_uses_of_the_command(run_cli, tmp_path):
    with open_listener('127.0.0.1', 0) as taken:
        port = str(taken.getsockname()[1])
        status, _, err = run_cli('serve', 'nano', '--port', port)
        assert status == 2 and 'cannot be listened at' in err and '--port' in err
    status, _, err = run_cli('serve', 'nano', '--root', str(tmp_path / 'none'))
    assert status == 2 and 'no such folder' in err
    status, _, err = run_cli('serve', str(tmp_path / 'none'), '--port', '0')
    assert status == 2 and 'none' in err
    for token in ('gr\u00f6\u00dfe', 'a b\tc', ' '):
        status, _, err = run_cli('serve', 'nano', '--port', '0', '--token', token)
        assert status == 2 and 'EARTHGPT_LITE_TOKEN' in err and 'give another' in err
    status, _, err = run_cli('serve', 'nano', '--max-mb', 'x')
    assert status == 2


def test_without_the_extra_a_sentence_says_how_it_comes(run_cli, monkeypatch):
    for name in [n for n in sys.modules if n.startswith('earthgpt_lite.app.routes')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'fastapi', None)
    status, _, err = run_cli('serve', 'nano', '--port', '0')
    assert status == 2 and 'pip install "earthgpt-lite[serve]"' in err and len(err.splitlines()) == 1
