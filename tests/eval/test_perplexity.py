"What a language model forgets, and lite-offline in EarthGPT's order."

import json
import math
from pathlib import Path

import pytest
import torch

from earthgpt_lite.data.sample.world_map import COVERS
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.perplexity import PLAIN, perplexity
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.adapters import add_bias, added_adapters, merge_adapter
from earthgpt_lite.train.run import train_command
from earthgpt_lite.train.run_file import find_run, read_run
from fixtures_training import small, tokenizer as make_tokenizer

TEXT = 'the water is not the forest, and the forest is not the sand.'


@pytest.fixture(scope='module')
def pair():
    tok = make_tokenizer()
    return small(tok).eval(), tok


def test_perplexity_is_exp_of_the_loss_that_transformers_gives(pair):
    model, tok = pair
    ids = tok(TEXT, add_special_tokens=False, return_tensors='pt').input_ids
    assert math.isclose(
        perplexity(model, tok, TEXT),
        model.language(input_ids=ids, labels=ids).loss.exp().item(),
        rel_tol=1e-5,
    )


def test_a_model_that_knows_nothing_chooses_among_all_words(pair):
    tok = pair[1]
    model = small(tok).eval()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    assert math.isclose(perplexity(model, tok, TEXT), model.config.text_config.vocab_size, rel_tol=1e-5)


def test_scale_and_bias_leave_it_until_they_learn(pair):
    tok = pair[1]
    model = small(tok).eval()
    before = perplexity(model, tok, TEXT)
    add_bias(model)
    assert perplexity(model, tok, TEXT) == before
    for n, p in model.named_parameters():
        if n.endswith('tune_bias'):
            torch.nn.init.constant_(p, 0.5)
    shaken = perplexity(model, tok, TEXT)
    assert shaken != before
    merge_adapter(model)
    assert math.isclose(perplexity(model, tok, TEXT), shaken, rel_tol=1e-4)


def test_texts_without_a_next_token_or_too_long_are_refused(pair):
    model, tok = pair
    with pytest.raises(BadInput, match="'' is too short"):
        perplexity(model, tok, '')
    with pytest.raises(
        BadInput, match=f'the language model reads {model.config.text_config.max_position_embeddings}'
    ):
        perplexity(model, tok, 'water ' * (model.config.text_config.max_position_embeddings + 1))


def test_the_plain_text_says_nothing_of_what_is_trained():
    words = PLAIN.lower().replace('.', ' ').replace(',', ' ').split()
    assert len(words) > 200 and not {*COVERS, 'image', 'picture', 'yes', 'no'} & set(words)


def test_the_two_recipes_follow_one_another_on_a_saved_model(pair, few, tmp_path, monkeypatch):
    import earthgpt_lite.data.sample.trees as trees

    monkeypatch.setattr(trees, 'sample_examples', lambda split: few[split])
    from earthgpt_lite.app.quickstart import make_tokenizer as of_examples

    tok = of_examples(few['train'])
    save(small(tok, image_size=64), tok, tmp_path / 'begin')
    monkeypatch.chdir(tmp_path)
    quick = ['--steps', '2', '--device', 'cpu', '--precision', '32-true', '--progress', 'false']
    assert train_command(['--config', 'lite-offline-align', '--model', 'begin', *quick]) == 0
    # its model is what the first has made
    assert train_command(['--config', 'lite-offline-tune', *quick]) == 0
    first, second = (load(f'runs/lite-offline-{s}', 'cpu')[0] for s in ('align', 'tune'))
    assert not added_adapters(second), (
        'the scale and bias are folded in, so that every command reads the model'
    )
    assert torch.equal(first.projector.map.weight, second.projector.map.weight) and not torch.equal(
        first.language.model.layers[0].self_attn.q_proj.weight,
        second.language.model.layers[0].self_attn.q_proj.weight,
    )


def test_recipes_train_what_the_stages_of_the_paper_train():
    align, tune = (read_run(find_run(f'lite-offline-{s}')) for s in ('align', 'tune'))
    assert (
        align['model'] == 'lite-offline'
        and tune['model'] == align['out']
        and align['stage']['name'] == 'align'
        and tune['stage']['name'] == 'tune'
    )
    assert not {'norms', 'projector'} & set(tune['stage'])
    assert align['stage']['rates']['attention'] < align['stage']['lr'] / 5, (
        'a large rate there costs the language model its language'
    )


def test_the_stored_run_is_of_these_recipes():
    kept = json.loads((Path(__file__).parents[2] / 'earthgpt_lite/assets/results/lite.json').read_text())
    for s in kept['stages']:
        recipe = read_run(find_run(s['name']))
        assert (s['steps'], s['batch_size'], s['stage']['lr'], s['stage']['rates']) == (
            recipe['steps'],
            recipe['batch_size'],
            recipe['stage']['lr'],
            recipe['stage'].get('rates'),
        ), f'{s["name"]} has changed: run benchmarks/lite.py again'
    assert kept['threads'] == 2 and sum(s['seconds'] for s in kept['stages']) < 15 * 60
    last = kept['stages'][-1]
    assert last['perplexity'] < 1.1 * kept['untouched']
    rows = {r['task']: r for r in last['results']}
    ahead = {task: r['score'] - max(r['prior'], r['shuffled'], r['blind']) for task, r in rows.items()}
    assert rows['classification']['n'] > 100 and ahead['classification'] > 0.15
    assert rows['presence']['n'] > 300 and ahead['presence'] > 0.15
