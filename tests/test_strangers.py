"""What a second attack found: one test for each kind of case that did not hold.

Nothing is fetched or read that was not named, nothing is lost, and what is refused is named.
"""

import gc
import http.server
import json
import os
import re
import shutil
import socket
import struct
import sys
import threading
import zipfile
from functools import partial
from types import SimpleNamespace

import fixtures_hostile as hostile
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from fixtures_app import colours, raster
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import save_file

from earthgpt_lite.app import survey as survey_module
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.cli import main
from earthgpt_lite.app.commands import _texts
from earthgpt_lite.app.maps import _features
from earthgpt_lite.app.survey import survey
from earthgpt_lite.app.survey_files import check_output, check_raster
from earthgpt_lite.boxes.oriented import mask_box
from earthgpt_lite.data.convert import read
from earthgpt_lite.data.store import InstructionData
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.predictions import read_table
from earthgpt_lite.eval.score import score_files
from earthgpt_lite.files import write_whole
from earthgpt_lite.model.config import MODELS
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.presets import PRESETS
from earthgpt_lite.model.tokens import ChatFormat
from earthgpt_lite.raster.reading import read_scene, scene_files
from earthgpt_lite.model.adapter_files import load_adapter, read_adapter

PERFECT = SimpleNamespace(name='perfect', model=SimpleNamespace(config=SimpleNamespace(image_size=64)))
UTM = dict(crs='EPSG:32633', transform=from_origin(500_000, 5_000_000, 10, 10))
VRT = (
    '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename>{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>'
)


@pytest.fixture
def server():
    "An address of this machine, and the paths that it was asked for."
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{found.server_address[1]}', asked
        found.shutdown()


# ---- reaching out


def test_a_band_that_is_a_description_too_leads_nowhere(tmp_path, server):
    "A JPEG whose comment is a VRT: the list of formats takes it, and a VRT of bands would open it again"
    address, asked = server
    secret = raster(tmp_path / 'secret.tif', np.full((1, 20, 20), 7, 'uint8'))
    folder = tmp_path / 'S2A_MSIL2A_20240101T000000_x.SAFE'
    folder.mkdir()
    Image.fromarray(np.full((20, 20), 90, 'uint8')).save(tmp_path / 'a.jpg')
    plain = (tmp_path / 'a.jpg').read_bytes()
    for band, source in (('B02', f'/vsicurl/{address}/x.tif'), ('B03', secret), ('B04', secret)):
        comment = VRT.format(source).encode() + b'\0' + bytes(60)
        mark = b'\xff\xfe' + struct.pack('>H', len(comment) + 2)
        (folder / f'T_{band}_10m.tif').write_bytes(plain[:2] + mark + comment + plain[2:])
    with pytest.raises(BadInput, match='B02'):
        read_scene(folder)
    assert asked == []


def shapes(folder, crs):
    ring = [[500_050, 4_999_950], [500_150, 4_999_950], [500_150, 4_999_850], [500_050, 4_999_950]]
    feature = dict(
        type='Feature', properties=dict(label='x'), geometry=dict(type='Polygon', coordinates=[ring])
    )
    told = dict(
        type='FeatureCollection', crs=dict(type='name', properties=dict(name=crs)), features=[feature]
    )
    (folder / 'a.geojson').write_text(json.dumps(told))


def test_the_crs_of_shapes_is_a_code(tmp_path, server):
    address, asked = server
    raster(tmp_path / 'a.tif', colours(3, 20, 20), **UTM)
    (tmp_path / 'secret.prj').write_text(rasterio.CRS.from_epsg(32633).to_wkt())
    for crs in (f'{address}/crs', str(tmp_path / 'secret.prj'), '+proj=utm +zone=33 +nadgrids=/etc/passwd'):
        shapes(tmp_path, crs)
        with pytest.raises(BadInput, match='a.geojson: its crs is .*EPSG:32633'):
            list(read('geojson', tmp_path))
    assert asked == []
    for crs in ('EPSG:32633', 'urn:ogc:def:crs:EPSG::32633', 'http://www.opengis.net/def/crs/EPSG/0/32633'):
        shapes(tmp_path, crs)
        assert len(list(read('geojson', tmp_path))) == 1


def test_shapes_are_what_their_name_says(tmp_path):
    pytest.importorskip('geopandas')
    raster(tmp_path / 'a.tif', colours(3, 20, 20), **UTM)
    layer = '<OGRVRTDataSource><OGRVRTLayer name="s"><SrcDataSource>/etc/x.gpkg</SrcDataSource></OGRVRTLayer>'
    for name in ('a.gpkg', 'a.shp', 'a.parquet'):
        (tmp_path / name).write_text(f'{layer}</OGRVRTDataSource>')
        with pytest.raises(BadInput, match=f'{name}: holds something else'):
            list(read('geojson', tmp_path))
        (tmp_path / name).unlink()


# ---- what is lost


@pytest.mark.parametrize(
    'name',
    ['/vsizip/{}.zip/a.tif', 'zip:{}.zip!a.tif', 'zip+file://{}.zip!a.tif', '/vsisubfile/0,{}.tif', '/vsicached?file={}.tif', 'vrt://{}.tif?bands=1', 'GTIFF_DIR:1:{}.tif', 'file://{}.tif'],
)  # fmt: skip
def test_an_input_is_known_by_every_spelling(name, tmp_path):
    raster(tmp_path / 'a.tif', colours(3))
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as z:
        z.write(tmp_path / 'a.tif', 'a.tif')
    within = str(tmp_path / ('a.zip' if 'zip' in name else 'a.tif'))
    assert within in map(os.path.abspath, scene_files(name.format(tmp_path / 'a'), allow_vrt=True))


def test_what_tells_where_the_pictures_lie_is_an_input(tmp_path, capsys):
    (tmp_path / 'set' / 'lake').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(tmp_path / 'set' / 'lake' / 'a.png')
    out, info = str(tmp_path / 'x'), tmp_path / 'x' / 'info.json'
    assert main(['data', 'convert', 'folders', str(tmp_path / 'set'), out, '--json']) == 0
    kept = info.read_bytes()
    for words in (['check', out, '--drop'], ['tokens', out, '--out']):
        assert main(['data', *words, str(info), '--force']) == 2
        assert 'is read as' in capsys.readouterr().err and info.read_bytes() == kept


@pytest.mark.unix
@pytest.mark.parametrize('link', ['room', 'old'])
def test_what_a_dead_process_left_is_no_link(link, tmp_path):
    "Whoever unpacks such a folder would have files moved or deleted elsewhere"
    for name in ('docs/old/thesis', 'docs/notes', 'out/x'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('mine')
    machine = re.sub(r'\W', '', socket.gethostname())
    room = tmp_path / 'out' / f'.earthgpt-lite.{machine}.4194000.abc'
    if link == 'room':
        room.symlink_to('../docs')
    else:
        room.mkdir()
        (room / 'old').symlink_to('../../docs')
    write_whole(tmp_path / 'out' / 'a.json', '1')
    assert (tmp_path / 'docs' / 'old' / 'thesis').exists() and (tmp_path / 'docs' / 'notes').exists()


@pytest.mark.parametrize('name', ['scratch', 'model'])
def test_a_quickstart_refuses_what_it_could_not_replace_before_it_trains(name, tmp_path, capsys):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'thesis').write_text('mine')
    assert main(['quickstart', '--out', str(tmp_path), '--force', '--device', 'cpu']) == 2
    said = capsys.readouterr().err
    assert name in said and 'Training' not in said and (tmp_path / name / 'thesis').exists()


# ---- silently wrong


@pytest.mark.parametrize('ending', ['.msk', '.ovr', '-wal', '-journal'])
def test_what_would_spoil_an_output_is_refused(ending, tmp_path):
    "Notes of an older raster would place the new one; a journal of SQLite would be played into the new table"
    path = tmp_path / ('a.gpkg' if ending[0] == '-' else 'a.tif')
    check = check_output if ending[0] == '-' else partial(check_raster, scene=[])
    if ending[0] == '-':
        pytest.importorskip('geopandas')
    check(path)
    (tmp_path / f'{path.name}{ending}').write_text('old')
    with pytest.raises(BadInput, match=f'{re.escape(path.name + ending)} belongs to another'):
        check(path)


def test_an_arrow_file_is_not_taken_on_trust(tmp_path):
    "A number of it that lies leads to a crash of the whole process, or to other letters"
    turns = [{'from': 'human', 'value': 'what?'}, {'from': 'gpt', 'value': 'a lake'}]
    row = json.dumps(dict(image='a.png', conversations=turns)) + '\n'
    (tmp_path / 'r.jsonl').write_text(row * 3)
    good = InstructionData.build(tmp_path / 'r.jsonl', tmp_path / 'x')[0]
    (file,) = (tmp_path / 'x').glob('*.arrow')
    raw, refused = file.read_bytes(), 0
    for at in range(0, len(raw) - 4, 4):
        value = [0x70000000, 0xFFFFFFFF, 1000][at // 4 % 3]
        file.write_bytes(raw[:at] + struct.pack('<I', value) + raw[at + 4 :])
        try:
            data = InstructionData(tmp_path / 'x')
            assert len([data[i] for i in range(len(data))]) <= 3
        except BadInput as e:
            refused += 1
            assert file.name in str(e) or 'missing' in str(e)
    assert refused > 100
    file.write_bytes(raw)
    assert InstructionData(tmp_path / 'x')[0] == good


# ---- memory


def test_a_mask_is_not_unpacked():
    "The box of a COCO mask from its runs alone: right, and of 10^10 pixels as fast"
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 9, 2)
        mask = rng.random(height * width) < rng.choice([0.1, 0.5, 0.9])
        mask[rng.integers(mask.size)] = True
        ends = [*np.flatnonzero(np.diff(mask.astype(int), prepend=0)), mask.size]
        counts = np.diff(ends, prepend=0).tolist()
        x, y = np.nonzero(mask.reshape(width, height))
        found = mask_box(dict(size=[int(height), int(width)], counts=counts))
        assert found == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    side = 100_000
    assert mask_box(dict(size=[side, side], counts=[side + 5, 3, side**2 - side - 8])) == [1, 5, 2, 8]
    for counts in ([0, 5], [-1, 5], [4], []):
        with pytest.raises((ValueError, IndexError)):
            mask_box(dict(size=[2, 2], counts=counts))


def test_a_tokenizer_does_not_blow_up_a_text(tmp_path):
    folder = shutil.copytree(MODELS / 'nano', tmp_path / 'm')
    file = folder / 'tokenizer.json'
    words = json.loads(file.read_text(encoding='utf-8'))
    twice = dict(type='Replace', pattern=dict(String='a'), content='aa')
    for part in ('normalizer', 'decoder'):
        steps = dict(type='Sequence', **{f'{part}s': [twice] * 34})
        file.write_text(json.dumps(words | {part: steps}), encoding='utf-8')
        with pytest.raises(BadInput, match=f'm: the {part} of its tokenizer makes'):
            load(folder, 'cpu')


@pytest.mark.parametrize(
    'words',
    [
        'survey nano s.tif --ask a --out o.json --processes 100000',
        'presets nano --pictures 100000000 --words 100000000',
    ],
)
def test_more_than_there_can_be_is_refused(words, capsys):
    assert main(words.split()) == 2 and 'give a whole number from 1 to' in capsys.readouterr().err


# ---- threads, and names in sentences


def test_models_are_loaded_by_several_threads():
    found, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: found.append(load('nano', 'cpu')[0])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and {p.device.type for model in found for p in model.parameters()} == {'cpu'}


def test_a_place_that_is_none_names_the_file(tmp_path):
    mars = 'GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,169.89]],PRIMEM["x",0],UNIT["degree",0.0174532925199433]]'
    scene = raster(tmp_path / 'a.tif', colours(3), crs=mars, transform=from_origin(10, 10, 0.01, 0.01))
    with pytest.raises(BadInput, match='a.tif: .*name the output .json'):
        survey(PERFECT, scene, tmp_path / 'o.geojson', ask='what?')
    place = dict(type='Point', coordinates=[500_000, 5_000_000])
    answers = dict(type='FeatureCollection', features=[dict(type='Feature', properties={}, geometry=place)])
    (tmp_path / 'o.geojson').write_text(json.dumps(answers))
    with pytest.raises(BadInput, match='o.geojson: feature 0'):
        _features(tmp_path / 'o.geojson')


# ---- readers, tables, adapters


@pytest.mark.parametrize('what', ['images', 'categories'])
def test_one_id_for_two_things_is_refused(what, tmp_path):
    "The boxes of one would silently go to the other"
    for name in 'ab':
        Image.new('L', (40, 40)).save(tmp_path / f'{name}.png')
    told = dict(images=[dict(id=1, file_name='a.png')], categories=[dict(id=1, name='ship')])
    told['annotations'] = [dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 9, 9])]
    file = tmp_path / 'instances.json'
    file.write_text(json.dumps(told | dict(categories=told['categories'] * 2)))
    assert len(list(read('coco', tmp_path))) == 1  # said twice, and the same
    told[what].append(dict(images=dict(id=1, file_name='b.png'), categories=dict(id=1, name='car'))[what])
    file.write_text(json.dumps(told))
    with pytest.raises(BadInput, match='instances.json: .* have the same id 1'):
        list(read('coco', tmp_path))


def test_a_small_workbook_does_not_unpack_to_millions_of_rows(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.xlsx', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('xl/worksheets/sheet1.xml', f'<worksheet>{"<row/>" * 4_000_000}</worksheet>')
    with pytest.raises(BadInput, match='a.xlsx: .*unpack to too much'):
        read_table(tmp_path / 'a.xlsx')


def test_answers_that_fit_nothing_are_named(tmp_path):
    question = dict(image='a.png', question='is there any water in this image?', truth='yes')
    (tmp_path / 'a.csv').write_text(',' * 1000)
    with pytest.raises(BadInput, match='a.csv: none of the answers'):
        score_files(tmp_path / 'a.csv', [question])


def test_an_adapter_of_odd_beginnings_or_doubles_is_refused(tmp_path):
    peft = pytest.importorskip('peft')
    model = load('nano', 'cpu')[0]
    config = peft.LoraConfig(r=1, target_modules=['q_proj'])
    peft.inject_adapter_in_model(config, model)
    tensors = {
        f'base_model.model.{n.replace(".default", "")}': t.double()
        for n, t in peft.get_peft_model_state_dict(model).items()
    }
    config.save_pretrained(tmp_path)
    save_file(tensors, tmp_path / 'adapter_model.safetensors')
    load_adapter(load('nano', 'cpu')[0], tmp_path)
    save_file({n: t * 0 + 1e300 for n, t in tensors.items()}, tmp_path / 'adapter_model.safetensors')
    with pytest.raises(BadInput, match='holds NaN, infinity'):
        load_adapter(load('nano', 'cpu')[0], tmp_path)
    said = json.loads((tmp_path / 'adapter_config.json').read_text())
    (tmp_path / 'adapter_config.json').write_text(json.dumps(said | dict(init_lora_weights='loftq')))
    with pytest.raises(BadInput, match='adapter_config.json|does not fit'):
        load_adapter(load('nano', 'cpu')[0], tmp_path)


# ---- the second half of the count


def test_a_survey_that_fails_closes_its_scene_where_it_was_opened(tmp_path, monkeypatch):
    "Else GDAL's settings are put back in another thread, which prints a traceback of its own"

    def broken(strip, batch):
        raise BadInput('no chip')
        yield

    odd = []
    monkeypatch.setattr(survey_module, 'cut_tiles', broken)
    monkeypatch.setattr(sys, 'unraisablehook', odd.append)
    scene = raster(tmp_path / 'a.tif', colours(3, 40, 40), **UTM)
    with pytest.raises(BadInput, match='no chip'):
        survey(PERFECT, scene, tmp_path / 'o.json', ask='what?', progress=False)
    gc.collect()
    assert odd == []


@pytest.mark.parametrize('root', [5, ['a'], 'a\0b', {}, 'not a dict'])
def test_a_root_that_is_none_is_told(root, tmp_path, capsys):
    told = [] if root == 'not a dict' else dict(root=root or [1])
    (tmp_path / 'info.json').write_text(json.dumps(told))
    (tmp_path / 'records.jsonl').write_text('{}\n')
    assert main(['data', 'check', str(tmp_path)]) == 2 and 'info.json' in capsys.readouterr().err


def test_a_part_that_does_other_work_is_told_by_the_preset(tmp_path, capsys):
    text = (PRESETS / 'lite.toml').read_text(encoding='utf-8')
    for kind, why in (('rag', 'does not do its work|describes no'), ('dinov2', 'does not do its work')):
        file = tmp_path / f'{kind}.toml'
        file.write_text(re.sub(r'model_type = "llama"', f'model_type = "{kind}"', text), encoding='utf-8')
        assert main(['presets', str(file)]) == 2
        assert re.search(f'{kind}.toml.*({why})', capsys.readouterr().err)


@pytest.mark.parametrize('out', ['.', '/', ''])
def test_an_output_without_a_name_is_refused(out, tmp_path, capsys):
    scene = raster(tmp_path / 'a.tif', colours(3), **UTM)
    assert main(['survey', 'nano', scene, '--ask', 'what?', '--out', out]) == 2
    assert 'is a folder' in (said := capsys.readouterr().err) or 'name it' in said


@pytest.mark.parametrize('question', [None, 5, b'what?', ''])
def test_a_question_is_a_text(question):
    tokenizer = load('nano', 'cpu')[1]
    with pytest.raises(BadInput, match='the question is'):
        ChatFormat().encode_question(tokenizer, question)


def test_a_tokenizer_is_not_made_of_one_long_word(tmp_path):
    "Of 200,000 brackets without a space it would take minutes"
    turns = [{'from': 'human', 'value': 'what?'}, {'from': 'gpt', 'value': '[' * 60_000}]
    (tmp_path / 'r.jsonl').write_text(json.dumps(dict(image='a.png', conversations=turns)) + '\n')
    assert [len(text) for text in _texts(tmp_path / 'r.jsonl')] == [6, 10_001]


def test_a_picture_has_no_mark_in_the_chat(tmp_path):
    folder = shutil.copytree(MODELS / 'nano', tmp_path / 'm')
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    config['chat']['before'] = '<image>'
    (folder / 'config.json').write_text(json.dumps(config), encoding='utf-8')
    with pytest.raises(BadInput, match='m: chat holds <image>'):
        load(folder, 'cpu')


def test_a_jpeg_2000_without_some_of_its_tiles_is_not_shown_black(tmp_path):
    "Its header speaks of more than there are"
    path = hostile.jpeg2000(tmp_path / 'a.jp2', 4096, tile_size=(1024, 1024))
    with pytest.raises(BadInput, match='a.jp2: 15 of its 16 tiles are missing'):
        read_scene(path, size=64)
    Image.new('RGB', (700, 500)).save(tmp_path / 'b.jp2', tile_size=(256, 256))
    assert read_scene(tmp_path / 'b.jp2').pixels.shape == (3, 500, 700)


def test_a_place_that_is_a_line_is_no_place(tmp_path):
    path = raster(
        tmp_path / 'a.tif', colours(3), crs='EPSG:32618', transform=Affine(10, 20, 5e5, 10, 20, 4e6)
    )
    with pytest.raises(BadInput, match='a.tif: its geotransform puts all pixels on one line; write it anew'):
        read_scene(path)


def test_an_answer_without_room_is_told(tiny):
    with pytest.raises(BadInput, match='max_new_tokens 0 leaves no room'):
        Assistant(*tiny, 'tiny').ask(np.zeros((8, 8, 3), 'uint8'), 'what?', max_new_tokens=0)


def test_an_adapter_holds_what_it_names(tmp_path):
    said = dict(peft_type='LORA', r=2, target_modules=['q_proj'], modules_to_save=['projector'])
    (tmp_path / 'adapter_config.json').write_text(json.dumps(said), encoding='utf-8')
    save_file(
        {'base_model.model.a.q_proj.lora_A.weight': torch.zeros(2, 2)}, tmp_path / 'adapter_model.safetensors'
    )
    with pytest.raises(BadInput, match='names projector, of which no tensor is there'):
        read_adapter(tmp_path)
