# biolearn: `make figures` runs the main job, `make test` the tests. Each makes its own virtual environment in .venv first.
#
#   PYTHON=python3.12   the Python to make .venv with (default: the first of python3, python3.13, ... python3.10 that was tried, or else a newer one)
#   PROFILE=shipped     the paper's figures from the network in the package; quick: 8×8 digits, every figure; paper: trained on MNIST; also DEVICE=auto|cpu|gpu, SEED=0, OUT=folder, ONLY="fig3 fig4"

.DEFAULT_GOAL := help
.PHONY: help venv figures test nightly audit experiments bench lint structure types book book-check book-links export clean-notebooks readme check
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PYTHON =
PROFILE = shipped
DEVICE = auto
SEED = 0
OUT =
ONLY =

BIN = .venv/bin
READY = .venv/.ready

help:             ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-24s %s\n' "  $${name}" "$$what"; done
	@sed -n 's/^#  / /p' Makefile

venv: $(READY)    ## make the virtual environment .venv, with the exact versions of constraints.txt

# ---- a virtual environment -------------------------------------------------------------------------------------------
# The stamp .venv/.ready is written last: an interrupted installation does not count as done.

# A Python newer than those that the constraints were tried with is taken where there is no other, with a word.

AGE = import sys; v = sys.version_info[:2]; print("old" if v < (3, 10) else "tried" if v <= (3, 13) else "untried")
NUMBER = import sys; print("%d.%d" % sys.version_info[:2])
MODULES_OK = import venv, ensurepip, ssl, ctypes

$(READY): settings.ini setup.py constraints.txt
	@set -e; found=; newer=; nearly=; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.10 python python3.14 python3.15); do \
	  age=$$("$$python" -c '$(AGE)' 2>/dev/null) || continue; \
	  if [ "$$age" = old ]; then continue; fi; \
	  if ! "$$python" -c "$(MODULES_OK)" >/dev/null 2>&1; then nearly="$${nearly:-$$python}"; \
	  elif [ "$$age" = tried ]; then found="$$python"; break; \
	  else newer="$${newer:-$$python}"; fi; \
	done; \
	if [ -z "$$found" ] && [ -n "$$newer" ]; then \
	  found="$$newer"; \
	  echo "make: Python $$("$$newer" -c '$(NUMBER)') is untried: biolearn was tried with Python 3.10 to 3.13. If something fails, name one of these: make PYTHON=/path/to/python3.13" >&2; \
	elif [ -z "$$found" ] && [ -n "$$nearly" ]; then \
	  v=$$("$$nearly" -c '$(NUMBER)'); \
	  echo "make: $$nearly (Python $$v) has the right version but cannot make a virtual environment: its modules venv and ensurepip are not all there." >&2; \
	  echo "make: install them (Debian, Ubuntu: apt install python$$v-venv) or name another Python: make PYTHON=/path/to/python3" >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "make: Python 3.10 or newer is needed, and $(if $(PYTHON),PYTHON=$(PYTHON) is not one,none was found)." >&2; \
	  echo "make: install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3; macOS: brew install python@3.13)" >&2; \
	  echo "make: or name one that is there: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	age=$$($(BIN)/python -c '$(AGE)' 2>/dev/null) || age=old; \
	if [ "$$age" = old ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Making .venv with $$found ($$("$$found" -V))"; "$$found" -m venv --clear .venv; \
	fi; \
	rm -f $(READY); \
	echo "Installing what biolearn needs into .venv: about a minute, depending on the network ..."; \
	if ! $(BIN)/python -m pip install -qq --prefer-binary -e '.[dev,figures]' -c constraints.txt; then \
	  echo "make: the installation failed; pip's lines above say why. With a network it can simply be started again: make venv" >&2; exit 1; \
	fi; \
	touch $(READY); echo "Done: .venv is ready."

# ---- the two commands ------------------------------------------------------------------------------------------------

figures: $(READY) ## draw the figures of the paper, with the network that came with the package (PROFILE=quick or paper: train it, draw every figure)
	@$(BIN)/biolearn reproduce --profile "$(PROFILE)" --device "$(DEVICE)" --seed "$(SEED)" $(if $(OUT),--out "$(OUT)") $(if $(ONLY),--only $(ONLY))

# One process per core, and one thread in each, since threads that wait for each other spin. The figure notebooks are left to the end-to-end test among the tests of pytest.
test: $(READY)    ## run the tests, then the notebooks of the library, whose cells are tests too
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder tests
	OPENBLAS_NUM_THREADS=1 $(BIN)/python .ci/notebooks.py

nightly: $(READY) ## the tests of kills, damaged files and made-up inputs again, with many more of each (minutes)
	$(BIN)/python -m pytest -q -s --nightly tests/test_resume.py tests/test_faults.py

# pip-audit lives in an environment of its own: it looks at the versions of constraints.txt without becoming one of them.
# --strict: a package that cannot be looked up (no network, no database) makes the audit fail; it is not passed over.
audit: $(READY)   ## ask the databases of known vulnerabilities about every version in constraints.txt (needs the network)
	@[ -x .venv/audit/bin/pip-audit ] || { $(BIN)/python -m venv .venv/audit && .venv/audit/bin/python -m pip install -qq 'pip-audit>=2.10,<3'; }
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

# ---- longer measurements ---------------------------------------------------------------------------------------------

SEEDS = 0-4
VARIANTS = paper
TRAINED = $(if $(filter shipped,$(PROFILE)),quick,$(PROFILE))
experiments: $(READY)  ## train SEEDS=0-4 of VARIANTS=paper (or all) at PROFILE, measure each, write figures/results.json (paper: 10 minutes a seed)
	@$(BIN)/biolearn experiments --profile "$(TRAINED)" --device "$(DEVICE)" --seeds "$(SEEDS)" --variants "$(VARIANTS)" $(if $(OUT),--out "$(OUT)")

bench: $(READY)   ## measure speed side by side: tables, bench/results.json, pictures (PyTorch is optional: the extra bench)
	$(BIN)/python -m bench

# ---- the web site -----------------------------------------------------------------------------------------------------
# Only these targets need Sphinx and a browser, so they have stamps of their own. The figure notebooks are run first where they have not been.

.venv/.book: $(READY)
	@echo "Installing what the book needs into .venv ..."; $(BIN)/python -m pip install -qq --prefer-binary -e '.[book]' -c constraints.txt && touch $@
.venv/.browser: .venv/.book
	@echo "Installing what drives a browser into .venv ..."; $(BIN)/python -m pip install -qq --prefer-binary -e '.[browser]' -c constraints.txt && touch $@

BOOK = _docs/html
STAGE = $(BIN)/python docs/stage.py _docs/source "$(or $(OUT),figures/quick)"
book: .venv/.book ## build the web site in _docs/html; a warning, a broken link or a missing equation is an error
	@$(STAGE) || { [ $$? -eq 3 ] && $(MAKE) --no-print-directory figures PROFILE=quick && $(STAGE); }
	@$(BIN)/python -m sphinx -W --keep-going -n -q -j auto -b html -c docs _docs/source $(BOOK)
	@$(BIN)/python docs/check_pages.py $(BOOK)

book-check: .venv/.browser  ## look at the built web site in Chromium: errors, formulas, overflow, accessibility, search
	$(BIN)/python -m pytest -q -rs tests/test_book.py docs/check_browser.py

book-links:        ## ask every address that the built web site links to
	@$(BIN)/python docs/check_pages.py $(BOOK) --external

CODE = nbs tests experiments bench docs .ci setup.py
lint: $(READY)    ## check the layout and the usual mistakes of all code, notebooks included
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff check --select F401 biolearn
	$(BIN)/ruff format --check $(CODE)

structure: $(READY)  ## measure how the code is built, against targets (.ci/structure.py says which)
	$(BIN)/python .ci/structure.py

# The second checker says how complete the hints are; it brings its own Node, so it is an extra of its own: pip install -e .[types]
types: $(READY)   ## check the type hints with mypy, and with basedpyright (the extra types) that nothing exported lacks one
	$(BIN)/mypy
	@if [ -x $(BIN)/basedpyright ]; then PYTHONPATH="$(CURDIR)" $(BIN)/basedpyright --pythonpath $(BIN)/python --verifytypes biolearn --ignoreexternal; \
	else echo "basedpyright is not installed: $(BIN)/pip install basedpyright"; fi

# ---- for those who change the notebooks ------------------------------------------------------------------------------

export: $(READY)  ## write the package biolearn/ from the notebooks
	$(BIN)/nbdev_export

clean-notebooks: $(READY)  ## strip from the notebooks what changes at every run (papermill's tags stay)
	$(BIN)/nbdev_clean

# The links in index.ipynb start from nbs/, those in README.md one folder higher; cells marked hide are left out. A clean notebook
# does not say its language, so nbconvert leaves the fences of code bare: the program FENCES writes "python" behind those that open.
export FENCES = /^```/ { open = !open; if (open && $$0 == "```") $$0 = "```python" } { print }
readme: $(READY)  ## write README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level WARN --to markdown nbs/index.ipynb --output-dir . --output README --RegexRemovePreprocessor.patterns '\s*#\s*\|\s*hide'
	@sed -e 's#](\.\./#](#g' -e 's#src="\.\./#src="#g' -e 's#](\([^):/]*\.ipynb\)#](nbs/\1#g' -e 's#](figures/\([^)]*\.ipynb\)#](nbs/figures/\1#g' -e 's#](figures/)#](nbs/figures/)#g' README.md | awk "$$FENCES" > .README.part
	@mv .README.part README.md

FILES = find biolearn nbs README.md pyproject.toml -type f ! -path '*/__pycache__/*' ! -path '*/.ipynb_checkpoints/*' -exec cksum {} +

check: $(READY)   ## are the notebooks exported, clean and tagged, and is README.md what index.ipynb gives?
	@$(BIN)/python -c "from biolearn.reproduction.figures import find_notebooks, notebook_folder; find_notebooks(notebook_folder())"
	@set -e; before=$$($(FILES) | sort); \
	$(MAKE) --no-print-directory -s export clean-notebooks readme; \
	after=$$($(FILES) | sort); \
	if [ "$$before" != "$$after" ]; then \
	  echo "make: these files were not what the notebooks give; they have been rewritten, look at them and keep them:" >&2; \
	  printf '%s\n%s\n' "$$before" "$$after" | sort | uniq -u | awk '{print "  " $$3}' | sort -u >&2; exit 1; \
	fi; echo "The notebooks are exported, clean and tagged, and README.md is up to date."
