# `make demo` and `make test` do everything on a fresh machine: a virtual environment with the versions of
# constraints.txt, MPI included (from a wheel), then the run. PYTHON chooses the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

# mpiexec comes with the environment, and so do the commands that a configuration names.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help demo test bench lint clean

help:
	@echo "make demo   run the main job: a Lennard-Jones melt in LAMMPS, analysed while it runs"
	@echo "make test   run all tests (ARGS='-k wire' chooses)"
	@echo "make bench  measure it beside its peers, 15 minutes (ARGS=--quick: four)"
	@echo "make lint   ruff, mypy --strict and the layers of the design"
	@echo "make clean  remove the environment and everything built; what runs left behind stays"

demo: $(STAMP)
	insitu run configs/lammps_melt.yaml --force
	python demos/lammps_summary.py runs/lammps_melt

# A run is half a dozen processes, of which each would compile the same modules anew.
unexport PYTHONDONTWRITEBYTECODE

# Three at a time on two cores, since what starts processes mostly waits for them. In the order of tests/conftest.py:
# xdist would begin with the modules that have the most tests, which are the shortest.
# NumPy's threads would wait for each other where there are more processes than cores already.
test: export OPENBLAS_NUM_THREADS := 1
test: $(STAMP)
	pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Each peer has an environment of its own; one that cannot be installed is left out.
bench: $(STAMP)
	python -m benchmarks.peers
	python -m benchmarks.performance $(ARGS)

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy
	lint-imports

# An egg-info in the checkout would answer for the installed package, and grow old. Not every module is compiled now,
# one after another: most are never imported.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "insitu needs Python 3.11 or newer; choose one with PYTHON=...")'
	@echo "Installing into $(VENV), which takes a minute or two."
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test,mpi,demos]'
	rm -rf insitu.egg-info
	touch $@

clean:
	rm -rf $(VENV) benchmarks/.peers build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
