"""A run with a loss of its own and encoders that join late, on some processes.

python tests/fixtures_research.py FOLDER DEVICES  # writes FOLDER/result.pt
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
from fixtures_training import examples, small, tokenizer

from earthgpt_lite.model.tokens import IGNORE
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.module import EarthGPTModule
from earthgpt_lite.train.optimizers import ScheduleOptions
from earthgpt_lite.train.stages import STAGES

SHORT = dict(batch_size=6, device='cpu', precision='32-true', progress=False)


class Smoothed(EarthGPTModule):
    smoothing = 0.1

    def loss_sum(self, batch):
        given = dict(vars(batch))
        labels = given.pop('labels')[:, 1:].flatten()
        logits = self.model(**given).logits[:, :-1].flatten(0, 1)
        kept = labels != IGNORE
        return F.cross_entropy(logits[kept], labels[kept], label_smoothing=self.smoothing, reduction='sum')


if __name__ == '__main__':
    folder, devices = Path(sys.argv[1]), int(sys.argv[2])
    tok = tokenizer()
    model = small(tok, train_encoders=False)
    stage = replace(STAGES['full'], encoders=dict(vit='all', cnn='all'), starts=dict(vit=3, cnn=3))
    more = dict(devices=devices, module=Smoothed, schedule=ScheduleOptions('linear', warmup=2))
    run = fit(model, tok, examples(), folder, stage, steps=8, **SHORT, **more)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save((run['losses'], model.state_dict()), folder / 'result.pt')
