"""EarthGPT in vLLM or SGLang: the questions of the sample, and how many answers are those of `Assistant`.

    python benchmarks/engines.py vllm lite-model               # a saved folder; needs a GPU and `pip install vllm`
    python benchmarks/engines.py sglang lite-model --pictures 50

Both make the model without its last layer through transformers and put their own attention in; what they rely on is
tested on a CPU in `tests/model/test_engines.py`. Beside the share of equal answers the rate is printed, for each
engine and for `Assistant` on the same device, one after the other. Answers in 16 bits may differ from float32 in a
word; `--dtype float32` says whether that is all. *Not run yet.*
"""

import argparse
import sys
import time

from PIL import Image

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.model.engines import register
from earthgpt_lite.model.loading import load, load_tokenizer
from earthgpt_lite.model.processor import EarthGPTProcessor

CHOICES = dict(temperature=0, max_new_tokens=64)


def asked(count):
    "(pictures, questions) of the validation split"
    turns = [(e.image, turn.question) for e in global_examples('validation', count) for turn in e.turns]
    pictures, questions = zip(*turns)
    return [Image.fromarray(picture) for picture in pictures], [*questions]


def rendered(folder, questions):
    "The conversation of each question, with a place for its picture"
    tokenizer, config = load_tokenizer(folder)
    processor = EarthGPTProcessor.of(config, tokenizer)
    found = []
    for question in questions:
        content = [dict(type='image'), dict(type='text', text=question)]
        messages = [dict(role='user', content=content)]
        found.append(processor.apply_chat_template(messages, add_generation_prompt=True))
    return found


def by_vllm(folder, prompts, pictures, dtype):
    from vllm import LLM, SamplingParams

    engine = LLM(folder, dtype=dtype, max_model_len=1024)
    encode = engine.get_tokenizer().encode  # as a text, a prompt would get its begin mark twice
    rows = [encode(prompt, add_special_tokens=False) for prompt in prompts]
    inputs = [dict(prompt_token_ids=r, multi_modal_data=dict(image=i)) for r, i in zip(rows, pictures)]
    options = SamplingParams(temperature=CHOICES['temperature'], max_tokens=CHOICES['max_new_tokens'])
    start = time.perf_counter()
    outputs = engine.generate(inputs, options)
    return [output.outputs[0].text.strip() for output in outputs], time.perf_counter() - start


def by_sglang(folder, prompts, pictures, dtype):
    import sglang

    engine = sglang.Engine(
        model_path=folder, dtype=dtype, model_impl='transformers', enable_multimodal=True, context_length=1024
    )
    start = time.perf_counter()
    outputs = engine.generate(prompts, CHOICES, image_data=pictures)
    return [output['text'].strip() for output in outputs], time.perf_counter() - start


def by_assistant(folder, questions, pictures):
    model, tokenizer = load(folder)
    assistant = Assistant(model, tokenizer)
    start = time.perf_counter()
    answers = assistant.ask(pictures, questions)
    return [answer.text for answer in answers], time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('engine', choices=['vllm', 'sglang'])
    parser.add_argument('folder', help='a saved model')
    parser.add_argument('--pictures', type=int, default=100)
    parser.add_argument('--dtype', default='bfloat16')
    given = parser.parse_args()
    pictures, questions = asked(given.pictures)
    engine = by_vllm if given.engine == 'vllm' else by_sglang
    texts, seconds = engine(given.folder, rendered(given.folder, questions), pictures, given.dtype)
    wanted, alone = by_assistant(given.folder, questions, pictures)
    equal = sum(a == b for a, b in zip(texts, wanted, strict=True))
    print(f'{given.engine}: {len(texts) / seconds:.1f} answers a second, Assistant {len(texts) / alone:.1f}')
    print(f'{equal} of {len(texts)} answers are equal')
    for question, text, own in zip(questions, texts, wanted):
        if text != own:
            print(f'{question}\n    {given.engine}: {text}\n    Assistant: {own}')


# both engines start processes that import this file
register(prompts='sglang' in sys.argv[1:2])

if __name__ == '__main__':
    main()
