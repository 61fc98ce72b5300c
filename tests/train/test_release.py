"The recipe of the packaged nano: one switch for each ingredient, and the talks by which it is scored."

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))

import release_nano
from release_nano import INGREDIENTS, is_right, recipe, talk_scores

from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.data.sample.world_map import Example
from earthgpt_lite.train.examples import MADE, is_sample, open_examples
from earthgpt_lite.train.run_file import find_run, read_run


def test_the_recipe_is_the_file():
    given, run = read_run(find_run('nano')), asdict(recipe())
    assert {k: run[k] for k in given if k != 'stage'} == {k: v for k, v in given.items() if k != 'stage'}
    assert is_sample(run['data']) and set(run['data'].split('+')) == set(MADE)


@pytest.mark.parametrize('one', INGREDIENTS)
def test_each_ingredient_can_be_left_out_alone(one):
    whole, less = asdict(recipe()), asdict(recipe([one], steps=5, out='runs/less'))
    assert less['steps'] == 5 and less['minutes'] is None and less['out'] == 'runs/less'
    changed = {k for k in whole if whole[k] != less[k]} - {'steps', 'minutes', 'out'}
    where = 'augment' if one in ('turn', 'jitter', 'words') else 'data' if one in MADE else 'choices'
    assert changed == {where}
    if where == 'choices':
        names = set(whole['choices']) ^ set(less['choices'])
        assert names == {dict(fold='chat', layers='vit_layers')[one]}
    else:
        assert one in whole[where] and one not in less[where]


def test_words_of_data_are_joined(monkeypatch):
    monkeypatch.setitem(MADE, 'sensors', lambda split: [f'{split} s'])
    monkeypatch.setitem(MADE, 'changes', lambda split: [f'{split} c'])
    assert open_examples('changes+sensors', split='validation') == ['validation c', 'validation s']
    assert (
        is_sample('samples/global+changes') and not is_sample('records.json') and not is_sample('a+changes')
    )


def test_right_in_words_in_a_box_and_in_boxes():
    box, two = (
        Turn('', '[0.10,0.10,0.50,0.50]'),
        Turn('', '<p>2 trees</p>[0.10,0.10,0.30,0.30;0.60,0.60,0.90,0.90]'),
    )
    assert is_right('yes', Turn('', 'yes')) and not is_right('no', Turn('', 'yes'))
    assert is_right('[0.10,0.10,0.50,0.60]', box) and not is_right('[0.40,0.40,0.90,0.90]', box)
    assert not is_right('cannot tell', box) and is_right(two.answer, two) and not is_right(box.answer, two)


def test_the_last_answer_in_the_talk_and_alone():
    place = dict(alone=Turn('is there any sand in this image?', 'yes', Task.PRESENCE))
    turns = [
        Turn('is there any water in this image?', 'no', Task.PRESENCE),
        Turn('and sand?', 'yes', Task.DIALOGUE),
    ]
    example = Example(np.zeros((8, 8, 3), 'uint8'), turns, 'a', 'test', place=place)

    class Said:
        def __init__(self, text):
            self.text = text

    class Listener:  # knows the second question only after the first
        def __init__(self):
            self.heard = []

        def chat(self, image, sensor):
            return Listener()

        def ask(self, *given):
            question = given[1] if len(given) > 1 else given[0]
            self.heard.append(question)
            return Said('yes' if len(self.heard) == 2 or 'any sand' in question else 'no')

    assert talk_scores(Listener(), [example]) == dict(n=1, in_talk=1, alone=1)
    assert release_nano.talks_markdown(
        dict(
            dialogues=dict(presence=dict(n=1, in_talk=1, alone=1)), cannot_tell=dict(found=1, false_alarms=0)
        )
    ).startswith('| last question |')
