"A model so small that a training step takes a hundredth of a second, and data for it."

from dataclasses import dataclass

import numpy as np
import torch
from transformers import Dinov2Config, ResNetConfig

from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.data.sample.world_map import Example
from earthgpt_lite.model.config import nano_config
from earthgpt_lite.model.language import small_llama
from earthgpt_lite.model.modeling import EarthGPT
from earthgpt_lite.model.tokens import train_tokenizer

WORDS = 'water', 'forest', 'sand', 'ice'


def examples(n=20, seed=0):
    "Plain coloured squares with one to three questions each"
    rng = np.random.default_rng(seed)
    turns = lambda k, i: [
        Turn('what covers this image?', WORDS[k], Task.CLASSIFICATION),
        Turn('is there water?', 'yes' if k == 0 else 'no', Task.PRESENCE),
        Turn('where is it?', f'[0.10,0.20,0.{30 + i % 60},0.60]', Task.GROUNDING),
    ]
    return [
        Example(
            (rng.integers(0, 60, (32, 32, 3)) + 60 * k).astype('uint8'),
            turns(k, i)[: 1 + i % 3],
            f'place/{i}',
            'train',
        )
        for i, k in enumerate(rng.integers(0, 4, n))
    ]


@dataclass
class Several:
    "An example with several pictures."

    images: tuple
    words: tuple
    turns: list
    name: str
    split: str = 'train'
    sensor: str = 'optical'


def tuples(n=20):
    "Examples of one, two and three pictures, two of three announced"
    single, found = examples(n), []
    for i, e in enumerate(single):
        more = tuple(single[(i + k) % n].image for k in range(i % 3))
        words = (('',), ('before', 'after'), ('', '', 'last'))[i % 3]
        found.append(Several((e.image, *more), words, e.turns, e.name) if more else e)
    return found


def tokenizer():
    return train_tokenizer(
        [f' {t}' for e in examples() for turn in e.turns for t in (turn.question, turn.answer)], 300
    )


def small(tok, seed=0, **changes):
    torch.manual_seed(seed)
    config = nano_config(tok)
    config.vit_config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        layerscale_value=1.0,
    )
    config.cnn_config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type='basic', out_indices=[1, 2]
    )
    config.text_config = small_llama(tok, 32, 2, 2)
    # with 8 channels in 8 groups a bias in front of the group norm would have no effect, and its gradient only rounding
    config.vit_layers, config.grid, config.cnn_channels, config.image_size = [1, 2], 4, 16, 32
    config.vit_input = config.cnn_input = None
    for k, v in changes.items():
        setattr(config, k, v)
    model = EarthGPT(config)
    model.projector.start()
    return model


def error_of_parts(model, batches, parts=3):
    "How far the gradients of the parts of step 0 add up to another one than that of the whole, as a share of the largest"

    def gradient(losses):
        model.zero_grad()
        for loss in losses:
            loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    want = gradient([model(**vars(batches.batch(0))).loss])
    dealt = [batches.part(0, part, parts) for part in range(parts)]
    got = gradient(model(**vars(part.batch)).loss_sum / part.target_count for part in dealt)
    return max((want[n] - got[n]).abs().max() for n in want) / max(w.abs().max() for w in want.values())
