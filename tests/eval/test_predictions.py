"Answers in the forms of others: the column is found or refused, tables are read, ids never lead astray."

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval import predictions
from earthgpt_lite.eval.join import join_answers, read_questions
from earthgpt_lite.eval.predictions import answer_column, as_text, plain_answers, read_table
from earthgpt_lite.eval.score import score_files, summary

ASKED = [
    ('a.tif', 'is a lake there?', 'yes'),
    ('a.tif', 'how many ponds?', '3'),
    ('b.tif', 'is ice there?', 'no'),
]
SAID = ['yes', '4', 'no']  # two of three are right
TRUTH = [dict(id=i, image=p, question=q, truth=t) for i, (p, q, t) in enumerate(ASKED)]


def rows_of(make):
    return [make(i, *asked, said) for i, (asked, said) in enumerate(zip(ASKED, SAID))]


FORMS = {
    'geochat': lambda i, p, q, t, a: dict(question_id=i, image_id=p, answer=a),
    'geochat with the truth': lambda i, p, q, t, a: dict(question_id=i, answer=a, ground_truth=t, question=q),
    'llava': lambda i, p, q, t, a: dict(question_id=i, prompt=q, text=a, answer_id='x', metadata={}),
    'internvl': lambda i, p, q, t, a: dict(image=p, question=q, answer=a, annotation=t),
    'vlmevalkit': lambda i, p, q, t, a: dict(index=i, question=q, answer=t, prediction=a),
    'rsthinker': lambda i, p, q, t, a: dict(image=p, question=q, answer=t, model_answer=dict(answer=a)),
    'lmms-eval': lambda i, p, q, t, a: dict(doc_id=i, input=q, target=t, filtered_resps=[a], resps=[['!']]),
    'lmms-eval with its document': lambda i, p, q, t, a: dict(
        doc_id=99, doc=dict(question_id=i, question=q, answer=t), filtered_resps=[a]
    ),
    'vrsbench': lambda i, p, q, t, a: dict(image_id=p, question=q, ground_truth=t, question_id=i, answer=a),
    'response': lambda i, p, q, t, a: dict(image=p, query=q, answer=t, response=a),
}


def accuracy(metrics):
    rows = [r for r in metrics['results'] if r['metric'] == 'accuracy']
    return sum(r['score'] * r['n'] for r in rows) / sum(r['n'] for r in rows), sum(r['n'] for r in rows)


@pytest.mark.parametrize('form', FORMS)
def test_each_form_is_scored_as_it_was_meant(form, tmp_path):
    (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, rows_of(FORMS[form]))), encoding='utf-8')
    assert accuracy(score_files(tmp_path / 'a.jsonl', TRUTH)) == (pytest.approx(2 / 3), 3)


def workbook(path, rows, shared=True, **parts):
    "A table as Excel keeps it: texts in a list of their own, or in their cells."
    texts, lines = [], []
    for n, row in enumerate([dict(zip(rows[0], rows[0])), *rows], 1):
        cells = ''
        for letter, value in zip('ABCDEFG', row.values()):
            place = f'r="{letter}{n}"'
            if isinstance(value, int):
                cells += f'<c {place}><v>{value}.0</v></c>'
            elif shared:
                texts.append(value)
                cells += f'<c {place} t="s"><v>{len(texts) - 1}</v></c>'
            elif value:
                cells += f'<c {place} t="inlineStr"><is><t>{value}</t></is></c>'
        lines.append(f'<row r="{n}">{cells}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    sheet = f'<?xml version="1.0"?><worksheet {space}><sheetData>{"".join(lines)}</sheetData></worksheet>'
    names = {'xl/worksheets/sheet1.xml': sheet}
    if shared:
        listed = ''.join(f'<si><r><t>{t[:1]}</t></r><r><t>{t[1:]}</t></r></si>' for t in texts)
        names['xl/sharedStrings.xml'] = f'<sst {space}>{listed}</sst>'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, text in (names | parts).items():
            archive.writestr(name, text)
    return path


@pytest.mark.parametrize('shared', [True, False])
def test_a_workbook(tmp_path, shared):
    rows = rows_of(lambda i, p, q, t, a: dict(index=i, question=q, answer=t, prediction=a))
    path = workbook(tmp_path / 'a.xlsx', rows, shared)
    assert list(read_table(path)) == [{k: str(v) for k, v in r.items()} for r in rows]
    assert accuracy(score_files(path, TRUTH, tmp_path / 'out')) == (pytest.approx(2 / 3), 3)
    rows[0]['prediction'] = ''
    metrics = score_files(workbook(path, rows, shared), TRUTH)
    assert len(metrics['problems']['empty']) == 1 and accuracy(metrics)[0] == pytest.approx(1 / 3)


@pytest.mark.parametrize('delimiter, suffix', [(',', 'csv'), (';', 'csv'), ('\t', 'tsv')])
def test_a_table_of_text_for_both_sides(tmp_path, delimiter, suffix):
    lines = rows_of(lambda i, p, q, t, a: delimiter.join((str(i), p, q, t, a)))
    path = tmp_path / f'a.{suffix}'
    head = delimiter.join(('index', 'image_path', 'question', 'answer', 'prediction'))
    path.write_bytes(b'\xef\xbb\xbf' + '\r\n'.join([head, *lines]).encode())
    assert accuracy(score_files(path, path)) == (pytest.approx(2 / 3), 3)


def test_a_picture_that_is_written_out_has_no_name(tmp_path):
    picture = 'iVBORw0KGgo' * 20_000
    rows = [f'{i}\t{picture}\t{q}\t{t}' for i, (_, q, t) in enumerate(ASKED)]
    (tmp_path / 't.tsv').write_text('\n'.join(['index\timage\tquestion\tanswer', *rows]), encoding='utf-8')
    answers = rows_of(FORMS['vlmevalkit'])
    assert accuracy(score_files(answers, tmp_path / 't.tsv')) == (pytest.approx(2 / 3), 3)
    assert [q['image'] for q in read_questions(tmp_path / 't.tsv')] == ['0', '1', '2']


GROWING = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "yes">]><worksheet><row><c><v>&a;</v></c></row></worksheet>'
)


def test_workbooks_of_strangers_are_refused_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / 'a.xlsx'
    rows = rows_of(FORMS['response'])
    sheet = 'xl/worksheets/sheet1.xml'
    bad = [({sheet: GROWING}, 'document type'), ({sheet: '<row>'}, 'cannot be read|can be read')]
    bad += [({sheet: '<worksheet><row><c t="s"><v>99</v></c></row></worksheet>'}, 'can be read')]
    bad += [({sheet: '<worksheet></worksheet>'}, 'no sheet with rows')]
    for parts, words in bad:
        workbook(path, rows, **parts)
        with pytest.raises(BadInput, match=f'a.xlsx: .*({words})'):
            read_table(path)
    for data in (b'no zip', workbook(path, rows).read_bytes()[:300]):
        path.write_bytes(data)
        with pytest.raises(BadInput, match='a.xlsx'):
            read_table(path)
    monkeypatch.setattr(predictions, 'MOST_BYTES', 100)
    with pytest.raises(BadInput, match='unpack to too much'):
        read_table(workbook(path, rows))


def test_one_object_with_the_rows_in_it(tmp_path):
    rows = rows_of(FORMS['lmms-eval'])
    (tmp_path / 'a.json').write_text(json.dumps(dict(model='m', logs=rows), indent=1), encoding='utf-8')
    assert accuracy(score_files(tmp_path / 'a.json', TRUTH))[0] == pytest.approx(2 / 3)
    (tmp_path / 'b.json').write_text('\n'.join(map(json.dumps, rows)), encoding='utf-8')  # a row a line
    assert accuracy(score_files(tmp_path / 'b.json', TRUTH))[0] == pytest.approx(2 / 3)


def test_what_cannot_be_told_is_refused_with_both_names():
    for names in (('prediction', 'response'), ('pred', 'output'), ('answer', 'text')):
        rows = [dict(question='is a lake there?', image='a.tif') | dict(zip(names, 'xy'))]
        with pytest.raises(BadInput, match=f'{names[0]}.*{names[1]}'):
            score_files(rows, TRUTH)
        assert answer_column([rows[0] | dict.fromkeys(names, 'x')]) == names[0]


def test_a_row_without_prediction_does_not_offer_its_truth():
    rows = rows_of(lambda i, p, q, t, a: dict(image=p, question=q, answer=t, prediction=a))
    rows[0]['prediction'] = None
    del rows[2]['prediction']
    metrics = score_files(rows, TRUTH)
    assert accuracy(metrics) == (0, 3) and len(metrics['problems']['unreadable']) == 2


def test_an_id_that_counts_something_else_does_not_lead_astray():
    rows = rows_of(lambda i, p, q, t, a: dict(index=(i + 1) % 3, image=p, question=q, prediction=a))
    assert accuracy(score_files(rows, TRUTH))[0] == pytest.approx(2 / 3)
    rows = [dict(index=2, image='a.tif', prediction='no')]  # 2 is a question about b.tif
    assert len(join_answers(read_questions(TRUTH), rows)[1]['unknown']) == 1
    rows = [dict(index=1, question='how many clouds are over the sea?', prediction='3')]
    found, problems = join_answers(read_questions(TRUTH), rows)
    assert found[1]['answer'] == '3' and 'clouds' in problems['wording'][0]
    rows = [dict(index=1, question='How many ponds?\nAnswer with a number.', prediction='3')]
    assert not join_answers(read_questions(TRUTH), rows)[1]['wording']


def test_an_id_of_several_questions_needs_words():
    truth = [t | dict(id=5) for t in TRUTH]
    rows = rows_of(lambda i, p, q, t, a: dict(question_id=5, image=p, question=q, answer=a))
    assert accuracy(score_files(rows, truth))[0] == pytest.approx(2 / 3)
    assert len(join_answers(read_questions(truth), [dict(question_id=5, answer='no')])[1]['unknown']) == 1


def test_the_five_wordings_of_geobench(tmp_path):
    wordings = [f'what is it, {i}?' for i in range(5)]
    options = dict(question_id=3, ground_truth='pond', ground_truth_option='B')
    truth = [dict(image_path='Single/images/p.jpg', prompts=wordings, **options)]
    said = dict(name_images=['/there/Single/images/p.jpg'] * 5, questions=wordings, **options)
    metrics = score_files([said | dict(predicted_answers=['B.', 'B', 'A', 'pond', ''])], truth)
    assert accuracy(metrics) == (pytest.approx(2 / 5), 5)


def test_geochats_questions_and_types_that_are_not_those_of_rsvqa():
    truth = [
        dict(question_id=i, image=p, text=q, ground_truth=t, type='object size')
        for i, (p, q, t) in enumerate(ASKED)
    ]
    metrics = score_files(rows_of(FORMS['geochat']), truth)
    assert accuracy(metrics)[0] == pytest.approx(2 / 3) and 'rsvqa' not in metrics and metrics['types']


def test_true_boxes_as_lists_and_in_geochats_form(tmp_path):
    Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / 'P1.png')
    asked = dict(image_id='P1', question='where is the pond?', question_id=0)
    answer = [dict(question_id=0, answer='{<25><20><75><60>}')]

    def mean_iou(truth, **more):
        metrics = score_files(answer, [asked | dict(ground_truth=truth)], **more)
        return {r['metric']: r['score'] for r in metrics['results']}['meanIoU']

    pictures = dict(root=tmp_path, frame='geochat')
    assert mean_iou('{<25><20><75><60>}', **pictures) == pytest.approx(1)
    assert mean_iou('{<25><20><50><60>|<0>}', **pictures) == pytest.approx(0.5)
    assert mean_iou([[0.25, 0.35, 0.75, 0.55]], **pictures) == pytest.approx(1)
    assert mean_iou([[0.25, 0.35], [0.75, 0.35], [0.75, 0.55], [0.25, 0.55]], **pictures) == pytest.approx(1)
    with pytest.raises(BadInput, match='--images'):
        mean_iou('{<25><20><75><60>}', frame=None)
    with pytest.raises(BadInput, match='true boxes do not fit'):
        mean_iou([[25, 10, 75, 30]], **pictures)


def test_values_that_are_no_answer():
    assert [as_text(v) for v in (None, [], {}, ['a', 'b'], dict(said='x'))] == [None] * 5
    assert (as_text([['yes']]), as_text(3), as_text([True])) == ('yes', '3', 'True')
    assert plain_answers(['so many', BadInput('torn')])[0] == 'so many'


def test_splits_are_said_in_the_table():
    truth = [t | dict(split='val') for t in TRUTH]
    metrics = score_files(rows_of(FORMS['internvl']), truth)
    assert {r['split'] for r in metrics['results']} == {'validation'} and 'validation' in summary(metrics)
    truth[0]['split'] = 'test'
    text = summary(score_files(rows_of(FORMS['internvl']), truth))
    assert 'splits: test 1, validation 2, all in one score' in text


def tables_of(rows):
    "The same rows as other programs write them into one .json"
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        'a list': rows,
        'by column, as pandas does': {
            name: {str(i): value for i, value in enumerate(values)} for name, values in columns.items()
        },
        'by row, as pandas does': {str(i): row for i, row in enumerate(rows)},
        'lists of columns': columns,
        'in a list of an object': dict(model='m', results=rows, config=dict(seed=0)),
    }


@pytest.mark.parametrize('kind', tables_of(rows_of(FORMS['vlmevalkit'])))
def test_one_file_in_the_ways_that_others_write_it(kind, tmp_path):
    (tmp_path / 'a.json').write_text(
        json.dumps(tables_of(rows_of(FORMS['vlmevalkit']))[kind]), encoding='utf-8'
    )
    assert accuracy(score_files(tmp_path / 'a.json', TRUTH)) == (pytest.approx(2 / 3), 3)


def test_answers_by_number_alone(tmp_path):
    rows = rows_of(lambda i, p, q, t, a: (str(i), a))
    (tmp_path / 'a.json').write_text(json.dumps(dict(rows)), encoding='utf-8')
    truth = [row | dict(question_id=i) for i, row in enumerate(TRUTH)]
    assert accuracy(score_files(tmp_path / 'a.json', truth)) == (pytest.approx(2 / 3), 3)


def test_capital_names_of_columns(tmp_path):
    lines = rows_of(lambda i, p, q, t, a: f'{i},{p},{q},{t},{a}')
    path = tmp_path / 'a.csv'
    path.write_text('\n'.join(['ID,Image Path,Question,Ground Truth,Model Answer', *lines]), encoding='utf-8')
    assert accuracy(score_files(path, path)) == (pytest.approx(2 / 3), 3)


def test_a_model_that_thinks_aloud_is_taken_at_its_last_word():
    aloud = '<think>no road, or yes?</think>'
    for text in ('<answer> yes </answer>', f'{aloud}<answer>yes</answer>', f'{aloud}\nyes', 'yes'):
        assert as_text(text) == as_text([text]) == 'yes'
    assert as_text(f'{aloud}') == '' and as_text('<think>yes') == '<think>yes'


def test_samples_of_lmms_eval_before_and_after_cleaning():
    make = lambda i, p, q, t, a: dict(
        doc_id=i,
        doc=dict(id=i, question=q),
        target=t,
        resps=[[f' {a}.']],
        filtered_resps=[a],
        input=f'{q} One word.',
    )
    truth = [row | dict(id=i) for i, row in enumerate(TRUTH)]
    rows = rows_of(make)
    assert accuracy(score_files(rows, truth)) == (pytest.approx(2 / 3), 3)
    for row in rows:
        del row['filtered_resps']
    assert accuracy(score_files(rows, truth)) == (pytest.approx(2 / 3), 3)


def test_a_question_that_is_asked_once_needs_no_picture():
    questions = [
        dict(image=f'{i}.tif', question=q, truth='yes') for i, q in enumerate(['a road?', 'a lake?', 'sea?'])
    ]
    questions.append(questions[2] | dict(image='3.tif'))
    answers = [dict(prompt=f'<image>\n{q}', text='yes') for q in ('a lake?', 'sea?')]
    rows, problems = join_answers(read_questions(questions), answers)
    assert [row['answer'] for row in rows] == ['', 'yes', '', ''] and len(problems['unknown']) == 1
