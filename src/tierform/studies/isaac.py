"""ISAAC's own design choice re-derived: a sweep of array size, converters and arrays for operations a second and mm2.

Published (Shafiee et al., ISCA 2016): 128 x 128 arrays, 8 of them and 8 converters of 8 bits in each of 12 macros of a
tile are the optimum of the authors' figure of merit.  Here the library's tile is varied by its scaling laws over array
sizes, arrays and converters a macro and macros a tile, at 16 x 16 bits, with as many bits in each converter as a full
column needs.  Two limits are the authors': converters of at most 8 bits (the published one of their tile), and a buffer
and bus that carry what they carry in their tile.  What lies beyond both is shown, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import fsum

from tierform.chip.crossbar import CrossbarParameters, CrossbarTiles
from tierform.chip.crossbar.readout import needed_adc_bits, read
from tierform.chip.crossbar.tile import area_by_part, peak, power_by_part
from tierform.chip.description import load_component
from tierform.studies.study import Check, Picture, StudyOptions, StudyResult, Table

SOURCES = ("isaac-2016", "accelergy-isaac")
PUBLISHED = (128, 8, 8, 12)  # rows and columns, arrays and converters of a macro, macros
BITS, MOST_ADC_BITS, NEAR = 16, 8, 0.05
SETTINGS = ("sizes",)


@dataclass(frozen=True, slots=True)
class Design:
    """A tile: its choice, bits of a converter, input bytes a second over the published tile's, GOPS/mm2 and GOPS/W.

    GOPS/W at full load, as the authors count, and as an operation is charged here.
    """

    size: int
    arrays: int
    converters: int
    macros: int
    adc_bits: int
    traffic: float
    density: float
    full_load: float
    efficiency: float

    @property
    def choice(self) -> tuple[int, int, int, int]:
        """What was chosen."""
        return self.size, self.arrays, self.converters, self.macros


def designs(sizes: tuple[int, ...]) -> Iterator[Design]:
    """Every tile of the sweep."""
    plain = _tile({})
    fed = _inputs_B_per_s(plain)
    for size, arrays, converters, macros in product(sizes, (2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32), (3, 6, 12, 24)):
        shared = size * arrays // converters
        if not size / 8 <= shared <= 8 * size:
            continue
        bits = needed_adc_bits(plain.model_copy(update={"rows": size, "columns": size}))
        tile = _tile(
            {
                "rows": size,
                "columns": size,
                "crossbars": arrays * macros,
                "crossbars_per_macro": arrays,
                "columns_per_adc": shared,
                "adc_bits": bits,
            }
        )
        found = peak(tile, BITS, BITS, bytes_moved=True)
        yield Design(
            size=size,
            arrays=arrays,
            converters=converters,
            macros=macros,
            adc_bits=bits,
            traffic=_inputs_B_per_s(tile) / fed,
            density=found.operations_per_s / 1e9 / (fsum(area_by_part(tile).values()) * 1e6),
            full_load=found.operations_per_s / 1e9 / fsum(power_by_part(tile).values()),
            efficiency=found.operations_per_J / 1e9,
        )


def _tile(changes: dict[str, object]) -> CrossbarParameters:
    tile = load_component("tile", 1, "isaac-tile-32nm", changes)
    assert isinstance(tile, CrossbarTiles)
    return tile.parameters


def _inputs_B_per_s(tile: CrossbarParameters) -> float:
    return tile.crossbars * tile.rows * BITS / 8 / read(tile, BITS, tile.rows).seconds


def run(options: StudyOptions) -> StudyResult:
    """The sweep, its best tiles within the authors' limits and beyond, and where the published one stands."""
    options.check_settings(SETTINGS)
    sizes = options.whole_numbers("sizes", (64, 128, 256) if options.quick else (32, 64, 128, 256, 512))
    if PUBLISHED[0] not in sizes:
        sizes = tuple(sorted({*sizes, PUBLISHED[0]}))
    options.say("tiles of every size")
    every = sorted(designs(sizes), key=lambda design: (-design.density, design.choice != PUBLISHED))
    inside = [one for one in every if one.adc_bits <= MOST_ADC_BITS and one.traffic <= 1 + 1e-9]
    published = next(one for one in inside if one.choice == PUBLISHED)
    best = inside[0]
    behind = 1 - published.density / best.density
    coolest = max(inside, key=lambda design: design.full_load)
    by_size = {size: max((one.density for one in inside if one.size == size), default=None) for size in sizes}
    ratio = {
        share: max(one.density for one in inside if one.size == 128 and one.converters == one.arrays * share)
        for share in (0.5, 1, 2)
    }
    checks = (
        Check(
            "the published tile is within 5 % of the best of the sweep",
            behind <= NEAR,
            f"{published.density:.0f} of {best.density:.0f} GOPS/mm2",
        ),
        Check(
            "the published tile is within 5 % of the best of the sweep in operations a joule at full load",
            published.full_load >= (1 - NEAR) * coolest.full_load,
            f"{published.full_load:.0f} of {coolest.full_load:.0f} GOPS/W",
        ),
        Check("the best arrays are 128 x 128", best.size == PUBLISHED[0], f"{best.size} x {best.size}"),
        Check(
            "one converter for an array is best",
            ratio[1] >= max(ratio.values()),
            ", ".join(f"{share:g} an array: {density:.0f} GOPS/mm2" for share, density in ratio.items()),
        ),
    )
    tables = (
        _table("Best tiles within the authors' limits", inside[:10]),
        Table(
            "Best tile of each array size",
            ("rows and columns", "GOPS/mm2"),
            tuple((size, density) for size, density in by_size.items()),
            "Converters of at most 8 bits, inputs that the published buffer and bus carry; empty: none fits.",
        ),
        _table(
            "Most efficient tiles within the authors' limits",
            sorted(inside, key=lambda design: (-design.full_load, design.choice != PUBLISHED))[:10],
        ),
        _table("Best tiles beyond the limits", every[:10]),
    )
    remarks = (
        "Published: 479 GOPS/mm2 and 364 GOPS/W of a chip with its links (479 GOPS/mm2 on 85.4 mm2 at 65.8 W would be "
        "622).  Here it is the tile alone, and 'GOPS/W' charges an operation what it takes.",
        "With converters of 9 and 10 bits at the published points, and buffers that need not carry more, larger arrays "
        "would be denser: the authors' optimum is that of their converter.  Larger arrays also lose accuracy in wires.",
    )
    picture = Picture(
        tables[1].title, "rows and columns", ("GOPS/mm2",), title="Density by array size", unit="GOPS/mm2"
    )
    return StudyResult(
        study="isaac",
        title="ISAAC's own choice of arrays and converters",
        tables=tables,
        checks=checks,
        remarks=remarks,
        sources=SOURCES,
        pictures=(picture,),
    )


def _table(title: str, rows: list[Design]) -> Table:
    head = (
        "rows and columns",
        "arrays a macro",
        "converters a macro",
        "macros",
        "ADC bits",
        "inputs",
        "GOPS/mm2",
        "GOPS/W at full load",
        "GOPS/W",
    )
    note = f"{BITS} x {BITS} bits; inputs: bytes a second over those of the published tile."
    cells = tuple((*one.choice, one.adc_bits, one.traffic, one.density, one.full_load, one.efficiency) for one in rows)
    return Table(title, head, cells, note)
