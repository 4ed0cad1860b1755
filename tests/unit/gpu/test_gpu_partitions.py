"""MIG geometry: the counts that are known of it, and the laws that every layout keeps."""

from __future__ import annotations

import pytest

from wharfinger.core.errors import Invalid
from wharfinger.gpu.partitions import (
    A100_40GB,
    COMPUTE_SLICES,
    GEOMETRIES,
    Geometry,
    Placement,
    is_layout,
    layouts,
    maximal,
    placements,
    profiles_of,
)


def test_the_layouts_of_an_a100_are_counted() -> None:
    """An A100-40GB has 2,319 layouts, 128 multisets of profiles, 64 of them of layouts that are full."""
    every = list(layouts(A100_40GB))
    assert len(every) == len(set(every)) == 2319
    assert len({profiles_of(layout) for layout in every}) == 128
    assert len({profiles_of(layout) for layout in maximal(A100_40GB, every)}) == 64


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_layout_never_takes_more_than_the_gpu_has(geometry: Geometry) -> None:
    """Every layout fits the counters that all slices share, and has at most 7 compute slices."""
    has = {counter.name: counter.amount for counter in geometry.counters()}
    for layout in layouts(geometry):
        assert is_layout(geometry, layout)
        taken: dict[str, int] = {}
        for placement in layout:
            for counter in geometry.profile(placement.profile).consumes(placement.start):
                taken[counter.name] = taken.get(counter.name, 0) + counter.amount
        assert all(amount <= has[name] for name, amount in taken.items()), (layout, taken)
        assert sum(geometry.profile(p.profile).compute_slices for p in layout) <= COMPUTE_SLICES


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_counters_alone_tell_which_pairs_of_slices_may_exist(geometry: Geometry) -> None:
    """What the scheduler sees, shared counters, forbids exactly the pairs that the geometry forbids."""
    has = {counter.name: counter.amount for counter in geometry.counters()}
    every = [(profile, start) for profile, start in placements(geometry)]
    for i, (one, at) in enumerate(every):
        for other, there in every[i + 1 :]:
            amounts: dict[str, int] = {}
            for counter in (*one.consumes(at), *other.consumes(there)):
                amounts[counter.name] = amounts.get(counter.name, 0) + counter.amount
            by_counters = all(amount <= has[name] for name, amount in amounts.items())
            pair = frozenset({Placement(one.name, at), Placement(other.name, there)})
            assert by_counters == is_layout(geometry, pair), pair


def test_a_profile_of_another_product_is_refused() -> None:
    """Asking an A100 for an H100's profile names the profiles that it has."""
    with pytest.raises(Invalid, match=r"1g\.5gb.*got \"1g\.20gb\""):
        is_layout(A100_40GB, frozenset({Placement("1g.20gb", 0)}))
