"The commands on models: a question answered, or one sentence that names the file and what to do."

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from fixtures_app import colours, raster, refused, run_cli, tif
from fixtures_saved import WHOLE_NUMBERS

from earthgpt_lite.app.cli import main

# what works


@pytest.mark.parametrize(
    'name, pixels, keys',
    [
        ('deep.tif', colours(3, most=9000, kind='uint16'), {}),
        ('gray.tif', colours(1), {}),
        ('alpha.tif', colours(4), dict(alpha=True)),
        ('alpha.png', colours(4), dict(driver='PNG')),
        ('gray.png', colours(1), dict(driver='PNG')),
        ('deep.png', colours(1, most=60000, kind='uint16'), dict(driver='PNG')),
        ('photo.jpg', colours(3), dict(driver='JPEG')),
        ('float.tif', colours(3).astype('float32'), {}),
        ('thin.png', colours(3, 1, 50), dict(driver='PNG')),
    ],
)
def test_odd_images_are_answered(saved, tmp_path, run_cli, name, pixels, keys):
    status, out, err = run_cli(
        'ask', saved, raster(tmp_path / name, pixels, **keys), 'what does this image show?'
    )
    assert status == 0 and out.strip() and 'Traceback' not in err, (status, out, err)


def test_no_device_need_be_named(saved, tif):
    assert main(['ask', str(saved), tif, 'what is it?']) == 0


def test_some_nan_is_no_hindrance(saved, tmp_path, run_cli):
    pixels = colours(3).astype('float32')
    pixels[:, :10] = np.nan
    assert run_cli('ask', saved, raster(tmp_path / 'half.tif', pixels), 'what is it?')[0] == 0


def test_model_folder_and_run_folder_answer_the_same(saved, tif, run_cli):
    assert run_cli('ask', saved, tif, 'is there water?') == run_cli(
        'ask', saved / 'model', tif, 'is there water?'
    )


def test_json_is_one_line_with_boxes_where_they_are(saved, tif, run_cli, monkeypatch):
    import earthgpt_lite.app.asking as asking

    monkeypatch.setattr(asking, 'generate_answers', lambda *a, **k: [('[0.00,0.25,0.50,0.75]', -0.5, [])])
    status, out, err = run_cli('ask', saved, tif, 'where is the lake?', '--json')
    found = json.loads(out)
    assert (
        status == 0
        and out.count('\n') == 1
        and found['text'] == '[0.00,0.25,0.50,0.75]'
        and found['score'] == -0.5
        and found['question'] == 'where is the lake?'
    )
    # 30 x 20: five rows of padding above
    assert np.allclose(found['pixel_boxes'], [[0, 2.5, 15, 17.5]])
    assert np.allclose(
        found['map_polygons'][0], [[10, 49.975], [10.15, 49.975], [10.15, 49.825], [10, 49.825]]
    )
    status, out, _ = run_cli('ask', saved, tif, 'where is the lake?')
    assert status == 0 and '0.0 2.5 15.0 17.5' in out and '10.15000 49.97500' in out


def test_a_picture_without_coordinates_has_no_ground(saved, tmp_path, run_cli, monkeypatch):
    import earthgpt_lite.app.asking as asking

    monkeypatch.setattr(asking, 'generate_answers', lambda *a, **k: [('[0.00,0.25,0.50,0.75]', -0.5, [])])
    status, out, _ = run_cli(
        'ask', saved, raster(tmp_path / 'plain.png', colours(3), 'PNG'), 'where?', '--json'
    )
    assert (
        status == 0 and json.loads(out)['map_polygons'] is None and len(json.loads(out)['pixel_boxes']) == 1
    )
    assert (
        'no map coordinates: the image has no CRS'
        in run_cli('ask', saved, tmp_path / 'plain.png', 'where?')[1]
    )


def test_how_a_model_is_opened_is_said_by_options(saved, tif, run_cli, monkeypatch):
    from earthgpt_lite.app.assistant import Assistant

    opened, given = Assistant.from_pretrained, []

    def watched(name, *args, **how):
        given.append(how)
        return opened(name, *args, **how)

    monkeypatch.setattr(Assistant, 'from_pretrained', watched)
    plain = run_cli('ask', saved, tif, 'what is it?')
    usual = dict(base=None, dtype='auto', quantize=None, device_map=None)
    assert plain[0] == 0 and given.pop() == usual
    mapped = run_cli('ask', saved, tif, 'what is it?', '--device-map', 'auto')
    assert mapped[:2] == plain[:2], mapped
    assert given.pop() == usual | dict(device_map='auto')
    rounded = run_cli('ask', saved, tif, 'what is it?', '--dtype', 'float32', '--quantize', 'int8')
    assert (rounded[0] == 0) if WHOLE_NUMBERS else ('VNNI' in rounded[2]), rounded
    assert given.pop() == usual | dict(dtype='float32', quantize='int8')


# what is refused


@pytest.mark.parametrize(
    'words, told',
    [
        (('--dtype', 'int4'), 'int4'),
        (('--quantize', 'int4'), 'int4'),
        (('--device-map', 'sideways'), 'sideways'),
        (('--device-map', 'auto', '--device', 'cpu'), 'device cpu and a device_map'),
    ],
)
def test_a_wrong_way_to_open_a_model(saved, tif, run_cli, words, told):
    status, out, err = run_cli('ask', saved, tif, 'what is it?', *words)
    assert status in (1, 2) and told in err and 'Traceback' not in err and len(err.splitlines()) == 1


def test_a_missing_image(saved, tmp_path, run_cli):
    refused(run_cli('ask', saved, tmp_path / 'gone.tif', 'what?'), tmp_path / 'gone.tif', 'no such file')


def test_text_that_is_named_tif(saved, tmp_path, run_cli):
    (tmp_path / 'notes.tif').write_text('no image at all\n' * 50)
    refused(run_cli('ask', saved, tmp_path / 'notes.tif', 'what?'), tmp_path / 'notes.tif', 'give a GeoTIFF')


def test_an_empty_file_and_a_folder(saved, tmp_path, run_cli):
    (tmp_path / 'empty.png').touch()
    refused(run_cli('ask', saved, tmp_path / 'empty.png', 'what?'), tmp_path / 'empty.png')
    refused(run_cli('ask', saved, tmp_path, 'what?'), tmp_path)


def test_a_cut_image(saved, tmp_path, run_cli):
    path = Path(raster(tmp_path / 'cut.tif', colours(3, 300, 300)))
    path.write_bytes(path.read_bytes()[:40_000])
    refused(run_cli('ask', saved, path, 'what?'), path)


@pytest.mark.parametrize('pixels', [colours(3, 1, 1), colours(1, 1, 1, 9000, 'uint16')])
def test_a_single_pixel(saved, tmp_path, run_cli, pixels):
    path = raster(tmp_path / 'one.tif', pixels)
    refused(run_cli('ask', saved, path, 'what?'), path, 'single pixel', 'larger picture')


def test_nan_only(saved, tmp_path, run_cli):
    path = raster(tmp_path / 'nan.tif', np.full((3, 9, 9), np.nan, 'float32'))
    refused(run_cli('ask', saved, path, 'what?'), path, 'NaN')


@pytest.mark.parametrize('question', ['', '  '])
def test_an_empty_question(saved, tif, run_cli, question):
    refused(run_cli('ask', saved, tif, question), 'question is empty', 'ask something')


def test_a_model_without_weights(saved, tif, tmp_path, run_cli):
    run = Path(shutil.copytree(saved, tmp_path / 'run'))
    (run / 'model' / 'model.safetensors').unlink()
    refused(run_cli('ask', run, tif, 'what?'), run, 'weights are missing')
    (run / 'model' / 'config.json').unlink()
    refused(run_cli('ask', run, tif, 'what?'), run, 'holds no model')


def test_cut_weights(saved, tif, tmp_path, run_cli):
    run = Path(shutil.copytree(saved, tmp_path / 'run'))
    path = run / 'model' / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:9999])
    refused(run_cli('ask', run, tif, 'what?'), run)


def test_no_model(tif, tmp_path, run_cli):
    refused(run_cli('ask', tmp_path / 'none', tif, 'what?'), tmp_path / 'none', 'no such folder')


def test_what_steers_a_terminal_is_spelled_out(saved, tif, run_cli, monkeypatch):
    import earthgpt_lite.app.asking as asking

    monkeypatch.setattr(asking, 'generate_answers', lambda *a, **k: [('\x1b7water \x07<script>', -0.5, [])])
    status, out, _ = run_cli('ask', saved, tif, 'what?')
    assert status == 0 and out.startswith('\\x1b7water \\x07<script>\n')
    status, out, _ = run_cli('ask', saved, tif, 'what?', '--json')
    assert '\x1b' not in out and json.loads(out)['text'].startswith('\x1b7')


def test_many_boxes_cut_and_unread_are_told(saved, tif, run_cli, monkeypatch):
    import earthgpt_lite.app.asking as asking

    boxes = ';'.join(f'{i / 1000:.3f},0.250,{i / 1000 + 0.05:.3f},0.500' for i in range(500))
    monkeypatch.setattr(
        asking, 'generate_answers', lambda *a, **k: [(f'ship [{boxes}] and [0.1,0.2', -0.5, [])]
    )
    status, out, _ = run_cli('ask', saved, tif, 'find all ships', '--max-new-tokens', 8)
    assert (
        status == 0
        and out.count('box in pixels') == 10
        and 'and 490 more boxes' in out
        and 'cut off' in out
        and 'not read as boxes' in out
    )
    found = json.loads(run_cli('ask', saved, tif, 'find all ships', '--json')[1])
    assert len(found['boxes']) == len(found['map_polygons']) == 500 and found['truncated'] and found['unread']


def test_an_answer_as_geojson_goes_on_a_map(saved, tif, tmp_path, run_cli):
    words = 'ask', saved, tif, 'is there water?', '--out', tmp_path / 'a.geojson'
    status, out, _ = run_cli(*words)
    assert (
        status == 0
        and f"written: {tmp_path / 'a.geojson'}" in out
        and json.loads((tmp_path / 'a.geojson').read_text())['type'] == 'FeatureCollection'
    )
    refused(run_cli(*words), 'exists already', '--force')
    assert (
        run_cli(*words, '--force')[0] == 0
        and run_cli('map', tif, '--answers', tmp_path / 'a.geojson', '--out', tmp_path / 'a.html')[0] == 0
    )
    refused(
        run_cli(
            'ask',
            saved,
            raster(tmp_path / 'plain.png', colours(3), 'PNG'),
            'what?',
            '--out',
            tmp_path / 'b.geojson',
        ),
        'CRS',
        'leave --out away',
    )
    refused(run_cli('ask', saved, tif, 'what?', '--out', tmp_path), tmp_path, 'folder')


def test_an_interrupted_quickstart_says_how_to_go_on(run_cli, monkeypatch, tmp_path):
    from earthgpt_lite.app import quickstart as module
    from earthgpt_lite.train import callbacks

    def stopped(*a, **k):
        raise callbacks.Interrupted('stopped at step 7')

    monkeypatch.setattr(module, 'quickstart', stopped)
    status, out, err = run_cli('quickstart', '--out', tmp_path / 'r')
    assert (
        status == 130
        and not out
        and 'step 7' in err
        and f'--out {tmp_path / "r"} --resume' in err
        and 'earthgpt-lite ask' in err
    )
    assert '--minutes 9 --resume' in run_cli('quickstart', '--out', tmp_path / 'r', '--minutes', '9')[2]


def test_quickstart_says_what_it_found(run_cli, monkeypatch, tmp_path):
    from earthgpt_lite.app import quickstart as module

    passed = {}
    row = dict(
        task='classification',
        sensor='optical',
        metric='accuracy',
        n=9,
        score=0.5,
        interval=[0.4, 0.6],
        prior=0.3,
        shuffled=0.3,
        blind=0.2,
    )
    monkeypatch.setattr(
        module,
        'quickstart',
        lambda out, say, **k: (
            passed.update(k)
            or say('working')
            or dict(
                results=[row],
                stages=[dict(stage=s, results=[row]) for s in ('scratch', 'tune')],
                train=dict(seconds=3.0, images=7, pairs=70, peak_memory_mb=800),
            )
        ),
    )
    status, out, err = run_cli('quickstart', '--out', tmp_path)
    assert (
        status == 0
        and 'minutes' not in passed
        and err == 'working\n'
        and all(w in out for w in ('classification', 'tune made', '70 question-answers', f'ask {tmp_path}'))
    )
    status, out, _ = run_cli('quickstart', '--minutes', '2', '--json')
    assert (
        status == 0
        and passed['minutes'] == 2
        and out.count('\n') == 1
        and json.loads(out)['results'] == [row]
    )


def test_quickstart_refuses_in_one_sentence(run_cli, tmp_path):
    (tmp_path / 'metrics.json').write_text('{}')
    refused(run_cli('quickstart', '--out', tmp_path), tmp_path, '--force')
    refused(run_cli('quickstart', '--out', tmp_path / 'new', '--minutes', '0'), '--minutes')
    refused(run_cli('quickstart', '--out', tmp_path / 'new', '--resume'), '--resume')


# the other commands on models: wired to what the lessons test, so each is called once and refused once


@pytest.fixture(scope='module')
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp('records')
    rows = []
    for i in range(3):
        raster(folder / f'{i}.png', colours(3), 'PNG')
        rows.append(
            {
                'image': f'{i}.png',
                'conversations': [
                    {'from': 'human', 'value': 'is there water?'},
                    {'from': 'gpt', 'value': 'yes'},
                ],
            }
        )
    (folder / 'truth.json').write_text(json.dumps(rows))
    (folder / 'answers.jsonl').write_text(
        ''.join(
            json.dumps(dict(image=f'{i}.png', question='is there water?', answer=a)) + '\n'
            for i, a in enumerate(('yes', 'yes', 'no'))
        )
    )
    return folder


def test_chat_reads_lines(saved, tif, capsys, monkeypatch):
    import io

    def typed(text, *more):
        monkeypatch.setattr(sys, 'stdin', io.StringIO(text))
        return main(['chat', str(saved), tif, '--device', 'cpu', *more]), *capsys.readouterr()

    status, out, err = typed('is there water?\n/clear\n\n  what is it?\n', '--no-memory', '--json')
    assert (
        status == 0
        and not err
        and [json.loads(l)['question'] for l in out.splitlines()] == ['is there water?', 'what is it?']
    )
    status, out, err = typed('water ' * 3000 + '\nis there water?\n')
    assert (
        status == 1 and err.startswith('earthgpt-lite: ') and 'shorten' in err and len(out.splitlines()) >= 1
    )
    assert typed('') == (0, '', '')


@pytest.mark.parametrize('command', ['ask', 'chat', 'survey', 'map'])
def test_what_points_elsewhere_needs_a_word(saved, tif, tmp_path, run_cli, monkeypatch, command):
    import io

    from rasterio.shutil import copy

    monkeypatch.setattr(sys, 'stdin', io.StringIO('is there water?\n'))
    scene, out = tmp_path / 'scene.tif', tmp_path / 'out.html'
    copy(tif, scene, driver='VRT')
    words = dict(
        ask=('ask', saved, scene, 'is there water?'),
        chat=('chat', saved, scene, '--device', 'cpu'),
        survey=(
            'survey',
            saved,
            scene,
            '--detect',
            'ship',
            '--out',
            out.with_suffix('.geojson'),
            '--size',
            16,
        ),
        map=('map', scene, '--out', out),
    )[command]
    refused(run_cli(*words), scene, '--allow-vrt')
    assert run_cli(*words, '--allow-vrt')[0] == 0


def test_a_typed_chat_ends_with_an_empty_line(saved, tif, monkeypatch, capsys):
    lines = iter(['is there water?', '', 'never asked'])
    monkeypatch.setattr('builtins.input', lambda prompt: next(lines))
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    assert main(['chat', str(saved), tif, '--no-memory', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert 'empty line ends' in out and len(out.splitlines()) >= 2 and next(lines) == 'never asked'


def test_survey_writes_places(saved, tif, tmp_path, run_cli):
    out = tmp_path / 'answers.geojson'
    words = ['survey', saved, tif, '--ask', 'is there water?', '--out', out, '--size', 16, '--device', 'cpu']
    status, text, _ = run_cli(*words)
    assert (
        status == 0
        and f'map {tif} --answers {out}' in text
        and json.loads(out.read_text())['type'] == 'FeatureCollection'
    )
    refused(run_cli(*words), 'exists already', '--force')
    result = json.loads(run_cli(*words, '--force', '--json')[1])
    assert result['out'] == str(out) and result['tiles'] == 4 and result['features'] >= 1
    status, text, _ = run_cli(
        'survey',
        saved,
        tif,
        '--classify',
        'water, forest',
        '--out',
        tmp_path / 'c.geojson',
        '--raster',
        tmp_path / 'c.tif',
        '--size',
        16,
        '--device',
        'cpu',
    )
    assert (
        status == 0 and 'c.tif' in text and rasterio.open(tmp_path / 'c.tif').tags(1)['CLASS_2'] == 'forest'
    )
    refused(
        run_cli(
            'survey',
            saved,
            tif,
            '--classify',
            'a,b',
            '--out',
            tmp_path / 'd.geojson',
            '--raster',
            tmp_path / 'c.tif',
            '--device',
            'cpu',
        ),
        'c.tif exists already',
    )
    plain = raster(tmp_path / 'plain.tif', colours(3))
    refused(
        run_cli('survey', saved, plain, '--ask', 'what?', '--out', tmp_path / 'e.geojson', '--device', 'cpu'),
        'plain.tif',
        'no CRS',
        '.json',
    )
    status, text, _ = run_cli(
        'survey', saved, plain, '--ask', 'what?', '--out', tmp_path / 'e.json', '--device', 'cpu'
    )
    assert status == 0 and 'earthgpt-lite map' not in text
    refused(run_cli('survey', saved, tif, '--out', tmp_path / 'b.geojson', '--device', 'cpu'), 'exactly one')
    refused(
        run_cli(
            'survey',
            saved,
            tif,
            '--classify',
            'water,water',
            '--out',
            tmp_path / 'b.geojson',
            '--device',
            'cpu',
        ),
        'water',
    )
    assert not (tmp_path / 'b.geojson').exists()


def test_a_stopped_survey_says_how_to_go_on(saved, tif, tmp_path, run_cli, monkeypatch):
    import earthgpt_lite.app.survey as module

    def stopped(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'survey', stopped)
    status, _, err = run_cli(
        'survey', saved, tif, '--ask', 'what?', '--out', tmp_path / 'a.geojson', '--device', 'cpu'
    )
    assert status == 130 and 'same command goes on' in err


def test_map_is_one_file(tif, tmp_path, run_cli):
    status, text, _ = run_cli('map', tif, '--out', tmp_path / 'map.html')
    assert status == 0 and 'no network' in text and (tmp_path / 'map.html').stat().st_size > 10_000
    refused(run_cli('map', tif, '--out', tmp_path / 'map.html'), 'exists already')
    refused(run_cli('map', tif, tif, tif, '--out', tmp_path / 'b.html'), '3 scenes', 'two dates')
    refused(
        run_cli('map', raster(tmp_path / 'plain.tif', colours(3)), '--out', tmp_path / 'b.html'),
        'plain.tif',
        'CRS',
    )
    refused(
        run_cli('map', tif, '--answers', tmp_path / 'gone.geojson', '--out', tmp_path / 'b.html'),
        'gone.geojson',
    )
    refused(run_cli('map', tmp_path / 'gone.tif', '--out', tmp_path / 'b.html'), 'gone.tif')
    assert not (tmp_path / 'b.html').exists()


def test_evaluate_and_score_end_in_a_table(saved, records, tmp_path, run_cli):
    status, text, _ = run_cli(
        'evaluate',
        saved,
        records / 'truth.json',
        '--out',
        tmp_path / 'e',
        '--no-baselines',
        '--device',
        'cpu',
    )
    assert status == 0 and 'report.html' in text and (tmp_path / 'e/metrics.json').exists()
    status, text, _ = run_cli(
        'score', records / 'answers.jsonl', records / 'truth.json', '--out', tmp_path / 's'
    )
    assert status == 0 and (tmp_path / 's/report.html').exists() and 'optical' in text
    status, text, _ = run_cli('score', records / 'answers.jsonl', records / 'truth.json', '--json')
    result = json.loads(text)
    assert (
        status == 0
        and text.count('\n') == 1
        and result['results'][0]['score'] == pytest.approx(2 / 3)
        and 'NaN' not in text
    )
    status, text, err = run_cli(
        'evaluate',
        saved,
        records / 'truth.json',
        '--out',
        tmp_path / 'e',
        '--no-baselines',
        '--device',
        'cpu',
        '--json',
    )
    assert status == 0 and text.count('\n') == 1 and json.loads(text)['scored']['questions'] == 3
    status, text, err = run_cli(
        'evaluate', saved, records / 'gone.json', '--out', tmp_path / 'f', '--device', 'cpu'
    )
    assert status == 2 and not text and 'gone.json' in err.splitlines()[-1] and 'Traceback' not in err
    (records / 'none.json').write_text('[]')
    status, text, err = run_cli(
        'evaluate', saved, records / 'none.json', '--out', tmp_path / 'f', '--device', 'cpu'
    )
    assert status == 2 and not text and 'none.json' in err.splitlines()[-1] and 'no questions' in err
    refused(run_cli('score', records / 'gone.jsonl', records / 'truth.json'), 'gone.jsonl')


def test_presets_are_listed(run_cli):
    status, text, _ = run_cli('presets', 'nano')
    assert status == 0 and 'nano' in text and 'GB' in text
    refused(run_cli('presets', 'nanno'), 'nanno')
    status, text, _ = run_cli('presets', 'nano', '--json', '--pictures', 2, '--words', 32)
    (row,) = json.loads(text)
    assert status == 0 and row['name'] == 'nano' and row['total'] == sum(row['parameters'].values())


PLAN = dict(crs='LOCAL_CS["x",UNIT["metre",1]]', transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6))


def test_a_plan_without_a_place_on_earth_is_answered_without_one(saved, run_cli, tmp_path, monkeypatch):
    plan = raster(tmp_path / 'plan.tif', colours(3), **PLAN)
    assert run_cli('ask', saved, plan, 'what?')[0] == 0
    monkeypatch.setattr('earthgpt_lite.app.model_commands._assistant', None)  # never reached
    out = tmp_path / 'o.geojson'
    refused(run_cli('ask', saved, plan, 'what?', '--out', out), 'plan.tif: the CRS', 'leave --out away')
    assert not out.exists()


@pytest.mark.unix
def test_a_current_folder_that_is_gone_is_told(run_cli, tmp_path, tif, monkeypatch):
    (tmp_path / 'gone').mkdir()
    monkeypatch.chdir(tmp_path / 'gone')
    (tmp_path / 'gone').rmdir()
    refused(run_cli('ask', 'nano', tif, 'what?'), 'the current folder is gone: go to one that is there')


def test_a_picture_of_a_record_is_offered_no_option_that_is_not_there(run_cli, tmp_path):
    (tmp_path / 'a.png').write_text('<VRTDataset rasterXSize="9" rasterYSize="9"/>', encoding='utf-8')
    turns = [{'from': 'human', 'value': 'what?'}, {'from': 'gpt', 'value': 'water'}]
    rows = json.dumps([{'image': 'a.png', 'conversations': turns}])
    (tmp_path / 'a.json').write_text(rows, encoding='utf-8')
    _, out, err = run_cli('evaluate', 'nano', tmp_path / 'a.json', '--out', tmp_path / 'o', '--device', 'cpu')
    assert 'not an image' in out + err and 'allow' not in out + err, (out, err)


def test_packed_for_nano_is_rendered_as_the_trained_nano_sees(tmp_path, run_cli):
    from earthgpt_lite.data.shards import PackedData
    from earthgpt_lite.train.run import model_rendering

    raster(tmp_path / 'a.png', colours(3), driver='PNG')
    turn = [{'from': 'human', 'value': 'is it dark?'}, {'from': 'gpt', 'value': 'no'}]
    (tmp_path / 'r.jsonl').write_text(json.dumps(dict(image='a.png', conversations=turn)), encoding='utf-8')
    assert run_cli('data', 'pack', tmp_path / 'r.jsonl', tmp_path / 'packed', '--model', 'nano')[0] == 0
    of_nano = model_rendering('nano', fresh=False)
    assert PackedData(tmp_path / 'packed').chip(0, 64, of_nano).shape == (64, 64, 3)


# what is new to a model


@pytest.fixture
def two_places(monkeypatch):
    from earthgpt_lite.eval import shift

    monkeypatch.setattr(shift, 'askable_places', lambda: dict(virginia=([], []), florida=([], [])))


def test_new_places_say_what_there_is_to_train_and_how_long(tmp_path, run_cli, two_places):
    asked = 'evaluate', 'nano', 'samples', '--new', 'places', '--out', tmp_path, '--device', 'cpu'
    refused(run_cli(*asked), 'without virginia, florida', '--minutes 66', '2.2 hours', '--steps N')
    (tmp_path / 'without-virginia').mkdir()
    (tmp_path / 'without-virginia/run.json').write_text('{}')
    refused(run_cli(*asked), 'without florida', '1.1 hours')


def test_new_places_are_trained_by_the_recipe(tmp_path, run_cli, two_places, monkeypatch):
    from earthgpt_lite.eval import shift
    from earthgpt_lite.train import run as train_run
    from earthgpt_lite.train.run_file import find_run, read_run

    begun, asked = [], []

    def train(run, resume, force):
        begun.append((run, resume))
        print('told meanwhile')
        Path(run.out).mkdir(parents=True, exist_ok=True)

    def evaluated(train, places, out, **work):
        asked.append(work)
        for place in places:
            train(place, shift.fold_folder(out, place))
        return dict(kind='places', rows=[])

    monkeypatch.setattr(train_run, 'train', train)
    monkeypatch.setattr(shift, 'evaluate_places', evaluated)
    (tmp_path / 'without-florida').mkdir()
    (tmp_path / 'without-florida/last.ckpt').touch()
    words = 'evaluate', 'nano', 'samples', '--new', 'places', '--steps', 7, '--limit', 9, '--out', tmp_path
    status, out, err = run_cli(*words, '--device', 'cpu', '--json')
    assert status == 0 and json.loads(out) == dict(kind='places', rows=[]) and 'told meanwhile' in err
    recipe = read_run(find_run('nano'))
    assert [(r.data, r.out, r.steps, r.minutes, resumed) for r, resumed in begun] == [
        (f'{recipe["data"]}/without-{place}', str(tmp_path / f'without-{place}'), 7, None, place == 'florida')
        for place in ('virginia', 'florida')
    ]
    assert all(r.choices == recipe['choices'] and r.stage.lr == recipe['stage']['lr'] for r, _ in begun)
    assert asked[0]['limit'] == 9


@pytest.mark.slow
def test_a_place_is_left_out_from_beginning_to_end(tmp_path, run_cli, monkeypatch):
    "Radar water alone: trained for a few steps on Sabah and asked in Florida, and the other way round."
    from earthgpt_lite.data.sample.sites import site_examples
    from earthgpt_lite.eval import shift
    from earthgpt_lite.train import examples

    def radar(split):
        return [e for name in ('florida', 'sabah') for e in site_examples(name, split, 60)[:60]]

    monkeypatch.setattr(shift, 'pointing_examples', radar)
    monkeypatch.setattr(shift, 'sample_examples', radar)
    for word in examples.MADE:
        monkeypatch.setitem(examples.MADE, word, radar if word == 'pointing' else lambda split: [])
    monkeypatch.setattr(shift, 'LEAST', 30)
    words = 'evaluate', 'nano', 'samples', '--new', 'places', '--steps', 4, '--limit', 12, '--out', tmp_path
    status, out, err = run_cli(*words, '--device', 'cpu', '--json')
    found = json.loads(out)
    assert status == 0 and {r['source'] for r in found['rows']} == {'florida', 'sabah'}
    assert all({'prior', 'shuffled', 'blind', 'ahead'} <= set(r) and r['n'] > 0 for r in found['rows'])
    run = json.loads((tmp_path / 'without-florida/run.json').read_text())
    assert run['steps'] == 4 and run['run']['data'].endswith('/without-florida')
    again = run_cli(*words, '--device', 'cpu')  # nothing is trained or asked anew
    assert again[0] == 0 and 'florida' in again[1] and 'training' not in again[2]


def test_new_words_of_own_records(saved, tmp_path, run_cli):
    rows = []
    for k, truth in enumerate(('yes', 'no', 'yes')):
        raster(tmp_path / f'{k}.png', colours(3), 'PNG')
        rows.append(
            dict(image=f'{k}.png', question='is there any water in this image?', truth=truth, task='presence')
        )
    (tmp_path / 'mine.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    for kind in ('words', 'renderings'):
        asked = 'evaluate', saved, tmp_path / 'mine.jsonl', '--new', kind, '--out', tmp_path / 'out'
        status, out, err = run_cli(*asked, '--device', 'cpu')
        assert status == 0 and 'presence' in out and 'worst' in out and f'{kind}.png' in out, (out, err)
        status, out, err = run_cli(*asked, '--device', 'cpu', '--json')
        found = json.loads(out)
        assert status == 0 and found['rows'][0]['n'] == 3 and out.count('\n') == 1 and not err.strip()


UNREAD = {
    'nano samples --minutes 5': '--minutes',
    'nano samples --new words --processes 2 --robustness --steps 3': '--robustness, --processes, --steps',
    'nano samples --new renderings --no-baselines --blind grey': '--blind, --no-baselines',
    'nano samples --new places --steps 3 --batch-size 4 --split test': '--batch-size, --split',
    'nano samples --new places --images x --base y': '--images, --base',
    'nano x.tif --new places --out y --limit 3 --force --train z': '--train, --out, --limit, --force',
}


@pytest.mark.parametrize('words', UNREAD)
def test_options_that_a_kind_of_evaluation_does_not_read_are_refused(words, run_cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    many = 'them' if ',' in UNREAD[words] else 'it'
    refused(run_cli('evaluate', *words.split()), f'does not read {UNREAD[words]}: leave {many} away')
    assert not list(tmp_path.iterdir())


def test_a_scene_without_near_infrared_is_refused(saved, tif, run_cli):
    refused(run_cli('evaluate', saved, tif, '--new', 'places', '--device', 'cpu'), 'nir')
