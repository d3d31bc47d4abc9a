"""Does the sweep of ISAAC's tiles find its authors' choice within their limits, and say what lies beyond?"""

from __future__ import annotations

from tierform.studies import STUDIES, StudyOptions
from tierform.studies.isaac import PUBLISHED, designs


def test_is_the_published_tile_the_best_within_its_authors_limits() -> None:
    result = STUDIES.get("isaac")(StudyOptions(quick=True))
    assert result.holds and len(result.checks) == 4
    best = result.table("Best tiles within the authors' limits").rows[0]
    assert best[:4] == PUBLISHED
    cool = result.table("Most efficient tiles within the authors' limits").rows
    assert PUBLISHED in [row[:4] for row in cool[:4]]
    beyond = result.table("Best tiles beyond the limits").rows[0]
    assert isinstance(beyond[0], int) and beyond[0] > 128


def test_is_the_published_tile_charged_as_the_tile_of_the_library() -> None:
    (one,) = [design for design in designs((128,)) if design.choice == PUBLISHED]
    # 96 arrays of 128 x 16 weights in 16 reads of 100 ns: 2 * 96 * 2048 / 1.6 us = 245.8 GOPS on 0.372 mm2.
    assert abs(one.density - 245.76 / 0.37203) < 1
    # Of 330 mW at full load: 745 GOPS/W.
    assert abs(one.full_load - 245.76 / 0.3298) < 1
    assert one.adc_bits == 8 and one.traffic == 1
