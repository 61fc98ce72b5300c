"The monitor: a log that is being written, what it says of it, and a panel that only looks."

import os
import threading
import time

import numpy as np
import pytest

from earthgpt_lite.app.monitor import Monitor, loss_curve, progress_text, read_log, running_mean
from earthgpt_lite.errors import BadInput


@pytest.fixture
def run(tmp_path):
    (tmp_path / 'log').mkdir()
    (tmp_path / 'log/metrics.csv').write_text('epoch,loss,step\n0,5.15,9\n,,\n0,4.66,19\n')
    return tmp_path


def test_a_line_counts_when_it_is_whole(run):
    path = run / 'log/metrics.csv'
    whole = path.read_text()
    for cut in range(len('epoch,loss,step\n'), len(whole) + 1):
        path.write_text(whole[:cut])
        steps, losses = read_log(run)
        assert len(steps) == whole[:cut].count(',9\n') + whole[:cut].count(',19\n') and set(losses) <= {
            5.15,
            4.66,
        }
    path.write_text('')
    assert len(read_log(run)[0]) == 0 and len(read_log(path)[1]) == 0


def test_a_resumed_run_goes_on_from_its_checkpoint(run):
    (run / 'log-from-10').mkdir()
    (run / 'log-from-10/metrics.csv').write_text('loss,step\n4.0,19\n3.5,29\n')
    os.utime(run / 'log/metrics.csv', (1, 1))
    assert [a.tolist() for a in read_log(run)] == [[9, 19, 29], [5.15, 4, 3.5]]


def test_what_was_lost_before_a_resume_does_not_count(run):
    # killed at 40, the last checkpoint was at 20
    (run / 'log/metrics.csv').write_text('loss,step\n5,9\n4,19\n3,29\n2,39\n')
    os.utime(run / 'log/metrics.csv', (2, 2))
    # of an older run in this folder
    (run / 'log-from-40').mkdir()
    (run / 'log-from-40/metrics.csv').write_text('loss,step\n1,49\n')
    os.utime(run / 'log-from-40/metrics.csv', (1, 1))
    monitor = Monitor(run, total=100)
    monitor.look()
    assert monitor.observations[-1][1] == 39
    (run / 'log-from-20').mkdir()
    (run / 'log-from-20/metrics.csv').write_text('loss,step\n3.1,29\n')
    assert [a.tolist() for a in read_log(run)] == [[9, 19, 29], [5, 4, 3.1]]
    monitor.look()
    assert monitor.status.value == 'step 29 of 100'


def test_what_is_no_log(tmp_path):
    (tmp_path / 'a.csv').write_text('lat,lon\n1,2\n')
    for path, words in [
        (tmp_path, 'no log yet'),
        (tmp_path / 'none', 'no log yet'),
        (tmp_path / 'a.csv', 'columns'),
    ]:
        with pytest.raises(BadInput, match=words):
            read_log(path)


def test_a_mean_of_what_is_constant_is_that():
    assert np.allclose(running_mean(np.full(50, 3.0)), 3) and len(running_mean([])) == 0
    assert running_mean([0, 10.0], 0.5)[1] == pytest.approx((0.5 * 0 * 0.5 + 0.5 * 10) / 0.75)


def test_it_says_only_what_it_knows():
    assert (
        progress_text([]) == 'no step yet'
        and progress_text([(0, 5)]) == 'step 5'
        and progress_text([(0, 5), (9, 5)], 10) == 'step 5 of 10'
    )
    assert progress_text([(0, 0), (10, 20)], 140) == 'step 20 of 140, 2.00 steps a second, 1.0 minutes left'
    assert '0.0 minutes left' in progress_text([(0, 0), (10, 200)], 140)


def test_curves():
    assert all(loss_curve(*x)[:4] == b'\x89PNG' for x in (([], []), ([1], [2.0]), ([1, 2], [2.0, np.nan])))


def test_it_looks_until_it_is_stopped(run):
    before = threading.active_count()
    monitor = Monitor(run, total=100, interval=0.05, patience=0.2).start()
    with pytest.raises(BadInput, match='looks already'):
        monitor.start()
    with open(run / 'log/metrics.csv', 'a') as f:
        f.write('0,3.0,29\n')
    for _ in range(400):
        if 'nothing new' in monitor.status.value and 'step 29' in monitor.status.value:
            break
        time.sleep(0.05)
    assert (
        'step 29 of 100' in monitor.status.value
        and 'nothing new' in monitor.status.value
        and bytes(monitor.picture.value)[:4] == b'\x89PNG'
    )
    monitor.button.click()
    monitor.worker.wait(5)
    assert not monitor.worker.busy and threading.active_count() <= before


def test_a_missing_log_is_a_sentence_and_text_is_text(tmp_path):
    (tmp_path / '<b>x').mkdir()
    monitor = Monitor(tmp_path / '<b>x')
    monitor.look()
    assert 'no log yet' in monitor.message.value and '<b>' not in monitor.message.value
    (tmp_path / '<b>x/log').mkdir()
    (tmp_path / '<b>x/log/metrics.csv').write_text('step,loss\n1,2\n')
    monitor.look()
    assert monitor.message.value == '' and monitor.status.value == 'step 1'
    (tmp_path / '<b>x/log/metrics.csv').write_text('step,loss\n1,2\n2,nan\n')
    monitor.look()
    assert 'not a number' in monitor.status.value
