# make demo   a fresh environment and the main job, with its HTML report
# make test   what the tests need, and the tests
# make laws   the laws of the ledger over ten times as many random cases;  make mutants  do tests notice changed lines?
# make check  lint and types;  make docs  the documentation;  make studies  every published study;  make bench  timings
# make studio the pages of `tierform studio`, from studio/ into the package (needs Node.js)
# make keys   docs/keys.md, the reference of every key, from the schemas
# make fuzz   every parser fed with inputs that try to break it

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0

.PHONY: demo test laws mutants check docs keys studies bench fuzz clean studio studio-tools

$(BIN)/tierform: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[report]'
	touch $@

$(VENV)/.test-tools: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[report,train,store,thermal,explore,studio,docs,dev]'
	touch $@ $(BIN)/tierform

demo: $(BIN)/tierform
	@mkdir -p out
	$(BIN)/tierform compare bert-large --chips atleus,atleus-2.5d,a100 --task finetune --method lora --rank 32 \
	  --batch 8 --sequence 512 --json out/demo.json --report out/demo.html
	@echo "The report with pictures: $(CURDIR)/out/demo.html"

test: $(VENV)/.test-tools
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The pages are built and committed, so that nobody needs Node.js to use them; where it is, tests hold the committed
# build against a fresh one, and drive the pages in Chromium if that is there, too.
studio/node_modules/.package-lock.json: studio/package-lock.json
	npm ci --prefix studio --no-audit --no-fund --loglevel=error
	touch $@

studio-tools:
	@if command -v node >/dev/null && command -v npm >/dev/null; then \
	    $(MAKE) --no-print-directory studio/node_modules/.package-lock.json || echo "note: npm could not install the studio's tools"; \
	  else echo "note: no Node.js here: the tests of the studio's build and pages are skipped"; fi
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || echo "note: no Chromium here: the pages are not driven in a browser"

studio: studio/node_modules/.package-lock.json
	cd studio && npx --no-install tsc --noEmit && node build.mjs

laws: $(VENV)/.test-tools
	TIERFORM_LAWS=10 $(BIN)/python -m pytest tests/simulation/laws

mutants: $(VENV)/.test-tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'cosmic-ray>=8.3,<9' 'coverage>=7.6'
	$(BIN)/python tests/mutants.py --number $(or $(NUMBER),200) --seed $(or $(SEED),1)

check: $(VENV)/.test-tools
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

docs: keys
	$(BIN)/mkdocs build --quiet --strict

keys: $(VENV)/.test-tools
	$(BIN)/python -m tierform.report.keys > docs/keys.md.new && mv docs/keys.md.new docs/keys.md

studies: $(VENV)/.test-tools
	@mkdir -p out
	for study in $$($(BIN)/python -c "from tierform.studies import STUDIES; print(*STUDIES.names())"); do \
	  $(BIN)/tierform reproduce $$study --out out/studies || exit 1; done

bench: $(VENV)/.test-tools
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# Coverage-guided fuzzing of every parser (Linux): FUZZ_SECONDS each; what breaks one is kept in out/fuzz.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test-tools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	$(BIN)/python tests/fuzzing/fuzz_run.py --guided --seconds $(FUZZ_SECONDS) --out out/fuzz

clean:
	rm -rf studio/node_modules $(VENV) out site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
