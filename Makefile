.PHONY: check test docs dist bench

check:
	ruff format --check .
	ruff check .
	mypy --strict vlm_tune
	lint-imports

test:
	pytest

docs:
	mkdocs build --strict

# Fails unless dist/ holds just this build, and it is fit to be published.
dist:
	python -m build --outdir dist .
	python -m twine check --strict dist/*
	python tools/check_wheel.py dist

bench:
	python benchmarks/recipe_on_real_photos.py --help
