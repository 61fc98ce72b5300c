"The command line: a question answered, or one sentence that names the file and what to do."

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from earthgpt_lite.app import cli
from earthgpt_lite.app.cli import main
from earthgpt_lite.model import modeling as model

RNG = np.random.default_rng(0)


def raster(path, pixels, driver='GTiff', alpha=False, **keys):
    with rasterio.open(
        path,
        'w',
        driver=driver,
        width=pixels.shape[2],
        height=pixels.shape[1],
        count=len(pixels),
        dtype=pixels.dtype,
        **keys,
    ) as file:
        file.write(pixels)
        if alpha:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return str(path)


def colours(bands, height=20, width=30, most=255, kind='uint8'):
    return RNG.integers(0, most, (bands, height, width)).astype(kind)


@pytest.fixture(scope='module')
def tif(tmp_path_factory):
    return raster(
        tmp_path_factory.mktemp('images') / 'scene.tif',
        colours(3),
        crs='EPSG:4326',
        transform=from_origin(10, 50, 0.01, 0.01),
    )


@pytest.fixture
def said(capsys):
    def call(*argv):
        capsys.readouterr()
        status = main([str(a) for a in argv] + ['--device', 'cpu'] * (argv[:1] == ('ask',)))
        got = capsys.readouterr()
        return status, got.out, got.err

    return call


def refused(answer, *words):
    status, out, err = answer
    assert (
        status == 2
        and out == ''
        and err.startswith('earthgpt-lite: ')
        and err.count('\n') == 1
        and 'Traceback' not in err
    ), answer
    assert all(str(w) in err for w in words), err
    return err


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
@pytest.mark.filterwarnings('ignore')
def test_odd_images_are_answered(saved, tmp_path, said, name, pixels, keys):
    status, out, err = said(
        'ask', saved, raster(tmp_path / name, pixels, **keys), 'what does this image show?'
    )
    assert status == 0 and out.strip() and 'Traceback' not in err, (status, out, err)


def test_no_device_need_be_named(saved, tif):
    assert main(['ask', str(saved), tif, 'what is it?']) == 0


def test_some_nan_is_no_hindrance(saved, tmp_path, said):
    pixels = colours(3).astype('float32')
    pixels[:, :10] = np.nan
    assert said('ask', saved, raster(tmp_path / 'half.tif', pixels), 'what is it?')[0] == 0


def test_model_folder_and_run_folder_answer_the_same(saved, tif, said):
    assert said('ask', saved, tif, 'is there water?') == said('ask', saved / 'model', tif, 'is there water?')


def test_json_is_one_line_with_boxes_where_they_are(saved, tif, said, monkeypatch):
    import earthgpt_lite.app.assistant as assistant

    monkeypatch.setattr(assistant, 'generate_answers', lambda *a, **k: [('[0.00,0.25,0.50,0.75]', -0.5, [])])
    status, out, err = said('ask', saved, tif, 'where is the lake?', '--json')
    found = json.loads(out)
    assert (
        status == 0
        and out.count('\n') == 1
        and found['text'] == '[0.00,0.25,0.50,0.75]'
        and found['score'] == -0.5
        and found['question'] == 'where is the lake?'
    )
    # 30 x 20: five rows of padding above
    assert np.allclose(found['pixels'], [[0, 2.5, 15, 17.5]])
    assert np.allclose(found['ground'][0], [[10, 49.975], [10.15, 49.975], [10.15, 49.825], [10, 49.825]])
    status, out, _ = said('ask', saved, tif, 'where is the lake?')
    assert status == 0 and '0.0 2.5 15.0 17.5' in out and '10.15000 49.97500' in out


def test_a_picture_without_coordinates_has_no_ground(saved, tmp_path, said, monkeypatch):
    import earthgpt_lite.app.assistant as assistant

    monkeypatch.setattr(assistant, 'generate_answers', lambda *a, **k: [('[0.00,0.25,0.50,0.75]', -0.5, [])])
    status, out, _ = said('ask', saved, raster(tmp_path / 'plain.png', colours(3), 'PNG'), 'where?', '--json')
    assert status == 0 and json.loads(out)['ground'] is None and len(json.loads(out)['pixels']) == 1
    assert (
        'no map coordinates: the image has no CRS' in said('ask', saved, tmp_path / 'plain.png', 'where?')[1]
    )


# what is refused


def test_a_missing_image(saved, tmp_path, said):
    refused(said('ask', saved, tmp_path / 'gone.tif', 'what?'), tmp_path / 'gone.tif', 'no such file')


def test_text_that_is_named_tif(saved, tmp_path, said):
    (tmp_path / 'notes.tif').write_text('no image at all\n' * 50)
    refused(said('ask', saved, tmp_path / 'notes.tif', 'what?'), tmp_path / 'notes.tif', 'give a GeoTIFF')


def test_an_empty_file_and_a_folder(saved, tmp_path, said):
    (tmp_path / 'empty.png').touch()
    refused(said('ask', saved, tmp_path / 'empty.png', 'what?'), tmp_path / 'empty.png')
    refused(said('ask', saved, tmp_path, 'what?'), tmp_path)


def test_a_cut_image(saved, tmp_path, said):
    path = Path(raster(tmp_path / 'cut.tif', colours(3, 300, 300)))
    path.write_bytes(path.read_bytes()[:40_000])
    refused(said('ask', saved, path, 'what?'), path)


@pytest.mark.parametrize('pixels', [colours(3, 1, 1), colours(1, 1, 1, 9000, 'uint16')])
@pytest.mark.filterwarnings('ignore')
def test_a_single_pixel(saved, tmp_path, said, pixels):
    path = raster(tmp_path / 'one.tif', pixels)
    refused(said('ask', saved, path, 'what?'), path, 'single pixel', 'larger picture')


def test_nan_only(saved, tmp_path, said):
    path = raster(tmp_path / 'nan.tif', np.full((3, 9, 9), np.nan, 'float32'))
    refused(said('ask', saved, path, 'what?'), path, 'NaN')


@pytest.mark.parametrize('question', ['', '  '])
def test_an_empty_question(saved, tif, said, question):
    refused(said('ask', saved, tif, question), 'question is empty', 'ask something')


def test_a_model_without_weights(saved, tif, tmp_path, said):
    run = Path(shutil.copytree(saved, tmp_path / 'run'))
    (run / 'model' / 'model.safetensors').unlink()
    refused(said('ask', run, tif, 'what?'), run, 'weights are missing')
    (run / 'model' / 'config.json').unlink()
    refused(said('ask', run, tif, 'what?'), run, 'holds no model')


def test_cut_weights(saved, tif, tmp_path, said):
    run = Path(shutil.copytree(saved, tmp_path / 'run'))
    path = run / 'model' / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:9999])
    refused(said('ask', run, tif, 'what?'), run)


def test_no_model(tif, tmp_path, said):
    refused(said('ask', tmp_path / 'none', tif, 'what?'), tmp_path / 'none', 'no such folder')


@pytest.mark.parametrize(
    'words, told',
    [
        (
            ['ask', 'run', 'a.tif', 'what?', '--sensor', 'sonar'],
            ('--sensor', "'sonar'", 'optical, sar, infrared', 'ask --help'),
        ),
        (['ask', 'run', 'a.tif', 'what', 'is', 'it?'], ("'is'", 'quotes')),
        (['ask', 'run', 'a.tif'], ('QUESTION', 'required')),
        (['aks'], ("'aks'", 'did you mean ask?')),
        (['score', 'a', 'b', '--boxs', 'pixels'], ('no option --boxs', 'did you mean --boxes?')),
        (['quickstart', '--minutes', 'five'], ('--minutes', 'five')),
        (['survey', 'run', 'a.tif', '--ask', 'what?'], ('--out', 'required')),
        (['survey', 'run', 'a.tif', '--out', 'a.geojson', '--size', '0'], ('--size', 'above 0')),
        (['evaluate', 'run', 'a.json', '--limit', '-3'], ('--limit', 'above 0')),
        (['quickstart', '--min', '3'], ('no option --min',)),
        (['score', 'a', 'b', '--boxes', 'feet'], ('--boxes', "'feet'", 'geochat')),
        (['map'], ('SCENE',)),
    ],
)
def test_a_wrong_word_is_one_sentence(words, told, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (
        not out
        and err.startswith('earthgpt-lite')
        and err.count('\n') == 1
        and err.endswith('--help`\n')
        and all(t in err for t in told)
    ), err


def test_units_of_boxes_are_those_of_the_scorer():
    from earthgpt_lite.eval.join import FRAMES

    option = next(
        a
        for a in next(a for a in cli.make_parser()._actions if a.dest == 'command').choices['score']._actions
        if a.dest == 'boxes'
    )
    assert option.choices == tuple(FRAMES) and all(u in option.help for u in FRAMES)


def test_help_of_quickstart_tells_its_default_minutes(said):
    import inspect
    from earthgpt_lite.app.quickstart import quickstart

    assert (
        f"training time (default: {inspect.signature(quickstart).parameters['minutes'].default:g})"
        in said('quickstart', '--help')[1]
    )


def test_examples_of_the_help_are_parsed():
    import shlex

    def all_of(p):
        yield p
        for a in p._actions:
            for sub in getattr(a, 'choices', None) or () if a.dest in ('command', '==SUPPRESS==') else ():
                yield from all_of(a.choices[sub])

    parsers = list(all_of(cli.make_parser()))
    lines = [l.strip() for p in parsers for l in p.epilog.splitlines() if l.startswith('  earthgpt-lite')]
    assert len(parsers) >= 15 and len(lines) > 30
    for line in lines:
        assert cli.read_words(shlex.split(line.split('<')[0])[1:]).run, line


def test_train_reads_its_own_words(said, monkeypatch, tmp_path):
    status, out, err = said('train', '--help')
    assert status == 0 and '--minutes' in out and '--config' in out and 'earthgpt-lite train --config' in out
    refused(said('train', '--minuts', 3), 'minuts')
    import earthgpt_lite.train.run as module

    seen = []
    monkeypatch.setattr(module, 'train_command', lambda words: seen.append(words) or 130)
    assert said('train', '--out', 'ask', '--debug', '--steps', 3)[0] == 130 and seen == [
        ['--out', 'ask', '--steps', '3']
    ]


def test_no_gpu_is_one_sentence(saved, tif, said, monkeypatch, tmp_path):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    for words in (
        ('chat', saved, tif),
        ('quickstart', '--out', tmp_path / 'r'),
        ('evaluate', saved, 'samples', '--out', tmp_path / 'e'),
    ):
        refused(said(*words, '--device', 'cuda'), 'device cuda', 'doctor')
    refused(said('evaluate', tmp_path / 'no', 'samples'), 'no such folder')  # both before the data are read


def test_what_steers_a_terminal_is_spelled_out(saved, tif, said, monkeypatch):
    import earthgpt_lite.app.assistant as assistant

    monkeypatch.setattr(
        assistant, 'generate_answers', lambda *a, **k: [('\x1b7water \x07<script>', -0.5, [])]
    )
    status, out, _ = said('ask', saved, tif, 'what?')
    assert status == 0 and out == '\\x1b7water \\x07<script>\n'
    status, out, _ = said('ask', saved, tif, 'what?', '--json')
    assert '\x1b' not in out and json.loads(out)['text'].startswith('\x1b7')


def test_many_boxes_cut_and_unread_are_told(saved, tif, said, monkeypatch):
    import earthgpt_lite.app.assistant as assistant

    boxes = ';'.join(f'{i / 1000:.3f},0.250,{i / 1000 + 0.05:.3f},0.500' for i in range(500))
    monkeypatch.setattr(
        assistant, 'generate_answers', lambda *a, **k: [(f'ship [{boxes}] and [0.1,0.2', -0.5, [])]
    )
    status, out, _ = said('ask', saved, tif, 'find all ships', '--tokens', 8)
    assert (
        status == 0
        and out.count('box in pixels') == 10
        and 'and 490 more boxes' in out
        and 'cut off' in out
        and 'not read as boxes' in out
    )
    found = json.loads(said('ask', saved, tif, 'find all ships', '--json')[1])
    assert len(found['boxes']) == len(found['ground']) == 500 and found['cut'] and found['unread']


def test_an_answer_as_geojson_goes_on_a_map(saved, tif, tmp_path, said):
    words = 'ask', saved, tif, 'is there water?', '--out', tmp_path / 'a.geojson'
    status, out, _ = said(*words)
    assert (
        status == 0
        and f"written: {tmp_path / 'a.geojson'}" in out
        and json.loads((tmp_path / 'a.geojson').read_text())['type'] == 'FeatureCollection'
    )
    refused(said(*words), 'exists already', '--force')
    assert (
        said(*words, '--force')[0] == 0
        and said('map', tif, '--answers', tmp_path / 'a.geojson', '--out', tmp_path / 'a.html')[0] == 0
    )
    refused(
        said(
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
    refused(said('ask', saved, tif, 'what?', '--out', tmp_path), tmp_path, 'folder')


def test_debug_shows_the_traceback(saved, tmp_path):
    with pytest.raises(model.BadInput, match='no such file'):
        main(['--debug', 'ask', str(saved), str(tmp_path / 'gone.tif'), 'what?', '--device', 'cpu'])
    with pytest.raises(model.BadInput, match='no such file'):
        main(['ask', str(saved), str(tmp_path / 'gone.tif'), 'what?', '--device', 'cpu', '--debug'])


def test_another_error_is_one_and_says_how_to_see_more(saved, tif, said, monkeypatch):
    def broken(*a, **k):
        raise ZeroDivisionError('by hand')

    monkeypatch.setattr(cli, '_ask', broken)
    status, _, err = said('ask', saved, tif, 'what?')
    assert status == 1 and 'ZeroDivisionError: by hand' in err and '--debug' in err and 'Traceback' not in err


def test_a_stop_by_hand_is_130(said, monkeypatch):
    def stopped(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, '_ask', stopped)
    assert said('ask', 'a', 'b', 'c')[0] == 130


def test_an_interrupted_quickstart_says_how_to_go_on(said, monkeypatch, tmp_path):
    from earthgpt_lite.app import quickstart as module
    from earthgpt_lite.train import callbacks

    def stopped(*a, **k):
        raise callbacks.Interrupted('stopped at step 7')

    monkeypatch.setattr(module, 'quickstart', stopped)
    status, out, err = said('quickstart', '--out', tmp_path / 'r')
    assert (
        status == 130
        and not out
        and 'step 7' in err
        and f'--out {tmp_path / "r"} --resume' in err
        and 'earthgpt-lite ask' in err
    )
    assert '--minutes 9 --resume' in said('quickstart', '--out', tmp_path / 'r', '--minutes', '9')[2]


def test_quickstart_says_what_it_found(said, monkeypatch, tmp_path):
    from earthgpt_lite.app import quickstart as module

    seen = {}
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
            seen.update(k)
            or say('working')
            or dict(
                results=[row],
                stages=[dict(stage=s, results=[row]) for s in ('scratch', 'tune')],
                train=dict(seconds=3.0, images=7, pairs=70, peak_memory_mb=800),
            )
        ),
    )
    status, out, err = said('quickstart', '--out', tmp_path)
    assert (
        status == 0
        and 'minutes' not in seen
        and err == 'working\n'
        and all(w in out for w in ('classification', 'tune made', '70 question-answers', f'ask {tmp_path}'))
    )
    status, out, _ = said('quickstart', '--minutes', '2', '--json')
    assert (
        status == 0 and seen['minutes'] == 2 and out.count('\n') == 1 and json.loads(out)['results'] == [row]
    )


def test_quickstart_refuses_in_one_sentence(said, tmp_path):
    (tmp_path / 'metrics.json').write_text('{}')
    refused(said('quickstart', '--out', tmp_path), tmp_path, '--force')
    refused(said('quickstart', '--out', tmp_path / 'new', '--minutes', '0'), '--minutes')
    refused(said('quickstart', '--out', tmp_path / 'new', '--resume'), '--resume')


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


def test_a_typed_chat_ends_with_an_empty_line(saved, tif, monkeypatch, capsys):
    lines = iter(['is there water?', '', 'never asked'])
    monkeypatch.setattr('builtins.input', lambda prompt: next(lines))
    monkeypatch.setattr(sys.stdin, 'isatty', lambda: True, raising=False)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: True, raising=False)
    assert main(['chat', str(saved), tif, '--no-memory', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert 'empty line ends' in out and len(out.splitlines()) >= 2 and next(lines) == 'never asked'


def test_survey_writes_places(saved, tif, tmp_path, said):
    out = tmp_path / 'answers.geojson'
    words = ['survey', saved, tif, '--ask', 'is there water?', '--out', out, '--size', 16, '--device', 'cpu']
    status, text, _ = said(*words)
    assert (
        status == 0
        and f'map {tif} --answers {out}' in text
        and json.loads(out.read_text())['type'] == 'FeatureCollection'
    )
    refused(said(*words), 'exists already', '--force')
    told = json.loads(said(*words, '--force', '--json')[1])
    assert told['out'] == str(out) and told['tiles'] == 4 and told['features'] >= 1
    status, text, _ = said(
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
        said(
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
        said('survey', saved, plain, '--ask', 'what?', '--out', tmp_path / 'e.geojson', '--device', 'cpu'),
        'plain.tif',
        'no CRS',
        '.json',
    )
    status, text, _ = said(
        'survey', saved, plain, '--ask', 'what?', '--out', tmp_path / 'e.json', '--device', 'cpu'
    )
    assert status == 0 and 'earthgpt-lite map' not in text
    refused(said('survey', saved, tif, '--out', tmp_path / 'b.geojson', '--device', 'cpu'), 'exactly one')
    refused(
        said(
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


def test_a_stopped_survey_says_how_to_go_on(saved, tif, tmp_path, said, monkeypatch):
    import earthgpt_lite.app.survey as module

    def stopped(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'survey', stopped)
    status, _, err = said(
        'survey', saved, tif, '--ask', 'what?', '--out', tmp_path / 'a.geojson', '--device', 'cpu'
    )
    assert status == 130 and 'same command goes on' in err


def test_map_is_one_file(tif, tmp_path, said):
    pytest.importorskip('earthgpt_lite.app.maps')
    status, text, _ = said('map', tif, '--out', tmp_path / 'map.html')
    assert status == 0 and 'no network' in text and (tmp_path / 'map.html').stat().st_size > 10_000
    refused(said('map', tif, '--out', tmp_path / 'map.html'), 'exists already')
    refused(said('map', tif, tif, tif, '--out', tmp_path / 'b.html'), '3 scenes', 'two dates')
    refused(
        said('map', raster(tmp_path / 'plain.tif', colours(3)), '--out', tmp_path / 'b.html'),
        'plain.tif',
        'CRS',
    )
    refused(
        said('map', tif, '--answers', tmp_path / 'gone.geojson', '--out', tmp_path / 'b.html'), 'gone.geojson'
    )
    refused(said('map', tmp_path / 'gone.tif', '--out', tmp_path / 'b.html'), 'gone.tif')
    assert not (tmp_path / 'b.html').exists()


def test_evaluate_and_score_end_in_a_table(saved, records, tmp_path, said):
    status, text, _ = said(
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
    status, text, _ = said(
        'score', records / 'answers.jsonl', records / 'truth.json', '--out', tmp_path / 's'
    )
    assert status == 0 and (tmp_path / 's/report.html').exists() and 'optical' in text
    status, text, _ = said('score', records / 'answers.jsonl', records / 'truth.json', '--json')
    told = json.loads(text)
    assert (
        status == 0
        and text.count('\n') == 1
        and told['results'][0]['score'] == pytest.approx(2 / 3)
        and 'NaN' not in text
    )
    status, text, err = said(
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
    status, text, err = said(
        'evaluate', saved, records / 'gone.json', '--out', tmp_path / 'f', '--device', 'cpu'
    )
    assert status == 2 and not text and 'gone.json' in err.splitlines()[-1] and 'Traceback' not in err
    (records / 'none.json').write_text('[]')
    status, text, err = said(
        'evaluate', saved, records / 'none.json', '--out', tmp_path / 'f', '--device', 'cpu'
    )
    assert status == 2 and not text and 'none.json' in err.splitlines()[-1] and 'no questions' in err
    refused(said('score', records / 'gone.jsonl', records / 'truth.json'), 'gone.jsonl')


def test_presets_are_listed(said):
    status, text, _ = said('presets', 'nano')
    assert status == 0 and 'nano' in text and 'GB' in text
    refused(said('presets', 'nanno'), 'nanno')
    status, text, _ = said('presets', 'nano', '--json', '--pictures', 2, '--words', 32)
    (row,) = json.loads(text)
    assert status == 0 and row['name'] == 'nano' and row['total'] == sum(row['parameters'].values())


@pytest.mark.parametrize(
    'error, status, words',
    [
        (MemoryError(), 1, ('not enough memory', 'smaller')),
        (ModuleNotFoundError("No module named 'folium'"), 1, ('folium', 'doctor')),
        (OSError(28, 'No space left on device'), 1, ('No space left',)),
        (PermissionError(13, 'Permission denied', 'a/b'), 1, ('a/b: Permission denied',)),
        (RuntimeError('first\nsecond'), 1, ('RuntimeError: first', '--debug')),
        (KeyError('width'), 1, ('KeyError',)),
    ],
)
def test_every_error_is_one_sentence(said, monkeypatch, error, status, words):
    def broken(*a):
        raise error

    monkeypatch.setattr(cli, '_ask', broken)
    got, out, err = said('ask', 'a', 'b', 'c')
    assert got == status and not out and err.count('\n') == 1 and all(w in err for w in words), err


def test_completion_completes(tmp_path):
    if not shutil.which('bash'):
        pytest.skip('bash is not installed')

    def complete(*words):
        code = f'source ./script; COMP_WORDS=(earthgpt-lite {" ".join(map(repr, words))}); COMP_CWORD={len(words)}; _earthgpt_lite; printf "%s\\n" "${{COMPREPLY[@]}}"'
        return subprocess.run(
            ['bash', '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()

    (tmp_path / 'script').write_text(process('--completion', 'bash')[0].stdout)
    (tmp_path / 'scene.tif').touch()
    assert (
        complete('su') == ['survey']
        and complete('data', 'co') == ['convert']
        and complete('survey', '--cl') == ['--classify']
    )
    assert complete('data', 'list', '--js') == ['--json'] and complete('ask', 'run', 'sce') == ['scene.tif']


# in a process of its own


def process(*argv, code=None):
    start = time.perf_counter()
    run = subprocess.run(
        [
            sys.executable,
            *(['-c', code] if code else ['-c', 'from earthgpt_lite.app.cli import run; run()']),
            *map(str, argv),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run, time.perf_counter() - start


LOADED = '''
import sys
from earthgpt_lite.app.cli import main
assert main(sys.argv[1:]) == 0
print(*(m for m in ('torch', 'transformers', 'lightning', 'rasterio', 'matplotlib') if m in sys.modules), file=sys.stderr)
'''


@pytest.mark.parametrize(
    'argv',
    [
        ['--help'],
        ['--version'],
        *(
            [c, '--help']
            for c in ('quickstart', 'ask', 'chat', 'survey', 'map', 'evaluate', 'score', 'presets', 'doctor')
        ),
    ],
)
def test_help_is_quick_and_imports_nothing_heavy(argv):
    run, seconds = process(*argv, code=LOADED)
    assert run.returncode == 0 and run.stderr.strip() == '' and seconds < 5, run.stderr
    assert 'earthgpt-lite' in run.stdout and ('--help' in argv) == ('examples:' in run.stdout)


def test_no_command_shows_the_help(said):
    status, out, _ = said()
    assert status == 2 and 'quickstart' in out and 'ask' in out


def test_a_real_process_gives_status_and_one_line(saved, tmp_path):
    run, _ = process('ask', saved, tmp_path / 'gone.tif', 'what?', '--device', 'cpu')
    assert run.returncode == 2 and run.stderr.count('\n') == 1 and 'gone.tif' in run.stderr and not run.stdout
    run, _ = process('--debug', 'ask', saved, tmp_path / 'gone.tif', 'what?', '--device', 'cpu')
    assert run.returncode != 0 and 'Traceback' in run.stderr
