// Exploration: which designs are worth it?
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { kinds, type Mode } from '../colour'
import { ask } from '../data'
import { area, celsius, change as compared, count, parts, si } from '../format'
import { start } from '../jobs'
import { Problems } from '../parts'
import { change, go, useRoute } from '../route'
import type { Content, Problem, Run, Study, StudyView } from '../types'
import { told } from '../words'
import { download } from '../chip/save'
import { binName, binOf, binsOf, chosen, front as frontOf, short, table, TITLES, type Table } from './columns'

const titled = (name: string) => TITLES[name] ?? name
export const figure = (name: string, x: number, unit: string): string => {
  if (!Number.isFinite(x)) return '–'
  if (name === 'area_m2') return area(x)
  if (name === 'peak_K') return celsius(x)
  if (name === 'kelvin_over') return `${short(x)}\u00a0K`
  return unit ? si(x, unit) : name === 'energy_delay_product_Js' ? si(x, 'J·s') : short(x)
}
export function ExplorationPage({ given, mode, add }: { given: Content; mode: Mode; add: (run: Run) => void }) {
  const { params } = useRoute()
  const study = given.studies.find((one) => one.id === params.get('study')) ?? given.studies[0]
  if (!study) {
    return <div class="page" tabIndex={0} role="region" aria-label="The page"><section class="empty"><h2>No study is open</h2><p>Write a space (docs: Exploration), search it, then open its study here. A study that is still running is followed.</p><pre tabIndex={0}>{'tierform explore space.yaml --study study.db\ntierform studio study.db'}</pre></section></div>
  }
  return <One key={study.id} opened={study} studies={given.studies} exported={given.exported} mode={mode} add={add} />
}

function One({ opened, studies, exported, mode, add }: { opened: Study; studies: Study[]; exported: boolean; mode: Mode; add: (run: Run) => void }) {
  const { params } = useRoute()
  const [study, setStudy] = useState(opened)
  const { view } = study
  const points = useMemo(() => table(view), [view])
  const { counts } = view
  const planned = view.size === null ? view.budget : Math.min(view.budget, view.size)
  const unfinished = counts.done < planned && !/^enumerated/.test(view.claim)
  const read = () => ask(`api/studies/${study.id}`).then((answer) => (answer.ok ? answer.json() : null)).then((found) => { if (found && (found as Study).view.counts.done !== view.counts.done) setStudy(found as Study) }).catch(() => {})
  useEffect(() => {
    if (exported || !(unfinished && counts.leased)) return
    const timer = setInterval(() => { if (!document.hidden) void read() }, 3000)
    return () => clearInterval(timer)
  }, [view])
  const names = Object.keys(view.units)
  const usual = [view.objectives[0]?.figure ?? names[0]!, view.objectives[1]?.figure ?? names[1] ?? names[0]!]
  const axis = (which: 'x' | 'y') => { const asked = params.get(which); return asked && names.includes(asked) ? asked : usual[which === 'x' ? 0 : 1]! }
  const [x, y] = [axis('x'), axis('y')]
  const most = (which: 'mx' | 'my') => { const text = params.get(which); return text === null || !Number.isFinite(Number(text)) ? null : Number(text) }
  const limits: [number | null, number | null] = [most('mx'), most('my')]
  const all = params.get('all') === 'yes', log = params.get('log') === 'yes'
  const brushed = (name: string) => (params.get(`b:${name}`) ?? '').split('.').filter(Boolean).map(Number)
  const brush = [...params].filter(([name]) => name.startsWith('b:')).join()
  const inside = useMemo(() => {
    const wanted = view.parameters.map((one) => [one, new Set(brushed(one.name)), points.chosen[one.name]!] as const).filter(([, set]) => set.size)
    const [fx, fy] = [points.figures[x]!, points.figures[y]!]
    return Uint8Array.from({ length: counts.shown }, (_, i) => Number(wanted.every(([one, set, column]) => set.has(binOf(one, column[i]!))) && (limits[0] === null || fx[i]! <= limits[0]) && (limits[1] === null || fy[i]! <= limits[1])))
  }, [points, brush, limits[0], limits[1], x, y])
  const numberOf = (i: number) => String(points.number[i]!)
  const byNumber = useMemo(() => new Map(Array.from(points.number as ArrayLike<number> & Iterable<number>, (n, i) => [String(n), i])), [points])
  const pinned = byNumber.get(params.get('pin') ?? '') ?? view.knee ?? view.front[0] ?? null
  const selected = byNumber.get(params.get('point') ?? '') ?? pinned
  const [hover, setHover] = useState<number | null>(null)
  const kept = view.front.filter((i) => inside[i])
  const resume = `tierform explore ${view.space_file || 'SPACE.yaml'} --study ${view.file} --budget ${view.budget}`
  return (
    <div class="split"><div class="page" tabIndex={0} role="region" aria-label="The page">
      <p class="what">{[view.name, String(view.job.model ?? ''), String(view.job.chip ?? ''), `${count(counts.done)}${view.size === null ? '' : ` of ${count(view.size)}`} designs`, view.strategy].filter(Boolean).join(' · ')}</p>
      <h1 class="sentence">{view.front.length === 0 ? (counts.done ? 'No design is feasible' : 'No design was tried yet')
        : view.objectives.length === 1 ? `The best design takes ${figure(usual[0]!, points.figures[usual[0]!]![view.front[0]!]!, view.units[usual[0]!]!)}`
        : `${count(view.front.length)} of ${count(counts.done)} designs are worth it: no other is better in ${view.objectives.length === 2 ? 'both' : 'all'} of ${view.objectives.map((one) => titled(one.figure).toLowerCase()).join(', ').replace(/, ([^,]*)$/, ' and $1')}`}</h1>
      <p class="soft">{view.nearest && <>Closest: {view.nearest.reason}. </>}{/^enumerated/.test(view.claim) ? 'Every design of the space was tried.' : unfinished ? <>{count(counts.done)} of {count(planned)} are done{counts.leased ? `, ${count(counts.leased)} at work now; this page follows.` : <>; go on: <code>{resume}</code></>}</> : `${view.claim.charAt(0).toUpperCase()}${view.claim.slice(1)}.`} {counts.feasible < counts.done && `${count(counts.done - counts.feasible)} miss a limit or cannot be.`} {counts.shown < counts.done && `${count(counts.shown)} are shown, the front whole.`}</p>
      <div class="filters">
        {studies.length > 1 && <label>Study <select value={study.id} onChange={(event) => go('exploration', { study: event.currentTarget.value })}>{studies.map((one) => <option value={one.id}>{one.name}</option>)}</select></label>}
        <label>Across <select value={x} onChange={(event) => change({ x: event.currentTarget.value, mx: null })}>{names.map((name) => <option value={name}>{titled(name)}</option>)}</select></label>
        <label>Up <select value={y} onChange={(event) => change({ y: event.currentTarget.value, my: null })}>{names.map((name) => <option value={name}>{titled(name)}</option>)}</select></label>
        <label><input type="checkbox" checked={log} onChange={() => change({ log: log ? null : 'yes' })} /> Log axes</label>
        <label><input type="checkbox" checked={!all} onChange={() => change({ all: all ? null : 'yes' })} /> Only feasible</label>
        {!exported && <button type="button" class="act" onClick={() => void read()}>Read the file again</button>}
        {(brush || limits[0] !== null || limits[1] !== null) && <button type="button" class="act" onClick={() => change(Object.fromEntries([...params.keys()].filter((name) => /^(b:|m[xy]$)/.test(name)).map((name) => [name, null])))}>Show all again</button>}
      </div>
      <Cloud points={points} x={x} y={y} log={log} all={all} inside={inside} limits={limits} pinned={pinned} selected={selected} hover={hover} mode={mode}
        onHover={setHover} onSelect={(i) => change({ point: i === null ? null : numberOf(i) })} onLimit={(which, value) => change({ [which]: value === null ? null : String(Number(value.toPrecision(4))) })} />
      <ul class="names"><li><i class="spot" style={{ '--c': kinds.systolic![mode] }} />not beaten by any other ({count(kept.length)}{kept.length < view.front.length ? ` of ${count(view.front.length)}` : ''})</li><li><i class="spot small" style={{ '--c': 'var(--bar)' }} />others</li>{all && <li><i class="spot hollow" style={{ '--c': 'var(--bar)' }} />miss a limit</li>}<li><i class="cross" />baseline</li></ul>
      <p class="soft small">Drag the ends of an axis to set a limit. Arrow keys walk along the front. Axes {log ? 'are logarithmic' : 'begin where the designs do'}.</p>
      <h2>What was chosen<span>press parts of a strip to keep only those designs</span></h2>
      <div class="strips">{view.parameters.map((one) => <Strip key={one.name} one={one} points={points} inside={inside} mode={mode} on={brushed(one.name)} marked={hover ?? selected} onBrush={(bins) => change({ [`b:${one.name}`]: bins.length ? bins.join('.') : null })} />)}</div>
      <Front points={points} rows={kept} x={x} y={y} selected={selected} pinned={pinned} onSelect={(i) => change({ point: numberOf(i) })} />
    </div>
    <aside tabIndex={0} aria-label="The design">{(hover ?? selected) !== null ? <Design study={study} points={points} at={(hover ?? selected)!} pinned={pinned} exported={exported} add={add} onPin={(i) => change({ pin: numberOf(i) })} /> : <section><h2>No design</h2><p class="soft">Nothing to select.</p></section>}</aside></div>
  )
}

// -- the cloud of designs ---------------------------------------------------------------------------------------------------
interface CloudGiven { points: Table; x: string; y: string; log: boolean; all: boolean; inside: Uint8Array; limits: [number | null, number | null]; pinned: number | null; selected: number | null; hover: number | null; mode: Mode; onHover: (i: number | null) => void; onSelect: (i: number | null) => void; onLimit: (which: 'mx' | 'my', value: number | null) => void }
const HIGH = 400, LEFT = 76, BELOW = 44, TOP = 12, CELL = 12, FEW = 10000
/** A cleared canvas with its pen in CSS pixels, and the page's colours. */
function sheet(target: HTMLCanvasElement, wide: number) {
  const ratio = Math.min(2, devicePixelRatio), pen = target.getContext('2d')!, style = getComputedStyle(document.documentElement)
  target.width = wide * ratio; target.height = HIGH * ratio
  pen.scale(ratio, ratio); pen.font = "12px 'Inter Variable', system-ui"; pen.lineWidth = 1
  return { pen, of: (name: string) => style.getPropertyValue(name) }
}
function Cloud(given: CloudGiven) {
  const { points, x, y, log, all, inside, limits, pinned, selected, hover, mode } = given
  const canvas = useRef<HTMLCanvasElement>(null)
  const [wide, setWide] = useState(800)
  useEffect(() => { const watch = new ResizeObserver(() => setWide(Math.max(260, canvas.current?.clientWidth ?? 800))); watch.observe(canvas.current!); return () => watch.disconnect() }, [])
  const { view } = points, [fx, fy] = [points.figures[x]!, points.figures[y]!]
  const place = useMemo(() => {
    const shown: number[] = []
    for (let i = 0; i < view.counts.shown; i++) if ((all || points.feasible(i)) && Number.isFinite(fx[i]!) && Number.isFinite(fy[i]!)) shown.push(i)
    const ends = (column: ArrayLike<number>): [number, number] => {
      let low = Infinity, high = -Infinity
      for (const i of shown) { const v = column[i]!; if (log && v <= 0) continue; low = Math.min(low, v); high = Math.max(high, v) }
      if (!(low <= high)) return [0, 1]
      const pad = log ? 1.04 : 0.04 * (high - low || Math.abs(high) || 1)
      return log ? [low / pad, high * pad] : [low - pad, high + pad]
    }
    const [ex, ey] = [ends(fx), ends(fy)], scale = (v: number) => (log ? Math.log(v) : v)
    const to = (v: number, [a, b]: [number, number]) => (scale(v) - scale(a)) / (scale(b) - scale(a))
    const back = (t: number, [a, b]: [number, number]) => (log ? a * (b / a) ** t : a + t * (b - a))
    const [w, h] = [wide - LEFT - 16, HIGH - BELOW - TOP]
    const px = (v: number) => LEFT + to(v, ex) * w, py = (v: number) => HIGH - BELOW - to(v, ey) * h
    const grid = new Map<number, number[]>()
    for (const i of shown) { const key = Math.floor(px(fx[i]!) / CELL) * 4096 + Math.floor(py(fy[i]!) / CELL); const cell = grid.get(key); cell ? cell.push(i) : grid.set(key, [i]) }
    return { shown, ex, ey, px, py, w, h, grid, toX: (p: number) => back((p - LEFT) / w, ex), toY: (p: number) => back((HIGH - BELOW - p) / h, ey) }
  }, [points, x, y, log, all, wide])
  const line = useMemo(() => {
    const sign = (name: string) => (view.objectives.find((one) => one.figure === name)?.maximize ? -1 : 1)
    return view.objectives.length === 2 && [x, y].every((name) => view.objectives.some((one) => one.figure === name)) && x !== y ? frontOf(view.front, fx, fy, sign(x), sign(y)) : []
  }, [points, x, y])
  // Axes and designs stay as drawn while the pointer moves over them.
  const drawn = useMemo(() => document.createElement('canvas'), [])
  useEffect(() => {
    const { pen, of } = sheet(drawn, wide)
    const { px, py, w, ex, ey, shown } = place, bar = of('--bar')
    const ticks = ([a, b]: [number, number], n: number) => { const step = nice((b - a) / n), found: number[] = []; if (log) { for (let k = 0; k <= n; k++) found.push(a * (b / a) ** (k / n)) } else for (let v = Math.ceil(a / step) * step; v <= b; v += step) found.push(v); return found }
    pen.strokeStyle = of('--line'); pen.fillStyle = of('--soft'); pen.textAlign = 'center'
    for (const v of ticks(ex, wide < 500 ? 3 : 6)) { pen.beginPath(); pen.moveTo(px(v), TOP); pen.lineTo(px(v), HIGH - BELOW); pen.stroke(); pen.fillText(figure(x, v, view.units[x]!), px(v), HIGH - BELOW + 16) }
    pen.textAlign = 'right'
    for (const v of ticks(ey, 5)) { pen.beginPath(); pen.moveTo(LEFT, py(v)); pen.lineTo(LEFT + w, py(v)); pen.stroke(); pen.fillText(figure(y, v, view.units[y]!), LEFT - 8, py(v) + 4) }
    pen.textAlign = 'left'; pen.fillStyle = of('--ink')
    pen.fillText(`${titled(x)}${log ? ' (log)' : ''}`, LEFT, HIGH - 8)
    pen.save(); pen.translate(12, HIGH - BELOW); pen.rotate(-Math.PI / 2); pen.fillText(`${titled(y)}${log ? ' (log)' : ''}`, 0, 0); pen.restore()
    // Others: small and grey, one dot for all that fall on the same few pixels where they are many.
    const seen = new Set<number>(), many = shown.length > FEW
    pen.fillStyle = pen.strokeStyle = bar
    for (const i of shown) {
      if (points.front.has(i)) continue
      const [a, b] = [px(fx[i]!), py(fy[i]!)]
      if (many) { const key = Math.round(a / 2) * 4096 + Math.round(b / 2); if (seen.has(key)) continue; seen.add(key) }
      pen.globalAlpha = inside[i] ? 0.75 : 0.15
      if (points.feasible(i)) { if (many) pen.fillRect(a - 1, b - 1, 2, 2); else { pen.beginPath(); pen.arc(a, b, 2.5, 0, 7); pen.fill() } } else { pen.beginPath(); pen.arc(a, b, 2.5, 0, 7); pen.stroke() }
    }
    pen.globalAlpha = 1
    const colour = kinds.systolic![mode]
    if (line.length > 1) { pen.strokeStyle = colour; pen.lineWidth = 1.5; pen.beginPath(); line.forEach((i, k) => { const [a, b] = [px(fx[i]!), py(fy[i]!)]; k ? (pen.lineTo(a, py(fy[line[k - 1]!]!)), pen.lineTo(a, b)) : pen.moveTo(a, b) }); pen.stroke() }
    for (const i of view.front) { pen.globalAlpha = inside[i] ? 1 : 0.2; pen.fillStyle = colour; pen.beginPath(); pen.arc(px(fx[i]!), py(fy[i]!), 5, 0, 7); pen.fill(); pen.strokeStyle = of('--bg'); pen.lineWidth = 1; pen.stroke() }
  }, [place, inside, mode, line])
  useEffect(() => {
    const { pen, of } = sheet(canvas.current!, wide), { px, py, w, h } = place
    pen.drawImage(drawn, 0, 0, wide, HIGH)
    const bound = (v: number | null | undefined, across: boolean, text: string, dash: number[]) => {
      if (v === null || v === undefined) return
      const at = across ? px(v) : py(v)
      if (across ? at < LEFT || at > LEFT + w : at < TOP || at > TOP + h) return
      pen.strokeStyle = pen.fillStyle = of('--bad'); pen.setLineDash(dash); pen.lineWidth = 1.5; pen.beginPath()
      across ? (pen.moveTo(at, TOP), pen.lineTo(at, TOP + h)) : (pen.moveTo(LEFT, at), pen.lineTo(LEFT + w, at)); pen.stroke(); pen.setLineDash([])
      pen.fillText(text, across ? Math.min(at + 4, LEFT + w - 90) : LEFT + 6, across ? TOP + 12 : at - 4)
    }
    for (const [name, across] of [[x, true], [y, false]] as const) { const own = view.limits.find((one) => one.figure === name); bound(own?.most ?? own?.least, across, `limit ${figure(name, own?.most ?? own?.least ?? NaN, view.units[name]!)}`, [5, 4]) }
    bound(limits[0], true, `at most ${figure(x, limits[0] ?? NaN, view.units[x]!)}`, []); bound(limits[1], false, `at most ${figure(y, limits[1] ?? NaN, view.units[y]!)}`, [])
    // Handles of the limits at the ends of the axes.
    pen.fillStyle = of('--soft')
    const hx = limits[0] === null ? LEFT + w : px(limits[0]), hy = limits[1] === null ? TOP : py(limits[1])
    pen.beginPath(); pen.moveTo(hx, HIGH - BELOW); pen.lineTo(hx - 6, HIGH - BELOW + 9); pen.lineTo(hx + 6, HIGH - BELOW + 9); pen.fill()
    pen.beginPath(); pen.moveTo(LEFT, hy); pen.lineTo(LEFT - 9, hy - 6); pen.lineTo(LEFT - 9, hy + 6); pen.fill()
    if (pinned !== null && Number.isFinite(fx[pinned]!)) { const [a, b] = [px(fx[pinned]!), py(fy[pinned]!)]; pen.strokeStyle = of('--ink'); pen.lineWidth = 2; pen.beginPath(); pen.moveTo(a - 8, b); pen.lineTo(a + 8, b); pen.moveTo(a, b - 8); pen.lineTo(a, b + 8); pen.stroke() }
    for (const i of [selected, hover]) if (i !== null && Number.isFinite(fx[i]!)) { pen.strokeStyle = of('--ink'); pen.lineWidth = i === hover ? 1 : 2; pen.beginPath(); pen.arc(px(fx[i]!), py(fy[i]!), 9, 0, 7); pen.stroke() }
  }, [place, inside, mode, line, pinned, selected, hover, limits[0], limits[1]])
  const spot = (event: { clientX: number; clientY: number }): [number, number] => { const box = canvas.current!.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top] }
  const near = ([a, b]: [number, number]): number | null => {
    let found: number | null = null, least = 14 ** 2
    for (let i = -1; i <= 1; i++) for (let j = -1; j <= 1; j++) for (const one of place.grid.get((Math.floor(a / CELL) + i) * 4096 + Math.floor(b / CELL) + j) ?? []) {
      const far = (place.px(fx[one]!) - a) ** 2 + (place.py(fy[one]!) - b) ** 2 - (points.front.has(one) ? 25 : 0)
      if (far < least) { least = far; found = one }
    }
    return found
  }
  const drag = useRef<'mx' | 'my' | null>(null)
  const keys = (event: KeyboardEvent) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key]
    if (!way) return
    event.preventDefault()
    const order = view.front.filter((i) => inside[i]).sort((a, b) => fx[a]! - fx[b]!)
    if (order.length) given.onSelect(order[(order.indexOf(selected ?? -1) + way + order.length) % order.length]!)
  }
  return (
    <canvas class="cloud" ref={canvas} style={{ height: `${HIGH}px` }} tabIndex={0} role="application" aria-label={`${count(place.shown.length)} designs by ${titled(x).toLowerCase()} and ${titled(y).toLowerCase()}. Arrow keys walk along the front; the table below has it.`} onKeyDown={keys}
      onPointerDown={(event) => { const [a, b] = spot(event); if (b > HIGH - BELOW - 2 && b < HIGH - 20) drag.current = 'mx'; else if (a < LEFT + 2) drag.current = 'my'; if (drag.current) event.currentTarget.setPointerCapture(event.pointerId) }}
      onPointerMove={(event) => {
        const [a, b] = spot(event)
        if (drag.current === 'mx') given.onLimit('mx', a >= LEFT + place.w - 2 ? null : place.toX(Math.max(LEFT, a)))
        else if (drag.current === 'my') given.onLimit('my', b <= TOP + 2 ? null : place.toY(Math.min(HIGH - BELOW, b)))
        else given.onHover(near([a, b]))
      }}
      onPointerUp={() => { drag.current = null }} onPointerLeave={() => given.onHover(null)} onClick={(event) => { const found = near(spot(event)); if (found !== null) given.onSelect(found) }} />
  )
}
const nice = (x: number) => { const base = 10 ** Math.floor(Math.log10(Math.max(x, 1e-300))); return [1, 2, 2.5, 5, 10].map((f) => f * base).find((f) => f >= x) ?? x }

// -- beside and below -----------------------------------------------------------------------------------------------------
function Strip({ one, points, inside, on, marked, mode, onBrush }: { one: StudyView['parameters'][number]; points: Table; inside: Uint8Array; on: number[]; marked: number | null; mode: Mode; onBrush: (bins: number[]) => void }) {
  const bins = binsOf(one), column = points.chosen[one.name]!
  const [all, best] = useMemo(() => {
    const [a, b] = [new Array<number>(bins).fill(0), new Array<number>(bins).fill(0)]
    for (let i = 0; i < column.length; i++) { const bin = binOf(one, column[i]!); if (bin >= 0) { a[bin]!++; if (points.front.has(i) && inside[i]) b[bin]!++ } }
    return [a, b]
  }, [points, inside])
  const most = Math.max(1, ...best), here = marked === null ? -1 : binOf(one, column[marked]!)
  return (
    <div class="strip" role="group" aria-label={one.name}>
      <h3>{one.name}<span title={one.path}>{marked === null ? '' : chosen(one, column[marked]!)}</span></h3>
      <div class="bins">{all.map((n, bin) => {
        const pressed = on.includes(bin), named = binName(one, bin)
        return <button type="button" key={bin} class={`bin${bin === here ? ' here' : ''}`} aria-pressed={pressed} title={`${named}: ${count(best[bin]!)} on the front, ${count(n)} tried`} aria-label={`${one.name} ${named}, ${count(best[bin]!)} on the front`} onClick={() => onBrush(pressed ? on.filter((k) => k !== bin) : [...on, bin].sort((a, b) => a - b))}>
          <i style={{ height: `${Math.max(best[bin]! ? 3 : 0, (32 * best[bin]!) / most)}px`, background: kinds.systolic![mode] }} />{bins <= 8 && <small>{named}</small>}</button>
      })}</div>
      {bins > 8 && <p class="ends soft small"><span>{binName(one, 0).split(' to ')[0]}</span><span>{binName(one, bins - 1).split(' to ').pop()}</span></p>}
    </div>
  )
}
const SHOWN = 12
function Front({ points, rows, x, y, selected, pinned, onSelect }: { points: Table; rows: number[]; x: string; y: string; selected: number | null; pinned: number | null; onSelect: (i: number) => void }) {
  const { view } = points, [every, setEvery] = useState(false), shown = every ? rows : rows.slice(0, SHOWN), wanted = [...new Set([...view.objectives.map((one) => one.figure), x, y])]
  if (!rows.length) return <p class="soft">{view.front.length ? 'No design of the front keeps what is set.' : ''}</p>
  return (
    <section><h2>The front<span>{count(rows.length)} designs{shown.length < rows.length ? `, the first ${SHOWN}` : ''}</span></h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="The front"><table class="grid"><thead><tr><th scope="col">Design</th>{wanted.map((name) => <th scope="col" class="n">{titled(name)}</th>)}{view.parameters.map((one) => <th scope="col" class="n">{one.name}</th>)}</tr></thead>
        <tbody>{shown.map((i) => <tr class={i === selected ? 'chosen' : ''}><th scope="row"><button type="button" class="link" onClick={() => onSelect(i)}>{points.number[i]}</button>{i === view.knee && <small>knee</small>}{i === pinned && i !== view.knee && <small>baseline</small>}</th>{wanted.map((name) => <td class="n">{figure(name, points.figures[name]![i]!, view.units[name]!)}</td>)}{view.parameters.map((one) => <td class="n">{chosen(one, points.chosen[one.name]![i]!)}</td>)}</tr>)}</tbody></table></div>{shown.length < rows.length && <p><button type="button" class="act" onClick={() => setEvery(true)}>Show all {count(rows.length)}</button></p>}</section>
  )
}
function Design({ study, points, at, pinned, exported, add, onPin }: { study: Study; points: Table; at: number; pinned: number | null; exported: boolean; add: (run: Run) => void; onPin: (i: number) => void }) {
  const { view } = points, number = points.number[at]!, held = study.designs[String(number)]
  const [state, setState] = useState(''), [problems, setProblems] = useState<Problem[]>([])
  const against = pinned !== null && pinned !== at ? pinned : null
  useLayoutEffect(() => { setProblems([]) }, [at])
  const first = view.objectives[0]!.figure
  const job = (kind: 'design' | 'design_chip', words: string) => {
    setState(words); setProblems([])
    start({ kind, study: study.id, point: number }, (event) => {
      if (event.event === 'result') { add(event.run); go('chip', { run: event.run.id }) }
      if (event.event === 'text') download(event.name, new Blob([event.text], { type: 'application/yaml' }))
      if (event.event === 'problem') setProblems(event.problems)
      if (event.event === 'end' || event.event === 'problem' || event.event === 'stopped') setState('')
    })
  }
  const reason = points.reason[at]! < view.reasons.length ? view.reasons[points.reason[at]!] : ''
  const missed = view.limits.filter((one) => { const v = points.figures[one.figure]?.[at] ?? NaN; return (one.most !== null && v > one.most) || (one.least !== null && v < one.least) })
  return (
    <>
      <section><h2>Design {number}<span>{at === view.knee ? 'knee of the front' : points.front.has(at) ? 'on the front' : points.feasible(at) ? 'beaten by another' : 'misses a limit'}</span></h2>
        {points.figures[first] && <p class="big">{Number.isFinite(points.figures[first]![at]!) && view.units[first] ? (() => { const [value, unit] = parts(points.figures[first]![at]!, view.units[first]!); return <>{value}<span class="unit">{'\u00a0'}{unit}</span></> })() : figure(first, points.figures[first]![at]!, view.units[first]!)}</p>}
        {reason && <p class="bad">{reason}</p>}{missed.map((one) => <p class="bad">{titled(one.figure)}: {figure(one.figure, points.figures[one.figure]![at]!, view.units[one.figure]!)}, limit {figure(one.figure, one.most ?? one.least ?? NaN, view.units[one.figure]!)}</p>)}
        <table class="grid"><thead><tr><th scope="col" /><th scope="col" class="n">This</th><th scope="col" class="n">{against === null ? '' : `Than ${points.number[against]}`}</th></tr></thead><tbody>
          {Object.keys(view.units).filter((name) => Number.isFinite(points.figures[name]![at]!)).map((name) => <tr><th scope="row">{titled(name)}</th><td class="n">{figure(name, points.figures[name]![at]!, view.units[name]!)}</td><td class="n soft">{against === null ? '' : /_K$|kelvin/.test(name) ? `${(points.figures[name]![at]! - points.figures[name]![against]! >= 0 ? '+' : '−') + Math.abs(points.figures[name]![at]! - points.figures[name]![against]!).toFixed(1)} K` : compared(points.figures[name]![at]!, points.figures[name]![against]!)}</td></tr>)}</tbody></table></section>
      <section><h2>What was chosen<span>{against === null ? '' : `where it differs from ${points.number[against]}`}</span></h2><table class="kv"><tbody>
        {view.parameters.map((one) => { const [mine, other] = [chosen(one, points.chosen[one.name]![at]!), against === null ? null : chosen(one, points.chosen[one.name]![against]!)]; return <tr><th scope="row" title={one.path}>{one.name}</th><td>{other !== null && other !== mine ? <><b>{mine}</b> <span class="soft">({other})</span></> : mine}</td></tr> })}</tbody></table></section>
      {(held || !exported || at !== pinned) && <section class="filters">
        {held ? <button type="button" class="act main" onClick={() => go('chip', { run: held.id })}>Open in Chip</button> : !exported && <button type="button" class="act main" disabled={!!state} onClick={() => job('design', 'Simulating the design')}>Open in Chip</button>}
        {!exported && <button type="button" class="act" disabled={!!state} onClick={() => job('design_chip', 'Writing the chip')}>Write its chip as YAML</button>}
        {at !== pinned && <button type="button" class="act" onClick={() => onPin(at)}>Compare with this</button>}
        <span role="status">{state}</span>
        {problems.length > 0 && <Problems title="Refused" lines={problems.map((problem) => <>{told(problem)}</>)} />}
      </section>}
      <section><p class="soft small">Chip, mapping and job of every design of the front: <code>tierform explore show {view.file} --winners FOLDER</code></p></section>
    </>
  )
}
