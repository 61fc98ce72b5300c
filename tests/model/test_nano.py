"The trained nano of the package: it is there, it points, and its card tells what was measured."

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from earthgpt_lite.app.cli import main
from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.objects import object_examples
from earthgpt_lite.data.sample.trees import sample_examples, tree_examples
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.config import MODELS, packaged
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import find_model, load
from earthgpt_lite.model.processor import to_pixel_values

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def nano():
    return load('nano', 'cpu')


def pointed(nano, examples):
    "The overlap of each answer with the true box, and of the best constant box among the true ones."
    said = generate_answers(
        *nano,
        torch.stack([to_pixel_values(e.image) for e in examples]),
        [(i, e.turns[0].question) for i, e in enumerate(examples)],
        16,
    )
    truth = np.array([np.array(parse_boxes(e.turns[0].answer).boxes[0].box, float) for e in examples])
    found = np.array(
        [
            iou(np.array(b[0].box, float), t) if len(b := parse_boxes(text).boxes) == 1 else 0.0
            for (text, _), t in zip(said, truth)
        ],
        float,
    )
    return found, max((iou(np.broadcast_to(b, truth.shape), truth) for b in truth), key=np.mean)


def with_boxes(examples):
    return [
        replace(e, turns=t) for e in examples if (t := [t for t in e.turns if t.task == Task.GROUNDING][:1])
    ]


def test_it_is_small_and_whole(nano):
    files = {p.name: p.stat().st_size for p in (MODELS / 'nano').iterdir()}
    assert (
        packaged() == ['nano']
        and {'config.json', 'model.safetensors', 'tokenizer.json', 'README.md'} <= set(files)
        and sum(files.values()) < 12e6
    )
    assert next(nano[0].parameters()).dtype == torch.float32 and not nano[0].training


def test_weights_may_be_read_by_whom_the_rest_may_be(nano, tmp_path):
    from earthgpt_lite.model.modeling import save

    save(*nano, tmp_path / 'm')
    assert len({p.stat().st_mode for p in (tmp_path / 'm').iterdir()}) == 1


def test_islands_and_lakes_of_validation_blocks(nano):
    found, constant = pointed(nano, with_boxes(object_examples('validation', 2)))
    assert (
        len(found) > 60
        and (found >= 0.5).mean() >= 0.35
        and (found >= 0.5).mean() > (constant >= 0.5).mean() + 0.15
        and found.mean() > constant.mean() + 0.1
    )


def test_trees_of_validation_ground(nano):
    found, constant = pointed(nano, with_boxes(tree_examples('validation')))
    assert (
        len(found) > 60
        and (found >= 0.5).mean() > (constant >= 0.5).mean()
        and found.mean() > constant.mean()
    )


def test_the_card_and_the_numbers_behind_it():
    scores, card = (
        json.loads((ROOT / 'earthgpt_lite/assets/results/nano.json').read_text()),
        (MODELS / 'nano/README.md').read_text(),
    )
    for split in ('validation', 'test'):
        rows = scores[split]['results']
        assert {r['task'] for r in rows} >= {
            'classification',
            'presence',
            'comparison',
            'caption',
            'counting',
            'grounding',
            'detection',
        }
        for r in rows:
            assert f'{r["score"]:.3f}' in card
    assert 'Limits' in card and f'{scores["train"]["steps"]:,} steps' in card and 'Apache-2.0' in card


def test_a_folder_of_that_name_comes_first_and_slips_are_told(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_model('nano')) == MODELS / 'nano'
    with pytest.raises(BadInput, match='give nano, a run'):
        find_model('nono')
    (tmp_path / 'nano').mkdir()
    with pytest.raises(BadInput, match='nano holds no model'):
        find_model('nano')


def test_ask_it(tmp_path, capsys):
    example = with_boxes(object_examples('validation', 1))[0]
    Image.fromarray(example.image).save(tmp_path / 'chip.png')
    assert main(['ask', 'nano', str(tmp_path / 'chip.png'), example.turns[0].question, '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert parse_boxes(said['text']).boxes


def test_other_stages_begin_with_it(few, tmp_path):
    from earthgpt_lite.train.run import open_model

    trained, _ = open_model('nano', few['train'], fresh=False)
    assert all(
        torch.equal(a, b)
        for a, b in zip(trained.state_dict().values(), load('nano', 'cpu')[0].state_dict().values())
    )
    with pytest.raises(BadInput, match='only a fresh nano'):
        open_model('nano', few['train'], dict(grid=4), fresh=False)
    fresh, _ = open_model('nano', few['train'], dict(coordinate_loss_weight=2.0))
    assert fresh.config.coordinate_loss_weight == 2.0
    with pytest.raises(BadInput, match='coordinate_lss'):
        open_model('nano', few['train'], dict(coordinate_lss=2.0))


KEPT = json.loads((Path(__file__).parent / 'nano_answers.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def asked_again(nano):
    "Today's (text, score) to each question of nano_answers.json, asked in one batch as then"
    examples = {e.name: e for e in sample_examples('test')}
    names = sorted({row['picture'] for row in KEPT})
    places = {name: k for k, name in enumerate(names)}
    pictures = [to_pixel_values(examples[name].image) for name in names]
    return generate_answers(*nano, pictures, [(places[r['picture']], r['question']) for r in KEPT])


def test_it_answers_as_it_did_when_it_was_released(asked_again):
    "Three sensors, all tasks. On other processors rounding may tip a tie, so a few texts may differ."
    same = [row['answer'] == text for row, (text, _) in zip(KEPT, asked_again)]
    assert len(KEPT) == 300 and {r['sensor'] for r in KEPT} == {'optical', 'sar', 'infrared'}
    assert sum(same) >= 297
    off = [abs(row['score'] - score) for row, (_, score), ok in zip(KEPT, asked_again, same) if ok]
    assert np.quantile(off, 0.95) < 1e-3
