"""Which column of a Hugging Face dataset holds the image, the label and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vlm_tune.data.groups import is_pattern
from vlm_tune.errors import DataError, nearest

__all__ = ["Columns", "Plan"]

_HEAVY = ("Image", "Audio", "Video", "Pdf")


@dataclass(frozen=True)
class Columns:
    """What the caller says; None means that the features decide.

    Attributes:
        image: The image.
        label: The class, or the list of classes.
        group: The group, or a pattern with one `(...)`; may be absent under the name `group`.
        id: The example's id; without it the row's number is.
    """

    image: str | None = None
    label: str | None = None
    group: str = "group"
    id: str | None = None


@dataclass(frozen=True)
class Plan:
    """Where everything is in one dataset.

    Attributes:
        columns: What the caller said.
        image: Column of the image.
        label: Column of the class.
        group: Column of the group, if there is one.
        id: Column of the id, if there is one.
        names: Class names that the label's numbers stand for.
        several: Whether a row lists several classes.
        features: Column to feature; the feature is None where a stream does not say.
    """

    columns: Columns
    image: str
    label: str
    group: str | None
    id: str | None
    names: tuple[str, ...] | None
    several: bool
    features: Mapping[str, Any]

    @classmethod
    def of(cls, rows: Any, columns: Columns, *, where: str) -> Plan:
        """Look at a dataset's features; a stream without any shows its first row.

        Raises:
            DataError: A column is missing, or more than one could be meant.
        """
        features = dict(rows.features) if rows.features is not None else dict.fromkeys(next(iter(rows), {}))
        image = _choose("image", columns.image, features, is_image, where)
        label = _choose("label", columns.label, features, is_label, where)
        group = columns.group if columns.group in features else None
        if group is None and columns.group != Columns.group and not is_pattern(columns.group):
            raise _missing("group", columns.group, features, where)
        if columns.id is not None and columns.id not in features:
            raise _missing("id", columns.id, features, where)
        inner = getattr(features[label], "feature", None)
        names = getattr(features[label] if inner is None else inner, "names", None)
        return cls(
            columns=columns,
            image=image,
            label=label,
            group=group,
            id=columns.id,
            names=None if names is None else tuple(names),
            several=inner is not None,
            features=features,
        )

    def undecoded(self, rows: Any) -> Any:
        """Return the rows as plain Python values with the encoded images, without other media."""
        import datasets

        plain = rows.with_format(None)
        if rows.features is None:
            return plain
        plain = plain.select_columns([name for name in self.features if name == self.image or not self._is_heavy(name)])
        if isinstance(self.features[self.image], datasets.Image):
            plain = plain.cast_column(self.image, datasets.Image(decode=False))
        return plain

    def metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that have no other part, with names for numbers that stand for classes."""
        taken = (self.image, self.label, self.group, self.id)
        kept = {name: value for name, value in row.items() if name not in taken}
        for name, value in kept.items():
            names = getattr(self.features.get(name), "names", None)
            if names is not None and isinstance(value, int) and 0 <= value < len(names):
                kept[name] = names[value]
        return kept

    def _is_heavy(self, name: str) -> bool:
        return type(self.features[name]).__name__ in _HEAVY


def is_image(feature: Any) -> bool:
    """Return whether a feature holds encoded images."""
    return type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and {"bytes", "path"} <= set(feature))


def is_label(feature: Any) -> bool:
    """Return whether a feature holds named classes, or lists of them."""
    return getattr(getattr(feature, "feature", feature), "names", None) is not None


def _choose(role: str, asked: str | None, features: Mapping[str, Any], fits: Callable[[Any], bool], where: str) -> str:
    if asked is not None:
        if asked not in features:
            raise _missing(role, asked, features, where)
        if (
            role == "image"
            and features[asked] is not None
            and not (is_image(features[asked]) or _is_bytes(features[asked]))
        ):
            raise DataError(f"column {asked!r} of {where} holds {features[asked]}, not images; {_listed(features)}")
        return asked
    fitting = [name for name, feature in features.items() if fits(feature)]
    if role in features and (role in fitting or not fitting):
        return role
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise DataError(f"{where} has no {role} column ({_listed(features)}); say which it is with {role}=...")
    raise DataError(
        f"{where} has several columns that could be the {role}: {', '.join(fitting)}; choose with {role}=..."
    )


def _is_bytes(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def _missing(role: str, name: str, features: Mapping[str, Any], where: str) -> DataError:
    close = nearest(name, features)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return DataError(f"{where} has no column {name!r} ({_listed(features)}){hint}; say which it is with {role}=...")


def _listed(features: Mapping[str, Any]) -> str:
    return f"columns: {', '.join(features) or 'none'}"
