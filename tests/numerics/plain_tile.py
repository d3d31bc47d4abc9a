"""A crossbar tile in plain loops: no tensors, no tricks; slow, for small cases.  It shares no code with the rest."""

import math

import numpy as np

F = np.float32


def digits_of(value, width, count, bits, twos):
    """Digits of an integer, least first, and their factors; the top one carries the sign in two's complement."""
    base = 2**width
    if not twos:
        value += 2 ** (bits - 1)
        return [(value // base**d) % base for d in range(count)], [base**d for d in range(count)]
    pattern = value % 2**bits
    low = [(pattern // base**d) % base for d in range(count - 1)]
    top_bits = bits - width * (count - 1)
    top = pattern // base ** (count - 1)
    factors = [base**d for d in range(count)]
    if top_bits == 1:
        factors[-1] = -factors[-1]
    elif top >= 2 ** (top_bits - 1):
        top -= 2**top_bits
    return [*low, top], factors


def columns_of(weight, form):
    """Columns that an ADC sees for one integer weight: (level, factor) pairs, and the offset."""
    base = 2**form.cell_bits
    if form.encoding == "offset":
        stored = weight + 2 ** (form.weight_bits - 1)
        count = math.ceil(form.weight_bits / form.cell_bits)
        return [((stored // base**s) % base, base**s) for s in range(count)], 2 ** (form.weight_bits - 1)
    count = math.ceil((form.weight_bits - 1) / form.cell_bits)
    plus = [(max(weight, 0) // base**s) % base for s in range(count)]
    minus = [(max(-weight, 0) // base**s) % base for s in range(count)]
    if form.encoding == "differential":
        return [(p - m, base**s) for s, (p, m) in enumerate(zip(plus, minus, strict=True))], 0
    return [(p, base**s) for s, p in enumerate(plus)] + [(m, -(base**s)) for s, m in enumerate(minus)], 0


def convert(total, gain, bits, signed):
    """One conversion: the code."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return int(min(max(float(np.rint(F(total) * F(gain))), low), high))


def tile_totals(x, w, form, gains, signed):
    """Totals [block][m][n] of integer inputs x[m][k] and weights w[n][k], as the tile's adders hold them."""
    inputs = len(x[0])
    blocks = []
    for start in range(0, inputs, form.rows):
        end = min(start + form.rows, inputs)
        active = min(form.rows, form.rows_active or form.rows)
        blocks += [(a, min(a + active, end)) for a in range(start, end, active)]
    count = math.ceil(form.input_bits / form.dac_bits)
    twos = form.input_encoding == "twos-complement"
    result = []
    for a, b in blocks:
        rows = []
        for vector in x:
            cut = [digits_of(value, form.dac_bits, count, form.input_bits, twos) for value in vector[a:b]]
            line = []
            for weights in w:
                held = [columns_of(value, form) for value in weights[a:b]]
                offset = held[0][1]
                total = 0.0
                most = 2**form.cell_bits - 1
                turned = [
                    form.inverted_columns and 2 * sum(held[k][0][p][0] for k in range(b - a)) > most * (b - a)
                    for p in range(len(held[0][0]))
                ]
                for d in range(count):
                    for p in range(len(held[0][0])):
                        levels = [most - held[k][0][p][0] if turned[p] else held[k][0][p][0] for k in range(b - a)]
                        current = sum(cut[k][0][d] * levels[k] for k in range(b - a))
                        factor = cut[0][1][d] * held[0][0][p][1]
                        sign = -1 if turned[p] else 1
                        if form.adc_bits == 0:
                            total += factor * (sign * current)
                        else:
                            gain = float(F(gains[p]))
                            code = convert(current, gain, form.adc_bits, signed)
                            total += (cut[0][1][d] * (held[0][0][p][1] / gain)) * (sign * code)
                stored_inputs = sum(vector[a:b]) + (0 if twos else 2 ** (form.input_bits - 1) * (b - a))
                total += stored_inputs * sum(most * held[0][0][p][1] for p in range(len(turned)) if turned[p])
                total -= offset * sum(vector[a:b])
                if not twos:
                    total -= 2 ** (form.input_bits - 1) * sum(value + offset for value in weights[a:b])
                line.append(total)
            rows.append(line)
        result.append(rows)
    return blocks, result
