# earthgpt-lite: `make help` lists what there is to make.
PYTHON ?= python3
WORKERS ?= 2
# Options for pip that choose the torch build, e.g. TORCH_ARGS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_ARGS ?=
# Options for the command that a target ends in, e.g. make quickstart ARGS="--minutes 1"
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -c constraints.txt
INPUTS := settings.ini setup.py constraints.txt
LESSONS := $(sort $(wildcard nbs/[0-9]*.ipynb nbs/*/[0-9]*.ipynb))
NOTEBOOKS := $(wildcard index.ipynb) $(LESSONS)

.PHONY: help install quickstart test test-slow test-all format export pages figures site slides readme run-notebooks course-times student solutions nbgrader clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

$(VENV)/.made: $(INPUTS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("earthgpt-lite needs Python 3.11 or later; try: make PYTHON=python3.11")'
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_ARGS) torch==2.13.0
	$(PIP) -e .
	@touch $@

$(VENV)/.made-dev: $(VENV)/.made
	$(PIP) -q -e '.[dev]'
	@touch $@

install: $(VENV)/.made ## make .venv with the tested versions

quickstart: $(VENV)/.made ## install, train the nano model on the sample data, write runs/quickstart/report.html
	$(VENV)/bin/earthgpt-lite quickstart $(ARGS)

test: $(VENV)/.made-dev ## everything that decides and is fast: tests, sync, every notebook, README
	$(PY) -m pytest -m 'not slow and not rare' -n $(WORKERS) --dist worksteal --all-notebooks $(ARGS)

test-slow: $(VENV)/.made-dev ## the long tests: packaging, trainings, slow lessons
	$(PY) -m pytest -m slow -n $(WORKERS) --dist worksteal --all-notebooks $(ARGS)

test-all: $(VENV)/.made-dev ## the rest, once for each issue that touches it; ends with what is missing and how to get it
	$(PY) -m pytest -m rare $(ARGS)

format: $(VENV)/.made-dev ## one statement a line, 110 characters: notebooks, tests, tools, benchmarks
	$(PY) -m ruff format -q .

export: format ## format, stamp and clean the notebooks and write the modules of earthgpt_lite/ from them
	$(PY) tools/nb.py stamp $(NOTEBOOKS)
	$(PY) tools/course.py heads
	$(PY) tools/nb.py clean $(NOTEBOOKS)
	$(VENV)/bin/nbdev_export

pages: $(VENV)/.made-dev ## write the tables of the front page, docs/results.md, docs/lessons.md, docs/glossary.md, the plans and answers of the workshop, and the picture of the parts
	$(PY) tools/pages.py
	$(PY) tools/nb.py readme index.ipynb README.md

figures: $(VENV)/.made-dev ## all stored figures on contact sheets in figures/, to be looked at
	$(PY) tools/figures.py

site: $(VENV)/.made-dev ## build the site of lessons, how-to and reference into build/site, without network
	$(PY) tools/make_site.py $(ARGS)

slides: $(VENV)/.made-dev ## write build/slides: slides of the lessons, each one file that needs no network
	$(PY) tools/slides.py $(ARGS)

readme: ## write README.md from index.ipynb
	$(PYTHON) tools/nb.py readme index.ipynb README.md

run-notebooks: $(VENV)/.made-dev ## execute the notebooks (NOTEBOOKS="nbs/2_boxes/02_text.ipynb" for one) and store their outputs
	$(PY) tools/nb.py run $(NOTEBOOKS)
	$(PY) tools/nb.py readme index.ipynb README.md

course-times: $(VENV)/.made-dev ## measure time and memory of lessons and commands on this machine (ARGS="vision" for one); then make export pages
	$(VENV)/bin/earthgpt-lite course measure $(ARGS) --out earthgpt_lite/assets/course/times.json

student: ## write student/: the course without solutions; in copies that are there, what a learner wrote stays
	$(PYTHON) tools/nb.py copies student student

solutions: ## write solutions/: the course with all solutions
	$(PYTHON) tools/nb.py copies solutions solutions

nbgrader: $(VENV)/.made ## write nbgrader/: the course as assignments; with pip install -e '.[grading]' run nbgrader there
	$(PY) tools/nb.py copies nbgrader nbgrader

clean: ## remove what building leaves behind; .venv and runs stay
	rm -rf build dist figures .pytest_cache .hypothesis _proc _docs
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
