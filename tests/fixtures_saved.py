"Saved models whose words depend on all that they read: all of our own make, and with encoders that are frozen."

import pytest
import torch
from fixtures_presets import save_parts, tiny_preset
from fixtures_training import small, tokenizer as make_tokenizer

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.loading import build_base, load
from earthgpt_lite.model.modeling import save

WHOLE_NUMBERS = torch.cpu._is_vnni_supported()  # whether this processor is one for int8


def is_refused_here(model):
    "A processor without the units for int8: then what is promised is a sentence"
    if not WHOLE_NUMBERS:
        with pytest.raises(BadInput, match='no units for it .VNNI.'):
            load(model, 'cpu', quantize='int8')
    return not WHOLE_NUMBERS


def speaking(model):
    "Large weights: what it says depends on every word and picture"
    with torch.no_grad():
        for name, p in model.language.named_parameters():
            if p.dim() > 1 and 'embed' not in name:
                p *= 8
        model.projector.norm.weight *= 3
    return model.eval()


def nano_like(folder):
    tokenizer = make_tokenizer()
    save(speaking(small(tokenizer, init_scale=1.0)), tokenizer, folder)


def lite_like(folder):
    "Frozen encoders, a language model of its own whose vocabulary has no image token"
    parts = folder.parent / 'parts'
    parts.mkdir()
    save_parts(parts)
    model, tokenizer = build_base(tiny_preset(parts, parts), say=lambda text: None)
    torch.manual_seed(1)
    save(speaking(model), tokenizer, folder)
