// What the pieces of a timeline are coloured by: their unit, or a class of their own, or a number on a scale.
import { at, css, ramps, type Mode } from '../colour'
import type { Timeline, View } from '../types'
import { colourOf } from './compare'

const CLASSES = 7 // that have a colour of their own
export type By = 'unit' | 'kind' | 'operator' | 'stage' | 'layer' | 'micro'
export interface Lane { share: Float32Array; what: Int16Array; layer: Int16Array | null; micro: Int16Array | null }
export interface Hues { shade: (lane: Lane, piece: number) => string; first: [name: string, colour: string][]; rest: number; scale: { from: string; to: string; name: string } | null }

/** Pairs of a value and how many pieces it leads, as one value for each piece. */
export function spread(runs: number[], pieces: number): Int16Array {
  const found = new Int16Array(pieces).fill(-1)
  for (let i = 0, place = 0; i < runs.length; i += 2) { found.fill(runs[i]!, place, place + runs[i + 1]!); place += runs[i + 1]! }
  return found
}
/** What there is to colour by: files of before have no layers, and one micro-batch has nothing to tell apart. */
export function waysOf(told: Timeline): [By, string][] {
  const several = told.rows.some((row) => row.micro_batch?.some((one, i) => i % 2 === 0 && one > 0))
  return [['unit', 'Unit'], ['kind', 'Class'], ['operator', 'Operator'], ['stage', 'Stage'], ...((told.layers?.length ?? 0) > 1 ? [['layer', 'Layer'] as [By, string]] : []), ...(several ? [['micro', 'Micro-batch'] as [By, string]] : [])]
}
export const layerName = (one: string | number): string => (typeof one === 'number' ? `layer ${one}` : one)

/** The colours of pieces, the largest classes with colours of their own; null where a piece has that of its unit. */
export function huesOf(told: Timeline, view: View, lanes: Lane[], by: By, mode: Mode): Hues | null {
  if (by === 'unit') return null
  const names: (string | number)[] = by === 'layer' ? told.layers ?? [] : []
  const kind = new Map(view.operators.map((one) => [one.name, one.kind]))
  const stage = Array.from({ length: told.pieces }, (_, i) => told.stages.findLast((one) => one.start_s <= ((i + 0.5) / told.pieces) * told.end_s)?.name.replace(/\[.*/, '') ?? '')
  const of = (lane: Lane, i: number): string | number => {
    if (by === 'stage') return stage[i]!
    if (by === 'layer') return names[lane.layer?.[i] ?? -1] ?? ''
    if (by === 'micro') { const number = lane.micro?.[i] ?? -1; return number < 0 ? '' : number }
    const name = told.names[lane.what[i]!]
    return name === undefined ? '' : by === 'kind' ? kind.get(name) ?? name : name
  }
  const sums = new Map<string | number, number>()
  for (const lane of lanes) for (let i = 0; i < told.pieces; i++) if (lane.share[i]! > 0) { const one = of(lane, i); sums.set(one, (sums.get(one) ?? 0) + lane.share[i]!) }
  const numbers = [...sums.keys()].filter((one): one is number => typeof one === 'number')
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)]
  const shadeOf = (number: number) => css(at(ramps.load[mode], 0.25 + (0.75 * (number - low)) / (high - low || 1)))
  const classes = [...sums].filter((one): one is [string, number] => typeof one[0] === 'string' && one[0] !== '').sort((a, b) => b[1] - a[1]).map(([name]) => name)
  const own = (k: number) => (k < 5 ? colourOf('', k, mode) : colourOf('', k - 5, mode === 'dark' ? 'light' : 'dark'))
  const known = new Map<string | number, string>(classes.slice(0, CLASSES).map((name, k) => [name, own(k)]))
  const first = [...known] as [string, string][]
  for (const one of numbers) known.set(one, shadeOf(one))
  return {
    shade: (lane, piece) => known.get(of(lane, piece)) ?? '', first, rest: classes.length - first.length,
    scale: numbers.length ? { from: shadeOf(low), to: shadeOf(high), name: low === high ? `${by === 'layer' ? 'Layer' : 'Micro-batch'} ${low}` : `${by === 'layer' ? 'Layers' : 'Micro-batches'} ${low} to ${high}` } : null,
  }
}
