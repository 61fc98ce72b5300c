"""A server and 64 clients: answers a second at once against one client after the other, and the memory of 2,000 requests.

    python benchmarks/serve.py [--model nano] [--clients 64] [--questions 4] [--rounds 3] [--requests 2000]

The server is a process of its own; the clients are threads of this one, each with a picture of its own, a line that
stays open, and its questions one after the other. In each round the clients first come in turn, then all at once. Every
answer is held against that of `Assistant`: one that is missing is lost, one that is another's is mixed up. Then further
requests come from all clients until there were as many as asked for, and the memory of the server is told on the way.
"""

import argparse
import base64
import http.client
import io
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import psutil
from PIL import Image

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.quickstart import machine, versions
from earthgpt_lite.data.sample.objects import object_examples


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (('clients', 64), ('questions', 4), ('rounds', 3), ('requests', 2000)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--model', default='nano')
    return parser.parse_args()


def start(model):
    "The server, once it is ready: (process, port)"
    code = 'import sys; from earthgpt_lite.app.cli import run; sys.argv[0] = "earthgpt-lite"; run()'
    command = [sys.executable, '-c', code, 'serve', model, '--port', '0']
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    port = int(process.stderr.readline().split('127.0.0.1:')[1].split()[0])
    for line in process.stderr:
        if 'is ready' in line:
            break
    subprocess.Popen(['cat'], stdin=process.stderr, stdout=subprocess.DEVNULL)  # the log goes on
    return process, port


def as_body(image, question):
    out = io.BytesIO()
    Image.fromarray(image).save(out, 'PNG')
    url = f'data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}'
    parts = [dict(type='image_url', image_url=dict(url=url)), dict(type='text', text=question)]
    return json.dumps(dict(messages=[dict(role='user', content=parts)])).encode()


def client(port, bodies):
    "The texts of some requests, one after the other"
    line = http.client.HTTPConnection('127.0.0.1', port, timeout=600)
    texts = []
    for body in bodies:
        line.request('POST', '/v1/chat/completions', body, {'Content-Type': 'application/json'})
        answer = json.loads(line.getresponse().read())
        texts.append(answer['choices'][0]['message']['content'] if 'choices' in answer else None)
    line.close()
    return texts


def timed(port, clients, threads):
    "(texts of all clients, seconds)"
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        texts = list(pool.map(lambda bodies: client(port, bodies), clients))
    return texts, time.perf_counter() - begin


def busy(process):
    "Seconds of processor time that a process took so far"
    return sum(psutil.Process(process.pid).cpu_times()[:2])


def faults(found, expected):
    "(lost, mixed up)"
    pairs = [pair for some, right in zip(found, expected) for pair in zip(some, right)]
    return sum(text is None for text, _ in pairs), sum(text not in (None, right) for text, right in pairs)


def main():
    args = arguments()
    examples = (object_examples('train', 1) * args.clients)[: args.clients]
    asked = [[(e.image, t.question) for t in (e.turns * args.questions)[: args.questions]] for e in examples]
    asker = Assistant.from_pretrained(args.model, 'cpu')
    expected = [[a.text for a in asker.ask(*map(list, zip(*pairs)))] for pairs in asked]
    clients = [[as_body(*pair) for pair in pairs] for pairs in asked]
    process, port = start(args.model)
    count = sum(map(len, clients))
    print(
        f'{date.today()}, {machine()}, {versions()}; {args.model}, {args.clients} clients, {count} questions'
    )
    try:
        timed(port, clients[:4], 4)  # what is made at the first use
        rates, lost, mixed = {1: [], args.clients: []}, 0, 0
        work = {threads: 0.0 for threads in rates}
        for _ in range(args.rounds):
            for threads in rates:
                before = busy(process)
                texts, seconds = timed(port, clients, threads)
                work[threads] += busy(process) - before
                rates[threads].append(count / seconds)
                one, other = faults(texts, expected)
                lost, mixed = lost + one, mixed + other
        alone, crowd = map(statistics.median, rates.values())
        for threads, found in rates.items():
            each = 1000 * work[threads] / count / args.rounds
            told = ', '.join(f'{rate:.1f}' for rate in found)
            print(f'{threads:3} at once: {told} answers a second; {each:.1f} ms of the processor for each')
        print(f'{crowd / alone:.2f} times; lost {lost}, mixed up {mixed}, of {2 * args.rounds * count}')
        follow_memory(process, port, clients, args.requests)
    finally:
        process.terminate()
        process.wait()


def follow_memory(process, port, clients, most):
    done, server = 0, psutil.Process(process.pid)
    while done < most:
        timed(port, clients, len(clients))
        done += sum(map(len, clients))
        print(f'{done:6,} further requests: {server.memory_info().rss / 1e6:.0f} MB')


if __name__ == '__main__':
    main()
