# Everything that is done with this project. `make` alone lists the targets.

BIN := .venv/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test setup install uninstall lint types pytest replay soak bench picture fresh clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## A shell inside a machine of your own; without a terminal a short tour
	@scripts/setup run
	@scripts/run

test: setup lint types pytest ## Everything that is checked: style, types, tests

setup: ## Install what is missing: Debian packages, and a virtual environment in .venv
	@scripts/setup test

install: ## Let this user call memhpfs by name: a link in ~/.local/bin, or BINDIR=...
	@scripts/setup run
	@scripts/install

uninstall: ## Remove that link
	@scripts/install --undo

lint: setup ## The style of the code
	$(BIN)/ruff check memhpfs tests scripts

types: setup ## The types of the code
	$(BIN)/mypy --strict memhpfs

pytest: setup ## The tests; `make pytest ARGS="-k lsmem"` picks some
	$(BIN)/python -m pytest $(ARGS)

replay: setup ## Recorded runs of real kernels: `make replay ARGS=FILE...`
	$(BIN)/memhpfs replay $(ARGS)

soak: setup ## An hour of random use; `make soak SECONDS=600` takes less
	SOAK_SECONDS=$(or $(SECONDS),3600) $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/test_soak.py $(ARGS)

bench: setup ## Time reads through FUSE, against a C daemon and the kernel's own sysfs
	$(BIN)/python scripts/bench.py $(ARGS)

picture: setup ## The session in README, typed and drawn anew: scripts/session.svg
	scripts/picture $(ARGS)

fresh: ## As root: both commands on new Debian systems; `make fresh ARGS="trixie root"` on one
	@scripts/fresh-machine $(ARGS)

clean: ## Remove what was built here, the virtual environment too
	rm -rf .venv .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find memhpfs tests scripts -name __pycache__ -prune -exec rm -rf {} +
