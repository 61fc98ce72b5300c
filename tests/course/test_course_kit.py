"A folder for a room: complete for systems that are not here, resumed after a kill, and never a stranger's."

import json
import subprocess
import sys
from pathlib import Path

import fixtures_kit as small
import pytest
from packaging.requirements import Requirement

from earthgpt_lite.app.cli import main
from earthgpt_lite.course import kit, sources, wheels
from earthgpt_lite.course.targets import PLATFORMS, Target, marker_answers, platform_here, wheel_tags
from earthgpt_lite.errors import BadInput

PYTHON = '{}.{}'.format(*sys.version_info)
PINNED, BUILD = kit.pinned_versions, kit.build_wheel  # the real ones
LINUX, WINDOWS = Target('linux', '3.11'), Target('windows', '3.11')


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    return small.fill_shop(tmp_path_factory.mktemp('shop') / 'wheels')


@pytest.fixture(autouse=True)
def only_the_shop(monkeypatch, shop):
    small.small_course(monkeypatch)
    monkeypatch.setattr(wheels, 'run_pip', small.quick_pip(shop))


@pytest.fixture(scope='module')
def made(shop, tmp_path_factory):
    "A folder for Linux and Windows, prepared once"
    with pytest.MonkeyPatch.context() as monkeypatch:
        small.small_course(monkeypatch)
        monkeypatch.setattr(wheels, 'run_pip', small.quick_pip(shop))
        folder = tmp_path_factory.mktemp('room') / 'kit'
        kit.prepare(folder, ['linux', 'windows'], [PYTHON])
    return folder


@pytest.fixture
def room(made, tmp_path):
    "A copy of it, to be spoiled"
    subprocess.run(['cp', '-r', made, tmp_path / 'kit'], check=True)
    return tmp_path / 'kit'


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


# ---- machines


@pytest.mark.parametrize('name', PLATFORMS)
def test_platforms_have_the_tags_that_torch_is_published_with(name):
    tags = {str(tag) for tag in wheel_tags(Target(name, '3.12'))}
    seen = dict(linux='manylinux_2_28_x86_64', macos='macosx_14_0_arm64', windows='win_amd64')
    assert f'cp312-cp312-{seen.get(name, "manylinux_2_28_aarch64")}' in tags and 'py3-none-any' in tags
    assert not any(tag.startswith('cp311-cp311') for tag in tags)


def test_a_tag_of_pip_is_a_platform_and_other_words_are_none():
    assert Target('macosx_13_0_x86_64', '3.11').system == ('darwin', (13, 0), 'x86_64')
    assert Target('manylinux_2_35_x86_64', '3.11').system == ('linux', (2, 35), 'x86_64')
    for word in ('Windows', 'macosx', 'win', 'any', '', 'linux; rm'):
        with pytest.raises(BadInput, match='is no platform: take one of linux'):
            Target(word, '3.11')
    assert platform_here() in PLATFORMS


@pytest.mark.parametrize(
    'marker, platforms',
    [
        ("sys_platform == 'win32'", {'windows'}),
        ("os_name != 'nt'", {'linux', 'linux-arm', 'macos'}),
        ("platform_system == 'Darwin'", {'macos'}),
        ("platform_machine == 'aarch64'", {'linux-arm'}),
        ("platform_machine == 'AMD64' and python_version < '3.12'", {'windows'}),
        ("python_full_version >= '3.11.4'", set(PLATFORMS)),
    ],
)
def test_requirements_are_asked_for_the_target(marker, platforms):
    asked = Requirement(f'x; {marker}').marker
    assert {p for p in PLATFORMS if asked.evaluate(marker_answers(Target(p, '3.11')))} == platforms


# ---- wheels


def test_all_that_lack_a_wheel_are_named_in_one_sentence(tmp_path):
    small.make_wheel(tmp_path, 'top', '1', 'brush', 'nobody>=3', 'paint')
    with pytest.raises(BadInput, match='macos.* has no wheel of brush, nobody>=3; leave'):
        wheels.complete_wheels(['top'], Target('macos', '3.11'), tmp_path, {})
    assert 'paint-1.0-py3-none-any.whl' in names(tmp_path), 'what there is was kept'


def test_a_pin_that_another_wheel_refuses_is_named(tmp_path):
    small.make_wheel(tmp_path, 'top', '1', 'paint>=2')
    with pytest.raises(BadInput, match=r'top==1 asks for paint>=2, and paint==1.0 is pinned'):
        wheels.complete_wheels(['top'], LINUX, tmp_path, {'paint': '1.0'})


def test_a_torn_wheel_is_named(tmp_path):
    path = small.make_wheel(tmp_path, 'top', '1')
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match='top-1-py3-none-any.whl: is no wheel'):
        wheels.complete_wheels(['top'], LINUX, tmp_path, {})


@pytest.mark.parametrize('words', ['torch==2.13.0+cpu', 'torch==2.13.0'])
def test_torch_for_linux_is_the_small_build_where_there_is_one(tmp_path, monkeypatch, words):
    shop = tmp_path / 'shop'
    version = words.split('==')[1]
    small.make_wheel(shop, 'torch', version, tag='cp311-cp311-manylinux_2_28_x86_64')
    small.make_wheel(shop, 'torch', '2.13.0', tag='cp311-cp311-win_amd64')
    monkeypatch.setattr(wheels, 'run_pip', small.quick_pip(shop))
    said = []
    for target in (LINUX, WINDOWS):
        found = wheels.complete_wheels(['torch'], target, tmp_path / 'w', {'torch': '2.13.0'}, said.append)
        assert found['torch'].pin == 'torch==2.13.0'
    assert str(wheels.read_wheel(next((tmp_path / 'w').glob('*linux*'))).version) == version
    assert any('3 GB of CUDA' in line for line in said) == ('+cpu' not in words)


def test_pip_itself_brings_them_and_is_told_in_its_own_words(tmp_path, monkeypatch, shop):
    monkeypatch.undo()
    small.use_shop(monkeypatch, shop)
    small.make_wheel(tmp_path / 'a', 'top', '1', *small.ASKS)
    found = wheels.complete_wheels(['top[lora]'], WINDOWS, tmp_path / 'a', {})
    assert {*found} == {'top', 'paint', 'brush', 'colorama'}
    with pytest.raises(BadInput, match='macos, Python 3.11: the index has no wheel of brush>=2; leave'):
        wheels.complete_wheels(['top[lora]'], Target('macos', '3.11'), tmp_path / 'a', {})
    (tmp_path / 'shop').mkdir()
    (tmp_path / 'shop/paint-1.0-py3-none-any.whl').write_bytes(b'no zip')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path / 'shop'))
    with pytest.raises(BadInput, match='linux, Python 3.11: .*paint.*; the same command goes on') as e:
        wheels.complete_wheels(['paint'], LINUX, tmp_path / 'w', {})
    assert '\n' not in str(e.value)


# ---- the folder


def test_the_folder_is_complete_for_both(made):
    about = json.loads((made / 'kit.json').read_text())
    linux, windows = about['targets']
    assert {r.split('==')[0] for r in linux['requirements']} == {'brush', 'earthgpt-lite', 'paint', 'pip'}
    assert {*windows['requirements']} == {*linux['requirements'], 'colorama==0.4'}
    assert linux['least_python'] == (f'{PYTHON}.2' if PYTHON == '3.11' else f'{PYTHON}.0')
    found = names(made)
    assert sum(n.startswith('lessons/') for n in found) == 13
    assert {'install.sh', 'install.bat', 'install.py', 'README.txt', 'SHA256SUMS'} <= {*found}
    assert not [n for n in found if n.startswith('.')]


def test_standard_tools_can_check_it(made):
    listed = [line.split('  ')[1] for line in (made / 'SHA256SUMS').read_text().splitlines()]
    assert sorted([*listed, 'SHA256SUMS']) == names(made), 'every file is on the list'
    done = subprocess.run(['sha256sum', '--quiet', '-c', 'SHA256SUMS'], cwd=made, capture_output=True)
    assert done.returncode == 0 and not done.stdout


def test_lessons_have_no_solutions(made):
    text = ''.join(p.read_text() for p in (made / 'lessons').glob('*.ipynb'))
    assert 'SOLUTION' not in text and '# your code here' in text


def test_what_is_there_is_not_fetched_again(room, monkeypatch, capsys):
    before = (room / 'SHA256SUMS').read_bytes()
    monkeypatch.setattr(wheels, 'run_pip', small.quick_pip('nowhere'))
    kit.prepare(room, ['linux'], [PYTHON])
    assert (room / 'SHA256SUMS').read_bytes() == before, 'and Windows stays in it'


def test_damaged_wheels_are_fetched_again(room, capsys):
    before = (room / 'SHA256SUMS').read_bytes()
    (room / 'wheels/colorama-0.4-py3-none-any.whl').write_bytes(b'half')
    (room / 'wheels/paint-1.0-py3-none-any.whl').unlink()
    assert main(['course', 'prepare', str(room), '--platform', 'windows', '--python', PYTHON]) == 0
    assert (room / 'SHA256SUMS').read_bytes() == before
    assert 'colorama-0.4-py3-none-any.whl was changed: it is made again' in capsys.readouterr().err


@pytest.mark.parametrize('when', range(1, 5))
def test_a_prepare_that_was_killed_goes_on(tmp_path, made, monkeypatch, when):
    "Killed at the nth record of what has come: no list of checksums yet, and then the same folder as without a kill."
    record, calls = kit._record, []

    def dies(*args):
        record(*args)
        calls.append(args)
        if len(calls) == when:
            raise KeyboardInterrupt

    monkeypatch.setattr(kit, '_record', dies)
    words = ['course', 'prepare', str(tmp_path / 'kit'), '--python', PYTHON]
    words += ['--platform', 'linux', '--platform', 'windows']
    assert main(words) == 130 and not (tmp_path / 'kit/SHA256SUMS').exists()
    monkeypatch.setattr(kit, '_record', record)
    assert main(words) == 0
    assert (tmp_path / 'kit/SHA256SUMS').read_bytes() == (made / 'SHA256SUMS').read_bytes()


def test_folders_of_others_are_refused(tmp_path, room):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('all of it')
    with pytest.raises(BadInput, match='mine holds other files: name a new folder'):
        kit.prepare(tmp_path / 'mine')
    with pytest.raises(BadInput, match='thesis.txt holds other files'):
        kit.prepare(tmp_path / 'mine/thesis.txt')
    assert names(tmp_path / 'mine') == ['thesis.txt']
    (tmp_path / 'mine/kit.json').write_text('{"made_by": "somebody"}')
    with pytest.raises(BadInput, match='kit.json is none of ours'):
        kit.prepare(tmp_path / 'mine')
    for name in ('wheels/stranger-1-py3-none-any.whl', 'lessons/mine.ipynb', 'weights/x.whl'):
        (room / name).parent.mkdir(exist_ok=True)
        (room / name).write_text('{}')
        with pytest.raises(BadInput, match=f'{name} was put there; move that away'):
            kit.prepare(room, ['linux'], [PYTHON])
        (room / name).unlink()
    (room / 'lessons/00_first_look.ipynb').write_text('{"cells": []}')
    with pytest.raises(BadInput, match='00_first_look.ipynb was changed; move that away'):
        kit.prepare(room, ['linux'], [PYTHON])


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    usage = type('Usage', (), dict(free=300_000_000))
    monkeypatch.setattr(kit.shutil, 'disk_usage', lambda path: usage)
    with pytest.raises(BadInput, match=r'about 698 MB are to come, and 300 MB are free; make room'):
        kit.prepare(tmp_path / 'kit', ['linux', 'windows'], [PYTHON])
    assert not (tmp_path / 'kit').exists()


def test_without_a_clone_the_sentence_says_where_the_lessons_are(tmp_path, monkeypatch):
    monkeypatch.setattr(
        kit.earthgpt_lite, '__file__', str(tmp_path / 'site-packages/earthgpt_lite/__init__.py')
    )
    with pytest.raises(BadInput, match='no notebooks: clone https://.* and name its folder nbs: --nbs'):
        kit.find_notebooks()
    with pytest.raises(BadInput, match='holds no notebooks of the course: clone'):
        kit.find_notebooks(tmp_path)
    root = Path(__file__).parents[2]
    assert kit.find_notebooks(root / 'nbs') == root / 'nbs' and kit.clone_around(root / 'nbs') == root
    assert kit.clone_around(tmp_path / 'nbs') is None


def test_a_clone_of_another_version_is_refused(tmp_path):
    (tmp_path / 'nbs').mkdir()
    (tmp_path / 'nbs/0_first_look.ipynb').write_text('{}')
    for name in ('setup.py', 'constraints.txt'):
        (tmp_path / name).write_text('')
    (tmp_path / 'settings.ini').write_text('[DEFAULT]\nversion = 0.0.9\n')
    with pytest.raises(BadInput, match='is version 0.0.9, and .* is installed'):
        kit.find_notebooks(tmp_path / 'nbs')


def test_what_is_installed_is_pinned_where_there_is_no_clone():
    pins = PINNED(None)
    assert 'torch' in pins and '+' not in pins['torch']
    assert PINNED(Path(__file__).parents[2])['jinja2'] == '3.1.6'


@pytest.mark.slow
def test_our_own_wheel_comes_out_the_same_twice(tmp_path):
    made = []
    for name in ('a', 'b'):
        BUILD(Path(__file__).parents[2], tmp_path / name / 'wheels', list)
        (path,) = (tmp_path / name / 'wheels').glob('*.whl')
        made.append(path.read_bytes())
    assert made[0] == made[1] and wheels.read_wheel(path).name == 'earthgpt-lite'
