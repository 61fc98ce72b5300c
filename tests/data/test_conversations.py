"Conversations from the net name their pictures as they lay on somebody's disk."

from fixtures_readers import picture, write

from earthgpt_lite.data.convert import read


def test_paths_in_annotations_cannot_climb(tmp_path):
    picture(tmp_path / 'secret.png'), picture(tmp_path / 'in/a.png')
    write(
        tmp_path / 'in/x.json',
        [
            {
                'id': '1',
                'image': image,
                'conversations': [
                    {'from': 'human', 'value': '<image>\nwhat?'},
                    {'from': 'gpt', 'value': 'x'},
                ],
            }
            for image in ('a.png', '../secret.png', '/etc/passwd')
        ],
    )
    left = []
    assert [r.image for r in read('llava', tmp_path / 'in', left)] == ['a.png'] and len(left) == 2
