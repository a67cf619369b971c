"""The SQLite file behind a sweep's study: opened by one process at a time, quietly, with errors that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.errors import StorageError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

__all__ = ["alone", "opened", "quietly", "told"]


@contextmanager
def opened(path: Path, *, pruner: BasePruner) -> Iterator[Study]:
    """Open the study in a file, or make one."""
    import optuna
    from sqlalchemy import URL

    with quietly():
        url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
        storage = optuna.storages.RDBStorage(url)
        try:
            yield optuna.create_study(
                storage=storage,
                study_name="vlm-tune",
                direction="maximize",
                load_if_exists=True,
                pruner=pruner,
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock that the system gives back however the process ends: SQLite has one on every system."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise StorageError(
                f"another process is at work on the sweep in {path.parent}; wait for it, or choose another run_dir"
            ) from error
        yield


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what SQLite, SQLAlchemy and Optuna raise when a file cannot be read or written into one error."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        said = str(error.__cause__ or error).splitlines()[0]
        raise StorageError(f"cannot use {path}: {said}; free some space, or choose another run_dir") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Optuna from telling of each of its trials on stderr: the sweep does."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
