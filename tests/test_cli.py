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

from earthgpt_lite import cli, model
from earthgpt_lite.cli import main

RNG = np.random.default_rng(0)

def raster(path, pixels, driver='GTiff', alpha=False, **keys):
    with rasterio.open(path, 'w', driver=driver, width=pixels.shape[2], height=pixels.shape[1], count=len(pixels), dtype=pixels.dtype, **keys) as file:
        file.write(pixels)
        if alpha: file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return str(path)

def colours(bands, height=20, width=30, most=255, kind='uint8'): return RNG.integers(0, most, (bands, height, width)).astype(kind)

@pytest.fixture(scope='module')
def tif(tmp_path_factory): return raster(tmp_path_factory.mktemp('images')/'scene.tif', colours(3), crs='EPSG:4326', transform=from_origin(10, 50, .01, .01))

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
    assert status == 2 and out == '' and err.startswith('earthgpt-lite: ') and err.count('\n') == 1 and 'Traceback' not in err, answer
    assert all(str(w) in err for w in words), err
    return err


# what works

@pytest.mark.parametrize('name, pixels, keys', [
    ('deep.tif', colours(3, most=9000, kind='uint16'), {}), ('gray.tif', colours(1), {}),
    ('alpha.tif', colours(4), dict(alpha=True)), ('alpha.png', colours(4), dict(driver='PNG')), ('gray.png', colours(1), dict(driver='PNG')),
    ('deep.png', colours(1, most=60000, kind='uint16'), dict(driver='PNG')), ('photo.jpg', colours(3), dict(driver='JPEG')),
    ('float.tif', colours(3).astype('float32'), {}), ('thin.png', colours(3, 1, 50), dict(driver='PNG'))])
@pytest.mark.filterwarnings('ignore')
def test_odd_images_are_answered(saved, tmp_path, said, name, pixels, keys):
    status, out, err = said('ask', saved, raster(tmp_path/name, pixels, **keys), 'what does this image show?')
    assert status == 0 and out.strip() and 'Traceback' not in err, (status, out, err)

def test_no_device_need_be_named(saved, tif): assert main(['ask', str(saved), tif, 'what is it?']) == 0

def test_some_nan_is_no_hindrance(saved, tmp_path, said):
    pixels = colours(3).astype('float32')
    pixels[:, :10] = np.nan
    assert said('ask', saved, raster(tmp_path/'half.tif', pixels), 'what is it?')[0] == 0

def test_model_folder_and_run_folder_answer_the_same(saved, tif, said):
    assert said('ask', saved, tif, 'is there water?') == said('ask', saved/'model', tif, 'is there water?')

def test_json_is_one_line_with_boxes_where_they_are(saved, tif, said, monkeypatch):
    import earthgpt_lite.assistant as assistant
    monkeypatch.setattr(assistant, 'answer', lambda model, tokenizer, pictures, questions, **k: [('[0.00,0.25,0.50,0.75]', -.5)])
    status, out, err = said('ask', saved, tif, 'where is the lake?', '--json')
    found = json.loads(out)
    assert status == 0 and out.count('\n') == 1 and found['text'] == '[0.00,0.25,0.50,0.75]' and found['score'] == -.5 and found['question'] == 'where is the lake?'
    assert np.allclose(found['pixels'], [[0, 2.5, 15, 17.5]])                      # 30 x 20: five rows of padding above
    assert np.allclose(found['ground'][0], [[10, 49.975], [10.15, 49.975], [10.15, 49.825], [10, 49.825]])
    status, out, _ = said('ask', saved, tif, 'where is the lake?')
    assert status == 0 and '0.0 2.5 15.0 17.5' in out and '10.15000 49.97500' in out

def test_a_picture_without_coordinates_has_no_ground(saved, tmp_path, said, monkeypatch):
    import earthgpt_lite.assistant as assistant
    monkeypatch.setattr(assistant, 'answer', lambda *a, **k: [('[0.00,0.25,0.50,0.75]', -.5)])
    status, out, _ = said('ask', saved, raster(tmp_path/'plain.png', colours(3), 'PNG'), 'where?', '--json')
    assert status == 0 and json.loads(out)['ground'] is None and len(json.loads(out)['pixels']) == 1


# what is refused

def test_a_missing_image(saved, tmp_path, said): refused(said('ask', saved, tmp_path/'gone.tif', 'what?'), tmp_path/'gone.tif', 'no such file')

def test_text_that_is_named_tif(saved, tmp_path, said):
    (tmp_path/'notes.tif').write_text('no image at all\n' * 50)
    refused(said('ask', saved, tmp_path/'notes.tif', 'what?'), tmp_path/'notes.tif', 'give a GeoTIFF')

def test_an_empty_file_and_a_folder(saved, tmp_path, said):
    (tmp_path/'empty.png').touch()
    refused(said('ask', saved, tmp_path/'empty.png', 'what?'), tmp_path/'empty.png')
    refused(said('ask', saved, tmp_path, 'what?'), tmp_path)

def test_a_cut_image(saved, tmp_path, said):
    path = Path(raster(tmp_path/'cut.tif', colours(3, 300, 300)))
    path.write_bytes(path.read_bytes()[:40_000])
    refused(said('ask', saved, path, 'what?'), path)

@pytest.mark.parametrize('pixels', [colours(3, 1, 1), colours(1, 1, 1, 9000, 'uint16')])
@pytest.mark.filterwarnings('ignore')
def test_a_single_pixel(saved, tmp_path, said, pixels):
    path = raster(tmp_path/'one.tif', pixels)
    refused(said('ask', saved, path, 'what?'), path, 'single pixel', 'larger picture')

def test_nan_only(saved, tmp_path, said):
    path = raster(tmp_path/'nan.tif', np.full((3, 9, 9), np.nan, 'float32'))
    refused(said('ask', saved, path, 'what?'), path, 'NaN')

@pytest.mark.parametrize('question', ['', '  '])
def test_an_empty_question(saved, tif, said, question): refused(said('ask', saved, tif, question), 'question is empty', 'ask something')

def test_a_model_without_weights(saved, tif, tmp_path, said):
    run = Path(shutil.copytree(saved, tmp_path/'run'))
    (run/'model'/'model.safetensors').unlink()
    refused(said('ask', run, tif, 'what?'), run, 'weights are missing')
    (run/'model'/'config.json').unlink()
    refused(said('ask', run, tif, 'what?'), run, 'holds no model')

def test_cut_weights(saved, tif, tmp_path, said):
    run = Path(shutil.copytree(saved, tmp_path/'run'))
    path = run/'model'/'model.safetensors'
    path.write_bytes(path.read_bytes()[:9999])
    refused(said('ask', run, tif, 'what?'), run)

def test_no_model(tif, tmp_path, said): refused(said('ask', tmp_path/'none', tif, 'what?'), tmp_path/'none', 'no such folder')

def test_a_wrong_sensor_is_refused_by_the_parser(saved, tif, capsys):
    with pytest.raises(SystemExit) as stop: main(['ask', str(saved), tif, 'what?', '--sensor', 'sonar'])
    assert stop.value.code == 2 and 'optical' in capsys.readouterr().err

def test_debug_shows_the_traceback(saved, tmp_path):
    with pytest.raises(model.BadInput, match='no such file'): main(['--debug', 'ask', str(saved), str(tmp_path/'gone.tif'), 'what?', '--device', 'cpu'])
    with pytest.raises(model.BadInput, match='no such file'): main(['ask', str(saved), str(tmp_path/'gone.tif'), 'what?', '--device', 'cpu', '--debug'])

def test_another_error_is_one_and_says_how_to_see_more(saved, tif, said, monkeypatch):
    def broken(*a, **k): raise ZeroDivisionError('by hand')
    monkeypatch.setattr(cli, '_ask', broken)
    status, _, err = said('ask', saved, tif, 'what?')
    assert status == 1 and 'ZeroDivisionError: by hand' in err and '--debug' in err and 'Traceback' not in err

def test_a_stop_by_hand_is_130(said, monkeypatch):
    def stopped(*a): raise KeyboardInterrupt
    monkeypatch.setattr(cli, '_ask', stopped)
    assert said('ask', 'a', 'b', 'c')[0] == 130

def test_an_interrupted_quickstart_says_how_to_go_on(said, monkeypatch, tmp_path):
    from earthgpt_lite import quickstart as module, training
    def stopped(*a, **k): raise training.Interrupted('stopped at step 7')
    monkeypatch.setattr(module, 'quickstart', stopped)
    status, out, err = said('quickstart', '--out', tmp_path/'r')
    assert status == 130 and 'step 7' in out and f'--out {tmp_path/"r"}' in out and '--resume' in out and 'earthgpt-lite ask' in out

def test_quickstart_refuses_in_one_sentence(said, tmp_path):
    (tmp_path/'metrics.json').write_text('{}')
    refused(said('quickstart', '--out', tmp_path), tmp_path, '--force')
    refused(said('quickstart', '--out', tmp_path/'new', '--minutes', '0'), '--minutes')
    refused(said('quickstart', '--out', tmp_path/'new', '--resume'), '--resume')


# in a process of its own

def process(*argv, code=None):
    start = time.perf_counter()
    run = subprocess.run([sys.executable, *(['-c', code] if code else ['-c', 'from earthgpt_lite.cli import run; run()']), *map(str, argv)], capture_output=True, text=True, timeout=120)
    return run, time.perf_counter() - start

LOADED = '''
import sys
from earthgpt_lite.cli import main
try: main(sys.argv[1:])
except SystemExit as stop: assert stop.code == 0, stop.code
print(*(m for m in ('torch', 'transformers', 'lightning', 'rasterio', 'matplotlib') if m in sys.modules), file=sys.stderr)
'''

@pytest.mark.parametrize('argv', [['--help'], ['quickstart', '--help'], ['ask', '--help'], ['--version']])
def test_help_is_quick_and_imports_nothing_heavy(argv):
    run, seconds = process(*argv, code=LOADED)
    assert run.returncode == 0 and run.stderr.strip() == '' and seconds < 5, run.stderr
    assert 'earthgpt-lite' in run.stdout and ('--help' in argv) == ('examples:' in run.stdout)

def test_no_command_shows_the_help(said):
    status, out, _ = said()
    assert status == 2 and 'quickstart' in out and 'ask' in out

def test_a_real_process_gives_status_and_one_line(saved, tmp_path):
    run, _ = process('ask', saved, tmp_path/'gone.tif', 'what?', '--device', 'cpu')
    assert run.returncode == 2 and run.stderr.count('\n') == 1 and 'gone.tif' in run.stderr and not run.stdout
    run, _ = process('--debug', 'ask', saved, tmp_path/'gone.tif', 'what?', '--device', 'cpu')
    assert run.returncode != 0 and 'Traceback' in run.stderr
