# `make test` and `make demo` set up all they need; a second run finds it done.
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.set-up
EXPERIMENTS := phantom finetune-choice finetune-options finetune controls figure-3-right figure-4
ON_DATA := hippocampus finetune-hippocampus
export OMP_NUM_THREADS ?= 1

.PHONY: test demo napari soak experiments bench format clean help

help:
	@echo "make demo         synthetic cases -> binary and BackSplit models -> comparison (15 min)"
	@echo "make napari       napari with the dock, to click structures"
	@echo "make test         lint, types, architecture and tests (12 min)"
	@echo "make soak         the long proofs: every kill test, many rounds"
	@echo "make experiments  the trainings behind docs/experiments/ (hours; resumable)"
	@echo "make bench        the benchmarks behind docs/benchmarks.md"

$(SETUP): pyproject.toml constraints.txt scripts/set-up.sh
	sh scripts/set-up.sh $(VENV)
	touch $@

test: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest -m "not soak" -n 2 $(PYTEST)

demo: $(SETUP)
	$(BIN)/backsplit demo demo

napari: $(SETUP)
	$(BIN)/napari -w napari-backsplit BackSplit

soak: $(SETUP)
	QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest -m soak --timeout=3600 $(PYTEST)

# The page of a plan is named by its first word, or by all of its name for a figure or a table.
experiments: $(SETUP)
	for plan in $(EXPERIMENTS) $(if $(BACKSPLIT_TEST_DATA),$(ON_DATA)); do \
		case $$plan in figure-*|table-*) page=$$plan;; *) page=$${plan%%-*};; esac; \
		$(BIN)/backsplit experiment $$plan --page docs/experiments/$$page.md || exit 1; done
	$(BIN)/python scripts/recipes.py experiments/recipes --page docs/recipes.md
	@$(if $(BACKSPLIT_TEST_DATA),,echo "BACKSPLIT_TEST_DATA is not set: left out $(ON_DATA).")

bench: $(SETUP)
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo experiments
