// Timeline: what waits for what?  Each row is a resource; the height of a piece is the share of it that is busy.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import type { Mode } from '../colour'
import { percent, si, title } from '../format'
import { Choice } from '../parts'
import { change, useRoute } from '../route'
import type { Run, Timeline } from '../types'
import { colourOf } from './compare'
import { huesOf, layerName, spread, waysOf, type Lane } from './hues'
import { Record, useTimeline } from './recorded'
import { Trace } from './trace'

const ROW = 36, LEFT = 168, TOP = 40
interface Span { from: number; to: number }

export function TimelinePage({ run, mode, exported }: { run: Run; mode: Mode; exported: boolean }) {
  const { timeline, waits, keep, failed } = useTimeline(run)
  if (timeline) return <Drawn run={run} told={timeline} mode={mode} exported={exported} />
  if (waits) return <div class="page"><p class="soft" role="status">Reading the timeline.</p></div>
  const again = !exported && !run.result.view!.job_lacks.length
  if ((run.result.parallelism?.pipeline ?? 1) > 1) {
    return <div class="page" tabIndex={0} role="region" aria-label="The page"><section class="empty"><h2>A pipeline of chips has no timeline</h2><p>Its groups of chips pass the work on to each other, and no one schedule has their steps. Simulate one chip, or tensor and data parallelism.</p></section></div>
  }
  return (
    <div class="page" tabIndex={0} role="region" aria-label="The page"><section class="empty"><h2>This run has no timeline</h2>
      {failed && <p class="bad">{failed}</p>}
      {again && <Record run={run} keep={keep} />}
      <p>{again ? 'To keep it in the file of the run:' : 'Record it:'} <code>tierform simulate … --trace trace.json --json run.json</code>, which writes the whole of it for Perfetto, too.</p>
      <Trace run={run} exported={exported} /></section></div>
  )
}
function Drawn({ run, told, mode, exported }: { run: Run; told: Timeline; mode: Mode; exported: boolean }) {
  const { params } = useRoute()
  const end = told.end_s
  const asked = (params.get('span') ?? '').split('~').map(Number)
  const span: Span = asked.length === 2 && asked.every(Number.isFinite) && asked[1]! > asked[0]! ? { from: Math.max(0, asked[0]!), to: Math.min(1, asked[1]!) } : { from: 0, to: 1 }
  const canvas = useRef<HTMLCanvasElement>(null)
  const [width, setWidth] = useState(900)
  const [at, setAt] = useState<{ piece: number; row: number } | null>(null)
  const [marked, setMarked] = useState<Span | null>(null)
  const all = useMemo(() => told.rows.map((row) => ({
    ...row, share: shares(row.share), what: spread(row.operator, told.pieces),
    layer: row.layer ? spread(row.layer, told.pieces) : null, micro: row.micro_batch ? spread(row.micro_batch, told.pieces) : null,
  })), [told])
  const names = (name: string) => (params.get(name) ?? '').split('~').filter(Boolean)
  const hidden = names('hide'), pinned = names('pin')
  const rows = useMemo(() => [...all.filter((row) => pinned.includes(row.resource)), ...all.filter((row) => !pinned.includes(row.resource) && !hidden.includes(row.resource))], [all, params.get('hide'), params.get('pin')])
  const turn = (name: 'hide' | 'pin', resource: string) => { const now = names(name), next = now.includes(resource) ? now.filter((one) => one !== resource) : [...now, resource]; change({ [name]: next.join('~') || null }) }
  // Where each piece of the critical path is spent, as a row of all.
  const critical = useMemo(() => spread(told.critical ?? [], told.pieces), [told])
  const owners = [...new Set(all.map((row) => row.resource.replace(/:.*/, '')))]
  // What each piece is coloured by: its unit, or a class of its own, the largest with colours of their own.
  const ways = waysOf(told)
  const by = ways.find(([one]) => one === params.get('colour'))?.[0] ?? 'unit'
  const coloured = useMemo(() => huesOf(told, run.result.view!, all, by, mode), [by, all, mode])
  const path_ = coloured?.scale ? '--ink' : '--accent' // a scale has the accent's hue
  const any = useMemo(() => { if (told.any) return shares(told.any); const found = new Float32Array(told.pieces); for (const row of all) for (let i = 0; i < told.pieces; i++) found[i] = Math.max(found[i]!, row.share[i]!); return found }, [all])
  const show = (next: Span) => {
    const wide = Math.max(0.005, Math.min(1, next.to - next.from))
    const from = Math.max(0, Math.min(1 - wide, next.from))
    change({ span: wide >= 0.999 ? null : `${from.toFixed(5)}~${(from + wide).toFixed(5)}` })
  }
  const zoom = (factor: number, centre = (span.from + span.to) / 2) => show({ from: centre - (centre - span.from) * factor, to: centre + (span.to - centre) * factor })
  useEffect(() => {
    const watch = new ResizeObserver(() => setWidth(canvas.current?.parentElement?.clientWidth ?? 900))
    watch.observe(canvas.current!.parentElement!)
    return () => watch.disconnect()
  }, [])
  const high = TOP + ROW * (rows.length + 1) + 8
  useEffect(() => {
    const element = canvas.current!, ratio = Math.min(2, devicePixelRatio), pen = element.getContext('2d')!
    element.width = width * ratio; element.height = high * ratio
    pen.scale(ratio, ratio)
    const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue('--ink'), soft = style.getPropertyValue('--soft'), line = style.getPropertyValue('--line')
    pen.font = "12px 'Inter Variable', system-ui"
    const room = width - LEFT - 8
    const x = (t: number) => LEFT + ((t - span.from) / (span.to - span.from)) * room
    pen.fillStyle = soft
    const step = nice(((span.to - span.from) * end) / Math.max(2, room / 110))
    for (let t = Math.ceil((span.from * end) / step) * step; t <= span.to * end; t += step) {
      const px = x(t / end)
      pen.fillStyle = line; pen.fillRect(px, 18, 1, high - 18); pen.fillStyle = soft
      pen.fillText(si(t, 's'), Math.min(px + 4, width - 60), 12)
    }
    for (const stage of told.stages) {
      const a = x(stage.start_s / end), b = x(stage.end_s / end)
      if (b < LEFT || a > width) continue
      pen.fillStyle = ink; pen.fillRect(Math.max(LEFT, a), 18, 1, high)
      const name = `${stage.name.replace(/\[.*/, '')}${stage.repeat > 1 ? ` × ${stage.repeat}, equal` : ''}`
      if (b - a > pen.measureText(name).width + 8) pen.fillText(name, Math.max(LEFT, a) + 5, 31)
    }
    const first = Math.floor(span.from * told.pieces), last = Math.ceil(span.to * told.pieces), each = room / ((span.to - span.from) * told.pieces)
    const grey = style.getPropertyValue('--bar')
    const draw = (share: Float32Array, y: number, colour: string, lane?: Lane) => {
      pen.fillStyle = line; pen.fillRect(LEFT, y + ROW - 4, room, 1)
      pen.fillStyle = colour
      const columns = Math.max(1, Math.ceil(1 / Math.max(each, 1e-9)))
      for (let i = first; i < last; i += columns) {
        let most = 0, where = i
        for (let k = i; k < Math.min(last, i + columns); k++) if (share[k]! > most) { most = share[k]!; where = k }
        if (lane && coloured) pen.fillStyle = coloured.shade(lane, where) || grey
        const at = (k: number) => Math.round(LEFT + (k / told.pieces - span.from) * told.pieces * each)
        if (most > 0) { const tall = Math.max(1, most * (ROW - 10)); pen.fillRect(at(i), y + ROW - 4 - tall, Math.max(1, at(i + columns) - at(i) - (each > 4 ? 1 : 0)), tall) }
      }
    }
    draw(any, TOP, soft)
    pen.fillStyle = ink; pen.fillText('Anything', 0, TOP + 16); pen.fillStyle = soft; pen.fillText(`${percent(mean(any, first, last))} busy`, 0, TOP + 30)
    rows.forEach((row, k) => {
      const y = TOP + ROW * (k + 1), owner = row.resource.replace(/:.*/, '')
      draw(row.share, y, colourOf(owner, owners.indexOf(owner), mode), row)
      pen.fillStyle = ink; pen.fillText(title(row.resource).slice(0, 26), 0, y + 16)
      pen.fillStyle = soft; pen.fillText(`${percent(mean(row.share, first, last))} busy`, 0, y + 30)
    })
    // The critical path as a line along the foot of the row that each piece is spent on.
    pen.fillStyle = style.getPropertyValue(path_)
    const place = new Map(rows.map((row, k) => [all.indexOf(row), TOP + ROW * (k + 1) + ROW - 4]))
    let before: number | undefined
    for (let i = first; i < last; ) {
      let next = i + 1
      while (next < last && critical[next] === critical[i]) next++
      const y = place.get(critical[i]!), from = LEFT + (i / told.pieces - span.from) * told.pieces * each
      if (y !== undefined) {
        pen.fillRect(Math.max(LEFT, from), y - 1, Math.max(1, (next - i) * each), 3)
        if (before !== undefined && before !== y) { pen.globalAlpha = 0.35; pen.fillRect(Math.max(LEFT, from), Math.min(y, before), 1, Math.abs(y - before)); pen.globalAlpha = 1 }
        before = y
      }
      i = next
    }
    if (marked) { pen.fillStyle = style.getPropertyValue('--accent'); pen.globalAlpha = 0.18; pen.fillRect(x(marked.from), 18, x(marked.to) - x(marked.from), high); pen.globalAlpha = 1 }
  }, [rows, critical, coloured, width, span.from, span.to, mode, marked])
  const time = (event: { clientX: number }) => span.from + ((event.clientX - canvas.current!.getBoundingClientRect().left - LEFT) / (width - LEFT - 8)) * (span.to - span.from)
  const keys = (event: KeyboardEvent) => {
    const wide = span.to - span.from
    const moves: Record<string, () => void> = {
      w: () => zoom(0.7), s: () => { event.stopPropagation(); zoom(1.4) }, a: () => show({ from: span.from - wide * 0.2, to: span.to - wide * 0.2 }), d: () => show({ from: span.from + wide * 0.2, to: span.to + wide * 0.2 }),
      f: () => (marked ? (show(marked), setMarked(null)) : change({ span: null })), Escape: () => setMarked(null),
    }
    if (!event.ctrlKey && !event.metaKey && moves[event.key]) { moves[event.key]!(); event.preventDefault() }
  }
  const gap = () => {
    const least = Math.max(2, told.pieces / 100)
    let start = Math.ceil(span.to >= 1 ? 0 : (span.from + (span.to - span.from) / 2) * told.pieces)
    for (let i = start, length = 0; i < told.pieces; i++) {
      length = any[i] === 0 ? length + 1 : 0
      if (length >= least) { const from = (i - length) / told.pieces; show({ from: from - 0.02, to: from + 0.06 }); return }
    }
    setSaid('No later gap over 1 %.')
  }
  const [said, setSaid] = useState('')
  const drag = useRef<number | null>(null)
  const over = marked ?? span
  const [first, last] = [Math.floor(over.from * told.pieces), Math.ceil(over.to * told.pieces)]
  const path = Object.entries(run.result.view!.limits?.critical_path_s ?? {})
  return (
    <div class="split"><div class="page" tabIndex={0} role="region" aria-label="The page">
      <div class="filters">
        <button type="button" class="act" onClick={() => zoom(0.7)}>Zoom in</button><button type="button" class="act" onClick={() => zoom(1.4)}>Zoom out</button>
        <button type="button" class="act" onClick={() => { setMarked(null); change({ span: null }) }}>Show all</button><button type="button" class="act" onClick={gap}>Skip to the next gap over 1 %</button>
        <Choice label="Colours by" options={ways} value={by} onChange={(to) => change({ colour: to === 'unit' ? null : to })} />
        <span role="status">{said}</span>
      </div>
      <canvas class="time" ref={canvas} style={{ height: `${high}px` }} tabIndex={0} role="application" aria-label={`Timeline of ${rows.length} resources over ${si(end, 's')}. W and S zoom, A and D move, F fits. The table below has the shares.`} onKeyDown={keys}
        onPointerDown={(event) => { drag.current = time(event); event.currentTarget.setPointerCapture(event.pointerId) }}
        onPointerMove={(event) => {
          const t = time(event), row = Math.floor((event.clientY - canvas.current!.getBoundingClientRect().top - TOP) / ROW) - 1
          if (drag.current !== null && Math.abs(t - drag.current) > 0.003 * (span.to - span.from)) setMarked({ from: Math.max(0, Math.min(t, drag.current)), to: Math.min(1, Math.max(t, drag.current)) })
          setAt(t >= 0 && t < 1 && row >= 0 && row < rows.length ? { piece: Math.floor(t * told.pieces), row } : null)
        }}
        onPointerUp={() => { drag.current = null }} onPointerLeave={() => setAt(null)} />
      {coloured && <ul class="kinds" aria-label="Colours">{coloured.scale && <li><i class="scale" style={{ background: `linear-gradient(to right, ${coloured.scale.from}, ${coloured.scale.to})` }} />{coloured.scale.name}</li>}{coloured.first.map(([name, colour]) => <li><i style={{ background: colour }} />{title(name)}</li>)}{coloured.rest > 0 && <li><i style={{ background: 'var(--bar)' }} />{coloured.rest} {coloured.rest === 1 ? 'other' : 'others'}</li>}</ul>}
      <p class="soft small">{coloured && by !== 'stage' && <>A piece has the colour of what works most in it. </>}The height of a piece is the share of its {si(end / told.pieces, 's')} in which the resource works. The crossbars of a weight are one resource of each layer: their row is the mean over the layers.{told.critical && <> The <span class="path" style={{ borderColor: `var(${path_})` }}>line</span> is the critical path: what each moment waited for.</>}</p>
    </div>
    <aside tabIndex={0} aria-label="The selection">
      {path.length > 0 && <section><h2>Critical path<span>what the time was spent on</span></h2><table class="bars"><tbody>{path.map(([name, seconds]) => <tr style={{ '--w': `${(100 * seconds) / run.result.latency_s}%` }}><th scope="row">{title(name)}</th><td class="n">{si(seconds, 's')}</td><td class="n soft">{percent(seconds / run.result.latency_s)}</td></tr>)}</tbody></table></section>}
      <Trace run={run} exported={exported} />
      <section><h2>{marked ? 'Marked span' : 'Shown span'}<span>{si(over.from * end, 's')} to {si(over.to * end, 's')}</span></h2><p class="big">{si((over.to - over.from) * end, 's')}</p>
        {at && <p>{title(rows[at.row]!.resource)}: {percent(rows[at.row]!.share[at.piece]!)} busy at {si((at.piece / told.pieces) * end, 's')}{mostly(told, rows[at.row]!, at.piece)}</p>}
        <table class="grid"><thead><tr><th scope="col">Busy</th><th scope="col" class="n">Mean</th><th scope="col" class="n">Least</th><th scope="col" class="n">Most</th><th scope="col" class="n">Sum</th></tr></thead><tbody>
          {rows.map((row) => <tr><th scope="row">{title(row.resource)}<div class="soft small"><button type="button" class="link" aria-pressed={pinned.includes(row.resource)} aria-label={`Pin ${title(row.resource)}`} onClick={() => turn('pin', row.resource)}>{pinned.includes(row.resource) ? 'Unpin' : 'Pin'}</button> · <button type="button" class="link" aria-label={`Hide ${title(row.resource)}`} onClick={() => { if (pinned.includes(row.resource)) turn('pin', row.resource); turn('hide', row.resource) }}>Hide</button></div></th><td class="n">{percent(mean(row.share, first, last))}</td><td class="n">{percent(smallest(row.share, first, last))}</td><td class="n">{percent(largest(row.share, first, last))}</td><td class="n">{si(mean(row.share, first, last) * (over.to - over.from) * end, 's')}</td></tr>)}</tbody></table>
        {hidden.length > 0 && <p><button type="button" class="link" onClick={() => change({ hide: null })}>Show the hidden {hidden.length === 1 ? 'row' : `${hidden.length} rows`} again</button></p>}</section>
    </aside></div>
  )
}
/** What works most in a piece, and for which layer. */
const mostly = (told: Timeline, lane: Lane, piece: number): string => {
  const name = told.names[lane.what[piece]!], layer = told.layers?.[lane.layer?.[piece] ?? -1]
  return name === undefined ? '' : `, mostly ${name}${layer === undefined ? '' : ` of ${layerName(layer)}`}`
}
const mean = (values: Float32Array, from: number, to: number) => { let sum = 0; for (let i = from; i < to; i++) sum += values[i]!; return to > from ? sum / (to - from) : 0 }
const largest = (values: Float32Array, from: number, to: number) => { let most = 0; for (let i = from; i < to; i++) most = Math.max(most, values[i]!); return most }
const shares = (text: string) => Float32Array.from(atob(text), (letter) => letter.charCodeAt(0) / 255)
const smallest = (values: Float32Array, from: number, to: number) => { let least = to > from ? 1 : 0; for (let i = from; i < to; i++) least = Math.min(least, values[i]!); return least }
const nice = (x: number) => { const base = 10 ** Math.floor(Math.log10(x)); return [1, 2, 5, 10].map((f) => f * base).find((f) => f >= x) ?? x }
