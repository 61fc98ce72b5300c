"The command line: its parser, its help, its completion, and one sentence for every error."

import shutil
import subprocess
import sys
import time

import pytest
from fixtures_app import refused, run_cli, tif

from earthgpt_lite.app import cli
from earthgpt_lite.app.cli import main
from earthgpt_lite.errors import BadInput


@pytest.mark.parametrize(
    'words, expected',
    [
        (
            ['ask', 'run', 'a.tif', 'what?', '--sensor', 'sonar'],
            ('--sensor', "'sonar'", 'optical, sar, infrared', 'ask --help'),
        ),
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
def test_a_wrong_word_is_one_sentence(words, expected, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (
        not out
        and err.startswith('earthgpt-lite')
        and err.count('\n') == 1
        and err.endswith('--help`\n')
        and all(t in err for t in expected)
    ), err


def test_units_of_boxes_are_those_of_the_scorer():
    from earthgpt_lite.eval.join import FRAMES

    option = next(
        a
        for a in next(a for a in cli.make_parser()._actions if a.dest == 'command').choices['score']._actions
        if a.dest == 'boxes'
    )
    assert option.choices == tuple(FRAMES) and all(u in option.help for u in FRAMES)


def test_help_of_quickstart_tells_its_default_minutes(run_cli):
    import inspect
    from earthgpt_lite.app.quickstart import quickstart

    assert (
        f"training time (default: {inspect.signature(quickstart).parameters['minutes'].default:g})"
        in run_cli('quickstart', '--help')[1]
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
        assert cli.parse_command_line(shlex.split(line.split('<')[0])[1:]).run, line


def test_train_reads_its_own_words(run_cli, monkeypatch, tmp_path):
    status, out, err = run_cli('train', '--help')
    assert status == 0 and '--minutes' in out and '--config' in out and 'earthgpt-lite train --config' in out
    refused(run_cli('train', '--minuts', 3), 'minuts')
    import earthgpt_lite.train.run as module

    passed = []
    monkeypatch.setattr(module, 'train_command', lambda words: passed.append(words) or 130)
    assert run_cli('train', '--out', 'ask', '--debug', '--steps', 3)[0] == 130 and passed == [
        ['--out', 'ask', '--steps', '3']
    ]


def test_no_gpu_is_one_sentence(saved, tif, run_cli, monkeypatch, tmp_path):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    for words in (
        ('chat', saved, tif),
        ('quickstart', '--out', tmp_path / 'r'),
        ('evaluate', saved, 'samples', '--out', tmp_path / 'e'),
    ):
        refused(run_cli(*words, '--device', 'cuda'), 'device cuda', 'doctor')
    refused(
        run_cli('evaluate', tmp_path / 'no', 'samples'), 'no such folder'
    )  # both before the data are read


def test_debug_shows_the_traceback(saved, tmp_path):
    with pytest.raises(BadInput, match='no such file'):
        main(['--debug', 'ask', str(saved), str(tmp_path / 'gone.tif'), 'what?', '--device', 'cpu'])
    with pytest.raises(BadInput, match='no such file'):
        main(['ask', str(saved), str(tmp_path / 'gone.tif'), 'what?', '--device', 'cpu', '--debug'])


def test_another_error_is_one_and_says_how_to_see_more(saved, tif, run_cli, monkeypatch):
    def broken(*a, **k):
        raise ZeroDivisionError('by hand')

    monkeypatch.setattr(cli, 'run_ask', broken)
    status, _, err = run_cli('ask', saved, tif, 'what?')
    assert status == 1 and 'by hand' in err and 'report it' in err and '--debug' in err
    assert 'ZeroDivisionError' not in err and 'Traceback' not in err


def test_a_stop_by_hand_is_130(run_cli, monkeypatch):
    def stopped(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, 'run_ask', stopped)
    assert run_cli('ask', 'a', 'b', 'c')[0] == 130


@pytest.mark.parametrize(
    'error, status, words',
    [
        (MemoryError(), 1, ('not enough memory', 'smaller')),
        (ModuleNotFoundError("No module named 'folium'"), 1, ('folium', 'doctor')),
        (OSError(28, 'No space left on device'), 1, ('No space left',)),
        (PermissionError(13, 'Permission denied', 'a/b'), 1, ('a/b: Permission denied',)),
        (RuntimeError('first\nsecond'), 1, ('(first)', 'report it', '--debug')),
        (KeyError('width'), 1, ("('width')", 'report it')),
        (RuntimeError(), 1, ('no reason', 'report it')),
        (BadInput('x' * 10**5), 2, ('x ... x',)),
    ],
)
def test_every_error_is_one_sentence(run_cli, monkeypatch, error, status, words):
    def broken(*a):
        raise error

    monkeypatch.setattr(cli, 'run_ask', broken)
    got, out, err = run_cli('ask', 'a', 'b', 'c')
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
            for c in (
                'quickstart',
                'ask',
                'chat',
                'survey',
                'map',
                'serve',
                'mcp',
                'evaluate',
                'score',
                'presets',
                'doctor',
            )
        ),
    ],
)
def test_help_is_quick_and_imports_nothing_heavy(argv):
    run, seconds = process(*argv, code=LOADED)
    assert run.returncode == 0 and run.stderr.strip() == '' and seconds < 5, run.stderr
    assert 'earthgpt-lite' in run.stdout and ('--help' in argv) == ('examples:' in run.stdout)


def test_no_command_shows_the_help(run_cli):
    status, out, _ = run_cli()
    assert status == 2 and 'quickstart' in out and 'ask' in out


def test_a_real_process_gives_status_and_one_line(saved, tmp_path):
    run, _ = process('ask', saved, tmp_path / 'gone.tif', 'what?', '--device', 'cpu')
    assert run.returncode == 2 and run.stderr.count('\n') == 1 and 'gone.tif' in run.stderr and not run.stdout
    run, _ = process('--debug', 'ask', saved, tmp_path / 'gone.tif', 'what?', '--device', 'cpu')
    assert run.returncode != 0 and 'Traceback' in run.stderr


def test_a_question_without_quotes(capsys):
    "Its words stand where further images may stand; no model is opened to find that out."
    assert main(['ask', 'run', 'a.tif', 'what', 'is', 'it?']) == 2
    said = capsys.readouterr().err
    assert said == 'earthgpt-lite: what: no such image; a question of several words stands in quotes\n'
