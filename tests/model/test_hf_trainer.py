"transformers' own Trainer: rounds that are accumulated are one step, whatever each of them holds."

import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer

from earthgpt_lite.model.packing import build_sequence, collate
from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, IGNORE, encode_turns

pytest.importorskip('accelerate')


def trained(tok, folder, batch_size, rounds, weight):
    "(loss of each step, weights) after three steps on the same twelve pictures"
    from transformers import Trainer, TrainingArguments

    model = small(tok, coordinate_loss_weight=weight)
    prefix, chat = picture_prefix(model.config, tok), ChatFormat(**model.config.chat)

    def batch(rows):
        sequences = [build_sequence(encode_turns(tok, e.turns, chat), prefix) for e in rows]
        return vars(collate(sequences, torch.stack([to_pixel_values(e.image) for e in rows]), 0))

    options = TrainingArguments(
        str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=rounds,
        max_steps=3,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy='no',
        report_to=[],
        remove_unused_columns=False,
        train_sampling_strategy='sequential',
        disable_tqdm=True,
        use_cpu=True,
    )
    data = [e for e in examples(12)]
    assert len({(batch([e])['labels'] != IGNORE).sum().item() for e in data}) > 2, 'rows of unequal counts'
    trainer = Trainer(model, options, train_dataset=data, data_collator=batch)
    trainer.train()
    losses = [entry['loss'] for entry in trainer.state.log_history if 'loss' in entry]
    return losses, model.state_dict()


@pytest.mark.parametrize('weight', [0, 60])  # of the distance between coordinates
def test_accumulated_rounds_are_one_step(tmp_path, weight):
    tok = make_tokenizer()
    whole, weights = trained(tok, tmp_path, 4, 1, weight)
    rounds, again = trained(tok, tmp_path, 1, 4, weight)
    assert len(whole) == 3 and rounds == pytest.approx(whole, rel=1e-5)
    for name, w in weights.items():
        assert torch.allclose(again[name].float(), w.float(), atol=1e-5), name
