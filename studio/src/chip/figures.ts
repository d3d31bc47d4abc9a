// Figures of tiles, links and dies that the chip page shows: read from the view, never computed from physics.
import { kindOf } from '../colour'
import { celsius, count, si } from '../format'
import type { Heat, View } from '../types'

export type Quantity = 'temperature' | 'power' | 'traffic' | 'kind' | 'wear' | 'weights'
export const QUANTITIES: [Quantity, string][] = [
  ['temperature', 'Temperature'], ['power', 'Power'], ['traffic', 'Traffic'], ['kind', 'Kind'], ['weights', 'Weights'], ['wear', 'Wear'],
]

export interface Pair { a: number; b: number; kind: string; load: number; B: number; B_per_s: number }
export interface Figures {
  power: number[]
  traffic: number[]
  crossbars: number[]
  pairs: Pair[]
  /** Why a quantity cannot be shown, by its name. */
  missing: Partial<Record<Quantity, string>>
  limit_K: number | null
  hottest: number
}

export const sumOf = (by: Record<string, number[]>, index: number): number => {
  let total = 0
  for (const values of Object.values(by)) total += values[index] ?? 0
  return total
}

export function figuresOf(view: View): Figures {
  const { tiles, links } = view
  const n = tiles.die.length
  const power = tiles.power_W.dynamic.map((value, i) => value + tiles.power_W.leakage[i]!)
  const traffic = new Array<number>(n).fill(0)
  const pairs = new Map<string, Pair>()
  links.from.forEach((a, i) => {
    const b = links.to[i]!
    const B = sumOf(links.B, i)
    if (a >= 0) traffic[a]! += B
    if (b >= 0) traffic[b]! += B
    if (a < 0 || b < 0) return
    const load = view.latency_s > 0 && links.B_per_s[i]! > 0 ? B / links.B_per_s[i]! / view.latency_s : 0
    const key = a < b ? `${a},${b}` : `${b},${a}`
    const known = pairs.get(key)
    if (!known || load > known.load) pairs.set(key, { a, b, kind: links.kind[i]!, load, B, B_per_s: links.B_per_s[i]! })
  })
  const crossbars = new Array<number>(n).fill(0)
  view.weights.tile.forEach((tile, i) => { crossbars[tile]! += view.weights.crossbars[i]! })
  const missing: Figures['missing'] = {}
  if (!tiles.temperature_K) missing.temperature = 'Run with --thermal steady to see heat.'
  if (!links.from.length) missing.traffic = 'This chip has no network.'
  if (!crossbars.some((value) => value > 0)) missing.weights = 'No weights stay in tiles: they come from memory.'
  if (!tiles.writes_per_cell.some((value) => value > 0)) missing.wear = 'No cell is written in this task.'
  const limits = view.dies.flatMap((die) => (die.limit_K === null ? [] : [die.limit_K]))
  const by = tiles.temperature_K ?? power
  return {
    power, traffic, crossbars, pairs: [...pairs.values()], missing,
    limit_K: limits.length ? Math.min(...limits) : null,
    hottest: by.reduce((best, value, i) => (value > by[best]! ? i : best), 0),
  }
}

export function valuesOf(view: View, figures: Figures, quantity: Quantity, moment: number[] | null): number[] {
  if (quantity === 'temperature') return moment ?? view.tiles.temperature_K ?? figures.power.map(() => 0)
  if (quantity === 'traffic') return figures.traffic
  if (quantity === 'weights') return figures.crossbars
  if (quantity === 'wear') return view.tiles.writes_per_cell
  return figures.power
}
export function tell(quantity: Quantity, value: number): string {
  if (quantity === 'temperature') return celsius(value)
  if (quantity === 'traffic') return si(value, 'B')
  if (quantity === 'weights') return value === 0 ? 'none' : `${value < 9.5 ? value.toPrecision(2) : count(value)} crossbars`
  if (quantity === 'wear') return value === 0 ? 'none' : `${value.toPrecision(3)} writes`
  return si(value, 'W')
}
export const CAPTIONS: Record<Quantity, string> = {
  temperature: 'Temperature of a tile',
  power: 'Power of a tile',
  traffic: 'Bytes over a tile’s links, passing through included',
  kind: 'What a tile holds',
  wear: 'Writes of a cell in this task, mean of the tile',
  weights: 'Crossbars of a tile that hold weights',
}

/** From ambient to the lowest limit; stretched it is at least 10 K wide. */
export function scaleOf(view: View, figures: Figures, quantity: Quantity, values: number[], stretched: boolean): [number, number] {
  let low = Infinity, high = -Infinity
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value) }
  if (quantity !== 'temperature') return [0, high > 0 ? high : 1]
  if (!stretched) return [view.ambient_K, Math.max(figures.limit_K ?? 0, figures.limit_K === null ? Math.max(358.15, high) : 0)]
  const middle = (low + high) / 2
  const half = Math.max(5, (high - low) / 2)
  return [Math.floor(middle - half - 273.15) + 273.15, Math.ceil(middle + half - 273.15) + 273.15]
}

/** Kinds on a tile with their share of its area, largest first. */
export function kindsOf(view: View, tile: number): { type: string; share: number; mark: string }[] {
  const held = view.tiles.holds[tile] ?? []
  const areas = held.map(([name, units]) => {
    const part = view.components[name]
    return { type: part?.type ?? 'other', area: part && part.units ? (part.area_m2 / part.units) * units : 0 }
  })
  const total = areas.reduce((sum, one) => sum + one.area, 0)
  return areas
    .map((one) => ({ type: one.type, share: total > 0 ? one.area / total : 1 / areas.length, mark: kindOf(one.type).mark }))
    .sort((a, b) => b.share - a.share)
}

/** Temperatures of all tiles at each time, from 16-bit numbers. */
export function unpack(heat: Heat): (index: number) => number[] {
  const text = atob(heat.temperature_K.int16)
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  const numbers = new DataView(bytes.buffer)
  const { shape: [, tiles], offset, scale } = heat.temperature_K
  return (index) => Array.from({ length: tiles }, (_, i) => offset + scale * numbers.getInt16(2 * (index * tiles + i), true))
}
export const nameOf = (view: View, tile: number): string =>
  `${view.dies[view.tiles.die[tile]!]!.name} ${view.tiles.x[tile]},${view.tiles.y[tile]}`
