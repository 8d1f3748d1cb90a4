"""All datasets: the built-in ones, and those that users declare, with what MDS_UNKNOWN says of each.

Declarations are read when a name is asked for that is not built in, or the list of all names, once in a process. So a
producer of bars pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from threading import Lock

from market_data_store.config import settings_without_local_servers
from market_data_store.datasets.catalogue import BUILT_IN
from market_data_store.datasets.declaration import Dataset
from market_data_store.datasets.spans import Span
from market_data_store.errors import InvalidMessage, Reason

#: In a line that lists the names of datasets, at most so many.
_MOST_LISTED = 40


class Registry(Mapping[str, Dataset]):
    """The datasets by name, the built-in ones first. Raises `ConfigurationError` where a declaration is wrong."""

    def __init__(self) -> None:
        self._declared: Mapping[str, Dataset] | None = None
        #: By name those that were asked for, as the settings make them.
        self._found: dict[str, Dataset] = {}
        self._partitions: Mapping[str, str] | None = None
        self._reading = Lock()

    @property
    def declared(self) -> Mapping[str, Dataset]:
        """Those that users declare."""
        if self._declared is None:
            with self._reading:
                if self._declared is None:
                    # Here, because most processes have no use for it.
                    from market_data_store.config.declarations import declarations
                    from market_data_store.datasets.declared import declared

                    # `mds up` makes tables before there are the servers that `settings` remembers.
                    given = settings_without_local_servers()
                    self._declared = declared(declarations(given.datasets))
        return self._declared

    def forget(self) -> None:
        """Read the declarations again when they are needed: the settings are others now."""
        self._declared = self._partitions = None
        self._found = {}

    @property
    def partitions(self) -> Mapping[str, str]:
        """MDS_PARTITIONS."""
        if self._partitions is None:
            self._partitions = settings_without_local_servers().partitions
        return self._partitions

    def __getitem__(self, name: str) -> Dataset:
        found = self._found.get(name)
        if found is None:
            found = BUILT_IN[name] if name in BUILT_IN else self.declared[name]
            unknown = settings_without_local_servers().unknown.get(name, found.unknown)
            if unknown != found.unknown:
                found = replace(found, unknown=unknown)
            self._found[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        return name in BUILT_IN or name in self.declared

    def __iter__(self) -> Iterator[str]:
        return iter((*BUILT_IN, *self.declared))

    def __len__(self) -> int:
        return len(BUILT_IN) + len(self.declared)


DATASETS = Registry()


def span_of(dataset: Dataset) -> Span | None:
    """Return the span by which the dataset's table is to be partitioned; None for a plain table.

    It is that of MDS_PARTITIONS, or `partition` in the dataset's declaration.
    """
    name = DATASETS.partitions.get(dataset.name) or dataset.partition
    return None if name is None else Span(name)


def spans() -> dict[str, Span]:
    """Return the datasets that are to have partitions, each with its span."""
    return {name: span for name, dataset in DATASETS.items() if (span := span_of(dataset)) is not None}


def dataset_named(name: object) -> Dataset:
    """Return the dataset with this name; raise `InvalidMessage`, which lists the known names, if there is none."""
    if isinstance(name, str) and name in DATASETS:
        return DATASETS[name]
    names = [*DATASETS]
    known = ", ".join([*names[:_MOST_LISTED], *(["..."] if len(names) > _MOST_LISTED else [])])
    raise InvalidMessage(Reason.of("dataset: {} is unknown; use one of {known}", repr(str(name)[:80]), known=known))
