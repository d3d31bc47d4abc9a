// Columns of a study: numbers in base64, and the figures of axes from them.
import type { Column, Parameter, StudyView } from '../types'

export const NOTHING = 65535
export function numbers(column: Column | undefined): Float32Array | Uint16Array {
  if (!column) return new Float32Array(0)
  const text = 'f4' in column ? column.f4 : column.u2
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
  return 'f4' in column ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer)
}
export const TITLES: Record<string, string> = {
  latency_s: 'Time', energy_J: 'Energy', energy_delay_product_Js: 'Energy × time', average_power_W: 'Power', area_m2: 'Area', peak_K: 'Hottest tile',
  kelvin_over: 'Over the limit of heat', bytes_missing: 'Memory missing', chips: 'Chips', cell_writes: 'Cell writes', network_B: 'Bytes over the network',
}
/** How many bins a parameter's strip has, which one a point is in, and what a bin is called. */
export const BINS = 10
export const binsOf = (one: Parameter): number => one.choices?.length ?? (one.whole && one.high - one.low < BINS ? Math.round(one.high - one.low) + 1 : BINS)
export function binOf(one: Parameter, value: number): number {
  if (one.choices) return value === NOTHING ? -1 : value
  if (!Number.isFinite(value)) return -1
  if (one.whole && one.high - one.low < BINS) return Math.round(value - one.low)
  const share = one.log ? Math.log(value / one.low) / Math.log(one.high / one.low) : (value - one.low) / (one.high - one.low)
  return Math.min(BINS - 1, Math.max(0, Math.floor(share * BINS)))
}
export const short = (x: number): string => Number(x.toPrecision(3)).toLocaleString('en', { maximumSignificantDigits: 3 })
export function binName(one: Parameter, bin: number): string {
  const unit = one.unit ? `\u00a0${one.unit}` : ''
  if (one.choices) return String(one.choices[bin])
  if (one.whole && one.high - one.low < BINS) return `${Math.round(one.low) + bin}${unit}`
  const at = (k: number) => (one.log ? one.low * (one.high / one.low) ** (k / BINS) : one.low + ((one.high - one.low) * k) / BINS)
  return `${short(at(bin))} to ${short(at(bin + 1))}${unit}`
}
export function chosen(one: Parameter, value: number): string {
  if (one.choices) return value === NOTHING ? 'does not act' : String(one.choices[value])
  return Number.isFinite(value) ? `${short(value)}${one.unit ? `\u00a0${one.unit}` : ''}` : 'does not act'
}
/** Which points of a set no other beats in two figures, least at best where the sign is 1; in the order of the first. */
export function front(points: number[], x: ArrayLike<number>, y: ArrayLike<number>, sx = 1, sy = 1): number[] {
  const order = points.filter((i) => Number.isFinite(x[i]!) && Number.isFinite(y[i]!)).sort((a, b) => sx * (x[a]! - x[b]!) || sy * (y[a]! - y[b]!))
  let least = Infinity
  return order.filter((i) => { const good = sy * y[i]! < least; if (good) least = sy * y[i]!; return good })
}
export interface Table { view: StudyView; number: ArrayLike<number>; figures: Record<string, ArrayLike<number>>; chosen: Record<string, ArrayLike<number>>; violation: ArrayLike<number>; reason: ArrayLike<number>; front: Set<number>; feasible: (i: number) => boolean }
export function table(view: StudyView): Table {
  const all = (columns: Record<string, Column>) => Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, numbers(column)]))
  const violation = numbers(view.points.violation), figures = all(view.points.figures)
  const wanted = view.objectives.map((one) => figures[one.figure]!)
  return {
    view, number: numbers(view.points.number), figures, chosen: all(view.points.chosen), violation, reason: numbers(view.points.reason), front: new Set(view.front),
    feasible: (i) => violation[i]! <= 0 && wanted.every((column) => Number.isFinite(column[i]!)),
  }
}
