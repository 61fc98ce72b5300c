"A saved folder in a new process whose only other line is `import earthgpt_lite.model`; and the texts are ours."

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.data.sample.sites import SITES
from earthgpt_lite.data.sample.world_map import DATA, global_examples
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.processor import EarthGPTProcessor

TRIES = '''
import earthgpt_lite.model

import json, sys, threading
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor
from transformers import TextIteratorStreamer, pipeline
from transformers.utils import logging

logging.disable_progress_bar()
folder, hub, blue, red = sys.argv[1:]
autos = (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, AutoImageProcessor)
found = {auto.__name__: type(auto.from_pretrained(folder)).__name__ for auto in autos}
model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def asked(*parts):
    kinds = [dict(type='image', path=p) if p in (blue, red) else dict(type='text', text=p) for p in parts]
    return [dict(role='user', content=kinds)]


def texts(answers):
    answers = [a[0] if isinstance(a, list) else a for a in answers]
    return [answer['generated_text'] for answer in answers]


question = asked(blue, 'what does this image show?')
batch = [question, asked(red, blue, 'which one has more water?'), asked(blue, 'is there any water in this image?')]
inputs = processor.apply_chat_template(
    question, tokenize=True, return_dict=True, return_tensors='pt', add_generation_prompt=True
)
found['generate'] = processor.post_process_image_text_to_text(model.generate(**inputs, max_new_tokens=20))
from_path = pipeline('image-text-to-text', model=folder)
from_hub = pipeline('image-text-to-text', model=hub)
from_objects = pipeline('image-text-to-text', model=model, processor=processor)
for name, ask in dict(path=from_path, hub=from_hub, objects=from_objects).items():
    found[name] = texts(ask(text=question, return_full_text=False, max_new_tokens=20))
found['batch'] = texts(from_path(text=batch, batch_size=3, return_full_text=False, max_new_tokens=20))
found['alone'] = [texts(from_path(text=one, return_full_text=False, max_new_tokens=20))[0] for one in batch]
whole = from_path(text=question, max_new_tokens=20)[0]['generated_text']
found['chat'] = [message['role'] for message in whole] + [whole[-1]['content']]
found['plain'] = texts(from_path(images=Image.open(blue), text='what does this image show?', return_full_text=False))
streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
options = dict(generate_kwargs=dict(streamer=streamer, max_new_tokens=20))
thread = threading.Thread(target=lambda: from_path(text=question, **options))
thread.start()
pieces = [piece for piece in streamer if piece]
thread.join()
found['stream'] = [len(pieces) > 2, ''.join(pieces).strip()]
found['devices'] = str(from_path.model.dtype)
print(json.dumps(found))
'''


@pytest.fixture(scope='module')
def packaged(tmp_path_factory):
    "A folder as `save` writes it today, with the trained nano"
    folder = tmp_path_factory.mktemp('saved') / 'nano'
    model, tokenizer = load('nano', 'cpu')
    save(model.half(), tokenizer, folder)
    return folder


def as_on_the_hub(folder, home):
    "The cache of the hub, as a download leaves it"
    place = home / 'hub' / 'models--somebody--nano'
    snapshot = place / 'snapshots' / ('0' * 40)
    shutil.copytree(folder, snapshot)
    (place / 'refs').mkdir()
    (place / 'refs' / 'main').write_text('0' * 40)
    return 'somebody/nano'


def test_the_tries_of_a_stranger(packaged, tmp_path):
    from PIL import Image

    blue, red = tmp_path / 'blue.png', tmp_path / 'red.png'
    Image.new('RGB', (64, 64), (18, 40, 110)).save(blue)
    Image.new('RGB', (64, 64), (150, 90, 60)).save(red)
    name = as_on_the_hub(packaged, tmp_path)
    env = os.environ | dict(HF_HOME=str(tmp_path), HF_HUB_OFFLINE='1')
    command = [sys.executable, '-c', TRIES, packaged, name, blue, red]
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    names = ('EarthGPTConfig', 'EarthGPTModel', 'EarthGPT', 'EarthGPTProcessor', 'EarthGPTImageProcessor')
    autos = ('AutoConfig', 'AutoModel', 'AutoModelForImageTextToText', 'AutoProcessor', 'AutoImageProcessor')
    assert tuple(found[auto] for auto in autos) == names
    (text,) = found['generate']
    assert 'water' in text and found['devices'] == 'torch.float32'
    for way in ('path', 'hub', 'objects', 'plain'):
        assert found[way] == [text], way
    assert found['batch'] == found['alone'] and found['batch'][0] == text
    assert found['chat'] == ['user', 'assistant', text] and found['stream'] == [True, text]
    assert 'is not supported' not in done.stderr


def talks(n):
    "So many questions about one picture each, some of them a file of bands, and about two"
    from itertools import cycle, islice

    shown = [e for e in global_examples('validation', 120) if e.turns][:40]
    about = [([e.image], turn.question) for e in shown for turn in e.turns]
    pairs = list(zip(shown, [*shown[1:], shown[0]]))
    both = [([a.image, b.image], turn.question) for a, b in pairs for turn in a.turns]
    files = [str(DATA / name) for site in SITES.values() for name in site.pictures]
    whole = [([file], 'what does this image show?') for file in files]
    return [*whole, *islice(cycle(about), n // 2 - len(whole)), *islice(cycle(both), n - n // 2)]


@pytest.mark.slow
def test_two_hundred_questions_have_the_same_text_everywhere(packaged):
    from transformers import AutoModelForImageTextToText, pipeline

    model, tokenizer = load(packaged, 'cpu')
    model.config.max_pictures = 2  # or it would refuse two
    asked = talks(200)
    images, questions = zip(*asked)
    ours = [answer.text for answer in Assistant(model, tokenizer).ask([*images], [*questions])]
    opened = AutoModelForImageTextToText.from_pretrained(packaged)
    ask = pipeline(
        'image-text-to-text', model=opened, processor=EarthGPTProcessor.of(model.config, tokenizer)
    )
    parts = [
        [dict(type='image', image=i) for i in some] + [dict(type='text', text=question)]
        for some, question in asked
    ]
    messages = [[dict(role='user', content=content)] for content in parts]
    found = ask(text=messages, batch_size=25, return_full_text=False, max_new_tokens=64)
    theirs = [answers[0]['generated_text'] for answers in found]
    assert theirs == ours and len({*ours}) > 5


def test_a_card_says_which_import_it_wants(packaged):
    card = (packaged / 'README.md').read_text(encoding='utf-8')
    assert 'import earthgpt_lite.model' in card and 'pipeline_tag: image-text-to-text' in card
    assert not [*packaged.glob('*.py')]
    for file in packaged.glob('*.json'):
        assert 'auto_map' not in json.loads(file.read_text(encoding='utf-8')), file.name


def test_an_old_folder_still_opens(packaged, tmp_path):
    "Without what is new in it: template, settings of the image processor, card"
    from transformers import AutoImageProcessor, AutoProcessor

    old = tmp_path / 'old'
    shutil.copytree(packaged, old)
    for name in ('chat_template.jinja', 'preprocessor_config.json', 'README.md'):
        (old / name).unlink()
    new, opened = (AutoProcessor.from_pretrained(folder) for folder in (packaged, old))
    assert opened.chat_template == new.chat_template and load(old, 'cpu')
    assert opened.image_processor.to_dict() == new.image_processor.to_dict()
    assert AutoImageProcessor.from_pretrained(packaged).to_dict() == new.image_processor.to_dict()
    assert Path(packaged, 'preprocessor_config.json').is_file()


PAGE = (Path(__file__).parents[2] / 'docs' / 'ecosystem.md').read_text(encoding='utf-8')


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")  # no GPU
def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    "In their order, each going on from the one before, on a picture of the sea"
    import re

    from PIL import Image

    pytest.importorskip('peft')
    pytest.importorskip('trl')
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (64, 64), (18, 40, 110)).save('lake.png')
    examples = re.findall(r'```python\n(.*?)```', PAGE, re.S)
    assert all(len(text.splitlines()) <= 11 for text in examples)
    space = {}
    for text in examples:
        exec(compile(text, 'docs/ecosystem.md', 'exec'), space)
    assert {*os.listdir(tmp_path)} >= {'run', 'sft'}, 'both trainers ran'
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == 'yes' and second == "['yes']"
    assert (tmp_path / 'adapter' / 'adapter_model.safetensors').is_file()
    assert not any('lora' in name for name in space['merged'].state_dict())
