"Packaging of earthgpt-lite. Everything is read from settings.ini; `NAME_requirements` there becomes the extra `NAME`."

from configparser import ConfigParser
from pathlib import Path
import setuptools

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='])
cfg.read(here / 'settings.ini', encoding='utf-8')
c, readme = cfg['DEFAULT'], here / 'README.md'

setuptools.setup(
    name=c['lib_name'],
    version=c['version'],
    description=c['description'],
    keywords=c['keywords'].split(),
    author=c['author'],
    author_email=c['author_email'],
    url=c['git_url'],
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else c['description'],
    long_description_content_type='text/markdown',
    classifiers=[
        'Intended Audience :: Education',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: GIS',
    ],
    packages=setuptools.find_packages(include=[c['lib_path'], f"{c['lib_path']}.*"]),
    package_data={c['lib_path']: ['assets/**']},
    python_requires=f">={c['min_python']}",
    install_requires=c['requirements'].split(),
    extras_require={
        k.removesuffix('_requirements'): v.split() for k, v in c.items() if k.endswith('_requirements')
    },
    entry_points={
        'console_scripts': [f"{c['lib_name']} = {c['lib_path']}.app.cli:run"],
        'vllm.general_plugins': [f"{c['lib_path']} = {c['lib_path']}.model.engines:register"],
        'nbdev': [f"{c['lib_path']} = {c['lib_path']}._modidx:d"],
        'lmms_eval.models': [f"{c['lib_path']} = {c['lib_path']}.app.lmms_model:manifest"],
    },
    zip_safe=False,
)
