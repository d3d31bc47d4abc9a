"""How fast compute-in-memory tiles are costed, and what their ledger takes.

Run: python benchmarks/cim.py
"""

from __future__ import annotations

import time

from tierform import library
from tierform.chip.contract import product
from tierform.chip.crossbar.component import CrossbarTiles
from tierform.chip.description import load_component
from tierform.validation.cim import ledger

CALLS = 5000


def main() -> None:
    print(f"{'tile':28} {'load ms':>8} {'cost() us':>10}")
    for name in library.names("components"):
        begin = time.process_time()
        component = load_component(name, 16, name)
        loaded = time.process_time() - begin
        if not isinstance(component, CrossbarTiles):
            continue
        widest = min(8, component.parameters.max_weight_bits or 8)
        operator = product(128, 256, 256, precision="int4" if widest < 8 else "int8", weight_precision=f"int{widest}")
        component.cost(operator)
        begin = time.process_time()
        for _ in range(CALLS):
            component.cost(operator)
        print(f"{name:28} {loaded * 1e3:8.1f} {(time.process_time() - begin) / CALLS * 1e6:10.1f}")
    begin = time.process_time()
    points = len(ledger().points)
    print(f"\nledger of {points} points: {time.process_time() - begin:.2f} CPU s")


if __name__ == "__main__":
    main()
