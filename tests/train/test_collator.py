"Other loops learn what `fit` learns: transformers' Trainer and TRL's SFTTrainer, on the same batches."

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_training import Several, examples, small, tokenizer as make_tokenizer, tuples

from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.processor import EarthGPTProcessor
from earthgpt_lite.model.tokens import IGNORE
from earthgpt_lite.train.collator import ExampleCollator, conversations
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.optimizers import OptimizerOptions, ScheduleOptions
from earthgpt_lite.train.stages import STAGES, prepare_stage

pytest.importorskip('accelerate')
STAGE, STEPS, SIZE = STAGES['scratch'], 3, 8


def fresh():
    "(nano or smaller, tokenizer), the same each time"
    tok = make_tokenizer()
    return small(tok), tok


def packaged():
    return load('nano', 'cpu')


def fitted(made, data, folder, rounds=1, weight=0):
    "(loss of each step, weights) as our own loop has them"
    model, tok = made()
    model.config.coordinate_loss_weight = weight
    options = dict(steps=STEPS, batch_size=SIZE, accumulate=rounds, augment=False, precision='32-true')
    quiet = dict(device='cpu', progress=False, workers=0, say=lambda text: None)
    done = fit(model, tok, data, folder, STAGE, **options, **quiet)
    return [loss for _, loss in done['losses']], model.state_dict()


def in_order(made, data, rounds):
    "The examples as `fit` takes them: step by step, part by part"
    model, tok = made()
    batches = InstructionBatches(data, tok, model.config, SIZE, augment=False)
    found = []
    for step in range(STEPS):
        chosen = batches.indices(step)
        found += [data[i] for shard in range(rounds) for i in chosen[shard::rounds]]
    return found


def stepped(model):
    "Optimiser and schedule of `fit`"
    prepare_stage(model, STAGE)
    optimizer = OptimizerOptions().build(STAGE.param_groups(model), STAGE.lr)
    factor = ScheduleOptions().factor(STAGE.lr)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, STEPS))


HOW = dict(
    max_steps=STEPS,
    max_grad_norm=1.0,
    logging_steps=1,
    save_strategy='no',
    report_to=[],
    train_sampling_strategy='sequential',
    disable_tqdm=True,
    use_cpu=True,
)


def losses_of(trainer):
    trainer.train()
    return [entry['loss'] for entry in trainer.state.log_history if 'loss' in entry]


def close(weights, wanted):
    return all(torch.allclose(weights[name].float(), w.float(), atol=2e-5) for name, w in wanted.items())


@pytest.mark.parametrize('weight', [0, 60], ids=['words', 'coordinates'])  # of the distance
@pytest.mark.parametrize('rounds', [1, 2, 4])
def test_trainer_has_the_losses_of_fit(tmp_path, rounds, weight):
    from transformers import Trainer, TrainingArguments

    data = examples(30)
    wanted, weights = fitted(fresh, data, tmp_path / 'ours', rounds, weight)
    model, tok = fresh()
    model.config.coordinate_loss_weight = weight
    sizes = dict(per_device_train_batch_size=SIZE // rounds, gradient_accumulation_steps=rounds)
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path / 'theirs'), **sizes, **HOW),
        data_collator=ExampleCollator(tok, model.config),
        train_dataset=in_order(fresh, data, rounds),
        optimizers=stepped(model),
    )
    found = losses_of(trainer)
    assert len(found) == STEPS and found == pytest.approx(wanted, rel=1e-5)
    assert len({round(loss, 4) for loss in found}) == STEPS and close(model.state_dict(), weights)


@pytest.mark.slow
def test_the_packaged_nano_as_well(tmp_path):
    from transformers import Trainer, TrainingArguments

    from earthgpt_lite.data.sample.world_map import global_examples

    data = global_examples('train', 40)
    wanted, _ = fitted(packaged, data, tmp_path / 'ours', 2, 60)
    model, tok = packaged()
    sizes = dict(per_device_train_batch_size=SIZE // 2, gradient_accumulation_steps=2)
    trainer = Trainer(
        model,
        TrainingArguments(str(tmp_path / 'theirs'), **sizes, **HOW),
        data_collator=ExampleCollator(tok, model.config),
        train_dataset=in_order(packaged, data, 2),
        optimizers=stepped(model),
    )
    assert losses_of(trainer) == pytest.approx(wanted, rel=1e-5)


def one_turn(data):
    return [replace(e, turns=e.turns[-1:]) for e in data]


def dialogues(data):
    "Two turns that go together"
    told = [Turn(t.question, t.answer, Task.DIALOGUE) for t in data[0].turns[:1]]
    return [replace(e, turns=[*told, Turn('is it large?', 'yes', Task.DIALOGUE)]) for e in data]


def sft(model, tok, rows, folder, rounds=1, **options):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    sizes = dict(per_device_train_batch_size=SIZE // rounds, gradient_accumulation_steps=rounds)
    config = SFTConfig(str(folder), **sizes, **(HOW | dict(bf16=False, max_length=None) | options))
    return SFTTrainer(
        model,
        config,
        train_dataset=Dataset.from_list(rows),
        processing_class=EarthGPTProcessor.of(model.config, tok),
        optimizers=stepped(model),
    )


KINDS = dict(questions=one_turn(examples(30)), tuples=one_turn(tuples(30)), dialogues=dialogues(examples(30)))


@pytest.mark.parametrize('rounds', [1, 2])
@pytest.mark.parametrize('kind', KINDS)
def test_sft_trainer_has_the_losses_of_fit(tmp_path, kind, rounds):
    pytest.importorskip('trl')
    data = KINDS[kind]
    wanted, weights = fitted(fresh, data, tmp_path / 'ours', rounds)
    model, tok = fresh()
    rows = conversations(in_order(fresh, data, rounds))
    trainer = sft(model, tok, rows, tmp_path / 'theirs', rounds, assistant_only_loss=True)
    found = losses_of(trainer)
    assert len(found) == STEPS and found == pytest.approx(wanted, rel=1e-5)
    assert close(model.state_dict(), weights)
    accuracies = [e['mean_token_accuracy'] for e in trainer.state.log_history if 'loss' in e]
    assert len(accuracies) == STEPS and all(0 <= share <= 1 for share in accuracies)


def test_rows_are_read_one_at_a_time(tmp_path):
    "Each picture once, and no sooner than its row; and so they go to datasets' files"
    datasets = pytest.importorskip('datasets')
    read = []

    class Watched:
        def __init__(self, example):
            self.example, self.turns = example, example.turns

        @property
        def image(self):
            read.append(self.example.name)
            return self.example.image

    data = examples(5)
    rows = conversations([*map(Watched, data)])
    assert len(rows) == sum(len(e.turns) for e in data) and not read
    assert rows[-1]['messages'][1]['content'][0]['text'] == data[-1].turns[-1].answer
    assert read == [data[-1].name]
    told = [row['messages'] for row in rows]
    assert read[1:] == [e.name for e in data]
    kept = datasets.Dataset.from_generator(
        conversations, gen_kwargs=dict(examples=data), cache_dir=str(tmp_path)
    )
    assert list(kept['messages']) == told and kept[0]['images'][0].size == rows[0]['images'][0].size


def test_sft_trainer_on_prompts_and_completions(tmp_path):
    "TRL's other form: the prompt and what follows it are encoded each by itself"
    pytest.importorskip('trl')
    data = KINDS['questions']
    wanted, _ = fitted(fresh, data, tmp_path / 'ours')
    model, tok = fresh()
    rows = []
    for row in conversations(in_order(fresh, data, 1)):
        question, answer = row['messages']
        rows.append(dict(images=row['images'], prompt=[question], completion=[answer]))
    assert losses_of(sft(model, tok, rows, tmp_path / 'theirs')) == pytest.approx(wanted, rel=1e-5)


def test_an_adapter_by_sft_trainer(tmp_path):
    "PEFT in TRL: the adapter learns, the rest stays"
    pytest.importorskip('trl')
    from peft import LoraConfig, get_peft_model

    model, tok = fresh()
    before = {name: w.clone() for name, w in model.state_dict().items()}
    tuned = get_peft_model(model, LoraConfig(r=4))
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    options = SFTConfig(str(tmp_path), per_device_train_batch_size=SIZE, **(HOW | dict(bf16=False)))
    trainer = SFTTrainer(
        tuned,
        options,
        train_dataset=Dataset.from_list(conversations(examples(24))),
        processing_class=EarthGPTProcessor.of(model.config, tok),
    )
    losses = losses_of(trainer)
    assert len(losses) == STEPS and all(np.isfinite(losses))
    changed = {n for n, w in model.state_dict().items() if n not in before or not torch.equal(w, before[n])}
    assert changed and all('lora_' in name or 'base_layer' in name for name in changed)


def test_evaluation_gives_logits_to_who_asks(tmp_path):
    from transformers import Trainer, TrainingArguments

    model, tok = fresh()
    data, seen = examples(12), []

    def measured(evaluation):
        seen.append((evaluation.predictions.shape, evaluation.label_ids.shape))
        return dict(targets=int((evaluation.label_ids != IGNORE).sum()))

    collate = ExampleCollator(tok, model.config)
    options = TrainingArguments(str(tmp_path), per_device_eval_batch_size=5, **HOW)
    trainer = Trainer(model, options, data_collator=collate, eval_dataset=data, compute_metrics=measured)
    found = trainer.evaluate()
    (logits, labels) = seen[0]
    assert logits[:2] == labels and logits[2] == model.config.text_config.vocab_size
    whole = collate(data)
    with torch.no_grad():
        out = model.eval()(**whole)
        assert found['eval_targets'] == int(out.target_count)
        assert torch.equal(out.logits, model(**(whole | dict(labels=None))).logits)


def test_logits_beside_the_loss():
    model, tok = fresh()
    batch = ExampleCollator(tok, model.config)(examples(6))
    with torch.no_grad():
        wanted = model.train()(**batch)
        assert wanted.logits is None, 'training computes those of the targets alone'
        for mode, skip in ((True, False), (False, None), (False, False)):
            out = model.train(mode)(**batch, skip_logits=skip)
            assert out.logits.shape[:2] == batch['labels'].shape
            assert float(out.loss) == pytest.approx(float(wanted.loss), rel=1e-6)
        assert model.eval()(**batch, skip_logits=True).logits is None
        loss, logits = model(**batch, return_dict=False)[:2]
        assert loss.dim() == 0 and logits.dim() == 3


def test_what_varies_an_example_follows_the_seed_of_the_loop():
    model, tok = fresh()
    collate, data = ExampleCollator(tok, model.config, augment=True), examples(6)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(collate(data)['pixel_values'])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


class Lost(Several):
    @property
    def image(self):
        raise BadInput('lost.png: no such file')


def test_a_picture_that_cannot_be_read_is_named():
    model, tok = fresh()
    lost = Lost(None, ('',), examples(1)[0].turns, 'place/lost')
    with pytest.raises(BadInput, match='place/lost: lost.png: no such file'):
        ExampleCollator(tok, model.config)([*examples(2), lost])
