"""The machine that a notebook is tested on: no network, and nothing but what pip installs with the wheel.

`prepare` copies this file into a folder as sitecustomize.py, which Python runs first, also in what a lesson starts.
"""

import json
import shutil
import socket
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

LISTED = Path(__file__).with_name('hidden.json')
HERE = {'', '0.0.0.0', '127.0.0.1', '::', '::1', 'localhost', socket.gethostname()}


# ---- in the test


def installed_by(requirements):
    "Names of the distributions that pip would install for these requirements, out of those that are here"
    from importlib import metadata

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    todo, found = [(Requirement(r), '') for r in requirements], set()
    while todo:
        wanted, extra = todo.pop()
        if wanted.marker and not wanted.marker.evaluate(dict(extra=extra)):
            continue
        for chosen in ('', *wanted.extras):
            name = canonicalize_name(wanted.name)
            if (name, chosen) in found:
                continue
            found.add((name, chosen))
            try:
                todo += [(Requirement(r), chosen) for r in metadata.requires(name) or ()]
            except metadata.PackageNotFoundError:
                continue  # another system's
    return {name for name, _ in found}


@cache
def hidden_modules(requirements):
    "What could be imported here, but not where only these requirements, with blanks between, were installed"
    from importlib import metadata

    from packaging.utils import canonicalize_name

    kept = installed_by(requirements.split()) | {'pip', 'setuptools', 'earthgpt-lite'}
    here = metadata.packages_distributions().items()
    return sorted(m for m, owners in here if not kept & {*map(canonicalize_name, owners)})


def prepare(folder, requirements):
    folder.mkdir()
    shutil.copy(__file__, folder / 'sitecustomize.py')
    (folder / LISTED.name).write_text(json.dumps(hidden_modules(requirements)))
    return folder


# ---- on that machine


def refuse_network(event, args):
    "Any address but this machine's own is out of reach"
    host = None
    if event == 'socket.getaddrinfo':
        host = args[0]
    elif event in ('socket.connect', 'socket.sendto') and isinstance(args[1], tuple):
        host = args[1][0]
    host = host.decode() if isinstance(host, bytes) else host
    if host and host not in HERE:
        raise OSError(f'no network here: {host}')


class Installed:
    "Python's own finder, without what is not installed"

    invalidate_caches = PathFinder.invalidate_caches
    hidden = ()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.hidden:
            return None
        return PathFinder.find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *args):
        return (d for d in PathFinder.find_distributions(*args) if d.name.replace('-', '_') not in cls.hidden)


if __name__ == 'sitecustomize':
    Installed.hidden = {*json.loads(LISTED.read_text())}
    found = [Installed if f is PathFinder else f for f in sys.meta_path]
    # an editable install of the repository is none here
    sys.meta_path[:] = [f for f in found if not f.__module__.startswith('__editable__')]
    sys.addaudithook(refuse_network)
