"""Where datasets are declared beside the built-in ones: files, and packages that are installed.

The files of MDS_DATASETS are read; where that is unset, `datasets.toml` in the working directory. Packages are found by
their entry points. This module only reads texts: `datasets.declared` makes datasets of them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from market_data_store.config.owned_files import read_owned
from market_data_store.errors import ConfigurationError

#: The file of a directory, and of a package.
FILE_NAME = "datasets.toml"
#: What begins the name of a declaration that comes with the package, in place of a path: `shipped:trades`.
SHIPPED = "shipped:"
_SHIPPED = Path(__file__).parents[1] / "datasets" / "shipped"
#: The group of entry points; the value of each is the name of a package that has such a file.
GROUP = "market_data_store.datasets"


class Declaration(NamedTuple):
    """A TOML text, and what people call the place that it comes from."""

    origin: str
    text: str


def declarations(paths: Sequence[str]) -> list[Declaration]:
    """Return the texts of these files and of all packages; raises `ConfigurationError`, a line for each wrong one.

    Without paths, the file of the working directory is read if there is one.
    """
    wrong: list[str] = []
    found: list[Declaration] = []
    for origin, read in [*_files(paths), *_packages()]:
        try:
            found.append(_declaration(origin, read))
        except ConfigurationError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigurationError("\n".join(wrong))
    return found


def declaration_in(path: str) -> Declaration:
    """Return the text of one file; raises `ConfigurationError`."""
    return _declaration(path, partial(_in_file, path))


def declared_names(paths: Sequence[str]) -> set[str]:
    """Return the names of the datasets that `declarations` has, right or wrong."""
    names: set[str] = set()
    for declaration in declarations(paths):
        try:
            names |= tomllib.loads(declaration.text).keys()
        except (tomllib.TOMLDecodeError, RecursionError):
            continue  # whoever needs the datasets says so
    return names


def _declaration(origin: str, read: Callable[[], bytes]) -> Declaration:
    try:
        return Declaration(origin, read().decode())
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        raise ConfigurationError(f"{origin}: {reason}") from None


def _files(paths: Sequence[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    if paths:
        yield from ((path, partial(_in_file, path)) for path in paths)
        return
    # A file that nobody has named must be of this user's, as `.env` must be.
    content = read_owned(Path(FILE_NAME))
    if content is not None:
        yield FILE_NAME, lambda: content


def _packages() -> Iterator[tuple[str, Callable[[], bytes]]]:
    from importlib import metadata  # here, because most processes need no more than a file

    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: (entry.value, entry.name)):
        yield f"{entry.value}/{FILE_NAME}", partial(_in_package, entry.value)


def shipped() -> list[str]:
    """Return the names of the declarations that come with the package."""
    return sorted(f"{SHIPPED}{path.stem}" for path in _SHIPPED.glob("*.toml"))


def _in_file(path: str) -> bytes:
    if path.startswith(SHIPPED):
        if path not in shipped():
            raise ConfigurationError(f"{path}: is not shipped; use one of {', '.join(shipped())}")
        return (_SHIPPED / f"{path.removeprefix(SHIPPED)}.toml").read_bytes()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror or error}); mend the path") from error


def _in_package(package: str) -> bytes:
    from importlib import resources

    try:
        return resources.files(package).joinpath(FILE_NAME).read_bytes()
    except Exception as error:  # importing a package runs its code
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigurationError(
            f"{package}/{FILE_NAME}: cannot be read ({reason}); an entry point of {GROUP} names a package that has "
            "this file: mend or remove the package"
        ) from error
