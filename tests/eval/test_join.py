"Answers find their questions by id, name and wording; boxes come into the padded square."

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.text import BoxFormat, parse_boxes
from earthgpt_lite.eval.join import FRAMES, join_answers, read_questions, to_letterbox


def found(problems):
    return {k: len(v) for k, v in problems.items() if v}


def test_by_id_before_names_and_questions_asked_twice():
    truth = [
        dict(id=k, image='x.png', question='where is the ship?', truth=t)
        for k, t in (('p', 'left'), ('q', 'right'))
    ]
    assert [
        p['answer']
        for p in join_answers(
            read_questions(truth),
            [dict(question_id='q', answer='right'), dict(question_id='p', answer='left')],
        )[0]
    ] == ['left', 'right']
    bare = [{k: v for k, v in t.items() if k != 'id'} for t in truth]
    both = [dict(image='x.png', question='where is the ship?', answer=a) for a in ('left', 'right', 'up')]
    rows, problems = join_answers(read_questions(bare), both)
    assert [p['answer'] for p in rows] == ['left', 'right'] and found(problems) == dict(duplicate=1)
    # which question?
    assert found(join_answers(read_questions(bare), [dict(image='x.png', answer='left')])[1]) == dict(
        unknown=1, missing=2
    )


def test_a_file_name_that_means_two_pictures_fits_neither():
    truth = [dict(image=f'{f}/1.png', question='?', truth='yes') for f in 'ab']
    rows, problems = join_answers(
        read_questions(truth), [dict(image='1.png', answer='yes'), dict(image='b\\1.png', answer='yes')]
    )
    assert [p['answer'] for p in rows] == ['', 'yes'] and found(problems) == dict(missing=1, unknown=1)


@given(
    st.integers(10, 900),
    st.integers(10, 900),
    st.lists(st.floats(0.02, 0.9), min_size=2, max_size=2),
    st.lists(st.floats(0.05, 0.09), min_size=2, max_size=2),
    st.sampled_from(['100', '1000', 'pixels', 'picture']),
)
@settings(max_examples=60)
def test_to_square_agrees_with_the_codec(width, height, corner, size, frame):
    box = np.array([*corner, *np.add(corner, size)])
    tops = np.array(
        {'100': (100, 100), '1000': (1000, 1000), 'pixels': (width, height), 'picture': (1, 1)}[frame] * 2
    )
    text = to_letterbox('at [' + ', '.join(f'{v:.7f}' for v in box * tops) + '].', frame, width, height)
    expected = BoxFormat(decimals=4).write([box * np.tile([width, height], 2)], width, height)
    assert np.allclose(parse_boxes(text).boxes[0].box, parse_boxes(expected).boxes[0].box, atol=2e-4)


def test_frames_are_described():
    assert list(FRAMES) == ['unit', 'picture', '100', '1000', 'pixels', 'geochat'] and all(FRAMES.values())


@pytest.mark.parametrize('score', [[[]], [[0.5]], 10**400, [10**400], {}, [{}]])
def test_a_score_that_is_no_number_is_ranked_last(score):
    question = dict(image='a.tif', question='where?', truth='[0.1,0.1,0.5,0.5]', task='grounding')
    rows, problems = join_answers(read_questions([question]), [question | dict(answer='x', score=score)])
    assert problems['score'] == ['a.tif: where?'] and rows[0]['score'] in (-1, [-1])


def test_only_captions_have_several_truths():
    row = dict(image='a.tif', question='where?', truth=[0.1, 0.2], task='grounding')
    assert read_questions([row])[0]['truth'] == '0.1 0.2'
    assert read_questions([row | dict(task='caption')])[0]['truth'] == ['0.1', '0.2']
