"""A folder of recordings as a labelled dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from snncc.data.class_folders import scan
from snncc.errors import DataError
from snncc.events.container import Events
from snncc.events.reading import SUFFIXES, read


@dataclass(frozen=True)
class Skipped:
    """A file that was left out.

    Attributes:
        path: the file.
        reason: why, as an error would say it.
    """

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class EventFolder:
    """Recordings of a folder; iterating reads one after the other, and only one is in memory at a time.

    Attributes:
        root: the folder.
        files: the recordings, sorted by their paths within it.
        labels: class index of each, where the folder has one subfolder per class; None for a flat folder.
        class_names: the subfolders' names, sorted; None for a flat folder.
        sensor: (width, height) of all recordings; None for what each file says.
        sort: bring events into the order of time; see `read`.
        strict: refuse a file that can't be read instead of leaving it out.
        skipped: the files that the last iteration left out so far.
    """

    root: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None
    sensor: tuple[int, int] | None = None
    sort: bool = False
    strict: bool = False
    skipped: list[Skipped] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        root: str | Path,
        *,
        sensor: tuple[int, int] | None = None,
        sort: bool = False,
        strict: bool = False,
    ) -> EventFolder:
        """Find the recordings of a folder: one subfolder per class, or all in it. Hidden files are ignored.

        Raises:
            DataError: there are none, or recordings lie beside class folders.
        """
        root = Path(root)
        try:
            files, class_names = scan(root, SUFFIXES, "recordings")
        except OSError as error:
            raise DataError(f"folder {root} can't be read ({error}); check its permissions") from error
        labels = None
        if class_names is not None:
            index = {name: number for number, name in enumerate(class_names)}
            labels = tuple(index[path.relative_to(root).parts[0]] for path in files)
        return cls(root, files, labels, class_names, sensor, sort, strict)

    def __len__(self) -> int:
        return len(self.files)

    def head(self, n: int) -> EventFolder:
        """Return the first n files; of a labelled dataset the first n of all classes in turn, so that none is missing.

        Without the turns the first files would all be of the first class.
        """
        if self.labels is None:
            return replace(self, files=self.files[:n], skipped=[])
        seen: dict[int, int] = {}
        rank = []
        for label in self.labels:
            seen[label] = seen.get(label, -1) + 1
            rank.append(seen[label])
        order = sorted(range(len(self.files)), key=lambda i: (rank[i], i))[:n]
        chosen = sorted(order)
        files, labels = tuple(self.files[i] for i in chosen), tuple(self.labels[i] for i in chosen)
        return replace(self, files=files, labels=labels, skipped=[])

    def __iter__(self) -> Iterator[tuple[Events, int | None]]:
        """Yield each recording and its class index, None in a flat folder.

        Raises:
            DataError: a file can't be read, and `strict` is set; or none can.
        """
        self.skipped.clear()
        for number, path in enumerate(self.files):
            try:
                events = read(path, sensor=self.sensor, sort=self.sort)
            except DataError as error:
                if self.strict:
                    raise
                self.skipped.append(Skipped(path, str(error)))
                continue
            yield events, None if self.labels is None else self.labels[number]
        if len(self.skipped) == len(self.files):
            raise DataError(
                f"folder {self.root}: none of its {len(self.files)} recordings can be read, the first since "
                f"{self.skipped[0].reason}"
            )
