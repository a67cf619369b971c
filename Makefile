.PHONY: check test docs bench

check:
	ruff format --check .
	ruff check .
	mypy --strict vlm_tune
	lint-imports

test:
	pytest

docs:
	mkdocs build --strict

bench:
	python benchmarks/recipe_on_real_photos.py --help
