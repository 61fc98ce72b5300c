"One sentence for whoever hands over a bad file."

import pytest

from earthgpt_lite.errors import first_line


@pytest.mark.parametrize(
    'said, line', [('', 'ValueError'), ('\n \n', 'ValueError'), ('\nfirst.\nsecond', 'first'), ('one', 'one')]
)
def test_an_error_in_one_line(said, line):
    assert first_line(ValueError(said)) == line
