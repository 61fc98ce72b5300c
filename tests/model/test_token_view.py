"The view of tokens: every token has its kind and colour, and no text becomes part of the page."

import re

import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.packing import build_sequence
from earthgpt_lite.model.token_view import KINDS, draw_tokens, picture_numbers, print_tokens
from earthgpt_lite.model.token_view import token_colours, token_kinds, token_page
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


def test_each_picture_of_several_is_told_from_the_next(tokenizer, capsys):
    "Also where nothing is said between them; a single picture is as it was."
    turns = [Turn('is there any water?', 'yes')]
    row = lambda words: build_sequence(
        encode_turns(tokenizer, turns, ChatFormat()), ChatFormat().encode_pictures(tokenizer, words, 5, 4)
    )
    for words in (('', '', ''), ('is', 'the', 'lake')):
        ids = row(words)['input_ids']
        numbers = picture_numbers(ids, 5, 4)
        assert [numbers.count(k) for k in (1, 2, 3)] == [4, 4, 4] and max(numbers) == 3
        assert [n > 0 for n in numbers] == [i == 5 for i in ids]
        page = token_page(
            [Record(('a.png', 'b.png', 'c.png'), turns, words=words)], tokenizer, visual_tokens=4
        )
        for k in (1, 2, 3):
            assert f'× 4<small>5, picture {k}</small>' in page
        assert page.count('class="picture second"') == 1
        colours = [c for _, c in token_colours(row(words), tokenizer, None, 4)]
        assert colours.count(KINDS['picture']) == 8 and len(set(colours)) == 4
        prefix = len(ChatFormat().encode_pictures(tokenizer, words, 5, 4))
        print_tokens('x', row(words), prefix, tokenizer, 4)
        printed = capsys.readouterr().out
        assert [f'picture {k}' in printed for k in (1, 2, 3, 4)] == [True, True, True, False]
        assert printed.count('4 x <image>') == 3
    assert 'picture 1' not in token_page([Record('a.png', turns)], tokenizer, visual_tokens=4)
    print_tokens('x', row(('',)), 5, tokenizer, 4)
    assert 'picture   <begin> and 4 x <image>' in capsys.readouterr().out
