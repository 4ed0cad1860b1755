"""Partitions: into which slices a GPU can be cut, as data, and the layouts that follow.

NVIDIA's Multi-Instance GPU: a 7-slice GPU has 7 compute and 8 memory slices; a profile covers a run of memory
slices that may start in few places. A layout is a set of placements that do not overlap and stay within each
profile's count. Figures as `nvidia-smi mig -lgip` and `-lgipp` print them (MIG User Guide, R570).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wharfinger.core.errors import Invalid, excerpt
from wharfinger.gpu.devices import Counter

COMPUTE_SLICES: Final = 7
"""Compute slices of a whole GPU: quota counts compute in sevenths."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of slice.

    `profile_id` is the vendor's number of it, `index` its place in NVML's enumeration, `starts` the memory
    slices that it may begin at, `size` how many it covers, `limit` how many may exist at once, `memory` in MiB.
    """

    name: str
    profile_id: int
    index: int
    compute_slices: int
    size: int
    starts: tuple[int, ...]
    limit: int
    memory: int
    multiprocessors: int
    copy_engines: int
    decoders: int
    encoders: int
    jpeg_engines: int
    ofa_engines: int

    def consumes(self, start: int) -> tuple[Counter, ...]:
        """Return what a slice of this profile at `start` takes from its GPU."""
        amounts = {
            "multiprocessors": self.multiprocessors,
            "copy-engines": self.copy_engines,
            "decoders": self.decoders,
            "encoders": self.encoders,
            "jpeg-engines": self.jpeg_engines,
            "ofa-engines": self.ofa_engines,
        }
        taken = [Counter(name, amount) for name, amount in amounts.items() if amount]
        return (*taken, *(Counter(f"memory-slice-{i}", 1) for i in range(start, start + self.size)))


@dataclass(frozen=True, slots=True)
class Geometry:
    """How one product can be cut. `memory` is the whole GPU's in MiB; the last profile is the whole of it."""

    product: str
    name: str
    architecture: str
    compute_capability: tuple[int, int]
    memory: int
    profiles: tuple[Profile, ...]

    def profile(self, name: str) -> Profile:
        """Return the profile called `name`. Raises `Invalid` where the product has none."""
        for profile in self.profiles:
            if profile.name == name:
                return profile
        known = ", ".join(profile.name for profile in self.profiles)
        raise Invalid(f"expected a profile of {self.product} ({known}), got {excerpt(name)}")

    def counters(self) -> tuple[Counter, ...]:
        """Return what the slices of one such GPU share: enough of each for the profile that takes the whole."""
        return self.profiles[-1].consumes(0)


@dataclass(frozen=True, slots=True, order=True)
class Placement:
    """A slice of `profile` whose first memory slice is `start`."""

    profile: str
    start: int


Layout = frozenset[Placement]


def placements(geometry: Geometry) -> Iterator[tuple[Profile, int]]:
    """Yield every slice that the product could be cut into, each by itself."""
    for profile in geometry.profiles:
        for start in profile.starts:
            yield profile, start


def is_layout(geometry: Geometry, layout: Layout) -> bool:
    """Say whether these slices can exist on one GPU at the same time.

    Raises `Invalid` for a profile that the product does not have.
    """
    covered: set[int] = set()
    counts: dict[str, int] = {}
    for placement in layout:
        profile = geometry.profile(placement.profile)
        cells = set(range(placement.start, placement.start + profile.size))
        counts[profile.name] = counts.get(profile.name, 0) + 1
        if placement.start not in profile.starts or cells & covered or counts[profile.name] > profile.limit:
            return False
        covered |= cells
    return True


def layouts(geometry: Geometry) -> Iterator[Layout]:
    """Yield every legal layout of the product once, the empty one first."""
    everything = [
        (Placement(profile.name, start), sum(1 << i for i in range(start, start + profile.size)), profile.limit)
        for profile, start in placements(geometry)
    ]

    def extend(at: int, covered: int, chosen: tuple[Placement, ...]) -> Iterator[Layout]:
        yield frozenset(chosen)
        for i in range(at, len(everything)):
            placement, cells, limit = everything[i]
            used = sum(1 for other in chosen if other.profile == placement.profile)
            if not covered & cells and used < limit:
                yield from extend(i + 1, covered | cells, (*chosen, placement))

    return extend(0, 0, ())


def profiles_of(layout: Layout) -> tuple[str, ...]:
    """Return the sorted profiles of a layout, each as often as it occurs: what it offers, wherever it lies."""
    return tuple(sorted(placement.profile for placement in layout))


def maximal(geometry: Geometry, every: Sequence[Layout]) -> Iterator[Layout]:
    """Yield those of `every` legal layout to which no further slice can be added."""
    known = set(every)
    singles = [Placement(profile.name, start) for profile, start in placements(geometry)]
    for layout in every:
        if not any(layout | {single} in known for single in singles if single not in layout):
            yield layout


def _profiles(
    rows: Sequence[tuple[str, int, int, int, int, tuple[int, ...], int, int, tuple[int, ...]]],
) -> tuple[Profile, ...]:
    return tuple(
        Profile(name, number, index, compute, size, starts, limit, memory, *engines)
        for name, number, index, compute, size, starts, limit, memory, engines in rows
    )


# Columns: name, id, NVML's index, compute slices, memory slices, starts, count, MiB,
# (multiprocessors, copy engines, decoders, encoders, JPEG engines, optical flow engines).
A100_40GB: Final = Geometry(
    product="A100-40GB",
    name="NVIDIA A100-SXM4-40GB",
    architecture="Ampere",
    compute_capability=(8, 0),
    memory=40960,
    profiles=_profiles(
        (
            ("1g.5gb", 19, 0x0, 1, 1, (0, 1, 2, 3, 4, 5, 6), 7, 4864, (14, 1, 0, 0, 0, 0)),
            ("1g.5gb+me", 20, 0x7, 1, 1, (0, 1, 2, 3, 4, 5, 6), 1, 4864, (14, 1, 1, 0, 1, 1)),
            ("1g.10gb", 15, 0x9, 1, 2, (0, 2, 4, 6), 4, 9856, (14, 1, 1, 0, 0, 0)),
            ("2g.10gb", 14, 0x1, 2, 2, (0, 2, 4), 3, 9856, (28, 2, 1, 0, 0, 0)),
            ("3g.20gb", 9, 0x2, 3, 4, (0, 4), 2, 19968, (42, 3, 2, 0, 0, 0)),
            ("4g.20gb", 5, 0x3, 4, 4, (0,), 1, 19968, (56, 4, 2, 0, 0, 0)),
            ("7g.40gb", 0, 0x4, 7, 8, (0,), 1, 40192, (98, 7, 5, 0, 1, 1)),
        )
    ),
)
H100_80GB: Final = Geometry(
    product="H100-80GB",
    name="NVIDIA H100 80GB HBM3",
    architecture="Hopper",
    compute_capability=(9, 0),
    memory=81559,
    profiles=_profiles(
        (
            ("1g.10gb", 19, 0x0, 1, 1, (0, 1, 2, 3, 4, 5, 6), 7, 9856, (16, 1, 1, 0, 1, 0)),
            ("1g.10gb+me", 20, 0x7, 1, 1, (0, 1, 2, 3, 4, 5, 6), 1, 9856, (16, 1, 1, 0, 1, 1)),
            ("1g.20gb", 15, 0x9, 1, 2, (0, 2, 4, 6), 4, 19968, (26, 1, 1, 0, 1, 0)),
            ("2g.20gb", 14, 0x1, 2, 2, (0, 2, 4), 3, 19968, (32, 2, 2, 0, 2, 0)),
            ("3g.40gb", 9, 0x2, 3, 4, (0, 4), 2, 40192, (60, 3, 3, 0, 3, 0)),
            ("4g.40gb", 5, 0x3, 4, 4, (0,), 1, 40192, (64, 4, 4, 0, 4, 0)),
            ("7g.80gb", 0, 0x4, 7, 8, (0,), 1, 80896, (132, 8, 7, 0, 7, 1)),
        )
    ),
)
GEOMETRIES: Final = {geometry.product: geometry for geometry in (A100_40GB, H100_80GB)}
"""The products that Wharfinger knows by heart: declared fleets are made of them. Real GPUs answer for themselves."""
