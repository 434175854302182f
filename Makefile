# Every target does its own set-up: a virtual environment in .venv with the versions pinned in constraints.txt.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready

BROWSER := .browser/node_modules/axe-core/axe.min.js

.PHONY: help demo test browser lint format bench clean docs
help:            ## show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(STAMP)   ## train tiny encoders and mask networks and show what they share (about two minutes, no network)
	$(PY) -m commonweight demo

test: lint       ## lint, types, import contracts, then all tests, doctests and README examples
	$(PY) -m pytest -n 2 --dist worksteal
	@test -f $(BROWSER) || echo '*** THE REPORT WAS NOT TESTED IN A BROWSER: make browser does ***'

browser: $(STAMP) ## test the report in Debian's Chromium (installs it with apt-get where it is missing)
	command -v chromium > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	$(PY) -m pip install --quiet --constraint constraints.txt --group browser
	npm install --silent --no-save --prefix .browser axe-core@4.14.1
	COMMONWEIGHT_BROWSER=required $(PY) -m pytest tests/browser

lint: $(STAMP)   ## ruff, mypy, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(STAMP) ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(STAMP)  ## time and memory against the ordinary pass and the peers (JSON in benchmarks/results)
	$(PY) -m pip install --quiet --constraint constraints.txt --no-deps opacus backpack-for-pytorch nngeometry einops opt_einsum unfoldNd \
		kronfluence laplace-torch curvlinops-for-pytorch asdfghjkl einconv linear_operator torchmetrics lightning-utilities
	$(PY) benchmarks/fisher.py --out benchmarks/results/fisher.json
	$(PY) benchmarks/supermask.py --out benchmarks/results/supermask.json
	$(PY) benchmarks/overlap.py --out benchmarks/results/overlap.json
	$(PY) benchmarks/jaccard.py --out benchmarks/results/jaccard.json

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) .browser .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt 'pip>=25.1'
	$(PY) -m pip install --quiet --constraint constraints.txt 'torch==2.13.0'
	$(PY) -m pip install --quiet --constraint constraints.txt --editable . --group test --group lint
	touch $(STAMP)

docs: $(STAMP)   ## build the documentation into docs/_build/html, its tutorials and how-tos executed (about two minutes)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable . --group docs
	$(PY) -m sphinx -W --keep-going -E -j 2 docs docs/_build/html
