"How much memory may be taken."

import psutil
import pytest

from earthgpt_lite.budget import memory_budget
from earthgpt_lite.errors import BadInput


def test_a_share_of_what_is_free(monkeypatch):
    monkeypatch.delenv('EARTHGPT_LITE_MEMORY', raising=False)
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: type('Memory', (), dict(available=10**10)))
    assert memory_budget() == 8 * 10**9


@pytest.mark.parametrize(
    'text, size',
    [
        ('1000', 1000),
        ('600M', 6e8),
        ('1.5 GB', 1.5e9),
        ('2GiB', 2**31),
        ('64k', 64e3),
        (' 1t ', 1e12),
        ('512B', 512),
    ],
)
def test_what_the_user_says(monkeypatch, text, size):
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', text)
    assert memory_budget() == size


@pytest.mark.parametrize('text', ['plenty', '-1', '0', '0 GB', '1 EB', 'nan', '1e9', '5 5'])
def test_what_says_nothing(monkeypatch, text):
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', text)
    with pytest.raises(BadInput, match='EARTHGPT_LITE_MEMORY is .*600M'):
        memory_budget()
