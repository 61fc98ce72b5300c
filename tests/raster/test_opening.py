"Files of strangers: what is opened, what it may point at, and how much memory it may take."

import ast
import base64
import http.server
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import fixtures_hostile as hostile
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.shutil import copy

from earthgpt_lite.data.formats import picture_size
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import opening
from earthgpt_lite.raster.opening import open_raster
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import COARSE, as_chip, read_tiles

ROOT = Path(__file__).resolve().parents[2]
# the pictures of these tests have no place
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
READERS = [as_chip, read_scene, picture_size, lambda path: list(read_tiles(path))]


def save(path, pixels, driver='GTiff', **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        c, h, w = pixels.shape
        shape = dict(width=w, height=h, count=c, dtype=pixels.dtype)
        with rasterio.open(path, 'w', driver=driver, **shape, **options) as f:
            f.write(pixels)
            if c > 3:
                f.descriptions = ('red', 'green', 'blue', *f.descriptions[3:])
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(1, 255, (3, 64, 64), 'uint8')


@pytest.fixture
def server():
    "A server on this machine; `asked` is what was wanted of it"
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET
        log_message = lambda *_: None

    found = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    found.asked, found.url = asked, f'http://127.0.0.1:{found.server_address[1]}'
    yield found
    found.shutdown()
    found.server_close()


def vrt(source, side=64, bands=3):
    band = (
        '<VRTRasterBand dataType="Byte" band="{}"><SimpleSource><SourceFilename>{}</SourceFilename>'
        '<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
    )
    rows = ''.join(band.format(b + 1, source) for b in range(bands))
    return f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}">{rows}</VRTDataset>'


def wms(url):
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service>'
        '<DataWindow><UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY>'
        '<LowerRightX>20037508</LowerRightX><LowerRightY>-20037508</LowerRightY><TileLevel>2</TileLevel>'
        '<TileCountX>1</TileCountX><TileCountY>1</TileCountY><YOrigin>top</YOrigin></DataWindow>'
        '<Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>'
    )


def refused(path, word, readers=READERS):
    for read in readers:
        with pytest.raises(BadInput) as error:
            read(path)
        assert str(path) in str(error.value) and word in str(error.value), error.value


# ---- one door


def test_no_raster_is_opened_beside_the_one_function():
    calls = {'open', 'DatasetReader', 'MemoryFile', 'ZipMemoryFile', 'FilePath', 'WarpedVRT', 'copy'}
    found, opened = [], []
    for path in sorted((ROOT / 'earthgpt_lite').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if (
                name.startswith('rasterio.')
                and name.rsplit('.', 1)[-1] in calls
                or name in calls - {'open', 'copy'}
            ):
                writes = [ast.unparse(a) for a in node.args[1:2]] == ["'w'"]
                if not writes:
                    found.append(f'{path.stem}: {name}')
            if name.endswith('open_raster'):
                opened.append(path.stem)
    assert sorted(found) == ['opening: DatasetReader', 'opening: rasterio.open']
    assert {'reading', 'formats', 'custom', 'survey', 'sites'} <= {*opened}


# ---- what points elsewhere


@pytest.mark.parametrize('name', ['a.tif', 'a.png', 'a.jpg', 'a.vrt'])
def test_a_description_is_no_picture(tmp_path, pixels, server, name):
    secret = save(tmp_path / 'secret.tif', pixels)
    (tmp_path / 'in').mkdir()
    path = tmp_path / 'in' / name
    for text in (vrt(secret), vrt(f'/vsicurl/{server.url}/x.tif'), wms(server.url)):
        path.write_text(text, encoding='utf-8')
        refused(path, 'not an image')
    with pytest.raises(BadInput, match='opened only with --allow-vrt'):
        read_scene(path)
    path.write_text(vrt(secret), encoding='utf-8')
    assert (read_scene(path, allow_vrt=True).pixels == pixels[0]).all()
    assert as_chip(path, allow_vrt=True).image.shape == (64, 64, 3)
    assert len(list(read_tiles(path, allow_vrt=True))) == 1
    assert server.asked == []


def test_what_the_user_names_is_asked_only_with_his_word(tmp_path, pixels, server):
    save(tmp_path / 'a.tif', pixels)
    url = f'{server.url}/a.tif'
    gdal = f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}</ServerUrl></Service></GDAL_WMS>'
    for name in (f'/vsicurl/{url}', f'vrt://{tmp_path}/a.tif', f'zip://{tmp_path}/a.zip!a.tif', gdal):
        with pytest.raises(BadInput, match='no such file|allow-vrt'):
            read_scene(name)
    assert server.asked == []
    assert (read_scene(f'vrt://{tmp_path}/a.tif?bands=1', allow_vrt=True).pixels == pixels[:1]).all()
    with pytest.raises(BadInput, match='not an image'):
        read_scene(url, allow_vrt=None)  # of a record, which nobody named
    assert server.asked == []
    with pytest.raises(BadInput, match='the server gives no image'):
        read_scene(url)
    assert server.asked


@pytest.mark.parametrize('suffix', ['.ovr', '.OVR', '.msk', '.MSK', '.ovr.msk', '.msk.ovr', '.ovr.ovr'])
def test_what_lies_beside_a_picture_is_a_picture_too(tmp_path, pixels, server, suffix):
    path = save(tmp_path / 'a.tif', pixels)
    for part in range(4, len(suffix), 4):
        save(tmp_path / f'a.tif{suffix[:part]}', pixels[:1] if suffix[:part] == '.msk' else pixels)
    companion = tmp_path / f'a.tif{suffix}'
    for source in (tmp_path / 'x.tif', f'/vsicurl/{server.url}/x.tif'):
        companion.write_text(vrt(source), encoding='utf-8')
        refused(path, companion.name)
    assert server.asked == []


def test_notes_name_no_other_file(tmp_path, pixels, server):
    url = f'/vsicurl/{server.url}/x.tif'
    inside, beside = save(tmp_path / 'a.tif', pixels), save(tmp_path / 'b.tif', pixels)
    with rasterio.open(inside, 'r+') as f:
        f.update_tags(ns='OVERVIEWS', OVERVIEW_FILE=url)
    notes = f'<MDI key="overview_file">{url}</MDI>'
    text = f'<PAMDataset><Metadata domain="OVERVIEWS">{notes}</Metadata></PAMDataset>'
    (tmp_path / 'b.tif.aux.xml').write_text(text, encoding='utf-8')
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(tmp_path / 'c.png')
    (tmp_path / 'c.png.aux.xml').write_text(text, encoding='utf-8')
    for path in (inside, beside, tmp_path / 'c.png'):
        refused(path, 'coarse copies')
    # names in other letters are not looked at, before or after opening
    other = save(tmp_path / 'd.tif', pixels)
    (tmp_path / 'd.tif.OvR').write_text(vrt(url), encoding='utf-8')
    with open_raster(other) as f:
        assert f.overviews(1) == [] and (f.read(out_shape=(3, 8, 8)) > 0).all()
    assert server.asked == []


def test_links_beside_a_picture_stay_in_its_folder(tmp_path, pixels):
    (tmp_path / 'in').mkdir()
    path = save(tmp_path / 'in/a.tif', pixels)
    for suffix in ('.msk', '.ovr', '.aux.xml'):
        (tmp_path / 'secret').write_bytes(save(tmp_path / 's.tif', pixels[:1]).read_bytes())
        (tmp_path / f'in/a.tif{suffix}').symlink_to(tmp_path / 'secret')
        refused(path, 'link out of the folder')
        os.unlink(tmp_path / f'in/a.tif{suffix}')
    assert (read_scene(path).pixels == pixels).all()


# made by the HDF5 library: 64 x 64 bytes of its own, in the file secret.bin, out of the set x of plain.h5, and
# by links to that set: in a message, in a heap, in a compressed heap; the last has heaps, and all is its own
HDF5 = dict(
    plain=(
        'c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfDp*nZF!=;1%?PDCp!5nRm^dR?P68?}2sIyFT}Y6tD@gT!Gyt>5fCWNxFpPqc'
        '2s~UJ13+{Hln+a#Czw#xRiLFu4+`yNWMG4s#R%hTKxih2fCE$=E}9wWQbwqI8Ie*jE06~9nV293aX@njGb23Zqhv%O'
        's6LS53$fhU3=9PW5)Z+C{w|;#4a<iL%%f?O8~^|p$TrF'
    ),
    outside=(
        'c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvfHn5`dVe$!3nh{EOK<O1sFmXn(oCH){5NbZUx{x4OSCH!eXaHtU1`CAdU>F4>'
        '5qP*d27u@YC?A$ePcWgXt3XSS9u(Tk$iNOUixI}xfY3}30SBl$Tr@M#rHoMbG9sm5Rv-=HGciF7Vh5Vb2vq~hF$TEO'
        'y8uialB1Xz;W-5*;|f7_g3P-R%bksI5q0800xg^aSWwj!rzRJrmgpsA=0W(ue*P{Xf5H5tz&x6!$pHXb6g>g'
    ),
    virtual=(
        'c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvf7$ng6P>=wn8KHCslwQFE6K4d=LA5goLd{247ZT*^3R3+a4Z!R%V1dva45MHq'
        '0uNWm01zDk<-=0x2_{r^6=><vgF<^58Q36ZF~ay75Sj@h-~d&Ji)IG8lo9G)Mx+$X3Zy}NCMJkM98e#zFvF5KM70o<'
        '3*udf<<3U<a9}{NpT7$zN5k@=0`q9v90j9br~-Fqe;-Dq0u@$nS}>p$qy;&NnR$8{roi%t8A%vY#-Z}NWVRlLu~+bq'
        'hVdvE1*2dTjDk@x3P!;w7zLwX6pVsVFwg)1>v1*>'
    ),
    linked=(
        'c-rgqaB<`1lHy_j0S*oZ76t(ZWbhvf3Yby(F!=;1%?PDCp!5nRm^ceqP68?}05x9$YF+?TJS51~71?}rdq%;?1|F`C;G_}(<#R'
        'yk6HKV;VCgV`O7=3rQ!e(D$pv%?Ba(VHsCq^Y2gV9s28M#1#LPUs3{wXE3a~f;RdhV7'
    ),
    heap=(
        'c-rgqaB<`1lHy|K;9!7(|4`7+3gH_-#eaM~{K?<LC5TBO=n-!=GFD&`0x8IbD*Owjx!4#Ofe;8x<`wI^1$hK8umd?v3<3-omR)'
        'Cr@Rgx7P!%c-1&j>D0Tv{k5IqV&x}O;)#@1Qa>J;MP!oUhr#|;!o(I{nvsfXE;yl@t?TQE=+!*xbf`x!Cp3t*@K+5wX(h1w*=f'
        'J%!-Us>W5;^W4^y1aGGF9uPdkO;%u{g0L~jDnE@+=7E$;R&4)n6flMj5n#Q@opY2PVj650#(;oycszh7%O-g7z%O{GxPK^Od0e'
        'mM#FG;0sz<3LFo'
    ),
    zipped=(
        'c-rgqaB<`1lHy|K;9!7(|4{Iq8NxS!ivRs%UE=TI62zns^oTbb8M`nEffV#Z6<RVvXf8GeMg}mOTY-U*5h}{azyTIcNlnX1EJ<'
        'bHgzDld54h(R<PpHY&cMUK#2~<c;h^hK6XKyXP!%f80JDKOz=EU`q6g?qhSSV2F&!keOpJ_RSA$&ps5Cd+Da6Btffb~m8z_>Zu'
        '@UY&nC(hmS9-Vw1646xXGC=uBZfNy7%G5v!(=u>T_DAPN*@X5G;#{@absXz-n!-&gD6l)gyHS}M@tw+!AJpa!NIQZ48RCXS(+e'
        '5M}&!g#jWDc1%*j3(j6KuBp-|Ek>TqR-NVDfYS}rnvPyCp&o5D)#R(Bi41cxQ0|9?#PuB'
    ),
    own=(
        'c-rlm+e=hI9LK+NE_&P)Y|BgoGqhMJ$jVCuf$6rMLeSl{mq05JBFxK6D3Xyu4-t`c5uzT9zzTc~dZ>H|%6#b`=mJI1Lli{N<)Q'
        '7&xvXa$1Op!|zaLnB%x}IkznR(jorm9Cu;YoMNO?rJECghH>}IcB<NMd_yI$L7$5UEm>RnM!_*bb#rC?Ba!UD~+kvs^vzI!8+N'
        'q4Bz7S({J3DM|JyO7ljA&MRAO=`i^AoPgkMA8L<)fRiEBnksanqKR@Z*c|7kcl&wUnEj?JMx`|7VIE=@NfNd-0q(v=35`J$cRR'
        '0q&KEg+KRyUbJ~8|)M3YAO5G~Q(;XYt0(}srw59WFBJHRUtWPYk4g>8Na$*EMqlV`%N3Pv+VCHsHM{5G+-SbnwP~x}>F=2nN09'
        'h#{(&_!#i!Pj-waL91omY>zJq3Aw&wz$8_cqN8Upl&+_aiggS}3yz{EY_Nf-%qfL>8afMs8-uqzw`boyqY&H?u97*{j{m#`+*e'
        '5T&=_^b;?$2eidxb}ZX-(~rIZxwf$@`Hgq`A0VF)LI@#*5JCtc|2=N`)k0L3bE;*X3iwjmUWG2qIc^=y)ZtvnF?Hh9UhD}u#y4'
        'I&gxQee!|aa{9F~*Tdye$)=^I!VQrvlb_7UnsVIN+6IfKcN;(6KDPxu^iJQ%y5dG+SwYgTQRuv}@!o3igFF55N_nL2b7%F5!g8'
        'WdabUt1b;-XG>PI~0vjG&>cIrf7C48eP%UDjGx4)F~QM(bOxNJVn!>Xz~@!Zbf5dH73?d&B^}0<0uottp|r6w4^##<-W%J)pHI'
        'ZOPc?Kp_|v={j66&4E6AARst=}ZLRX(x2tl$K{3BQOb8)_5JCtcgb+dqA%qY@2qA<JLdXi>55J7l=l'
    ),
)


@pytest.mark.parametrize('user_block', [0, 512, 2048])
def test_hdf5_keeps_its_numbers_to_itself(tmp_path, monkeypatch, user_block):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'secret.bin').write_bytes(b'SECRET!!' * 512)
    for name, text in HDF5.items():
        data = zlib.decompress(base64.b85decode(text))
        (tmp_path / f'{name}.h5').write_bytes(bytes(user_block) + data)
        (tmp_path / f'{name}.nc').write_bytes(bytes(user_block) + data)  # links are followed in a netCDF
        if name == 'outside':
            data = data[:913] + b'\1\1\1' + data[916:]  # nobody reads them
            (tmp_path / 'reserved.h5').write_bytes(bytes(user_block) + data)
    for name in ('plain', 'own'):
        assert read_scene(tmp_path / f'{name}.h5').pixels.shape == (1, 64, 64)
    for name in ('outside.h5', 'reserved.h5', 'virtual.h5', 'linked.nc', 'heap.nc', 'zipped.nc'):
        refused(tmp_path / name, 'lie in other files')
    if not user_block:  # the library itself follows
        for name in ('outside', 'reserved'):
            assert bytes(read_scene(f'{name}.h5', allow_vrt=True).pixels[0, 0, :6]) == b'SECRET'
        for name in ('linked', 'heap', 'zipped'):
            pixels = read_scene(f'{name}.nc', allow_vrt=True).pixels
            assert (pixels == read_scene('plain.h5').pixels).all()


def test_good_neighbours_are_used(tmp_path, pixels):
    Image.fromarray(np.moveaxis(pixels, 0, -1)).save(tmp_path / 'a.png')
    (tmp_path / 'a.pgw').write_text('10\n0\n0\n-10\n500005\n3999995\n', encoding='utf-8')
    assert read_scene(tmp_path / 'a.png').transform[:6] == (10, 0, 5e5, 0, -10, 4e6)
    path = save(tmp_path / 'b.tif', pixels)
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, 'r+') as f:
        f.build_overviews([2], Resampling.nearest)
    assert (tmp_path / 'b.tif.ovr').exists()
    with open_raster(path) as f:
        assert f.overviews(1) == [2]
    (tmp_path / 'b.tif.aux.xml').write_text(
        '<PAMDataset><Metadata><MDI key="ACQUISITIONDATE">2020-05-01</MDI></Metadata></PAMDataset>',
        encoding='utf-8',
    )
    assert read_scene(path).date == '2020-05-01'


@pytest.mark.parametrize(
    'driver', ['GTiff', 'COG', 'PNG', 'JPEG', 'JP2OpenJPEG', 'BMP', 'GIF', 'WEBP', 'netCDF']
)
def test_formats_that_are_read(tmp_path, pixels, driver):
    source = save(tmp_path / 'a.tif', pixels[:1] if driver in ('GIF', 'netCDF') else pixels)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        copy(source, tmp_path / 'b', driver=driver)
    scene = read_scene(tmp_path / 'b')
    assert scene.pixels.shape[1:] == (64, 64)
    if driver not in ('JPEG', 'JP2OpenJPEG', 'WEBP', 'netCDF', 'GIF'):
        assert (scene.pixels == pixels).all()


# ---- memory before pixels

PEAK = '''
import sys, warnings
from earthgpt_lite.raster.sources import as_chip
from earthgpt_lite.errors import BadInput
from PIL import Image
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1e3
warnings.simplefilter('ignore')
for path in sys.argv[1:]:
    before = peak()
    try:
        chip = as_chip(path)
        told = f'{chip.frame.width} x {chip.frame.height}, {chip.image.shape}'
    except BadInput as error:
        told = f'refused: {error}'
    print(f'{peak() - before:.0f}|{told}')
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_small_files_take_little_memory(tmp_path):
    made = hostile.build(tmp_path)
    assert len(made) >= 20 and max(path.stat().st_size for path in made.values()) < 1e6
    told = subprocess.run(
        [sys.executable, '-c', PEAK, *map(str, made.values())], capture_output=True, text=True, check=True
    ).stdout
    rows = dict(zip(made, (line.split('|') for line in told.splitlines()), strict=True))
    assert sum(float(grown) for grown, _ in rows.values()) < 600, rows  # peaks only rise: it is their highest
    for name, size in (('line.tif', '65535 x 1'), ('black.png', '11000 x 11000'), ('bands.tif', '900 x 800')):
        assert rows[name][1].startswith(size), rows[name]
    refused = {name for name, (_, text) in rows.items() if text.startswith('refused')}
    assert refused >= {'strip.tif', 'tile.tif', 'claim.tif', 'claim_tiles.tif', 'mask.tif', 'coarse.tif'}
    assert refused >= {
        'interlaced.png',
        'progressive.jpg',
        'baseline.jpg',
        'lossless.webp',
        'plain.bmp',
        'tile.jp2',
    }


def test_the_limit_is_the_users(tmp_path, pixels, monkeypatch):
    large = np.random.default_rng(0).integers(1, 255, (8, 700, 800), 'uint8')
    path = save(tmp_path / 'a.tif', large, tiled=True)
    whole = as_chip(path)
    assert whole.image.shape == (800, 800, 3) and read_scene(path).pixels.shape == large.shape
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '30M')
    assert (as_chip(path).image == whole.image).all()  # only three bands are read now
    monkeypatch.setattr('earthgpt_lite.raster.sources.COARSE', 400)
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '9M')
    small = as_chip(path)
    assert small.image.shape == (400, 400, 3) and small.frame == whole.frame and small.frame.width == 800
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '4M')
    refused(path, '8 bands of 800 x 700', [read_scene])
    assert read_scene(path, bands=[1]).pixels.shape == (1, 700, 800)
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '100k')
    refused(path, 'one block of it', [as_chip, read_scene])
    assert opening.allowance(path) == 100_000


def test_a_large_picture_keeps_its_frame(tmp_path):
    place = dict(crs='EPSG:32618', transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6))
    path = hostile.raster(tmp_path / 'a.tif', 12_000, 11_000, 3, tiled=True, **place)
    chip = as_chip(path, size=64)
    assert chip.image.shape == (64, 64, 3) and (chip.frame.width, chip.frame.height) == (12_000, 11_000)
    assert np.allclose(chip.frame.to_map([12_000, 0]), [5e5 + 120_000, 4e6])
    assert as_chip(path).image.shape == (COARSE, COARSE, 3)


def test_a_long_strip_makes_no_large_square(monkeypatch):
    monkeypatch.setattr('earthgpt_lite.raster.chips.MAX_SIDE', 900)
    line = np.arange(1, 60_001, dtype=float)[None].repeat(3, 0)
    chip = as_chip(np.uint8(line % 251), size=32)
    assert chip.image.shape == (32, 32, 3) and chip.frame.width == 60_000
    assert len(as_chip(np.uint8(line % 251)).image) == 900


def test_pictures_of_pil(tmp_path, pixels, monkeypatch):
    Image.fromarray(np.moveaxis(pixels.repeat(9, 1), 0, -1)).save(tmp_path / 'a.png')
    (tmp_path / 'b.png').write_bytes((tmp_path / 'a.png').read_bytes()[:-4000])
    with Image.open(tmp_path / 'b.png') as image, pytest.raises(BadInput, match='b.png: damaged'):
        as_chip(image)
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '100k')
    with Image.open(tmp_path / 'a.png') as image, pytest.raises(BadInput, match='64 x 576'):
        as_chip(image)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('order', ['<', '>'])
def test_all_directories_of_a_tiff_count(tmp_path, order, big):
    "A tile of 65,536 x 65,536 behind a link to a child, in both orders and both widths of a TIFF"
    number = 'Q' if big else 'I'

    def directory(tags, at_next):
        rows = b''.join(struct.pack(f'{order}HH{number}{number}', t, 16 if big else 4, 1, v) for t, v in tags)
        return (
            struct.pack(order + ('Q' if big else 'H'), len(tags))
            + rows
            + struct.pack(order + number, at_next)
        )

    head = 16 if big else 8
    first = [(256, 8), (257, 8), (258, 8), (278, 8)]
    length = len(directory([*first, (330, 0)], 0))
    child = directory([(256, 8), (257, 8), (258, 8), (322, 65_536), (323, 65_536)], head)  # and round again
    mark = (b'II' if order == '<' else b'MM') + struct.pack(order + 'H', 43 if big else 42)
    mark += struct.pack(order + 'HHQ', 8, 0, head) if big else struct.pack(order + 'I', head)
    path = tmp_path / 'a.tif'
    path.write_bytes(mark + directory([*first, (330, head + length)], 0) + child)
    refused(path, 'one block of it takes 8,590 MB')


# ---- a place that is none


BROKEN = dict(bomb='GEOGCS[' * 100_000, url='http://127.0.0.1:9/x.wkt')


@pytest.mark.parametrize('srs', BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize('read', READERS)
def test_a_crs_that_cannot_be_read_is_told(tmp_path, pixels, srs, read):
    path = save(tmp_path / 'x.tif', pixels)
    notes = f'<PAMDataset><SRS>{srs}</SRS><GeoTransform>1,1,0,1,0,-1</GeoTransform></PAMDataset>'
    path.with_name('x.tif.aux.xml').write_text(notes, encoding='utf-8')
    with pytest.raises(BadInput, match=r'x\.tif: its header, or the \.aux\.xml beside it'):
        read(path)


GRID = 'EXTENSION["PROJ4_GRIDS","{}"]'
SHIFT = 'ABRIDGEDTRANSFORMATION["x",METHOD["NTv2"],PARAMETERFILE["file","{}"]]'


@pytest.mark.unix
@pytest.mark.parametrize(
    'srs',
    [
        '+proj=longlat +nadgrids={} +type=crs',
        '+proj=longlat +nadgrids = @{} +type=crs',
        '+proj=longlat +init={}:1 +type=crs',
        '+proj=pipeline +step +proj=hgridshift +grids={}',
        f'GEOGCS["a",DATUM["d",SPHEROID["s",6378137,298.25],{GRID}],PRIMEM["Greenwich",0],UNIT["degree",0.01745]]',
        f'BOUNDCRS[SOURCECRS[GEOGCRS["a"]],TARGETCRS[GEOGCRS["b"]],{SHIFT}]',
    ],
)  # fmt: skip
@pytest.mark.parametrize('spelt', [str, lambda name: name.replace('/', '&#47;')], ids=['plain', 'entities'])
def test_a_crs_opens_no_file(tmp_path, pixels, srs, spelt):
    "The file is a pipe without a writer: who opens it waits for ever"
    os.mkfifo(tmp_path / 'pipe')
    path = save(tmp_path / 'x.tif', pixels)
    notes = f'<PAMDataset><SRS>{srs.format(spelt(str(tmp_path / "pipe")))}</SRS></PAMDataset>'
    path.with_name('x.tif.aux.xml').write_text(notes, encoding='utf-8')
    with pytest.raises(BadInput, match='names a file'):
        open_raster(path)


@pytest.mark.parametrize('crs', ['EPSG:3857', 'EPSG:28992', 'ESRI:54009'])
def test_a_crs_of_notes_is_used(tmp_path, pixels, crs):
    path, text = save(tmp_path / 'x.tif', pixels), rasterio.CRS.from_user_input(crs).to_wkt()
    notes = f'<PAMDataset><SRS>{text.replace(chr(34), "&quot;")}</SRS></PAMDataset>'
    path.with_name('x.tif.aux.xml').write_text(notes, encoding='utf-8')
    with open_raster(path) as file:
        assert file.crs == rasterio.CRS.from_user_input(crs)


@pytest.mark.parametrize('read', READERS)
def test_a_geotransform_of_no_numbers_is_told(tmp_path, pixels, read):
    transform = rasterio.Affine(float('nan'), 0, 0, 0, -1, 0)
    path = save(tmp_path / 'x.tif', pixels, crs='EPSG:4326', transform=transform)
    with pytest.raises(BadInput, match=r'x\.tif: its geotransform holds NaN'):
        read(path)


def test_a_plan_without_a_place_on_earth_is_a_picture(tmp_path, pixels):
    place = dict(crs='LOCAL_CS["x",UNIT["metre",1]]', transform=rasterio.Affine(1, 0, 5e5, 0, -1, 5e6))
    path = save(tmp_path / 'x.tif', pixels, **place)
    assert read_scene(path).gsd is None and as_chip(path).image.shape == (64, 64, 3)


@pytest.mark.unix
@pytest.mark.parametrize('read', READERS)
def test_a_name_that_is_no_utf8_is_told(tmp_path, pixels, read):
    path = os.fsdecode(os.fsencode(tmp_path) + b'/\xe9\xff.tif')
    os.rename(save(tmp_path / 'x.tif', pixels), path)
    with pytest.raises(BadInput, match='no UTF-8; rename it'):
        read(path)


def test_who_named_no_file_is_offered_no_option(tmp_path, pixels):
    secret = save(tmp_path / 'secret.tif', pixels)
    (tmp_path / 'x.tif').write_text(vrt(secret), encoding='utf-8')
    for read in (picture_size, lambda path: as_chip(path, allow_vrt=None)):
        with pytest.raises(BadInput, match='not an image') as error:
            read(tmp_path / 'x.tif')
        assert 'allow' not in str(error.value)


@pytest.mark.unix
@pytest.mark.parametrize('end', ['.ovr', '.MSK', '.aux.xml', 'aux', 'tfw', 'TFW', 'tifw', 'wld', 'tab'])
def test_a_pipe_beside_a_picture_is_not_waited_for(tmp_path, pixels, end):
    path = save(tmp_path / 'a.tif', pixels)
    os.mkfifo(f'{path}{end}' if end[0] == '.' else tmp_path / f'a.{end}')
    with pytest.raises(BadInput, match=f'a.*{end} beside it is a pipe'):
        open_raster(path)


def netcdf(path, variables=1, attributes=1, letters=1, mark=b'CDF\1'):
    "A classic netCDF of 64 x 64 bytes whose header may count more than there is."
    number = '>Q' if mark == b'CDF\5' else '>I'
    count = lambda n: struct.pack(number, n)
    text = lambda name, n=None: count(n or len(name)) + name + bytes(-len(name) % 4)
    none, dims = struct.pack('>I', 0) + count(0), b''.join(text(n) + count(64) for n in (b'y', b'x'))
    notes = (
        struct.pack('>I', 12) + count(attributes) + text(b'note') + struct.pack('>I', 2) + text(b'a', letters)
    )
    head = mark + count(0) + struct.pack('>I', 10) + count(2) + dims + none
    head += struct.pack('>I', 11) + count(variables) + text(b'v') + count(2) + count(0) + count(1) + notes
    head += struct.pack('>I', 1) + count(4096)
    wide = '>I' if mark == b'CDF\1' else '>Q'
    path.write_bytes(head + struct.pack(wide, len(head) + struct.calcsize(wide)) + bytes(range(64)) * 64)
    return path


@pytest.mark.parametrize('mark', [b'CDF\1', b'CDF\2', b'CDF\5'])
def test_a_netcdf_that_counts_more_than_it_holds(tmp_path, mark):
    if mark != b'CDF\5':  # not every GDAL reads it
        with open_raster(netcdf(tmp_path / 'good.nc', mark=mark)) as file:
            assert file.read(1).shape == (64, 64) and file.read(1).max() == 63
    for wrong in (dict(variables=2**31 - 1), dict(attributes=2**31 - 1), dict(letters=2**31 - 1)):
        with pytest.raises(BadInput, match='header counts more than the file can hold'):
            open_raster(netcdf(tmp_path / 'a.nc', mark=mark, **wrong))
