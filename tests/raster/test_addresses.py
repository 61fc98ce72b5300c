"What a stranger's address leads to is looked at first, and no host keeps a reader."

import socket
import threading
import time
from urllib.request import Request

import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import addresses
from earthgpt_lite.raster.addresses import check_address, fetch, public_only
from earthgpt_lite.raster.opening import open_raster
from earthgpt_lite.raster.sources import read_stac

OWN = ['127.0.0.1', '2130706433', '0x7f.1', '10.1.2.3', '169.254.169.254', '[::1]', '[::ffff:10.0.0.1]', '0']
NO_HOSTS = ['', 'user@8.8.8.8', '%31', '8.8.8.8\\@127.0.0.1', 'a\n', '8.8.8.8:1:2']


@pytest.mark.parametrize('host', OWN + NO_HOSTS)
def test_hosts_that_no_stranger_may_name(host):
    with public_only(), pytest.raises(BadInput, match='its network|no plain name'):
        check_address(f'http://{host}/a.tif')
    check_address(f'http://{host}/a.tif')  # who asks for himself may


def test_hosts_of_the_open_internet():
    with public_only():
        for host in ('8.8.8.8', '[2001:4860:4860::8888]:443'):
            check_address(f'https://{host}/a.tif?b=c')


def test_every_way_looks_first():
    item = dict(assets=dict(red=dict(href='http://127.0.0.1:9/B04.tif', type='image/tiff')))
    ways = [
        lambda: read_stac('http://127.0.0.1:9/item.json'),
        lambda: read_stac(item, ['red']),
        lambda: open_raster('http://127.0.0.1:9/a.tif'),
        lambda: addresses._Redirect().redirect_request(
            Request('https://8.8.8.8'), None, 302, 'Found', {}, 'http://[::1]/'
        ),
    ]
    for way in ways:
        with public_only(), pytest.raises(BadInput, match='leads to this machine or its network'):
            way()


@pytest.mark.parametrize('start', [b'HTTP/1.1 200 OK\r\nX: ', b'HTTP/1.1 200 OK\r\n\r\n{"a": "'])
def test_a_host_that_sends_a_byte_now_and_then_keeps_no_reader(start, monkeypatch):
    monkeypatch.setattr(addresses, '_SECONDS', 0.5)
    over = threading.Event()

    def drip():
        with listener.accept()[0] as line:
            line.sendall(start)
            while not over.wait(0.1):
                line.sendall(b'a')

    with socket.create_server(('127.0.0.1', 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        began, url = time.monotonic(), f'http://127.0.0.1:{listener.getsockname()[1]}/item.json'
        with pytest.raises(BadInput, match='no STAC item can be read there'):
            read_stac(url)
        assert time.monotonic() - began < 10
        over.set()
        thread.join()


def test_only_so_many_are_asked_at_once(monkeypatch):
    monkeypatch.setattr(addresses, '_AT_ONCE', threading.BoundedSemaphore(1))
    with addresses._AT_ONCE, pytest.raises(TimeoutError):
        fetch('http://127.0.0.1:9/a', 10)
