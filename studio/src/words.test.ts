import { describe, expect, it } from 'vitest'
import { at, css, kinds, ramps, type Triple } from './colour'
import { apart } from './chip/labels'
import { change, measure, percent, si, wholeB } from './format'
import { address, parse } from './route'

const plain = (text: string) => text.replaceAll('\u00a0', ' ')
describe('numbers', () => {
  it('keep three digits at the borders of prefixes', () => {
    const found = [999.4, 999.5, 0.9995, 0.9994, 0, -1.234e-3, 1e18, 5.1e-2].map((x) => plain(si(x, 's')))
    expect(found).toEqual(['999 s', '1.00 ks', '1.00 s', '999 ms', '0 s', '-1.23 ms', '1,000 Ps', '51.0 ms'])
    expect(si(NaN, 's')).toBe('–')
  })
  it('count the parts of a footprint once, with its total and without', () => {
    expect(wholeB({ weights: 3, activations: 4, total: 7 })).toBe(7)
    expect(wholeB({ weights: 3, activations: 4 })).toBe(7)
  })
  it('say percents, changes and areas in words', () => {
    expect([0, 0.0004, 0.0412, 0.0996, 1].map((x) => plain(percent(x)))).toEqual(['0 %', '< 0.1 %', '4.1 %', '10 %', '100 %'])
    expect(plain(change(95.9, 100))).toBe('4.1 % less')
    expect(change(300, 100)).toBe('3.0 times as much')
    expect(change(1, 0)).toBe('')
    expect(change(1.0001, 1)).toBe('the same')
    expect(plain(measure(2.5e-11, 'm^2'))).toBe('25 µm²')
    expect(plain(measure(6, 'bit'))).toBe('6 bit')
    expect(plain(measure(1.28e9, '1/s'))).toBe('1.28 G/s')
    expect([132, 0.8].map((x) => plain(measure(x, '1')))).toEqual(['132', '0.8'])
    expect(plain(measure(9.77e-16, 'J'))).toBe('977 aJ')
  })
})

// OKLab, and what people with three kinds of colour blindness see (Machado, Oliveira and Fernandes, 2009).
const linear = (c: Triple): Triple => c.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)) as Triple
function lab(c: Triple): Triple {
  const [r, g, b] = c.map((x) => Math.max(1e-6, x)) as Triple
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
  return [0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s, 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s, 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s]
}
const SIGHT = [
  [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
]
const hex = (text: string): Triple => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16) / 255) as Triple

describe('colours', () => {
  it.each(['heat', 'load'] as const)('%s goes in equal steps and only one way in lightness', (name) => {
    for (const mode of ['dark', 'light'] as const) {
      const labs = ramps[name][mode].map((c) => lab(linear(c)))
      const steps = labs.slice(1).map((x, i) => Math.hypot(...x.map((v, k) => v - labs[i]![k]!)))
      const mean = steps.reduce((a, b) => a + b) / steps.length
      // Groups of eight: single steps are rounded to the nearest of 1,024 places.
      for (let i = 0; i + 8 < steps.length; i += 8) expect(Math.abs(steps.slice(i, i + 8).reduce((a, b) => a + b) / 8 / mean - 1)).toBeLessThan(0.1)
      const way = Math.sign(labs[255]![0] - labs[0]![0])
      for (let i = 1; i < labs.length; i++) expect((labs[i]![0] - labs[i - 1]![0]) * way).toBeGreaterThan(-1e-4)
      for (const c of ramps[name][mode]) expect(c.every((x) => x >= 0 && x <= 1)).toBe(true)
    }
  })
  it('of kinds are told apart by everybody', () => {
    for (const mode of ['dark', 'light'] as const) {
      const all = Object.values(kinds).map((kind) => linear(hex(kind[mode])))
      for (const sight of SIGHT) {
        const seen = all.map((c) => lab(sight.map((row) => row[0]! * c[0] + row[1]! * c[1] + row[2]! * c[2]) as Triple))
        for (let i = 0; i < seen.length; i++) for (let k = 0; k < i; k++) expect(Math.hypot(...seen[i]!.map((v, j) => v - seen[k]![j]!))).toBeGreaterThan(0.1)
      }
    }
  })
  it('stay inside the scale', () => {
    expect(css(at(ramps.heat.dark, -5))).toBe(css(at(ramps.heat.dark, 0)))
    expect(css(at(ramps.heat.dark, NaN))).toBe(css(at(ramps.heat.dark, 0)))
    expect(css(at(ramps.heat.dark, 9))).toBe(css(at(ramps.heat.dark, 1)))
  })
})
describe('layout and address', () => {
  it('labels never lie on one another and stay in the room', () => {
    const boxes = Array.from({ length: 6 }, (_, i) => ({ x: 100 + 10 * i, y: 300, w: 160, h: 36 }))
    const found = apart(boxes, { w: 600, h: 500 })
    for (let i = 0; i < 6; i++) {
      expect(found[i]!.y).toBeGreaterThanOrEqual(4)
      for (let k = 0; k < i; k++) expect(found[i]!.x < found[k]!.x + 160 && found[k]!.x < found[i]!.x + 160 && found[i]!.y < found[k]!.y + 36 && found[k]!.y < found[i]!.y + 36).toBe(false)
    }
  })
  it('an address reads back', () => {
    const params = new URLSearchParams({ run: '1', 'v:network.width': '64', find: 'a b&c' })
    const again = parse(address('whatif', params))
    expect([again.page, again.params.toString()]).toEqual(['whatif', params.toString()])
    expect(parse('').page).toBe('')
  })
})
