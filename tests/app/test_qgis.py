"What a survey writes, opened in a real QGIS, which runs under the system's Python as a process of its own."

import json
import os
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from test_survey import SHIPS, UTM, Perfect, harbour

from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.survey import survey
from earthgpt_lite.raster.palettes import label_colours

# layers by their files: what draws them, and each class with its colour
LOOK = """
import json, os, sys
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
found = {}
for path in sys.argv[1:]:
    raster = path.endswith('.tif')
    layer = QgsRasterLayer(path, 'x') if raster else QgsVectorLayer(path, 'x', 'ogr')
    drawn, rows = layer.renderer(), []
    if drawn.type() == 'paletted':
        rows = [(c.label, c.color.name(), c.value) for c in drawn.classes()]
    if drawn.type() == 'categorizedSymbol':
        rows = [(c.value(), c.symbol().color().name(), c.label()) for c in drawn.categories()]
    names = [] if raster else [field.name() for field in layer.fields()]
    places = layer.width() if raster else layer.featureCount()
    found[os.path.basename(path)] = dict(valid=layer.isValid(), type=drawn.type(), rows=rows, fields=names, places=places)
print(json.dumps(found), flush=True)
os._exit(0)  # taking QGIS down crashes now and then
"""
PYTHON = '/usr/bin/python3'


def has_qgis():
    return (
        os.path.exists(PYTHON)
        and not subprocess.run([PYTHON, '-c', 'import qgis.core'], capture_output=True).returncode
    )


def look(*paths):
    words = [PYTHON, '-c', LOOK, *map(str, paths)]
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(('PYTHON', 'GDAL', 'PROJ'))
    }
    env = clean | dict(QT_QPA_PLATFORM='offscreen')
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class Talker(Perfect):
    "Answers with words that want to be markup, and finds things that have no name."

    def ask(self, chips, question):
        texts = [
            'water, "deep" & <b>blue</b>' if self.inside(v).mean() > 100 else 'a ship at [0.2,0.2,0.4,0.4]'
            for v in chips
        ]
        return [Answer(text, -0.5, question, v) for text, v in zip(texts, chips)]


@pytest.mark.rare
def test_qgis_shows_the_colours_of_the_palette(tmp_path):
    if not has_qgis():
        pytest.skip('QGIS is not installed for the Python of the system')
    scene = harbour(tmp_path / 'port.tif', [*SHIPS, (0, 0, 200, 100)], **UTM)
    labels = ['dark forest', 'water', 'river']
    made = dict(classify=labels, size=50, progress=False)
    survey(Classes(), scene, tmp_path / 'both.geojson', raster=tmp_path / 'both.tif', **made)
    survey(Classes(), scene, tmp_path / 'one.gpkg', raster=tmp_path / 'other.tif', **made)
    survey(Perfect(), scene, tmp_path / 'port.geojson', detect='ship', overlap=40, progress=False)
    for name in ('said.geojson', 'said.gpkg'):
        survey(Talker(), scene, tmp_path / name, ask='what is it?', size=50, progress=False)
    survey(Perfect(), scene, tmp_path / 'none.gpkg', detect='ship', min_score=0.5, progress=False)
    shutil.copy(scene, tmp_path / 'alone.tif')
    found = look(*tmp_path.glob('*.tif'), *tmp_path.glob('*.geojson'), *tmp_path.glob('*.gpkg'))
    assert found.pop('none.gpkg')['type'] == 'categorizedSymbol'
    assert all(row['valid'] and row['places'] for row in found.values()) and len(found) == 9
    colours = label_colours(labels)
    for name in ('both.geojson', 'one.gpkg'):
        assert found[name]['rows'] == [[label, colours[label], label] for label in labels]
        assert {'class_id', 'label', 'probability', 'area_m2', 'tiles', 'gsd'} <= {*found[name]['fields']}
    for name in ('both.tif', 'other.tif'):
        assert found[name]['rows'] == [[label, colours[label], k] for k, label in enumerate(labels, 1)]
    assert found['port.geojson']['rows'] == [['ship', label_colours(['ship'])['ship'], 'ship']]
    words = ['answer', 'water, "deep" & <b>blue</b>']
    shown = label_colours(words)
    for name in ('said.geojson', 'said.gpkg'):
        rows = [['', shown['answer'], 'answer'], [words[1], shown[words[1]], words[1]]]
        assert found[name]['rows'] == rows
    # the scene has the name of answers about it, and is drawn as it was
    assert found['port.tif'] == found['alone.tif'] and found['port.tif']['type'] == 'multibandcolor'


class Classes(Perfect):
    "Puts every tile into one of two classes."

    def classify(self, chips, labels):
        texts = [labels[1] if self.inside(v).mean() > 100 else labels[0] for v in chips]
        return [
            Answer(t, -0.1, 'class?', v, scores={l: 0.9 if l == t else 0.05 for l in labels})
            for t, v in zip(texts, chips)
        ]
