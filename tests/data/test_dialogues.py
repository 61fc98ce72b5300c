"Dialogues: true, balanced behind every key, leaning on what was said; questions without an answer have none."

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data import dialogues
from earthgpt_lite.data.dialogues import (
    BEYOND,
    CANNOT_TELL,
    absent_things,
    asked_alone,
    cannot_tell_rates,
    dialogue_examples,
    truth_of,
    unanswerable_examples,
)
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.wordings import parse_question, without_article
from earthgpt_lite.errors import BadInput


@pytest.fixture(autouse=True, scope='module')
def cut_once():
    with pytest.MonkeyPatch.context() as patch:
        cut = lru_cache(2)(dialogues.sample_examples)
        patch.setattr(dialogues, 'sample_examples', lambda split, seed: cut(split))
        yield


talks = lru_cache(1)(lambda: dialogue_examples('validation', 4000))
strange = lru_cache(1)(lambda: unanswerable_examples('validation', 600))


def test_two_and_three_turns_of_which_all_but_the_first_lean():
    assert {len(e.turns) for e in talks()} == {2, 3}
    for e in talks():
        assert e.turns[0].task not in (Task.DIALOGUE, '') and all(
            t.task == Task.DIALOGUE for t in e.turns[1:]
        )
        assert e.split == 'validation' and e.place['alone'].answer == e.turns[-1].answer


def test_every_yes_and_no_is_true():
    "Each turn, put into full words by hand, against the map"
    checked = 0
    for e in talks():
        truth = truth_of(e)
        if truth is None or parse_boxes(e.turns[-1].answer).boxes or e.turns[-1].answer == CANNOT_TELL:
            continue
        place = {label: k for k, label in enumerate(truth.labels)}
        for turn in [e.turns[0], e.place['alone']]:
            task, words = parse_question(turn.question)
            if task == Task.PRESENCE:
                assert truth.has(place[words['label']]) == (turn.answer == 'yes')
            elif task == Task.COMPARISON:
                assert truth.more(place[words['a']], place[words['b']]) == (turn.answer == 'yes')
            else:
                assert task == Task.CLASSIFICATION and truth.shares[place[turn.answer]] > 0.6
            checked += 1
        if len(e.turns) == 3:
            second = parse_question(e.place['alone'].question)[1]['b']
            assert e.turns[1].question == f'and {second}?'
            assert truth.has(place[second]) == (e.turns[1].answer == 'yes')
    assert checked > 400


def test_what_was_said_before_does_not_tell_the_answer():
    "Behind each history yes is as often right as no; before a box as many say no"
    found = {}
    for e in dialogue_examples('validation', 10**6):
        key = *((t.question, t.answer) for t in e.turns[:-1]), e.turns[-1].question
        found.setdefault(key, Counter())[e.turns[-1].answer] += 1
    yes_no = {key: c for key, c in found.items() if set(c) <= {'yes', 'no'}}
    assert len(yes_no) > 50 and all(c['yes'] == c['no'] for c in yes_no.values())
    where = Counter()
    for key, c in found.items():
        if key[-1] == 'where?':
            where[parse_question(key[0][0])[1]['label'], key[0][1]] += sum(c.values())
    things = {thing for thing, _ in where}
    assert {'island', 'lake', 'tree'} <= things
    assert all(where[thing, 'yes'] == where[thing, 'no'] for thing in things)


def test_trees_are_counted_and_then_boxed():
    trees = [e for e in talks() if e.turns[-1].question == 'where are they?']
    assert len(trees) > 50
    for e in trees:
        boxes = parse_boxes(e.turns[-1].answer).boxes
        assert e.turns[-2].answer == str(len(boxes)) and np.allclose(
            sorted(b.box[0] for b in boxes), sorted(e.place['boxes'][:, 0]), atol=0.006
        )


def test_asked_alone_is_the_last_question_in_full():
    for e in talks()[::20]:
        alone = asked_alone(e)
        assert alone.image is e.image and len(alone.turns) == 1 and parse_question(alone.turns[0].question)[0]
    with pytest.raises(BadInput, match='is no dialogue'):
        asked_alone(strange()[0])


def test_the_same_seed_gives_the_same_talks():
    key = lambda seed: [
        (e.name, [(t.question, t.answer) for t in e.turns]) for e in dialogue_examples('validation', 50, seed)
    ]
    assert key(0) == key(0) != key(1)


def test_what_is_said_to_be_absent_is():
    "No box of that thing in the example, no such kind in its truth, no such water or land on the map"
    for e in strange():
        for thing in absent_things(e):
            for turn in e.turns:
                assert turn.question != f'where is {thing}?' or turn.answer == CANNOT_TELL
            truth = truth_of(e)
            if truth and e.place.get('site'):
                kind = {'the lake': 'water', 'the water': 'water', 'the green field': 'green cropland'}
                kind |= {'the bare field': 'bare soil', 'the clearing': 'open land'}
                assert truth.shares[truth.labels.index(kind[thing])] == 0
    things = Counter(thing for e in strange() for thing in absent_things(e))
    assert {'the lake', 'the island', 'the tree'} <= set(things)


def test_no_example_with_a_box_says_that_the_thing_is_absent():
    for e in talks():
        if e.turns[-1].question == 'where?' and e.turns[-1].answer != CANNOT_TELL:
            thing = parse_question(e.place['alone'].question)[1]['label']
            assert thing not in absent_things(e)


def test_unanswerable_questions_are_of_all_three_kinds_and_sensors():
    kinds = Counter()
    for e in strange():
        (turn,) = e.turns
        assert turn.answer == CANNOT_TELL and turn.task == Task.VQA
        task, words = parse_question(turn.question)
        absent = task == Task.GROUNDING and words['label'] in absent_things(e)
        beyond = turn.question in BEYOND[e.sensor]
        kinds['absent' if absent else 'beyond' if beyond else 'other', str(e.sensor)] += 1
        if task == Task.PRESENCE:
            assert without_article(words['label']) not in getattr(truth_of(e), 'labels', ())
    assert {kind for kind, _ in kinds} == {'absent', 'beyond', 'other'} and len(kinds) > 6


def test_rates_of_cannot_tell():
    assert cannot_tell_rates([]) == dict(found=None, false_alarms=None)
    all_told = [dict(truth=t, answer=t) for t in ('yes', CANNOT_TELL, '[0.10,0.20,0.30,0.40]')]
    assert cannot_tell_rates(all_told) == dict(found=1, false_alarms=0)


def test_an_unknown_split_is_refused():
    for make in (dialogue_examples, unanswerable_examples):
        with pytest.raises(BadInput, match='no split'):
            make('tests')
