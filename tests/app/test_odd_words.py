"Absurd words for every option of every command, what strangers' names do to a terminal, and streams that are closed."

import argparse
import io
import json
import os
import re
import subprocess
import sys

import pytest
from fixtures_app import run_cli, tif  # noqa: F401

from earthgpt_lite.app import cli
from earthgpt_lite.app.cli import make_parser
from earthgpt_lite.errors import BadInput
from earthgpt_lite.train.run_file import known_keys
from earthgpt_lite.texts import OutputClosed, safe_streams

LONG = 'x' * 3000
ODD = [
    '',
    '-1',
    '0',
    'nan',
    'inf',
    '1e400',
    '99999999999999999999',
    'x',
    '\x00',
    LONG,
    '٣',
    '9' * 5000,
    '\udcff',
]
CLASS_NAME = re.compile(r'\b[A-Z]\w*(Error|Exception|Warning)\b|Traceback')
WORDS = dict(
    READER='table',
    out='out.json',
    MODEL='no-such-folder/m',
    SCENE='gone.tif',
    IMAGE='gone.tif',
    FILE='gone.json',
)


def commands(parser=None, name=()):
    "Every command with its parser, down to the last"
    parser = parser or make_parser()
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for group in groups:
        for word, inner in group.choices.items():
            yield from commands(inner, (*name, word))


def cases():
    "Command lines of which one word is odd, for all options and all positions"
    for name, parser in commands():
        for action in parser._actions:
            if action.nargs != 0:
                yield from ([*name, *with_odd(parser, action, odd)] for odd in ODD)


def with_odd(parser, odd_action, odd):
    "The words without which a command is not understood, and the odd one"
    words = []
    for action in parser._actions:
        option = action.option_strings[:1]
        if action is odd_action:
            words.append(f'{option[0]}={odd}' if option else odd)
        elif action.required:
            words += option + [WORDS.get(action.metavar or action.dest, 'gone')]
    return words


def is_told(status, out, err):
    "Whether a command went well, or said one sentence that no programmer is needed for"
    last = err.splitlines()[-1] if err else ''  # before it may stand what was begun
    told = last.startswith('earthgpt-lite') and err.endswith('\n') and err.count('earthgpt-lite: ') < 2
    told = told or status == 1 and out.endswith(' with faults.\n')  # the table of a room
    return not CLASS_NAME.search(err) and (status == 0 or status in (1, 2) and told)


def refuse(reason):
    raise BadInput(reason)


def test_absurd_words_for_every_option_are_one_sentence(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('run_quickstart', 'run_doctor', 'run_presets'):
        monkeypatch.setattr(cli, name, lambda args: 0)
    monkeypatch.setattr('earthgpt_lite.course.room.check_machine', lambda *args: refuse('it takes a minute'))
    seen, bad = set(), []
    for words in cases():
        answer = run_cli(*words)
        seen.add(words[0])
        if not is_told(*answer):
            bad.append((words[:8], answer))
    assert len(seen) >= 9
    assert not bad, f'{len(bad)}: {[str(case)[:300] for case in bad]}'


@pytest.fixture
def real(saved, tif, tmp_path, monkeypatch):
    "What each word of a command line may be, so that the command does its work"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.stdin', io.StringIO('what?\n'))
    (tmp_path / 'pics').mkdir()
    os.link(tif, tmp_path / 'pics' / 'a.tif')
    (tmp_path / 'pics' / 'boxes.csv').write_text('image,label\na.tif,water\n', encoding='utf-8')
    turns = [{'from': 'human', 'value': 'what?'}, {'from': 'gpt', 'value': 'water'}]
    row = json.dumps({'image': 'a.tif', 'conversations': turns})
    (tmp_path / 'pics' / 'a.jsonl').write_text(row, encoding='utf-8')
    answer = json.dumps({'image': 'a.tif', 'question': 'what?', 'answer': 'water'})
    (tmp_path / 'pics' / 'b.jsonl').write_text(answer, encoding='utf-8')
    words = dict(
        READER='table', SRC='pics', DST='made', MODEL=str(saved), SCENE=tif, IMAGE=tif, QUESTION='what?'
    )
    return words | dict(
        FILE='pics/a.jsonl', TRUTH='pics/a.jsonl', PREDICTIONS='pics/b.jsonl', DATA='pics/a.jsonl'
    )


MORE = dict(
    survey=['--ask=what?', '--device=cpu', '--force'],
    ask=['--device=cpu'],
    chat=['--device=cpu'],
    map=['--force'],
)


QUICK = ['ask', 'chat', 'score', 'data convert', 'data check', 'data show', 'data tokens', 'data list']
WORK = [*QUICK, *(pytest.param(name, marks=pytest.mark.rare) for name in ('survey', 'map'))]


@pytest.mark.parametrize('name', WORK)
def test_absurd_words_beside_files_that_are_there(real, run_cli, monkeypatch, name):
    for key, value in real.items():
        monkeypatch.setitem(WORDS, key, value)
    mine, bad, well = [words for words in cases() if ' '.join(words).startswith(f'{name} ')], [], 0
    for words in mine:
        if any(word.startswith('--processes') for word in words):
            continue
        run = [*words, *MORE.get(name, [])]
        answer = run_cli(*run)
        well += answer[0] == 0
        if not is_told(*answer):
            bad.append((words[:8], answer))
    assert well, 'no case did its work'
    assert not bad, f'{len(bad)}: {[str(case)[:300] for case in bad]}'


def test_absurd_words_for_every_choice_of_a_training(run_cli, monkeypatch):
    import earthgpt_lite.train.run as module

    def reached(*args, **options):
        raise BadInput('the data are read')

    monkeypatch.setattr(module, 'open_examples', reached)
    monkeypatch.setattr(module, '_check_folder', lambda *args: None)
    bad, number = [], 0
    for key in known_keys():
        for odd in ODD:
            minutes = [] if key == 'minutes' else ['--minutes=1'] if key != 'steps' else []
            answer = run_cli('train', f'--{key}={odd}', *minutes)
            number += 1
            if not is_told(*answer):
                bad.append((key, odd[:20], answer))
    assert number > 300
    assert not bad, f'{len(bad)}: {[str(case)[:300] for case in bad]}'


@pytest.mark.parametrize(
    'words',
    [
        'seed=-1', 'seed=99999999999999999999', 'devices=0', 'devices=-3', 'nodes=0', 'stage.rank=0', 'batch_size=0', 'batch_size=1000000000',
        'stage.lr=nan', 'stage.lr=inf', 'stage.lr=-1', 'stage.weight_decay=nan', 'sequence_length=0', 'accumulate=-1',
        'checkpoint_every=0', 'minutes=nan', 'stage.rates={vit: .nan}',
        'sampling_weights={optical: .nan}', 'validate_every=0', 'patience=-1', 'workers=-1', 'max_unreadable=1.5',
    ],
)  # fmt: skip
def test_a_number_beyond_its_limits_is_named_before_anything_is_read(words, monkeypatch):
    import earthgpt_lite.train.run as module

    monkeypatch.setattr(module, 'open_examples', None)  # never reached
    key = words.partition('=')[0]
    length = [] if key == 'minutes' else ['--minutes=1']
    with pytest.raises(BadInput, match=re.escape(key)):
        module.train_command(['--stage.name=lora', f'--{words}', *length])


EVIL = 'a\x1b[2J\x1b]0;owned\x07\u202egpj\nearthgpt-lite: all is well'
STEERING = re.compile('[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]')


def evil_folder(tmp_path):
    turns = [{'from': 'human', 'value': EVIL}, {'from': 'gpt', 'value': EVIL}]
    rows = [
        {'image': f'{EVIL}.tif', 'conversations': turns},
        {'image': 'a.tif', 'conversations': turns, EVIL: 1},
    ]
    (tmp_path / 'evil.json').write_text(json.dumps(rows), encoding='utf-8')
    answers = [{'image': f'{EVIL}.tif', 'question': EVIL, 'answer': f'<p>{EVIL}</p>[0,0,1,1]'}]
    (tmp_path / 'answers.json').write_text(json.dumps(answers), encoding='utf-8')
    (tmp_path / EVIL).mkdir()
    (tmp_path / 'run.yaml').write_text(f'{json.dumps(EVIL)}: 1\n', encoding='utf-8')


@pytest.mark.parametrize(
    'words',
    [
        ('data', 'check', 'evil.json'),
        ('data', 'check', EVIL),
        ('data', 'tokens', 'evil.json'),
        ('data', 'tokens', 'evil.json', '--record', '1'),
        ('data', 'list', EVIL),
        ('data', 'convert', EVIL, '.', 'out'),
        ('data', 'convert', 'table', EVIL, 'out'),
        ('data', EVIL),
        (EVIL,),
        ('ask', 'nano', EVIL, 'what?'),
        ('score', 'answers.json', 'evil.json'),
        ('train', '--config', 'run.yaml', '--steps', '1'),
        ('train', '--config', EVIL, '--steps', '1'),
        ('presets', EVIL),
    ],
)
def test_nothing_that_strangers_wrote_steers_the_terminal(run_cli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    evil_folder(tmp_path)
    _, out, err = run_cli(*words)
    assert out + err and not STEERING.search(out + err), (out, err)
    assert 'x1b' in out + err and '\nearthgpt-lite: all is well' not in err, (out, err)


def test_a_model_that_writes_escapes_is_spelled_out(saved, tif, run_cli, monkeypatch):
    from earthgpt_lite.app.answers import Answer
    from earthgpt_lite.app.assistant import Assistant, Chat
    from earthgpt_lite.raster.sources import as_chip

    def evil(self, chip, *args, **kwargs):
        return Answer(f'{EVIL} <p>{EVIL}</p>[0.1,0.1,0.5,0.5]', 0.0, 'what?', as_chip(tif))

    monkeypatch.setattr(Assistant, 'ask', evil)
    _, out, err = run_cli('ask', saved, tif, 'what?')
    assert 'x1b[2J' in out and not STEERING.search(out + err)
    assert (
        out.count('\nearthgpt-lite: all is well') == 2
    )  # of the answer, which may have lines; not of the name


def test_colours_of_our_own_reach_a_terminal(real, run_cli, monkeypatch):
    from earthgpt_lite.texts import SafeStream

    monkeypatch.setattr(SafeStream, 'isatty', lambda self: True)
    monkeypatch.delenv('NO_COLOR', raising=False)
    turns = [{'from': 'human', 'value': 'what\u202e\x1bc?'}, {'from': 'gpt', 'value': 'water'}]
    with open('pics/c.json', 'w', encoding='utf-8') as f:
        json.dump([{'image': 'a.tif', 'conversations': turns}], f)
    status, out, _ = run_cli('data', 'tokens', 'pics/c.json')
    assert status == 0 and '\x1b[30;4' in out and '\x1bc' not in out and '\u202e' not in out


def test_who_keeps_a_stream_of_a_command_that_has_ended_ends_nothing(monkeypatch):
    "A bar of progress that is left over writes when it is collected, and its stream may be closed by then."
    out = io.StringIO()
    monkeypatch.setattr('sys.stdout', out)
    with safe_streams():
        kept = sys.stdout
    out.close()
    assert kept.write('late') == 4
    with pytest.raises(OutputClosed), safe_streams():
        print('in time')


def test_a_line_that_is_no_text_is_one_sentence_and_the_talk_goes_on(saved, tif, run_cli, monkeypatch):
    lines = b'what is this?\nwhat\xff is this?\nwhat is this?\n'
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(lines), encoding='ascii'))
    status, out, err = run_cli('chat', saved, tif, '--device', 'cpu', '--no-memory')
    assert status == 1 and err.count('\n') == 1 and 'UTF-8' in err and len(out.splitlines()) >= 2, (out, err)


def test_no_standard_input_is_an_empty_talk(saved, tif, run_cli, monkeypatch):
    monkeypatch.setattr('sys.stdin', None)
    assert run_cli('chat', saved, tif, '--device', 'cpu') == (0, '', '')


RUN = [sys.executable, '-c', 'from earthgpt_lite.app.cli import run; run()']


def shell(line, **environment):
    "A line of a shell, in which RUN is the command"
    if os.name != 'posix':
        pytest.skip('closed streams are told in the words of a POSIX shell')
    import shlex

    line = f'set -o pipefail; {line.replace("RUN", shlex.join(RUN))}'
    done = subprocess.run(
        ['bash', '-c', line], capture_output=True, env=os.environ | environment, timeout=120
    )
    return done.returncode, done.stdout.decode('utf-8', 'replace'), done.stderr.decode('utf-8', 'replace')


@pytest.mark.unix
@pytest.mark.parametrize(
    'line, status, said',
    [
        ('RUN data list | head -1', 0, ''),
        ('RUN data list >&-', 0, ''),
        ('RUN --help >&-', 0, ''),
        ('RUN data list 2>&-', 0, ''),
        ('RUN data list <&-', 0, ''),
        ('RUN data list no-such-word 2>&-', 2, ''),
        ('RUN data list no-such-word 2>/dev/full', 2, ''),
        (
            'RUN data list >/dev/full',
            1,
            'earthgpt-lite: standard output cannot be written: No space left on device\n',
        ),
        (
            'RUN --help >/dev/full',
            1,
            'earthgpt-lite: standard output cannot be written: No space left on device\n',
        ),
        ('RUN data list <&- >&- 2>&-', 0, ''),
    ],
)
def test_streams_that_are_closed_or_full_end_quietly_or_with_a_sentence(line, status, said):
    got, out, err = shell(line)
    assert (got, err) == (status, said), out[:200]


@pytest.mark.unix
@pytest.mark.parametrize(
    'variables', [dict(PYTHONIOENCODING='ascii'), dict(LC_ALL='C', PYTHONCOERCECLOCALE='0', PYTHONUTF8='0')]
)
def test_a_terminal_of_few_letters_gets_what_it_can_show(variables):
    status, out, err = shell("RUN data list; RUN data list $'no\\xff\u00ef'", **variables)
    assert status == 2 and len(out) > 1000 and out.isascii()
    assert err.startswith('earthgpt-lite: no reader has') and err.count('\n') == 1 and err.isascii()


@pytest.mark.unix
def test_a_traceback_that_was_asked_for_steers_nothing():
    status, _, err = shell("RUN --debug data list $'a\\x1b[2J'")
    assert status == 1 and 'Traceback' in err and '\x1b' not in err
