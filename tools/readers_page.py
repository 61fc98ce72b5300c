"""Writes docs/mmrs1m.md, the page of readers, from the table in the package: python tools/readers_page.py"""

import sys
from pathlib import Path

from earthgpt_lite.data.registry import mmrs1m_table, readers_table

sys.path.insert(0, str(Path(__file__).parent))

PAGE = """# The 34 data sets of MMRS-1M, and all our readers

MMRS-1M (EarthGPT, 2024) draws on 34 public data sets: 1,005,842 pairs of question and answer in six tasks
and three sensors. The names are from issue 8 of the list VisionXLab/Awesome-RS-VL-Data; the numbers of
pairs from a survey whose sum we checked. Two things stay open: that list names RSVQA-LR while the release
has a folder `rsvqa_high`, and one source counts five infrared sets where the list has six.

Each row says how far its layout can be trusted. *Checked against a file of the provider or of another
project*: what the reader makes of such a file was compared, picture by picture and box by box, with a second
parser. That file was an excerpt or a small test file, not the whole data set. *Layout documented*: the
authors, or another project's loader, say what lies where. Where neither confirmed it to us, the row says
**unverified**. Every reader is tested on a fixture that we wrote in that layout.

{mmrs}
The release itself, as it is downloaded, is read by `mmrs1m`.

{recipes}
## All readers

`earthgpt-lite data convert READER SRC DST` makes records of any of these. Sizes are as their authors
published them, not counted by us. A licence is named only where we know it: look at the source before you
share anything made from it.

{readers}
*This page is written by `tools/readers_page.py`.*
"""


def page() -> str:
    "The whole page."
    from recipes_page import page_part

    return PAGE.format(mmrs=mmrs1m_table(), recipes=page_part(), readers=readers_table())


if __name__ == '__main__':
    path = Path(__file__).parent.parent / 'docs/mmrs1m.md'
    path.write_text(page(), encoding='utf-8')
    print(path)
