"Layouts as other projects keep them, and one bad item among good ones."

import json

import numpy as np
import pytest
from fixtures_readers import CAR, SHIP, SIZE, build, coco, conversation, objects_of, picture, ring, write, xml

from earthgpt_lite.boxes.text import parse_boxes, to_pixels
from earthgpt_lite.data.convert import read
from earthgpt_lite.errors import BadInput


def got(name, root, **options):
    left = []
    records = {record.image: record for record in read(name, root, left, **options)}
    return records, [f'{place} {why}' for place, why in left]


def corners(box):
    return ' '.join(str(v) for point in ring(box)[:4] for v in point)


# ---- boxes


def test_dota_in_several_versions(tmp_path):
    "As torchgeo unpacks it: the first version is read, the upright copies and later versions are told."
    picture(tmp_path / 'train/images/P1.png')
    base = 'train/annotations/version'
    write(tmp_path / f'{base}1.0/P1.txt', f'imagesource:x\ngsd:0.1\n{corners(SHIP)} ship 0\n')
    write(tmp_path / f'{base}1.5/P1.txt', f'{corners(SHIP)} ship 0\n{corners(CAR)} small-vehicle 0\n')
    write(tmp_path / f'{base}1.0_hbb/P1.txt', f'{corners(CAR)} ship 0\n')
    records, left = got('dota', tmp_path, decimals=3)
    (record,) = records.values()
    assert record.split == 'train' and [o[0] for o in objects_of(record)] == ['ship']
    assert np.allclose(objects_of(record)[0][1:], SHIP, atol=0.1)
    assert {line.split()[0] for line in left} == {'version1.5', 'version1.0_hbb'}


def test_dior_in_folders_of_its_splits(tmp_path):
    for split in ('trainval', 'test'):
        picture(tmp_path / f'Images/{split}/00001.jpg')
        write(tmp_path / f'Annotations/{split}/00001.xml', xml([('trainstation', SHIP)]))
    records, left = got('dior', tmp_path)
    assert [r.split for r in records.values()] == ['test', ''] and not left, 'trainval is neither'


def test_soda_with_outlines(tmp_path):
    build('soda', tmp_path)
    path = tmp_path / 'Annotations/val/00001.json'
    data = json.loads(path.read_text())
    data['annotations'][0]['poly'] = [40, 20, 44, 30, 48, 25, 48, 20, 41, 20]
    write(path, data)
    assert np.allclose(objects_of(next(read('soda', tmp_path, decimals=3)))[0][1:], CAR, atol=0.1)


def test_hrsc_turned_boxes_on_demand(tmp_path):
    build('hrsc2016', tmp_path)
    answer = next(read('hrsc2016', tmp_path, oriented=True, decimals=3)).turns[0].answer
    box = to_pixels(parse_boxes(answer).boxes[0].box, *SIZE)
    assert len(box) == 8 and np.allclose(box.reshape(4, 2).min(0), (17, 1), atol=0.1), 'of the turned box'


def test_any_dota_text_has_its_own_classes(tmp_path):
    build('dota-text', tmp_path)
    with pytest.raises(BadInput, match="class 'fish farm'"):
        list(read('dota', tmp_path))
    write(tmp_path / 'val/labelTxt/a.txt', f'{corners(SHIP)} 3 0\n')
    with pytest.raises(BadInput, match='a.txt line 1 cannot be read'):
        list(read('dota-text', tmp_path))


def test_one_bad_file_and_one_bad_image_of_coco(tmp_path):
    for name in 'abc':
        picture(tmp_path / f'{name}.jpg')
    data = coco(['a.jpg', 'b.jpg'], [(0, 1, SHIP), (1, 1, CAR)], ['ship'])
    data['images'] += [{'file_name': 'c.jpg'}, 'nothing']
    write(tmp_path / 'good.json', data)
    write(tmp_path / 'cut.json', json.dumps(data)[:90])
    records, left = got('coco', tmp_path)
    assert set(records) == {'a.jpg', 'b.jpg'}
    assert any('2 images have no id' in line for line in left) and any('cut.json' in line for line in left)
    (tmp_path / 'good.json').unlink()
    with pytest.raises(BadInput, match='cut.json: is not JSON'):
        list(read('coco', tmp_path))


def test_vhr10_has_two_pictures_of_each_name(tmp_path):
    build('vhr10-coco', tmp_path)
    records, left = got('vhr10-coco', tmp_path)
    assert all('positive' in image for image in records) and not left
    with pytest.raises(BadInput, match='state its folder'):
        list(read('coco', tmp_path))


# ---- tables and rows


def test_a_table_in_another_encoding_is_read_and_told(tmp_path):
    picture(tmp_path / 'a.png')
    (tmp_path / 'x.csv').write_bytes(
        'image,xmin,ymin,xmax,ymax,group\na.png,12,6,32,16,Gebäude\n'.encode('cp1252')
    )
    records, left = got('table', tmp_path)
    assert objects_of(records['a.png'])[0][0] == 'gebäude' and 'Windows-1252' in left[0]


def test_rows_without_an_answer_or_a_picture(tmp_path):
    picture(tmp_path / 'a.png')
    good = {'image': 'a.png', 'question': 'Which?', 'Answer': 3}
    rows = [good, {'image': 'a.png', 'question': 'Why?'}, good | {'image': ['a.png', 'b.png']}, 7]
    write(tmp_path / 'x.jsonl', '\n'.join(map(json.dumps, rows)) + '\n{"image": ')
    records, left = got('questions', tmp_path)
    assert [(t.question, t.answer) for t in records['a.png'].turns] == [('Which?', '3')]
    assert [line.split(' ')[2] for line in left] == ['1', '3', '4', 'a'] and 'b.png' in left[3]


def test_vrsbench_has_sentences_about_objects(tmp_path):
    build('vrsbench', tmp_path)
    record = next(read('vrsbench', tmp_path, decimals=3))
    tasks = [str(turn.task) for turn in record.turns]
    assert tasks == ['vqa', 'caption', 'grounding', 'region_caption']
    assert np.allclose(to_pixels(parse_boxes(record.turns[2].answer).boxes[0].box, *SIZE), SHIP, atol=0.1)


# ---- conversations


def talk(root, *rows):
    picture(root / 'a.png')
    write(root / 'x.json', [{'id': str(k), 'image': 'a.png'} | row for k, row in enumerate(rows)])
    left = []
    turns = [[(t.question, t.answer) for t in r.turns] for r in read('llava', root, left)]
    return turns, [f'{place} {why}' for place, why in left]


GOOD = {'conversations': conversation(('<image>\nWhat is it?', 'a farm'))}
SAID = [('What is it?', 'a farm')]


def test_system_messages_and_rows_of_text_are_counted(tmp_path):
    system = {'conversations': [{'from': 'system', 'value': 'You see.'}, *GOOD['conversations']]}
    alone = {'image': None, 'conversations': conversation(('hello', 'hi'))}
    turns, left = talk(tmp_path, alone, system, GOOD, alone)
    assert turns == [SAID, SAID]
    assert left[0].startswith('x.json 2 rows name no picture') and '1 conversations have a system' in left[1]


@pytest.mark.parametrize(
    'messages, why',
    [
        (
            [{'from': 'gpt', 'value': '<image> a farm'}, {'from': 'human', 'value': 'what?'}],
            "message 0 from 'gpt'",
        ),
        ([*GOOD['conversations'], {'from': 'human', 'value': 'and?'}], '3 messages'),
        ([{'from': 'human', 'value': '<image> a'}, {'from': 'tool', 'value': 'b'}], "message 1 from 'tool'"),
        ([{'from': 'human', 'value': None}, {'from': 'gpt', 'value': 'b'}], 'no text'),
    ],
)
def test_one_bad_conversation_among_good_ones(messages, why, tmp_path):
    turns, left = talk(tmp_path, GOOD, {'conversations': messages}, GOOD)
    assert turns == [SAID, SAID] and len(left) == 1 and why in left[0] and 'record 1' in left[0]


@pytest.mark.parametrize(
    'row',
    [
        {
            'messages': [
                {'role': 'user', 'content': '<image>What is it?'},
                {'role': 'assistant', 'content': 'a farm'},
            ]
        },
        {
            'image': None,
            'messages': [
                {'role': 'system', 'content': [{'type': 'text', 'text': 'You see.'}]},
                {
                    'role': 'user',
                    'content': [{'type': 'image', 'image': 'a.png'}, {'type': 'text', 'text': 'What is it?'}],
                },
                {'role': 'assistant', 'content': [{'type': 'text', 'text': 'a farm'}]},
            ],
        },
        {
            'image': None,
            'images': [{'path': 'pics/a.png', 'bytes': None}],
            'messages': [
                {'role': 'user', 'content': 'What is it?'},
                {'role': 'assistant', 'content': 'a farm'},
            ],
        },
    ],
)
def test_messages_of_chat_templates(row, tmp_path):
    turns, _ = talk(tmp_path, row)
    assert turns == [SAID]


def test_two_pictures_and_one_token_are_no_record(tmp_path):
    turns, left = talk(tmp_path, GOOD, {'image': None, 'images': ['a.png', 'a.png'], **GOOD})
    assert turns == [SAID] and 'has 1 <image> tokens and 2 pictures' in left[0]


def several(root, row, reader='llava', files=('a.png', 'b.png')):
    for name in files:
        picture(root / name)
    write(root / 'x.json', [row])
    return next(read(reader, root, []))


@pytest.mark.parametrize(
    'text, words, question',
    [
        ('<image>\n<image>\nWhat has changed?', ('', ''), 'What has changed?'),
        ('Before: <image> After: <image> What has changed?', ('Before:', 'After:'), 'What has changed?'),
        ('What has changed?', ('', ''), 'What has changed?'),
        ('What has changed? <image> <image>', ('', ''), 'What has changed?'),
    ],
)
def test_where_several_pictures_stand(text, words, question, tmp_path):
    row = {'image': ['a.png', 'b.png'], 'conversations': conversation((text, 'a lake'))}
    if '<image>' not in text:
        row['messages'] = [dict(role=r, content=c) for r, c in (('user', text), ('assistant', 'a lake'))]
        del row['conversations']
    record = several(tmp_path, row)
    assert record.images == ('a.png', 'b.png') and record.words == words
    assert [(t.question, t.answer) for t in record.turns] == [(question, 'a lake')]


def test_parts_of_a_message_stand_where_they_stand(tmp_path):
    image = lambda name: {'type': 'image', 'image': name}
    text = lambda words: {'type': 'text', 'text': words}
    content = [text('2016:'), image('a.png'), text('2019:'), image('b.png'), text('What has changed?')]
    messages = [{'role': 'user', 'content': content}, {'role': 'assistant', 'content': 'a lake'}]
    record = several(tmp_path, {'messages': messages})
    assert record.words == ('2016:', '2019:') and record.turns[0].question == 'What has changed?'


def test_boxes_of_several_pictures_are_in_the_last(tmp_path):
    picture(tmp_path / 'b.png', size=(20, 40))
    row = {
        'image': ['a.png', 'b.png'],
        'conversations': conversation(('<image><image>Where is the new ship?', '{<0><0><50><100>|<0>}')),
    }
    picture(tmp_path / 'a.png'), write(tmp_path / 'x.json', [row])
    record = next(read('llava', tmp_path))
    assert np.allclose(parse_boxes(record.turns[0].answer).boxes[0].box, [0.25, 0, 0.5, 1], atol=0.01)


def test_a_file_that_stands_twice_is_told(tmp_path):
    picture(tmp_path / 'a.png')
    row = {'image': ['a.png', 'a.png'], 'conversations': conversation(('<image><image>Changed?', 'no'))}
    write(tmp_path / 'x.json', [row])
    left = []
    assert len(list(read('llava', tmp_path, left))) == 1 and 'names the same file twice' in left[0][1]


def boxed(*boxes, ask='<image>Where are they?'):
    return {'conversations': conversation((ask, f'Here: {json.dumps([list(box) for box in boxes])}'))}


@pytest.mark.parametrize(
    'rows, unit, first',
    [
        ([[(100, 200, 500, 900)]], 'thousandths', (8, 12, 40, 54)),  # beyond the 80 pixels of the picture
        ([[(10, 20, 50, 54)]] * 20, 'pixels', (10, 20, 50, 54)),  # many, and all fit
        ([[(10, 20, 50, 54)]], 'thousandths', (0.8, 1.2, 4, 3.24)),  # one box tells little
    ],
)
def test_what_whole_numbers_in_boxes_count(rows, unit, first, tmp_path):
    turns, left = talk(tmp_path, *(boxed(*row) for row in rows))
    found = parse_boxes(turns[0][0][1])
    assert np.allclose(to_pixels(found.boxes[0].box, *SIZE), first, atol=0.1) and not found.unread
    assert f'taken as {unit} of the picture' in left[0]


def test_a_box_beyond_its_picture_costs_its_row(tmp_path):
    rows = [boxed((1500, 20, 1600, 54)), *[boxed((10, 20, 50, 54))] * 2]
    turns, left = talk(tmp_path, *rows)
    assert len(turns) == 2 and any('record 0' in line for line in left), 'beyond 1000 there are pixels only'


def test_geochats_boxes_in_any_file(tmp_path):
    turns, left = talk(
        tmp_path, {'conversations': conversation(('<image>Where?', 'here {<0><0><50><100>|<0>}'))}
    )
    assert turns == [[('Where?', 'here [0.00,0.13,0.50,0.88]')]] and not left
    with pytest.raises(BadInput, match='box that cannot be read'):
        talk(tmp_path, {'conversations': conversation(('<image>Where?', 'here {<0><0><50>}'))})


def test_a_file_of_something_else_beside_conversations(tmp_path):
    write(tmp_path / 'sub/classes.json', {'a': 1})
    turns, left = talk(tmp_path, GOOD)
    assert turns == [SAID] and 'classes.json' in left[0]


def test_a_column_for_each_class(tmp_path):
    for name in ('a', 'b', 'c'):
        picture(tmp_path / f'train/{name}.jpg')
    write(tmp_path / 'train/_classes.csv', 'filename, ship, red car\na.jpg, 1, 0\nb.jpg, 1, 1\nc.jpg, 0, 0\n')
    records, _ = got('table', tmp_path)
    assert {image[-5]: r.turns[0].answer for image, r in records.items()} == {
        'a': 'ship',
        'b': 'ship, red car',
    }


def test_a_class_may_be_called_plane(tmp_path):
    for name in ('plane/a.png', 'car/b.png', 'lake/c.png'):
        picture(tmp_path / name)
    records, _ = got('folders', tmp_path)
    assert {image: r.turns[0].answer for image, r in records.items()} == {
        'plane/a.png': 'plane',
        'car/b.png': 'car',
        'lake/c.png': 'lake',
    }


def test_difficult_objects_are_kept_and_counted(tmp_path):
    for name in 'ab':
        picture(tmp_path / f'{name}.png')
        text = xml([('ship', SHIP), ('ship', CAR)])
        write(tmp_path / f'{name}.xml', text.replace('<pose>', '<difficult>1</difficult><pose>', 1))
    records, left = got('voc', tmp_path)
    assert all(len(objects_of(r)) == 2 for r in records.values())
    assert len(left) == 1 and '2 difficult objects' in left[0]
