"The view of tokens: every token has its kind and colour, and no text becomes part of the page."

import re

import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.packing import build_sequence
from earthgpt_lite.model.token_view import KINDS, draw_tokens, token_colours, token_kinds, token_page
from earthgpt_lite.model.tokens import ChatFormat, encode_turns, train_tokenizer

words = st.text(st.characters(exclude_categories=['Cs']), max_size=60)


@pytest.fixture(scope='module')
def tokenizer():
    return train_tokenizer(
        [' is there any water in this image?', ' yes', ' where is the lake?', ' [0.10,0.20,0.30,0.40]'] * 9
    )


def test_what_each_token_is(tokenizer):
    row = build_sequence(
        encode_turns(tokenizer, [Turn('is there any water?', 'yes')], ChatFormat()), [1, 5, 5]
    )
    kinds = [kind for _, kind in token_kinds(row, tokenizer, len(row['labels']) + 2)]
    assert (
        kinds
        == ['prompt', 'picture', 'picture']
        + ['prompt'] * (len(row['labels']) - 5)
        + ['answer'] * 2
        + ['padding'] * 2
    )
    assert [c for _, c in token_colours(row, tokenizer)] == [KINDS[k] for k in kinds[:-2]]
    figure = draw_tokens(token_colours(row, tokenizer, 40))
    assert len(figure.axes[0].texts) == 40


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                ['<b>', '"', "'", '&lt;', '<script>alert(1)</script>', '</span>', '<image>', '\n']
            ),
            words,
        ),
        min_size=1,
        max_size=5,
    )
    .map(''.join)
    .filter(str.strip)
)
@settings(max_examples=100)
def test_no_text_becomes_part_of_the_page(tokenizer, text):
    sample = type('Sample', (), dict(name=text, turns=[Turn(text, text)]))
    page = token_page([sample], tokenizer, visual_tokens=4)
    assert {tag.strip('</').split()[0].rstrip('>') for tag in re.findall(r'<[^>]*>', page)} <= {
        '!doctype',
        'meta',
        'title',
        'style',
        'p',
        'span',
        'h2',
        'div',
        'small',
    }
    assert (
        page.count('class="answer" title') == len(ChatFormat().encode_answer(tokenizer, text))
        and '× 4<small>5' in page
    )


def test_the_page_is_written_whole(tokenizer, tmp_path):
    samples = [
        Record('data/a.png', [Turn('is there any water?', 'yes')]),
        Record('data/b.png', [Turn('where?', '[0.10,0.20,0.30,0.40]'), Turn('what?', 'a')]),
    ]
    page = token_page(samples, tokenizer, path=tmp_path / 'new/tokens.html')
    assert (tmp_path / 'new/tokens.html').read_text(encoding='utf-8') == page and [
        p.name for p in (tmp_path / 'new').iterdir()
    ] == ['tokens.html']
    assert (
        'data/a.png' in page
        and 'class="padding" title' in page
        and 'src=' not in page
        and '<script' not in page
    )
    with pytest.raises(BadInput, match='data/c.png'):
        token_page([Record('data/c.png', [Turn('what?', '')])], tokenizer, path=tmp_path / 'never.html')
    assert not (tmp_path / 'never.html').exists()
