// What-if: what happens if I change this?
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { Answer } from '../answer'
import { kindOf, type Mode } from '../colour'
import { area, celsius, change as compared, measure, parts, si } from '../format'
import { start, type Constant, type Moved } from '../jobs'
import { Choice, Field, Problems, Unit } from '../parts'
import { change, useRoute } from '../route'
import type { Content, Influence, Problem, Run } from '../types'
import { asked, cooled, headline, limited, METHODS, safety, told, training } from '../words'
import { download } from '../chip/save'
import { ask } from '../data'

type Of = 'latency' | 'energy'
/** Values of the address: constants by path under "v:", parts of the task under "q:". */
function given(params: URLSearchParams, sign: string): Record<string, string> {
  return Object.fromEntries([...params].filter(([key]) => key.startsWith(`${sign}:`)).map(([key, value]) => [key.slice(2), value]))
}
const text = (x: number) => String(Number(x.toPrecision(6)))
/** A value as a chip's file has it: a number with its unit, and no prefix. */
const written = (value: string, unit: string): string | number => (unit ? `${value} ${unit}` : Number(value))

/** The run with what a move changed; the rest of its view stays that of the run. */
const moved = (run: Run, { dies, thermal, ...figures }: Moved): Run => ({
  ...run, live: true,
  result: { ...run.result, ...figures, thermal: thermal && { hottest_tile: { number: -1 }, within_limits: true, ...run.result.thermal, ...thermal }, view: { ...run.result.view!, dies, limits: null } },
})

export function WhatIfPage({ run, content, mode }: { run: Run; content: Content; mode: Mode }) {
  const { params } = useRoute()
  const view = run.result.view!
  if (content.exported || view.job_lacks.length) {
    return (
      <><Answer run={run} against={null} route={params} />
        <div class="page" tabIndex={0} role="region" aria-label="The page">
          {view.influence.length ? <><h2 class="lead">{most(view.influence)}</h2><Influences found={view.influence} of="latency" constants={[]} changed={{}} onChange={() => {}} locked /></> : <section class="empty"><h2>{content.exported ? 'This file runs no jobs' : 'This run cannot be run again'}</h2>
            <p>{content.exported ? <>Open the result in the studio to change values: <code>tierform studio run.json</code>. Or keep the influence of each assumed constant in the file: <code>tierform simulate … --influence --json run.json</code></> : <>Its {view.job_lacks.join(', ')} was made in memory and has no file. Save it as a file and name that in the job.</>}</p></section>}
        </div></>
    )
  }
  return <Live key={run.id} run={run} mode={mode} />
}

function Live({ run, mode }: { run: Run; mode: Mode }) {
  const { params } = useRoute()
  const job = run.result.view!.job as { task: Record<string, unknown> & { method?: { kind: string; rank?: number } }; chip: unknown; model: string }
  const [library, setLibrary] = useState<{ models: string[]; chips: string[] }>({ models: [], chips: [] })
  useEffect(() => { void ask('api/library').then((answer) => answer.json()).then(setLibrary).catch(() => {}) }, [])
  const [constants, setConstants] = useState<Constant[]>([])
  const [influence, setInfluence] = useState<Influence[]>(run.result.view!.influence)
  const [progress, setProgress] = useState('')
  const [now, setNow] = useState<Run | null>(null)
  const [running, setRunning] = useState(false)
  const [seconds, setSeconds] = useState(0)
  const [problems, setProblems] = useState<Problem[]>([])
  const of: Of = params.get('of') === 'energy' ? 'energy' : 'latency'
  const vary = given(params, 'v'), asked_ = given(params, 'q')
  const key = JSON.stringify([vary, asked_])
  const changed = Object.keys(vary).length + Object.keys(asked_).length > 0
  const base = { ...job, thermal: 'steady' }
  const task = useMemo(() => {
    const made: Record<string, unknown> = { ...job.task }
    const { chip, model, method, ...shape } = asked_
    for (const [name, value] of Object.entries(shape)) made[name] = Number(value)
    if (method) made.method = { kind: method, ...(method !== 'full' && job.task.method?.rank ? { rank: job.task.method.rank } : {}) }
    return { ...base, ...(chip ? { chip } : {}), ...(model ? { model } : {}), task: made }
  }, [key])

  const first_ = useRef(true)
  useEffect(() => {
    if (!first_.current) { setConstants([]); setInfluence([]) } // those of another chip
    first_.current = false
    const stops = [start({ kind: 'constants', job: asked_.chip ? { ...job, chip: asked_.chip } : job }, (event) => { if (event.event === 'constants') setConstants(event.constants); else if (event.event === 'problem') setProblems(event.problems) })]
    return () => { for (const stop of stops) stop() }
  }, [run.id, asked_.chip])
  const searching = useRef<(() => void) | null>(null)
  const search = () => {
    if (searching.current) { searching.current(); searching.current = null; setProgress(''); return }
    setInfluence([])
    searching.current = start({ kind: 'influence', job: latest.current.task }, (event) => {
      if (event.event === 'progress') setProgress(`${event.done} of ${event.total}`)
      else if (event.event === 'influence') setInfluence((found) => [...found, ...event.found])
      else if (event.event === 'end' || event.event === 'stopped' || event.event === 'problem') { searching.current = null; setProgress('') }
      if (event.event === 'problem') setProblems(event.problems)
    })
  }
  useEffect(() => { if (!influence.length) search(); return () => searching.current?.() }, [])

  // A move acts on release or Enter; at most one job runs, and the last one asked for waits.  What limits is asked for
  // when nothing moves any more, since that takes longer than a move.
  const busy = useRef<(() => void) | null>(null), next = useRef(false), rest = useRef(0)
  const given_ = () => {
    const units = Object.fromEntries(constants.map((one) => [one.constant, one.unit]))
    return { job: latest.current.task, vary: Object.fromEntries(Object.entries(latest.current.vary).map(([path, value]) => [path, written(value, units[path] ?? '')])) }
  }
  const send = () => {
    clearTimeout(rest.current)
    if (busy.current) { next.current = true; return }
    next.current = false
    const begin = performance.now()
    setRunning(true)
    busy.current = start({ kind: 'simulate', ...given_() }, (event) => {
      if (event.event === 'figures') { setNow(moved(run, event.figures)); setProblems([]); setSeconds((performance.now() - begin) / 1000); setRunning(false); performance.measure('whatif', { start: begin, end: performance.now() }) }
      if (event.event === 'problem') setProblems(event.problems)
      if (event.event === 'end' || event.event === 'problem' || event.event === 'stopped') {
        busy.current = null
        setRunning(false)
        if (next.current) send()
        else if (event.event === 'end') rest.current = window.setTimeout(limits, 300)
      }
    })
  }
  const looking = useRef(false)
  const limits = () => {
    if (looking.current) { rest.current = window.setTimeout(limits, 300); return }
    looking.current = true
    const of_ = latest.current.key
    start({ kind: 'limits', ...given_() }, (event) => {
      if (event.event === 'limits' && latest.current.key === of_) setNow((known) => known && { ...known, result: { ...known.result, view: { ...known.result.view!, limits: event.limits } } })
      if (['end', 'problem', 'stopped'].includes(event.event)) looking.current = false
    })
  }
  const latest = useRef({ task, vary, key })
  latest.current = { task, vary, key }
  // Values are sent with the units of their constants.  Before the page is painted: a move waits for no frame.
  const ready = constants.length > 0 || !Object.keys(vary).length
  useLayoutEffect(() => {
    if (!changed) { setNow(null); setProblems([]); return }
    if (ready) send()
  }, [key, ready])
  useEffect(() => () => { busy.current?.(); clearTimeout(rest.current) }, [])
  const stop = () => { next.current = false; busy.current?.(); busy.current = null; setRunning(false) }
  const set = (path: string, value: string | null) => change({ [`v:${path}`]: value })
  const shown = now ?? run
  const before = run.result, after = shown.result
  const rows: [string, string, string, number, number][] = [
    ['Energy', si(after.energy_J, 'J'), si(before.energy_J, 'J'), after.energy_J, before.energy_J],
    ['Power', si(after.average_power_W, 'W'), si(before.average_power_W, 'W'), after.average_power_W, before.average_power_W],
    ['Area', area(after.area_m2), area(before.area_m2), after.area_m2, before.area_m2],
  ]
  const shape: [string, string][] = training(before.task) ? [['batch', 'Batch'], ['sequence', 'Sequence']] : [['batch', 'Batch'], ['sequence', 'Sequence'], ['decode', 'Tokens generated']]
  const named = typeof job.chip === 'string' ? job.chip : run.result.chip
  // Another chip has other constants: what was moved on this one is left.
  const other = (name: string, to: string, usual: string) => change({ [`q:${name}`]: to === usual || !to ? null : to, ...(name === 'chip' ? Object.fromEntries(Object.keys(vary).map((path) => [`v:${path}`, null])) : {}) }, true)
  const reset = () => change(Object.fromEntries([...params.keys()].filter((name) => /^[vq]:/.test(name)).map((name) => [name, null])), true)
  const write = () => start({ kind: 'chip', job: latest.current.task, vary: Object.fromEntries(Object.entries(vary).map(([path, value]) => [path, written(value, constants.find((one) => one.constant === path)?.unit ?? '')])) }, (event) => {
    if (event.event === 'text') download(event.name, new Blob([event.text], { type: 'application/yaml' }))
    if (event.event === 'problem') setProblems(event.problems)
  })
  const first = influence.length ? influence.reduce((a, b) => (Math.abs(b[of]) > Math.abs(a[of]) ? b : a)) : null
  const hot = cooled(after) && cooled(before)
  const safe = hot ? safety(after) : null
  const hottest = after.view!.dies.reduce((a, b) => ((b.peak_K ?? 0) > (a.peak_K ?? 0) ? b : a))
  // Drawn again only where it changes: a move must not wait for a hundred rows.
  const bars = useMemo(() => <Influences found={influence} of={of} constants={constants} changed={vary} onChange={set} />, [influence, of, constants, key])
  const follows = now ? after.notes.filter((note) => !before.notes.includes(note)) : []
  return (
    <div class="split"><div class="page" tabIndex={0} role="region" aria-label="The page">
      <p class="what">{asked(after).join(' · ')}</p>
      <div class={running ? 'now dimmed' : 'now'} aria-live="polite">
        <h1><Unit of={parts(headline(after)[0], 's')} /> <small>{now ? `${compared(headline(after)[0], headline(before)[0])} · before ${si(headline(before)[0], 's')}` : headline(before)[1]}</small></h1>
        <dl>{rows.map(([name, x, y, a, b]) => <div><dt>{name}</dt><dd>{x}{now && <small>{a === b ? 'the same' : `${compared(a, b)}, before ${y}`}</small>}</dd></div>)}
          {hot && <div><dt>Hottest</dt><dd>{celsius(after.thermal!.peak_K)}{now && <small>{after.view!.dies.length > 1 && `in ${hottest.name}, `}{(after.thermal!.peak_K - before.thermal!.peak_K >= 0 ? '+' : '−') + Math.abs(after.thermal!.peak_K - before.thermal!.peak_K).toFixed(1)} K, before {celsius(before.thermal!.peak_K)}</small>}</dd></div>}</dl>
        {now && safe && <p class={safe.over ? 'bad' : 'soft'}>{safe.text}</p>}
      </div>
      <p class="soft state" role="status">{running ? <>Running <button type="button" class="link" onClick={stop}>Stop</button></> : changed ? (now ? `${after.view?.limits ? limited(after) : 'What limits is looked up.'} ${seconds ? `Took ${si(seconds, 's', 2)}.` : ''}` : '') : <>Nothing changed yet. Open a bar and move its slider{first && <>, or try: <button type="button" class="link" onClick={() => set(first.constant, text(first.value / 2))}>half the {first.constant}</button></>}.</>}</p>
      {problems.length > 0 && <Problems title="Refused" lines={problems.map((problem) => <>{told(problem)}{problem.near && <> Near: {problem.near}.</>}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}
      <div class="filters">
        <label>Chip <Field type="text" list="chips" value={asked_.chip ?? named} onValue={(to) => other('chip', to, named)} /></label><datalist id="chips">{library.chips.map((name) => <option value={name} />)}</datalist>
        <label>Model <Field type="text" list="models" value={asked_.model ?? job.model} onValue={(to) => other('model', to, job.model)} /></label><datalist id="models">{library.models.map((name) => <option value={name} />)}</datalist>
        {job.task.method && <label>Method <select value={asked_.method ?? job.task.method.kind} onChange={(event) => other('method', event.currentTarget.value, job.task.method!.kind)}>{[...new Set([job.task.method.kind, 'full', 'lora', 'qlora'])].map((name) => <option value={name}>{METHODS[name] ?? name}</option>)}</select></label>}
        {shape.map(([name, label]) => { const usual = String(run.result.task[name as 'batch'] ?? ''); return <label>{label} <Field type="number" min="1" step="1" value={asked_[name] ?? usual} onValue={(to) => change({ [`q:${name}`]: to === usual || !to ? null : to })} /></label> })}
        <Choice label="Bars show" options={[['latency', 'Time'], ['energy', 'Energy']]} value={of} onChange={(to) => change({ of: to === 'latency' ? null : to })} />
        <button type="button" class="act" onClick={search}>{searching.current ? (progress ? `Stop at ${progress}` : 'Stop measuring') : influence.length ? 'Measure the influence again' : 'Measure the influence of each'}</button>
        {changed && <button type="button" class="act" onClick={reset}>Reset all</button>}
        {Object.keys(vary).length > 0 && <button type="button" class="act" onClick={write}>Write this chip as YAML</button>}
      </div>
      {bars}
    </div>
    <aside tabIndex={0} aria-label="What changed"><section><h2>{after.chip}<span>{changed ? 'what changed' : 'as saved'}</span></h2><Small before={run} after={shown} mode={mode} /></section>
      {follows.length > 0 && <section><h2>What follows</h2><ul class="notes">{follows.map((note) => <li key={note}>{note}</li>)}</ul></section>}
      {Object.keys(vary).length > 0 && <section><h2>Changes</h2><ul class="plainlist">{Object.entries(vary).map(([path, value]) => { const one = constants.find((c) => c.constant === path); return <li><span class="soft">{path}</span><span class="right">{one ? measure(Number(value), one.unit) : value}</span></li> })}</ul>
        <h3>The same in Python</h3><pre class="code" tabIndex={0}>{`chip = tierform.load_chip(${JSON.stringify(asked_.chip ?? named)}).vary({\n${Object.entries(vary).map(([path, value]) => `    ${JSON.stringify(path)}: ${JSON.stringify(written(value, constants.find((c) => c.constant === path)?.unit ?? ''))},`).join('\n')}\n})`}</pre></section>}
    </aside></div>
  )
}

/** The constant that moves the time most, as a sentence. */
function most(found: Influence[]): string {
  const first = found.reduce((a, b) => (Math.abs(b.latency) > Math.abs(a.latency) ? b : a))
  return `${first.constant} moves the time most: 1 % more of it makes ${Math.abs(first.latency).toFixed(2)} % ${first.latency < 0 ? 'less' : 'more'}`
}

/** Every constant with the influence of 1 % of it as a bar that opens into its control. */
function Influences({ found, of, constants, changed, onChange, locked }: { found: Influence[]; of: Of; constants: Constant[]; changed: Record<string, string>; onChange: (path: string, value: string | null) => void; locked?: boolean }) {
  const [open, setOpen] = useState('')
  const [find, setFind] = useState('')
  const known = new Map(found.map((one) => [one.constant, one]))
  const all: Constant[] = constants.length ? constants : found.map((one) => ({ ...one, note: '' }))
  const size = (path: string) => Math.abs(known.get(path)?.[of] ?? 0)
  const rows = all.filter((one) => (!find || one.constant.toLowerCase().includes(find.toLowerCase())) && !(known.has(one.constant) && known.get(one.constant)!.latency === 0 && known.get(one.constant)!.energy === 0))
    .sort((a, b) => Number(b.constant in changed) - Number(a.constant in changed) || size(b.constant) - size(a.constant))
  const most = Math.max(...rows.map((one) => size(one.constant)), 1e-9)
  return (
    <section>
      <p class="filters"><label>Find a constant <input type="search" value={find} onInput={(event) => setFind(event.currentTarget.value)} /></label>{found.length > 0 && <span>1 % more changes {of === 'latency' ? 'time' : 'energy'} by</span>}</p>
      <ul class="influences">{rows.slice(0, 120).map((one) => {
        const amount = known.get(one.constant)?.[of]
        const isOpen = open === one.constant
        return (
          <li key={one.constant} class={one.constant in changed ? 'changed' : ''}>
            <button type="button" class="bar" aria-expanded={locked ? undefined : isOpen} disabled={locked} onClick={() => setOpen(isOpen ? '' : one.constant)}>
              <span class={`name ${one.kind}`}>{one.constant}</span>
              <span class="track"><i style={{ width: `${(100 * (amount === undefined ? 0 : Math.abs(amount))) / most}%` }} /></span>
              <span class="n">{amount === undefined || Math.abs(amount) < 0.005 ? '' : `${amount >= 0 ? '+' : '−'}${Math.abs(amount).toFixed(2)} %`}</span>
              <span class="n">{measure(changed[one.constant] !== undefined ? Number(changed[one.constant]) : one.value, one.unit)}</span>
            </button>
            {isOpen && <Control one={one} value={changed[one.constant]} onChange={(value) => onChange(one.constant, value)} />}
          </li>
        )
      })}</ul>
      {!rows.length && <p class="soft">{find ? `No constant called “${find}”.` : 'Reading the constants of the chip.'}</p>}
    </section>
  )
}
/** Whether a value leaves the range in which its law is known. */
const beyond = (one: Constant, x: number) => (one.low !== undefined && x < one.low) || (one.high !== undefined && x > one.high)
function Control({ one, value, onChange }: { one: Constant; value: string | undefined; onChange: (value: string | null) => void }) {
  const whole = one.kind === 'chosen' || (one.unit === 'bit' && Number.isInteger(one.value) && one.value <= 64)
  const now = value !== undefined ? Number(value) : one.value
  const span = (x: number) => Math.round((Math.log2(x / one.value) / 2) * 100)
  const set = (x: number) => onChange(Math.abs(x / one.value - 1) < 1e-9 ? null : text(x))
  return (
    <div class="control">
      {whole ? <label>Value <input type="range" min="1" max={Math.max(16, one.value * 2)} step="1" value={now} onChange={(event) => set(Number(event.currentTarget.value))} aria-valuetext={measure(now, one.unit)} /></label>
        : <label>A quarter to four times <input type="range" min="-100" max="100" step="1" value={span(now)} aria-valuetext={measure(now, one.unit)} onChange={(event) => set(one.value * 2 ** ((Number(event.currentTarget.value) / 100) * 2))} /></label>}
      <label>Value in {one.unit || 'plain numbers'} <Field type="text" inputMode="decimal" value={text(now)} onValue={(to) => { const x = Number(to); if (Number.isFinite(x) && to.trim()) set(x) }} /></label>
      <span class="soft">{measure(now, one.unit)} · {one.kind}{one.source && `, ${one.source}`}{one.note && `: ${one.note}`}</span>
      {one.law && <span class={beyond(one, now) ? 'bad' : 'soft'}>{beyond(one, now) ? `Outside ${one.low} to ${one.high}: not known.` : `Known from ${one.low} to ${one.high}.`} {one.law}.</span>}
      {value !== undefined && <button type="button" class="act" onClick={() => onChange(null)}>Reset</button>}
    </div>
  )
}
/** The dies in small, by how much each got hotter or cooler. */
function Small({ before, after, mode }: { before: Run; after: Run; mode: Mode }) {
  const a = before.result.view!, b = after.result.view!
  if (b.dies.length === 1 && b.dies[0]!.grid[0] * b.dies[0]!.grid[1] === 1) return <p class="soft">One tile: this chip has no floor plan.</p>
  const same = a.dies.length === b.dies.length
  const power = (view: typeof a) => view.dies.map((die) => die.power_W ?? NaN)
  const [pa, pb] = [power(a), power(b)]
  return (
    <table class="kv"><thead><tr><th scope="col">Die</th><th scope="col" class="n">Power</th><th scope="col" class="n">Peak</th></tr></thead><tbody>{b.dies.slice().reverse().map((die) => { const k = b.dies.indexOf(die), kind = kindOf(b.components[die.holds[0]?.[0] ?? '']?.type ?? ''); return (
      <tr><th scope="row"><i class="swatch" style={{ background: kind[mode] }} aria-hidden="true" />{die.name}</th><td>{si(pb[k]!, 'W')}<div class="soft small">{same && Number.isFinite(pa[k]!) && pa[k] !== pb[k] ? compared(pb[k]!, pa[k]!) : ''}</div></td><td>{die.peak_K !== null ? celsius(die.peak_K) : '–'}<div class="soft small">{same && die.peak_K !== null && a.dies[k]!.peak_K !== null && Math.abs(die.peak_K - a.dies[k]!.peak_K!) > 0.05 ? `${die.peak_K > a.dies[k]!.peak_K! ? '+' : '−'}${Math.abs(die.peak_K - a.dies[k]!.peak_K!).toFixed(1)} K` : ''}</div></td></tr>) })}</tbody></table>
  )
}
