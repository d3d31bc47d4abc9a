// Operators: which operation costs most?
import { useEffect, useMemo, useState } from 'preact/hooks'
import type { Mode } from '../colour'
import { count, percent, si, title } from '../format'
import { Choice } from '../parts'
import { change, go, useRoute } from '../route'
import type { Operator, Run } from '../types'
import { colourOf } from './compare'

type By = 'time' | 'energy'
interface Row { key: string; stage: string; block: string; name: string; kind: string; component: string; times: number; busy_s: number; energy_J: number; operations: number; memory_B: number; network_B: number; tiles: number[]; bound: string; bounds: Record<string, number>; one: Operator }
const plain = (text: string) => text.replace(/\[.*/, '')

/** What bounds an operator by itself, in a sentence. */
const BOUNDS: Record<string, string> = {
  compute: 'its unit works longest', memory: 'its bytes from and to memory take longest', network: 'its bytes over the network take longest',
  'writing weights': 'writing its weights takes longest', neither: 'arithmetic and bytes at their peaks each take less than half of its time; the rest is launches and units that are not full',
}
/** A name that breaks after a point or an underscore, and nowhere else. */
const broken = (name: string) => name.split(/(?<=[._])/).flatMap((part, k) => (k ? [<wbr />, part] : [part]))
/** Whether the window is a phone's. */
function useNarrow(): boolean {
  const query = useMemo(() => matchMedia('(max-width: 600px)'), [])
  const [narrow, setNarrow] = useState(query.matches)
  useEffect(() => { const listener = () => setNarrow(query.matches); query.addEventListener('change', listener); return () => query.removeEventListener('change', listener) }, [])
  return narrow
}
/** Blocks, classes and components as a flow; each band is as wide as its share. */
function Flow({ rows, by, mode, all }: { rows: Row[]; by: By; mode: Mode; all: boolean }) {
  const value = (row: Row) => (by === 'time' ? row.busy_s : row.energy_J)
  const columns: ((row: Row) => string)[] = [(row) => (all ? row.stage : plain(row.block)), (row) => row.kind, (row) => row.component]
  const total = rows.reduce((sum, row) => sum + value(row), 0)
  const wide = useNarrow() ? 340 : 900
  if (!total) return null
  const high = 260, gap = 6, bar = 10
  const nodes = columns.map((of) => {
    const sums = new Map<string, number>()
    for (const row of rows) sums.set(of(row), (sums.get(of(row)) ?? 0) + value(row))
    const order = [...sums].sort((a, b) => b[1] - a[1]).filter(([, x]) => x > 0)
    const scale = (high - gap * Math.max(0, order.length - 1)) / total
    let y = 0
    return new Map(order.map(([name, x]) => { const node = { y, h: Math.max(1, x * scale), used: [0, 0] as [number, number], value: x }; y += x * scale + gap; return [name, node] }))
  })
  const place = [0, wide < 600 ? 132 : wide / 2 - 60, wide - bar]
  const bands: { d: string; width: number; colour: string; label: string }[] = []
  const names = [...nodes[2]!.keys()]
  for (let k = 0; k < 2; k++) {
    const flows = new Map<string, { a: string; b: string; value: number }>()
    for (const row of rows) {
      const a = columns[k]!(row), b = columns[k + 1]!(row), key = `${a}\n${b}`
      const known = flows.get(key)
      if (known) known.value += value(row)
      else flows.set(key, { a, b, value: value(row) })
    }
    const order = [...flows.values()].filter((one) => one.value > 0.001 * total).sort((x, y) => nodes[k]!.get(x.a)!.y - nodes[k]!.get(y.a)!.y || nodes[k + 1]!.get(x.b)!.y - nodes[k + 1]!.get(y.b)!.y)
    for (const one of order) {
      const from = nodes[k]!.get(one.a)!, to = nodes[k + 1]!.get(one.b)!
      const wa = (one.value / from.value) * from.h, wb = (one.value / to.value) * to.h
      const y0 = from.y + from.used[1] + wa / 2, y1 = to.y + to.used[0] + wb / 2
      from.used[1] += wa; to.used[0] += wb
      const x0 = place[k]! + bar, x1 = place[k + 1]!, mid = (x0 + x1) / 2
      bands.push({ d: `M${x0} ${y0}C${mid} ${y0} ${mid} ${y1} ${x1} ${y1}`, width: Math.max(0.5, Math.min(wa, wb)), colour: k ? colourOf(one.b, names.indexOf(one.b), mode) : 'var(--bar)', label: `${title(one.a)} to ${title(one.b)}: ${percent(one.value / total)}` })
    }
  }
  const tall = Math.max(...nodes.map((column) => Math.max(...[...column.values()].map((node) => node.y + node.h))))
  return (
    <svg class="flow" viewBox={`-4 -4 ${wide + 8} ${tall + 8}`} role="img" aria-label={`From ${all ? 'stages' : 'blocks'} over kinds of operator to components, by ${by}: ${nodes.map((column) => [...column].slice(0, 3).map(([name, node]) => `${title(name)} ${percent(node.value / total)}`).join(', ')).join('; ')}`}>
      {bands.map((band) => <path d={band.d} fill="none" stroke={band.colour} stroke-width={band.width} opacity=".5"><title>{band.label}</title></path>)}
      {nodes.map((column, k) => [...column].map(([name, node]) => (
        <g>
          <rect x={place[k]} y={node.y} width={bar} height={node.h} fill={k === 2 ? colourOf(name, names.indexOf(name), mode) : 'var(--ink)'} />
          {node.h > 7 && <text x={k === 2 ? place[k]! - 6 : place[k]! + bar + 6} y={node.y + node.h / 2 + 4} text-anchor={k === 2 ? 'end' : 'start'}>{title(name)} <tspan class="v">{percent(node.value / total)}</tspan></text>}
        </g>
      )))}
    </svg>
  )
}

/** The selected operator under its roofs; crossbars have no such roof, and the page says so. */
function Roof({ run, row }: { run: Run; row: Row }) {
  const roof = run.result.roofline
  const point = Object.entries(roof.operations_per_B_and_per_s).find(([name]) => name.endsWith(row.name))?.[1]
  const peaks = Object.entries(roof.peak_per_s ?? {})
  if (!point || !peaks.length || !roof.bandwidth_B_per_s) {
    return <p class="soft">{title(row.component)} has no roof: what bounds it is its own rate, not bytes for each operation. The schedule says what limits each stage.</p>
  }
  const [x, y] = point
  const x0 = Math.min(0.1, x / 10), x1 = Math.max(1e4, x * 10)
  const top = Math.max(...peaks.map(([, rate]) => rate)) * 2, low = Math.min(y / 10, top / 1e6)
  const px = (v: number) => 44 + (Math.log10(v / x0) / Math.log10(x1 / x0)) * 268
  const py = (v: number) => 150 - (Math.log10(v / low) / Math.log10(top / low)) * 140
  return (
    <svg class="roof" viewBox="0 0 320 176" role="img" aria-label={`Roofline: ${x.toPrecision(3)} operations a byte, ${si(y, 'op/s')}`}>
      {peaks.slice(0, 3).map(([name, rate]) => <g><path d={`M${px(x0)} ${py(Math.max(low, roof.bandwidth_B_per_s! * x0))}L${px(rate / roof.bandwidth_B_per_s!)} ${py(rate)}L${px(x1)} ${py(rate)}`} fill="none" stroke="var(--bar)" /><text x="312" y={py(rate) - 3} text-anchor="end">{name} {si(rate, 'op/s')}</text></g>)}
      <circle cx={px(x)} cy={py(y)} r="5" fill="var(--accent)" />
      <text x="44" y="170">{x.toPrecision(3)} op/B (log)</text><text x="0" y={Math.min(145, py(y) + 4)} class="v">{si(y, 'op/s', 2)}</text>
    </svg>
  )
}

export function OperatorsPage({ run, mode }: { run: Run; mode: Mode }) {
  const { params } = useRoute()
  const view = run.result.view!
  const by: By = params.get('by') === 'energy' ? 'energy' : 'time'
  const stage = params.get('stage') ?? ''
  const find = params.get('find') ?? ''
  const [sort, setSort] = useState<keyof Row>(by === 'time' ? 'busy_s' : 'energy_J')
  const stages = [...new Set(view.operators.map((one) => plain(one.stage)))]
  const rows = useMemo(() => {
    const merged = new Map<string, Row>()
    for (const one of view.operators) {
      const key = [plain(one.stage), one.block, one.name, one.component].join('\n')
      const known = merged.get(key)
      if (!known) merged.set(key, { ...one, operations: one.operations ?? 0, key, stage: plain(one.stage), bound: '', bounds: { [one.bound_by ?? '']: one.busy_s }, one })
      else { known.bounds[one.bound_by ?? ''] = (known.bounds[one.bound_by ?? ''] ?? 0) + one.busy_s; known.operations += one.operations ?? 0; known.times += one.times; known.busy_s += one.busy_s; known.energy_J += one.energy_J; known.memory_B += one.memory_B; known.network_B += one.network_B }
    }
    for (const row of merged.values()) row.bound = Object.entries(row.bounds).reduce((a, b) => (b[1] > a[1] ? b : a))[0]
    return [...merged.values()]
  }, [view])
  const told = view.operators.some((one) => one.bound_by) // files of before have neither
  const shown = rows.filter((row) => (!stage || row.stage === stage) && (!find || row.name.toLowerCase().includes(find.toLowerCase())))
  const ordered = [...shown].sort((a, b) => (typeof a[sort] === 'number' ? (b[sort] as number) - (a[sort] as number) : String(a[sort]).localeCompare(String(b[sort]))))
  const chosen = rows.find((row) => row.key === params.get('op'))
  const total = { busy_s: shown.reduce((s, r) => s + r.busy_s, 0), energy_J: shown.reduce((s, r) => s + r.energy_J, 0) }
  const columns: [keyof Row, string, (row: Row) => string][] = [
    ['component', 'Runs on', (row) => title(row.component)], ['times', 'Times', (row) => count(row.times)],
    ['busy_s', 'Busy time', (row) => si(row.busy_s, 's')], ['energy_J', 'Energy', (row) => si(row.energy_J, 'J')],
    ...(told ? [['operations', 'Operations', (row: Row) => si(row.operations, 'op')]] as [keyof Row, string, (row: Row) => string][] : []),
    ['memory_B', 'From memory', (row) => si(row.memory_B, 'B')], ['network_B', 'Over the network', (row) => si(row.network_B, 'B')],
    ...(told ? [['bound', 'Bound by', (row: Row) => title(row.bound)]] as [keyof Row, string, (row: Row) => string][] : []),
  ]
  const wordy = (key: keyof Row) => key === 'component' || key === 'bound'
  const measure = by === 'time' ? 'busy_s' : 'energy_J'
  const greatest = Math.max(0, ...shown.map((row) => row[measure]))
  const first = shown.filter((row) => row[measure] > 0.995 * greatest)
  const near = find && !shown.length ? rows.map((row) => row.name).filter((name) => [...find.toLowerCase()].filter((c) => name.includes(c)).length >= find.length - 1)[0] : ''
  const csv = () => {
    const lines = [['stage', 'block', 'operator', 'kind', 'component', 'times', 'busy_s', 'energy_J', 'operations', 'memory_B', 'network_B', 'bound_by'].join(','), ...ordered.map((row) => [row.stage, row.block, row.name, row.kind, row.component, row.times, row.busy_s, row.energy_J, told ? row.operations : '', row.memory_B, row.network_B, row.bound].map((cell) => (/[",\n]|^[=+@-]/.test(String(cell)) && typeof cell === 'string' ? `"${cell.replaceAll('"', '""')}"` : cell)).join(','))]
    const link = document.createElement('a')
    link.href = URL.createObjectURL(new Blob([lines.join('\n')], { type: 'text/csv' }))
    link.download = `${run.result.model}-${run.result.chip}-operators.csv`.replace(/[^\w.-]+/g, '-')
    link.click()
  }
  return (
    <div class="split"><div class="page" tabIndex={0} role="region" aria-label="The page">
      <div class="filters">
        <Choice label="Widths by" options={[['time', 'Time'], ['energy', 'Energy']]} value={by} onChange={(to) => { change({ by: to === 'time' ? null : to }); setSort(to === 'time' ? 'busy_s' : 'energy_J') }} />
        <Choice label="Stage" options={[['', 'All stages'], ...stages.map((name) => [name, title(name)] as [string, string])]} value={stage} onChange={(to) => change({ stage: to || null })} />
        <label>Find <input type="search" value={find} onInput={(event) => change({ find: event.currentTarget.value || null })} /></label>
        <button type="button" class="act" onClick={csv}>Save as CSV</button>
      </div>
      {greatest > 0 && <h2 class="lead">{first.length === 1 ? `${first[0]!.name} costs most: ${percent(greatest / total[measure])}` : `${first[0]!.name} and ${first.length - 1} other${first.length > 2 ? 's' : ''} cost most: ${percent(greatest / total[measure])} each`} of the {by === 'time' ? 'busy time' : 'energy'}{stage && ` of ${title(stage).toLowerCase()}`}</h2>}
      <Flow rows={shown} by={by} mode={mode} all={!stage && stages.length > 1} />
      {!shown.length && <p>No operator called “{find}”. {near && <>Near: <button type="button" class="link" onClick={() => change({ find: near })}>{near}</button></>}</p>}
      {shown.length > 0 && <p class="soft">{shown.length} operators; {by === 'time' ? 'busy time of the units that run them: those of different units overlap' : 'energy without leakage'}</p>}
      {shown.length > 0 && <div class="scroll" tabIndex={0} role="region" aria-label="Operators"><table class="grid">
        <thead><tr><th scope="col"><button type="button" onClick={() => setSort('name')}>Operator</button></th>{columns.map(([key, name]) => <th scope="col" class={wordy(key) ? '' : 'n'} aria-sort={sort === key ? (wordy(key) ? 'ascending' : 'descending') : 'none'}><button type="button" onClick={() => setSort(key)}>{name}</button></th>)}</tr></thead>
        <tbody>{ordered.slice(0, 200).map((row) => <tr key={row.key} class={row === chosen ? 'chosen' : ''}><th scope="row"><button type="button" class="link whole" aria-current={row === chosen ? 'true' : undefined} onClick={() => change({ op: row.key })}>{broken(row.name)}</button><small>{row.stage}, {row.block}{row.one.kernel && `, in ${row.one.kernel}`}</small></th>
          {columns.map(([key, , text]) => <td class={wordy(key) ? '' : 'n'} title={key === 'bound' ? BOUNDS[row.bound] : undefined}>{text(row)}{key === 'bound' && Object.keys(row.bounds).length > 1 && <small>in {percent(row.bounds[row.bound]! / (row.busy_s || 1))} of its time</small>}{(key === 'busy_s' || key === 'energy_J') && <small>{percent((row[key] as number) / (total[key] || 1))}</small>}</td>)}</tr>)}</tbody>
      </table></div>}
    </div>
    <aside tabIndex={0} aria-label="The selection">{chosen ? <>
      <section><h2>{chosen.name}<span>{chosen.stage}</span></h2><p class="big">{by === 'time' ? si(chosen.busy_s, 's') : si(chosen.energy_J, 'J')}</p>
        <table class="kv"><tbody><tr><th scope="row">Kind</th><td>{title(chosen.kind)}</td></tr><tr><th scope="row">Runs on</th><td>{title(chosen.component)}</td></tr><tr><th scope="row">Tiles</th><td>{chosen.tiles.length || 'none'}{chosen.tiles.length > 0 && view.tiles.die.length > 1 && <> <button type="button" class="link" onClick={() => go('chip', { tile: String(chosen.tiles[0]) })}>show the first</button></>}</td></tr><tr><th scope="row">Times</th><td>{count(chosen.times)}</td></tr><tr><th scope="row">Each time</th><td>{si(chosen.busy_s / Math.max(1, chosen.times), 's')}, {si(chosen.energy_J / Math.max(1, chosen.times), 'J')}</td></tr>{told && <><tr><th scope="row">Operations</th><td>{si(chosen.operations, 'op')}{chosen.busy_s > 0 && `, ${si(chosen.operations / chosen.busy_s, 'op/s')} while it works`}</td></tr><tr><th scope="row">Bound by</th><td>{title(chosen.bound)}</td></tr></>}</tbody></table>{told && <p class="soft small">Bound by {chosen.bound}: {BOUNDS[chosen.bound] ?? 'as the result says'}. What runs beside it is not counted.</p>}</section>
      <section><h2>Under its roof</h2><Roof run={run} row={chosen} /></section></> : <section><h2>Nothing is selected</h2><p class="soft">Select an operator to see where it runs and what it takes each time.</p></section>}
      <section><h2>What limits each stage<span>time that would go away</span></h2>
        {view.limits ? view.limits.stages.slice(0, 6).map((limit) => <table class="bars"><caption class="soft">{limit.stage}, {si(limit.seconds, 's')}</caption><tbody>{Object.entries(limit.gains_s).filter(([, s]) => s > 0.005 * limit.seconds).slice(0, 4).map(([name, seconds]) => <tr style={{ '--w': `${(100 * seconds) / limit.seconds}%` }}><th scope="row">{title(name)}</th><td class="n">{si(seconds, 's')}</td><td class="n soft">{percent(seconds / limit.seconds)}</td></tr>)}</tbody></table>) : <p class="soft">Several groups of chips: no one schedule.</p>}</section>
    </aside></div>
  )
}
