"A shop of small wheels, and a clone of the course that needs nothing else: what `course prepare` is tested with."

import base64
import hashlib
import os
import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

import earthgpt_lite

ASKS = ('paint', "colorama; sys_platform == 'win32'", "brush>=2; extra == 'lora'")
PROGRAM = """import sys
import paint


def run():
    print('checked with paint', paint.COLOUR, *sys.argv[1:])
"""


def make_wheel(folder, name, version, *requires, tag='py3-none-any', python='>=3.8', files=(), commands=''):
    "A wheel that pip installs"
    about = f'{name.replace("-", "_")}-{version}.dist-info'
    head = ['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}', f'Requires-Python: {python}']
    lines = [*head, 'Provides-Extra: lora', *(f'Requires-Dist: {r}' for r in requires)]
    files = dict(files) | {f'{about}/METADATA': '\n'.join(lines), f'{about}/WHEEL': wheel_file(tag)}
    if commands:
        files[f'{about}/entry_points.txt'] = f'[console_scripts]\n{commands}\n'
    Path(folder).mkdir(parents=True, exist_ok=True)
    return write_wheel(Path(folder) / f'{about.removesuffix(".dist-info")}-{tag}.whl', about, files)


def wheel_file(tag):
    return f'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n'


def write_wheel(path, about, files):
    with zipfile.ZipFile(path, 'w') as z:
        rows = [f'{name},{_record(data)}' for name, data in files.items()]
        for name, data in (files | {f'{about}/RECORD': '\n'.join([*rows, f'{about}/RECORD,,'])}).items():
            z.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
    return path


def _record(data):
    data = data.encode() if isinstance(data, str) else data
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()
    return f'sha256={digest},{len(data)}'


def pip_wheel(folder):
    "The pip of this environment, as a wheel"
    pip = metadata.distribution('pip')
    files = {}
    for file in pip.files:
        name = file.as_posix()
        if not name.startswith('..') and '__pycache__' not in name and not name.endswith('/RECORD'):
            files[name] = Path(pip.locate_file(file)).read_bytes()
    about = f'pip-{pip.version}.dist-info'
    return write_wheel(Path(folder) / f'pip-{pip.version}-py3-none-any.whl', about, files)


def own_wheel(folder):
    "Stands for ours: one command, and requirements of all kinds"
    return make_wheel(
        folder,
        'earthgpt-lite',
        earthgpt_lite.__version__,
        *ASKS,
        files={'earthgpt_lite_small.py': PROGRAM},
        commands='earthgpt-lite = earthgpt_lite_small:run',
    )


def fill_shop(folder):
    "All that the small course needs on Linux and Windows; on macOS it lacks brush"
    folder.mkdir()
    pip_wheel(folder)
    make_wheel(folder, 'paint', '1.0', files={'paint.py': "COLOUR = 'blue'\n"})
    make_wheel(folder, 'colorama', '0.4')
    for tag in ('manylinux2014_x86_64', 'manylinux_2_17_aarch64', 'win_amd64'):
        make_wheel(folder, 'brush', '2.1', tag=f'py3-none-{tag}', python='>=3.11.2')
    return folder


def use_shop(monkeypatch, folder):
    "Pip knows nothing but this folder"
    for name in [n for n in os.environ if n.startswith('PIP_')]:
        monkeypatch.delenv(name)
    settings = dict(PIP_NO_INDEX='1', PIP_FIND_LINKS=str(folder), PIP_CONFIG_FILE=os.devnull)
    for name, value in (settings | dict(PIP_DISABLE_PIP_VERSION_CHECK='1')).items():
        monkeypatch.setenv(name, value)


def small_course(monkeypatch):
    "The wheel of this clone is small, and nothing is pinned but what the shop has"
    from earthgpt_lite.course import kit, wheels

    def build(root, folder, keep):
        part = folder.with_name('.part')
        own_wheel(part)
        wheels.settle_wheels(part, folder, keep)

    monkeypatch.setattr(kit, 'build_wheel', build)
    monkeypatch.setattr(kit, 'pinned_versions', lambda root: {'brush': '2.1'})


def quick_pip(shop):
    "Stands for `pip download` and takes no second: the wheels of a folder by name, version and tag, or pip's words"

    def run(*words, **environment):
        part = Path(words[words.index('-d') + 1])
        tags = {words[k + 1] for k, word in enumerate(words) if word == '--platform'}
        asked = [
            w for w in words[words.index('--platform') :] if not str(w).startswith('-') and w not in tags
        ]
        part.mkdir(parents=True, exist_ok=True)
        for words in map(Requirement, asked[:]):
            found = [p for p in sorted(Path(shop).glob('*.whl')) if _fits(p, words, tags)]
            if not found:
                error = f'ERROR: No matching distribution found for {words}\n'
                return subprocess.CompletedProcess(words, 1, '', error)
            shutil.copy(found[-1], part)
        return subprocess.CompletedProcess(words, 0, '', '')

    return run


def _fits(path, asked, platforms):
    name, version, _, tags = parse_wheel_filename(path.name)
    there = {tag.platform for tag in tags}
    return name == asked.name and asked.specifier.contains(version) and there & (platforms | {'any'})
