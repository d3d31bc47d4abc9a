// The same tiles as a plan, die beside die: for print, for keyboards and where there is no WebGL; and as a table.
import { useState } from 'preact/hooks'
import { kindOf, type Mode } from '../colour'
import { celsius, count, percent, si } from '../format'
import type { View } from '../types'
import { kindsOf, nameOf, tell, type Figures, type Quantity } from './figures'

interface Shown {
  view: View
  colour: (tile: number) => string
  over: (tile: number) => boolean
  tile: number
  onTile: (tile: number) => void
}
/** What a die's label tells: of the quantity that its tiles are coloured by. */
export const dieText = (view: View, die: number, quantity: Quantity, values: number[]): string => {
  const one = view.dies[die]!
  if (quantity === 'traffic' || quantity === 'weights' || quantity === 'wear') return `up to ${tell(quantity, Math.max(...values.filter((_, i) => view.tiles.die[i] === die)))} a tile`.replace('up to none', 'none')
  const heat = one.peak_K !== null ? `${celsius(one.peak_K)} peak` : ''
  return [heat, one.power_W !== null ? si(one.power_W, 'W') : ''].filter(Boolean).join(' · ')
}
export function Flat({ view, colour, over, tile, hover, onTile, onHover, quantity, values, mode, onKey }: Shown & { hover: number; onHover: (tile: number) => void; quantity: Quantity; values: number[]; mode: Mode; onKey: (event: KeyboardEvent) => void }) {
  const stacked = view.package === '3d'
  const order = view.dies.map((_, die) => die).sort((a, b) => (stacked ? b - a : a - b))
  const across = view.dies.length > 4 ? Math.min(4, Math.ceil(view.dies.length / 2)) : view.dies.length > 1 ? 2 : 1
  const byDie = view.dies.map(() => [] as number[])
  view.tiles.die.forEach((die, i) => byDie[die]!.push(i))
  return (
    <div class="flat" tabIndex={0} role="application" aria-label={`Plan of ${view.dies.length} dies, ${view.tiles.die.length} tiles. Arrow keys move, Page Up and Page Down change the die.`} onKeyDown={onKey}
      style={{ '--across': across }}>
      {order.map((die) => {
        const { grid: [nx, ny], size_m: [w, h], name } = view.dies[die]!
        const ratio = h / ny / (w / nx)
        return (
          <figure key={die}>
            <figcaption><b>{name}</b> {dieText(view, die, quantity, values)}</figcaption>
            <svg viewBox={`-.1 -.1 ${nx + 0.2} ${ny * ratio + 0.2}`} aria-hidden="true">
              <defs><pattern id={`hatch${die}`} width=".2" height=".2" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M0 0V.2" stroke="var(--bg)" stroke-width=".1" /></pattern></defs>
              {byDie[die]!.map((i) => {
                const x = view.tiles.x[i]! + 0.03, y = view.tiles.y[i]! * ratio + 0.03, high = ratio - 0.06
                const kinds = quantity === 'kind' ? kindsOf(view, i) : []
                let left = x
                return (
                  <g key={i} onClick={() => onTile(i)} onPointerEnter={() => onHover(i)} onPointerLeave={() => onHover(-1)}>
                    {kinds.length > 1 ? kinds.map((one) => { const at = left; left += 0.94 * one.share; return <rect x={at} y={y} width={0.94 * one.share} height={high} fill={kindOf(one.type)[mode]} /> }) : <rect x={x} y={y} width=".94" height={high} fill={colour(i)} />}
                    {over(i) && quantity === 'temperature' && <rect x={x} y={y} width=".94" height={high} fill={`url(#hatch${die})`} opacity=".55" />}
                    {quantity === 'kind' && nx <= 12 && <text x={x + 0.47} y={y + high / 2 + 0.11} class={kinds[0]?.mark === 'O' ? 'mark o' : 'mark'}>{kinds.map((one) => one.mark).join('')}</text>}
                    {(i === tile || i === hover) && <rect x={x} y={y} width=".94" height={high} class={i === tile ? 'sel' : 'hov'} />}
                  </g>
                )
              })}
            </svg>
          </figure>
        )
      })}
    </div>
  )
}

const MOST = 300
export function TileTable({ view, figures, tile, onTile }: { view: View; figures: Figures; tile: number; onTile: (tile: number) => void }) {
  const heat = view.tiles.temperature_K
  const columns: [string, (i: number) => number, (x: number) => string][] = []
  if (heat) columns.push(['Temperature', (i) => heat[i]!, (x) => celsius(x)])
  columns.push(['Power', (i) => figures.power[i]!, (x) => si(x, 'W')], ['Traffic', (i) => figures.traffic[i]!, (x) => si(x, 'B')])
  if (!figures.missing.weights) columns.push(['Crossbars', (i) => figures.crossbars[i]!, (x) => (x ? (x < 9.5 ? x.toPrecision(2) : count(x)) : 'none')])
  const [by, setBy] = useState(0)
  const order = view.tiles.die.map((_, i) => i).sort((a, b) => columns[by]![1](b) - columns[by]![1](a))
  return (
    <div class="scroll tiles" tabIndex={0} role="region" aria-label="Tiles as a table">
      <table class="grid">
        <caption>{order.length > MOST ? `The first ${MOST} of ${order.length} tiles` : `${order.length} tiles`}, largest {columns[by]![0].toLowerCase()} first</caption>
        <thead><tr><th scope="col">Tile</th><th scope="col">Holds</th>{columns.map(([name], k) => <th scope="col" class="n" aria-sort={k === by ? 'descending' : 'none'}><button type="button" onClick={() => setBy(k)}>{name}</button></th>)}</tr></thead>
        <tbody>{order.slice(0, MOST).map((i) => (
          <tr key={i} class={i === tile ? 'chosen' : ''}>
            <th scope="row"><button type="button" class="link" aria-current={i === tile ? 'true' : undefined} onClick={() => onTile(i)}>{nameOf(view, i)}</button></th>
            <td>{(view.tiles.holds[i] ?? []).map(([name, units]) => (units > 1 ? `${units} ${name}` : name)).join(', ') || 'nothing'}</td>
            {columns.map(([, value, text]) => <td class="n">{text(value(i))}</td>)}
          </tr>
        ))}</tbody>
      </table>
    </div>
  )
}
export const shareText = (load: number): string => `${percent(load)} of its bandwidth`
