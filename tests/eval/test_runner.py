"An evaluation: stops of every kind, wrong and unreadable pictures, the same numbers in the end."

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from fixtures_saved import WHOLE_NUMBERS
from PIL import Image
from safetensors.torch import load_file, save_file

from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.sample.change import hidden, loss_examples
from earthgpt_lite.data.sample.pairs import sensor_pairs
from earthgpt_lite.data.store import write_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval import runner, sheets
from earthgpt_lite.eval.runner import EvaluationOptions, corrupted_answers, evaluate_model
from earthgpt_lite.eval.questions import open_data
from earthgpt_lite.eval.sheets import shuffled_images
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.modeling import model_fingerprint
from earthgpt_lite.model.processor import to_pixel_values


def test_wrong_images_are_of_the_same_kind():
    questions = [
        dict(image=f'{s}{k}{i}', question='?', sensor=s, source=k)
        for s in ('sar', 'optical')
        for k in 'xy'
        for i in range(4)
    ]
    wrong = shuffled_images(questions)
    assert all(
        a != q['image'] and a[:-1] == q['image'][:-1] for a, q in wrong.items()
    ) and wrong == shuffled_images(questions)
    assert shuffled_images(questions[:1]) == {'sarx0': questions[0]}


def test_evaluate_examples_and_go_on(tiny, few, tmp_path):
    examples = few['validation'][:10]
    settings = dict(progress=False, say=None, chunk_size=8, max_new_tokens=12)
    once = evaluate_model(tiny, examples, tmp_path / 'a', **settings)
    sheets = {
        n: (tmp_path / 'a' / n).read_bytes() for n in ('answers.jsonl', 'shuffled.jsonl', 'blind.jsonl')
    }
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/answers.jsonl').write_bytes(sheets['answers.jsonl'])
    (tmp_path / 'b/shuffled.jsonl').write_bytes(sheets['shuffled.jsonl'][:999])
    again = evaluate_model(tiny, examples, tmp_path / 'b', **settings)
    assert (
        again['results'] == once['results']
        and {n: (tmp_path / 'b' / n).read_bytes() for n in sheets} == sheets
    )
    row = json.loads(sheets['answers.jsonl'].splitlines()[0])
    assert (
        {'index', 'image', 'question', 'answer', 'score', 'prompt', 'by'} == set(row)
        and row['question'] in row['prompt']
        and model_fingerprint(*tiny) in row['by']
    )
    assert all(r['shuffled'] is not None and r['blind'] is not None for r in once['results']) and not any(
        once['problems'][k] for k in ('missing', 'unknown', 'duplicate')
    )
    assert 'data:image/png' in (tmp_path / 'b/report.html').read_text()
    with pytest.raises(BadInput, match='--force'):
        evaluate_model(tiny, few['validation'][5:10], tmp_path / 'a', **settings)
    with pytest.raises(BadInput, match='other options'):
        evaluate_model(tiny, examples, tmp_path / 'a', **settings | dict(max_new_tokens=11))
    assert (
        evaluate_model(
            tiny, few['validation'][5:10], tmp_path / 'a', force=True, baselines=False, **settings
        )['results'][0]['blind']
        is None
    )


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    names = [f'{i}.png' for i in range(40)]
    for n in names[:-1]:
        Image.fromarray(rng.integers(0, 255, (30, 50, 3), 'uint8')).save(tmp_path / n)
    (tmp_path / names[-1]).write_text('no picture')
    write_rows(
        [
            Record(
                n,
                [
                    Turn('is there any water in this image?', 'yes', 'presence'),
                    Turn('where is the island?', '[0.10,0.30,0.60,0.60]', 'grounding'),
                    Turn('describe this image.', 'only water.', 'caption'),
                ],
            )
            for n in names
        ],
        tmp_path / 'data.jsonl',
    )
    return tmp_path / 'data.jsonl'


def test_a_picture_that_cannot_be_read_is_wrong_and_said(tiny, data, tmp_path):
    metrics = evaluate_model(
        tiny, data, tmp_path / 'out', progress=False, say=None, baselines=False, max_new_tokens=8
    )
    assert (
        len(metrics['problems']['picture']) == 3
        and all('39.png' in line for line in metrics['problems']['picture'])
        and metrics['results'][0]['n'] == 40
    )


def test_pictures_that_were_replaced_are_asked_again(tiny, data, tmp_path):
    "Under the same name, with as many bytes and the same date"
    settings = dict(progress=False, say=None, baselines=False, max_new_tokens=4)
    evaluate_model(tiny, data, tmp_path / 'out', **settings)
    assert evaluate_model(tiny, data, tmp_path / 'out', **settings)['asked'] == 0
    for change in (replace_picture, hide_half, other_sensor):
        change(tmp_path)
        with pytest.raises(BadInput, match='answers.jsonl holds answers .* other questions or pictures'):
            evaluate_model(tiny, data, tmp_path / 'out', **settings)
        assert evaluate_model(tiny, data, tmp_path / 'out', force=True, **settings)['asked'] == 120


def replace_picture(room):
    path = room / '7.png'
    before, pixels = path.stat(), np.array(Image.open(path))
    Image.fromarray(255 - pixels).save(path)
    path.write_bytes(path.read_bytes().ljust(before.st_size, b'\0')[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def hide_half(room):
    mask = np.zeros((1, 30, 50), 'uint8')
    mask[:, :, 20:] = 255
    size = dict(width=50, height=30, count=1, dtype='uint8')
    with warnings.catch_warnings(action='ignore'):
        with rasterio.open(room / '7.png.msk', 'w', driver='GTiff', **size) as f:
            f.write(mask)


def other_sensor(room):
    rows = [json.loads(line) | dict(sensor='sar') for line in (room / 'data.jsonl').read_text().splitlines()]
    (room / 'data.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_pictures_in_memory_that_changed_are_asked_again(tiny, few, tmp_path):
    settings, examples = (
        dict(progress=False, say=None, baselines=False, max_new_tokens=4),
        few['validation'][:2],
    )
    evaluate_model(tiny, examples, tmp_path, **settings)
    darker = [replace(examples[0], image=examples[0].image // 2), examples[1]]
    with pytest.raises(BadInput, match='pictures'):
        evaluate_model(tiny, darker, tmp_path, **settings)


def test_another_model_does_not_go_on(saved, data, tmp_path):
    "Another chat format, other words, and numbers that no sample would see"
    settings = dict(progress=False, say=None, baselines=False, max_new_tokens=4, device='cpu')
    shutil.copytree(saved, tmp_path / 'run')
    evaluate_model(tmp_path / 'run', data, tmp_path / 'out', **settings)
    shutil.copytree(tmp_path / 'run', tmp_path / 'moved')
    assert evaluate_model(tmp_path / 'moved', data, tmp_path / 'out', **settings)['asked'] == 0
    for change in (other_chat, swapped_words, turned_number):
        shutil.copytree(saved, tmp_path / change.__name__)
        change(tmp_path / change.__name__ / 'model')
        with pytest.raises(BadInput, match='answers of another model'):
            evaluate_model(tmp_path / change.__name__, data, tmp_path / 'out', **settings)


def other_chat(folder):
    for name in ('config.json', 'processor_config.json'):
        found = json.loads((folder / name).read_text())
        found['chat']['between'] = '<user>'
        (folder / name).write_text(json.dumps(found))


def swapped_words(folder):
    found = json.loads((folder / 'tokenizer.json').read_text())
    words = found['model']['vocab']
    words['Ġwater'], words['Ġthe'] = words['Ġthe'], words['Ġwater']
    (folder / 'tokenizer.json').write_text(json.dumps(found))


def turned_number(folder):
    tensors = load_file(folder / 'model.safetensors')
    max(tensors.values(), key=torch.numel).view(-1)[1001] *= -1
    save_file(tensors, folder / 'model.safetensors', dict(format='pt'))


MORTAL = """
import os, signal
from earthgpt_lite.eval import runner, sheets
write = sheets.AnswerSheet.write
def write_and_end(sheet, answers):
    write(sheet, answers)
    end(sheet)
sheets.AnswerSheet.write = write_and_end
# what follows defines `end`: it is called after each chunk,
# so the kill comes at the same place on every machine
"""


@pytest.mark.unix
def test_killed_and_started_again(saved, data, tmp_path):
    "SIGKILL while the sheets grow; the next run ends with the results of one that nobody disturbed."
    code = (
        MORTAL
        + f"""
def end(sheet):
    if sheet.done == 3:
        with open(sheet.path, 'a') as f: f.write('{{"image": "torn')
        os.kill(os.getpid(), signal.SIGKILL)
settings = dict(progress=False, chunk_size=6, say=None)
runner.evaluate_model({str(saved)!r}, {str(data)!r}, {str(tmp_path / 'killed')!r}, **settings)
"""
    )
    assert (
        subprocess.run(
            [sys.executable, '-c', code], env=os.environ | {'OMP_NUM_THREADS': '1'}, timeout=600
        ).returncode
        == -signal.SIGKILL
    )
    sheet = tmp_path / 'killed/answers.jsonl'
    assert sheet.read_bytes().count(b'\n') == 18 and not (tmp_path / 'killed/metrics.json').exists()
    again = evaluate_model(saved, data, tmp_path / 'killed', progress=False, chunk_size=6, say=None)
    once = evaluate_model(saved, data, tmp_path / 'quiet', progress=False, chunk_size=6, say=None)
    assert (
        again['results'] == once['results']
        and sheet.read_bytes() == (tmp_path / 'quiet/answers.jsonl').read_bytes()
    )


def test_bad_data(tiny, tmp_path):
    with pytest.raises(BadInput, match='no questions'):
        (tmp_path / 'e.json').write_text('[]')
        open_data(tmp_path / 'e.json')
    with pytest.raises(BadInput, match='choose'):
        open_data('samples:holiday')


def test_boxes_of_a_model_are_ranked_by_their_own_tokens(tiny, few):
    "As many scores as boxes in a detection answer, and they are what the whole answer's mean is made of."
    from earthgpt_lite.boxes.text import parse_boxes
    from earthgpt_lite.eval.detections import box_logprobs
    from earthgpt_lite.model.generation import generate_answers
    from earthgpt_lite.model.processor import to_pixel_values

    ((text, score, tokens),) = generate_answers(
        *tiny, to_pixel_values(few['validation'][0].image)[None], [(0, 'where is the island?')], tokens=True
    )
    found = box_logprobs(tokens)
    assert len(found) == len(parse_boxes(text, repair=True).boxes) and score == pytest.approx(
        np.mean([l for _, l in tokens]), abs=1e-5
    )
    assert not found or all(min(l for _, l in tokens) <= s <= 0 for s in found)


def test_worse_pictures_keep_a_share(tiny, data):
    questions, picture, _ = open_data(data)
    rows = corrupted_answers(
        *tiny, questions, picture, corruptions=['noise', 'rotation'], severities=(2,), max_new_tokens=8
    )
    assert {r['corruption'] for r in rows} == {'noise', 'rotation'} and all(
        r['clean'] is not None for r in rows
    )
    # the file that is no picture is left out
    assert next(r for r in rows if r['task'] == 'presence')['n'] == 39


def test_worse_pictures_keep_their_blocks(tiny, few, monkeypatch):
    from earthgpt_lite.eval import runner as module

    seen = []
    monkeypatch.setattr(module, 'robustness', lambda ask, examples, *a, **k: seen.extend(ask(examples)) or [])
    questions, picture, _ = open_data(few['validation'][:6])
    corrupted_answers(*tiny, questions, picture, max_new_tokens=2)
    assert {(p['image'], p['group']) for p in seen} == {(q['image'], q['group']) for q in questions} and any(
        p['group'] != p['image'] for p in seen
    )


def test_metrics_say_who_answered(tiny, few, tmp_path):
    evaluate_model(
        tiny,
        few['validation'][:2],
        tmp_path / 'a',
        progress=False,
        say=None,
        baselines=False,
        max_new_tokens=4,
    )
    kept = json.loads((tmp_path / 'a/metrics.json').read_text())
    assert (
        kept['by'].endswith(' max_new_tokens=4')
        and f' {model_fingerprint(*tiny)} pictures ' in kept['by']
        and kept['processes'] == 1
        and kept['asked'] == kept['scored']['questions']
        and 'earthgpt-lite' in kept['versions']
    )
    with pytest.raises(BadInput, match='processes'):
        evaluate_model(tiny, few['validation'][:2], tmp_path / 'a', processes=0)


@pytest.mark.slow
@pytest.mark.unix
def test_two_processes_killed_and_started_again_answer_as_one(saved, data, tmp_path):
    "Lightning's predict on gloo: both are killed; then two go on, and all sheets are those of one process."
    (tmp_path / 'two.py').write_text(
        MORTAL
        + f"""
import sys
def end(sheet):
    if 'STOP' not in os.environ or sheet.done < 2: return
    if '.2of2' in sheet.path.name: os.killpg(0, signal.SIGKILL)
    signal.pause()   # the first process waits for it
settings = dict(device='cpu', progress=False, chunk_size=int(sys.argv[2]), processes=2, say=print)
metrics = runner.evaluate_model({str(saved)!r}, {str(data)!r}, sys.argv[1], **settings)
print('first' if metrics else 'other')
"""
    )
    alone = os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    run = [sys.executable, str(tmp_path / 'two.py'), str(tmp_path / 'two'), '6']
    killed = subprocess.run(
        run, env=alone | {'STOP': '1'}, start_new_session=True, stdout=subprocess.DEVNULL, timeout=600
    )
    assert (
        killed.returncode == -signal.SIGKILL
        and (tmp_path / 'two/answers.0.2of2.jsonl').read_bytes().count(b'\n') == 12
        and not (tmp_path / 'two/metrics.json').exists()
    )
    done = subprocess.run(run, env=alone, capture_output=True, text=True, timeout=300)
    assert (
        done.returncode == 0 and done.stdout.split().count('first') == done.stdout.split().count('other') == 1
    ), done.stdout + done.stderr
    # only the first process speaks
    assert done.stdout.count('120 questions') == 1
    once = evaluate_model(saved, data, tmp_path / 'one', device='cpu', progress=False, chunk_size=6, say=None)
    assert json.loads((tmp_path / 'two/metrics.json').read_text())['results'] == json.loads(
        json.dumps(once['results'])
    )
    for name in ('answers', 'shuffled', 'blind'):
        assert (tmp_path / f'two/{name}.jsonl').read_bytes() == (tmp_path / f'one/{name}.jsonl').read_bytes()
    assert sorted(p.name for p in (tmp_path / 'two').iterdir()) == [
        'answers.jsonl',
        'blind.jsonl',
        'earthgpt-lite-files.json',
        'metrics.json',
        'report.html',
        'shuffled.jsonl',
    ]
    # one chunk: the second process has nothing to do
    few = subprocess.run(
        [*run[:2], str(tmp_path / 'few'), '1000'], env=alone, capture_output=True, text=True, timeout=300
    )
    again = evaluate_model(
        saved, data, tmp_path / 'alone', device='cpu', progress=False, chunk_size=1000, say=None
    )
    assert few.returncode == 0 and json.loads((tmp_path / 'few/metrics.json').read_text())[
        'results'
    ] == json.loads(json.dumps(again['results'])), few.stderr


@pytest.fixture
def mixed(data):
    "Twenty pictures of train, ten of validation, ten of test, under the words that others use for them"
    words = ['train'] * 20 + ['val'] * 10 + ['test'] * 10
    rows = [json.loads(line) | dict(split=word) for line, word in zip(data.read_text().splitlines(), words)]
    write_rows(rows, data)
    return data


def test_several_processes_compute_where_it_was_asked(monkeypatch):
    "On a machine with a GPU: what opens the model is told of it, and judges types and whole numbers for it"
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(BadInput, match='quantize int8 is for a CPU'):
        runner._open_model('nano', EvaluationOptions(processes=2, quantize='int8'))
    chosen = []
    monkeypatch.setattr(sheets.L, 'Trainer', lambda accelerator, **more: chosen.append(accelerator))
    monkeypatch.setattr(runner, 'load', lambda name, device, **how: chosen.append(device) or (None, None))
    for device in ('cpu', 'auto', 'cuda'):
        runner._open_model('nano', EvaluationOptions(processes=2, device=device))
        sheets._quiet_trainer(2, device)
    assert chosen == ['cpu', 'cpu', 'cuda:0', 'gpu', 'cuda:0', 'gpu']


def test_one_split_is_asked_and_said(tiny, mixed, tmp_path):
    settings = dict(progress=False, say=None, baselines=False, max_new_tokens=2)
    said = []
    metrics = evaluate_model(tiny, mixed, tmp_path / 'a', **settings | dict(say=said.append))
    assert metrics['scored']['questions'] == 30 and metrics['scored']['split'] == 'test'
    assert {row['split'] for row in metrics['results']} == {'test'} and 'of the split test' in ''.join(said)
    for word in ('val', 'validation'):
        metrics = evaluate_model(tiny, mixed, tmp_path / word, split=word, **settings)
        assert metrics['scored']['split'] == 'validation' and metrics['scored']['pictures'] == 10
    with pytest.raises(BadInput, match='no questions of holiday, but train .60.'):
        evaluate_model(tiny, mixed, tmp_path / 'b', split='holiday', **settings)
    rows = [json.loads(line) for line in mixed.read_text().splitlines()]
    write_rows([row for row in rows if row['split'] != 'test'], mixed)
    with pytest.raises(BadInput, match='train .60., validation .30., and no test: choose one with --split'):
        evaluate_model(tiny, mixed, tmp_path / 'b', **settings)
    assert not (tmp_path / 'b').exists()


def test_blind_runs_show_what_they_say(tiny, data, tmp_path, monkeypatch):
    from earthgpt_lite.eval import questions, runner as module

    seen = []
    as_pixels = questions.to_pixel_values
    monkeypatch.setattr(questions, 'to_pixel_values', lambda image: seen.append(image) or as_pixels(image))
    settings = dict(progress=False, say=None, max_new_tokens=4)
    answers = {}
    for kind in ('grey', 'none', 'shuffled'):
        seen.clear()
        metrics = evaluate_model(tiny, data, tmp_path / kind, blind=kind, **settings)
        answers[kind] = (tmp_path / kind / 'answers.jsonl').read_text()
        assert metrics['shown'] == module.BLIND[kind] and f"blind='{kind}'" in metrics['by']
        assert len(seen) == dict(grey=40, none=0, shuffled=39)[kind]
        assert kind != 'grey' or all((image == questions.GREY).all() for image in seen)
        assert metrics['results'][0]['blind'] is None  # no baselines beside it
    assert module.BLIND['grey'] in (tmp_path / 'grey/report.html').read_text()
    for folder, change in dict(grey=dict(blind='none'), shuffled=dict(blind='shuffled', seed=1)).items():
        with pytest.raises(BadInput, match='with other options'):
            evaluate_model(tiny, data, tmp_path / folder, **settings | change)
    assert evaluate_model(tiny, data, tmp_path / 'grey', blind='grey', **settings)['asked'] == 0
    for bad in (dict(blind='black'), dict(blind='grey', robustness=True)):
        with pytest.raises(BadInput, match='choose grey, none, shuffled|made worse'):
            evaluate_model(tiny, data, tmp_path / 'bad', **settings | bad)


def test_questions_about_several_pictures(tiny, few, tmp_path):
    model = deepcopy(tiny[0])
    images = [e.image for e in few['validation'][:3]]
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f'{k}.png')
    asked = [Turn('has anything changed?', 'yes', Task.PRESENCE), Turn('what is this?', 'water')]
    rows = [
        Record(('0.png', '1.png'), asked, words=('before', 'after')),
        Record(('1.png', '2.png'), asked, words=('before', 'after')),
        Record(('0.png', '1.png'), asked[:1]),
        Record('2.png', asked),
    ]
    write_rows(rows, tmp_path / 'r.jsonl')
    quiet = dict(progress=False, say=None, max_new_tokens=6)
    with pytest.raises(BadInput, match='0.png . 1.png: 2 pictures in one question, .* at most 1'):
        evaluate_model((model, tiny[1]), tmp_path / 'r.jsonl', tmp_path / 'out', **quiet)
    model.config.max_pictures = 2
    kept = evaluate_model((model, tiny[1]), tmp_path / 'r.jsonl', tmp_path / 'out', **quiet)
    assert kept['asked'] == 5 * 7, 'right, shuffled, blind, the first grey, the last grey'
    sheet = [json.loads(line) for line in (tmp_path / 'out/answers.jsonl').read_text().splitlines()]
    sheet.sort(key=lambda row: row['index'])
    pixels = torch.stack([to_pixel_values(image) for image in images])
    pairs = [((0, 1), q) for q in (0, 1)] + [((1, 2), q) for q in (0, 1)] + [((0, 1), 0), (2, 0), (2, 1)]
    words = [('before', 'after')] * 4 + [None] * 3
    questions = [(place, asked[q].question) for place, q in pairs]
    said = generate_answers(model, tiny[1], pixels, questions, 6, words=words)
    assert [row['answer'] for row in sheet] == [text for text, _ in said]


def test_pairs_are_made_worse_with_the_rest(wild, tmp_path):
    "A set of pairs, single pictures and announced single ones: none is left out in silence."
    model, tokenizer = deepcopy(wild[0]), wild[1]
    model.config.max_pictures = 2
    rng = np.random.default_rng(0)
    for name in 'abc':
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), 'uint8')).save(tmp_path / f'{name}.png')
    turns = [Turn('is there any water?', 'yes', 'presence'), Turn('is there snow?', 'no', 'presence')]
    both = ('optical', 'sar')
    kinds = [
        Record(('a.png', 'b.png'), turns, words=('before', 'after')),
        Record('c.png', turns),
        Record('b.png', turns, words=('2019',)),
        Record(('a.png', 'b.png'), turns),  # the same pair, not announced
        Record(('c.png', 'a.png'), turns, both),
    ]
    write_rows(kinds, tmp_path / 'r.jsonl')
    questions, render, _ = open_data(tmp_path / 'r.jsonl')
    options = dict(corruptions=['noise', 'haze', 'speckle'], severities=(3,), max_new_tokens=4)
    rows = corrupted_answers(model, tokenizer, questions, render, **options)
    total = {
        name: sum(r['n'] for r in rows if r['corruption'] == name) for name in ('noise', 'haze', 'speckle')
    }
    assert total == dict(noise=10, haze=10, speckle=2)
    assert {r['sensor'] for r in rows} == {'optical', 'optical x2', 'optical+sar'}


def test_a_series_asked_in_all_pairs_is_encoded_once_and_resumed_it_is_the_same(wild, tmp_path):
    model, tokenizer = deepcopy(wild[0]), wild[1]
    model.config.max_pictures = 2
    rng = np.random.default_rng(0)
    names = [f'{k}.png' for k in range(4)]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), 'uint8')).save(tmp_path / name)
    turns = [Turn('is there any water?', 'yes', 'presence'), Turn('what has changed?', 'nothing.')]
    pairs = [Record((a, b), turns, words=('before', 'after')) for a in names for b in names if a != b]
    write_rows(pairs, tmp_path / 'r.jsonl')
    counts, tower = [], model.vision_tower
    hook = tower.register_forward_pre_hook(lambda tower, given: counts.append(len(given[0])))
    quiet = dict(progress=False, say=None, max_new_tokens=3, baselines=False)
    evaluate = lambda out, **more: evaluate_model(
        (model, tokenizer), tmp_path / 'r.jsonl', tmp_path / out, **quiet, **more
    )
    evaluate('whole')
    hook.remove()
    assert sum(counts) == 4
    evaluate('chunks', chunk_size=4)
    whole = (tmp_path / 'chunks/answers.jsonl').read_bytes()
    texts = lambda data: [json.loads(line)['answer'] for line in data.splitlines()]
    assert texts(whole) == texts((tmp_path / 'whole/answers.jsonl').read_bytes())
    cut = whole[: len(whole) // 2]
    (tmp_path / 'chunks/answers.jsonl').write_bytes(cut)
    evaluate('chunks', chunk_size=4)
    assert (tmp_path / 'chunks/answers.jsonl').read_bytes() == whole


@pytest.fixture(scope='module')
def pairs():
    "Two dates of radar, and two sensors."
    found = [*loss_examples(0, 'test')[::40], *sensor_pairs('validation')[::60]]
    return [replace(e, turns=e.turns[:2]) for e in found]


def answers_of(folder, name='answers'):
    rows = map(json.loads, (folder / f'{name}.jsonl').read_text().splitlines())
    return [row['answer'] for row in sorted(rows, key=lambda row: row['index'])]


def two_pictures(tiny):
    model = deepcopy(tiny[0])
    model.config.max_pictures = 2
    return model, tiny[1]


def test_pairs_in_memory_are_asked_with_every_baseline(tiny, pairs, tmp_path):
    model = two_pictures(tiny)
    quiet = dict(progress=False, say=None, max_new_tokens=6)
    found = evaluate_model(model, pairs, tmp_path / 'all', **quiet)
    assert found['asked'] == 5 * sum(len(e.turns) for e in pairs)
    assert {row['sensor'] for row in found['results']} == {'sar x2', 'optical+infrared'}
    assert all(row[name] is not None for row in found['results'] for name in ('first_hidden', 'last_hidden'))
    for place, name in enumerate(('first_hidden', 'last_hidden')):
        grey = [hidden(e, place) for e in pairs]
        evaluate_model(model, grey, tmp_path / name, baselines=False, **quiet)
        assert answers_of(tmp_path / name) == answers_of(tmp_path / 'all', name)
    assert answers_of(tmp_path / 'all') != answers_of(tmp_path / 'all', 'last_hidden')
    assert 'last_hidden' in (tmp_path / 'all/report.html').read_text()
    again = evaluate_model(model, pairs, tmp_path / 'all', **quiet)
    assert again['asked'] == 0 and again['results'] == found['results']


def saved_pairs(pairs, folder):
    "Records of pairs with their pictures as files."
    rows = []
    for k, e in enumerate(pairs):
        names = [f'{k}-{place}.png' for place in range(2)]
        for name, image in zip(names, e.images):
            Image.fromarray(image).save(folder / name)
        rows.append(Record(tuple(names), e.turns, e.sensor, words=e.words))
    write_rows(rows, folder / 'r.jsonl')
    return folder / 'r.jsonl'


def test_pairs_in_files_answer_as_pairs_in_memory(tiny, pairs, tmp_path):
    from earthgpt_lite.app.cli import main
    from earthgpt_lite.model.modeling import save

    model = two_pictures(tiny)
    save(*model, tmp_path / 'model')
    there = saved_pairs(pairs, tmp_path), '--out', tmp_path / 'files', '--device', 'cpu'
    assert main(['evaluate', *map(str, (tmp_path / 'model', *there))]) == 0
    evaluate_model(model, pairs, tmp_path / 'memory', progress=False, say=None)
    for name in ('answers', 'shuffled', 'blind', 'first_hidden', 'last_hidden'):
        if name != 'shuffled':  # which other pair is shown depends on the source
            assert answers_of(tmp_path / 'files', name) == answers_of(tmp_path / 'memory', name)


@pytest.mark.slow
@pytest.mark.unix
def test_two_processes_answer_pairs_as_one(tiny, pairs, tmp_path):
    "Every sheet of a run on two processes, also those with one of two pictures hidden."
    from earthgpt_lite.model.modeling import save

    save(*two_pictures(tiny), tmp_path / 'model')
    data = saved_pairs(pairs, tmp_path)
    (tmp_path / 'two.py').write_text(
        f"""
from earthgpt_lite.eval.runner import evaluate_model
settings = dict(device='cpu', progress=False, chunk_size=4, processes=2, say=None)
evaluate_model({str(tmp_path / 'model')!r}, {str(data)!r}, {str(tmp_path / 'two')!r}, **settings)
"""
    )
    alone = os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(
        [sys.executable, str(tmp_path / 'two.py')], env=alone, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    settings = dict(device='cpu', progress=False, chunk_size=4, say=None)
    once = evaluate_model(tmp_path / 'model', data, tmp_path / 'one', **settings)
    kept = json.loads((tmp_path / 'two/metrics.json').read_text())
    assert kept['processes'] == 2 and kept['results'] == json.loads(json.dumps(once['results']))
    for name in ('answers', 'shuffled', 'blind', 'first_hidden', 'last_hidden'):
        assert (tmp_path / f'two/{name}.jsonl').read_bytes() == (tmp_path / f'one/{name}.jsonl').read_bytes()


def test_a_wrong_pair_is_a_pair_of_the_same_kind(pairs):
    questions, _, _ = open_data(pairs)
    kinds = {q['image']: (q['sensor'], q['source']) for q in questions}
    for image, other in shuffled_images(questions).items():
        assert other['image'] != image and kinds[other['image']] == kinds[image]


def test_how_many_at_a_time_is_no_part_of_the_answer(saved, data, tmp_path):
    "Begun with one size of a batch, ended with another; in whole numbers it is another model"
    settings = dict(progress=False, say=None, baselines=False, max_new_tokens=8)
    once = evaluate_model(saved, data, tmp_path / 'a', chunk_size=4, **settings)
    sheet = tmp_path / 'b/answers.jsonl'
    sheet.parent.mkdir()
    sheet.write_bytes((tmp_path / 'a/answers.jsonl').read_bytes()[:700])
    again = evaluate_model(saved, data, tmp_path / 'b', batch_size=3, **settings)
    assert again['results'] == once['results']
    told = 'answers of another model' if WHOLE_NUMBERS else 'VNNI'
    with pytest.raises(BadInput, match=told):
        evaluate_model(saved, data, tmp_path / 'b', quantize='int8', **settings)
    with pytest.raises(BadInput, match='hold a whole model each'):
        evaluate_model(saved, data, tmp_path / 'c', processes=2, device_map='auto', **settings)
