"""Cut a window of a raster into a file of its own, with all that the raster says of its numbers, or with counts alone."""

import warnings

import rasterio
from affine import Affine
from rasterio.windows import Window


def cut(
    path,
    window,  # (column, row, side)
    out,
    units=True,  # with scales, offsets, units and tags; False: counts, and the names of the bands
):
    "Write the window to `out`, and return that path."
    column, row, side = window
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as f:
            counts = f.read(window=Window(column, row, side, side))
            place = f.transform @ Affine.translation(column, row)
            kind = dict(count=f.count, dtype=f.dtypes[0], crs=f.crs, nodata=f.nodata)
            tags, names, measures = f.tags(), f.descriptions, (f.scales, f.offsets, f.units)
        with rasterio.open(out, 'w', driver='GTiff', width=side, height=side, transform=place, **kind) as g:
            g.write(counts)
            g.descriptions = names
            if units:
                g.update_tags(**tags)
                g.scales, g.offsets, g.units = measures
    return out
