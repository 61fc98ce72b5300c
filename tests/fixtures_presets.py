"A preset so small that it is built in a moment, with parts that lie on the disk."

import torch
from fixtures_language import family_tokenizers
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
)

TINY = """
about = "tiny"
dtype = "{dtype}"
[weights]
vit = "{place}/vit"
cnn = "{place}/{cnn}"
text = "{place}/text"
[vit]
model_type = "dinov2"
hidden_size = {width}
num_hidden_layers = 2
num_attention_heads = 2
image_size = 28
[cnn]
model_type = "convnext"
depths = [1, 2, 3, 1]
hidden_sizes = [8, 16, 24, 32]
out_indices = [2, 3, 4]
[text]
model_type = "llama"
[model]
vit_layers = [1, 2]
grid = 2
image_size = 28
cnn_input = {{ size = 64, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }}
train_encoders = false
init_scale = 0.1
"""


def small_vit(folder):
    torch.manual_seed(0)
    Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28)
    ).save_pretrained(folder)
    return folder / 'model.safetensors'


def save_parts(place):
    "A ViT, a CNN and a language model, each saved by its own class"
    tokenizer = family_tokenizers()['smollm2']
    torch.manual_seed(0)
    (place / 'vit').mkdir()
    small_vit(place / 'vit')
    ConvNextModel(ConvNextConfig(depths=[1, 2, 3, 1], hidden_sizes=[8, 16, 24, 32])).save_pretrained(
        place / 'cnn'
    )
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(place / 'text')
    tokenizer.save_pretrained(place / 'text')


def tiny_preset(folder, parts, dtype='float32', width=32, cnn='cnn'):  # its path
    path = folder / 'mine.toml'
    path.write_text(TINY.format(place=parts.as_posix(), dtype=dtype, width=width, cnn=cnn))
    return str(path)
