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
import { amountOf, Influences, most, shownOf } from './influences'
import { ask } from '../data'

/** Values of the address: constants by path under "v:", parts of the task under "q:". */
function given(params: URLSearchParams, sign: string): Record<string, string> {
  return Object.fromEntries([...params].filter(([key]) => key.startsWith(`${sign}:`)).map(([key, value]) => [key.slice(2), value]))
}
const NONE: never[] = []
const text = (x: number) => String(Number(x.toPrecision(6)))
/** A value as a chip's file has it: a number with its unit, and no prefix. */
const written = (value: string, unit: string): string | number => (unit && unit !== '1' ? `${value} ${unit}` : Number(value))

/** The run with what a move changed; the rest of its view stays that of the run. */
const moved = (run: Run, { dies, thermal, ...figures }: Moved): Run => ({
  ...run, live: true,
  result: { ...run.result, ...figures, thermal: thermal && { hottest_tile: { number: -1 }, within_limits: true, ...run.result.thermal, ...thermal }, view: { ...run.result.view!, dies, limits: null } },
})

export function WhatIfPage({ run, content, mode }: { run: Run; content: Content; mode: Mode }) {
  const { params } = useRoute()
  const view = run.result.view!, ways = shownOf(run, view.influence), kept = ways.find(([one]) => one === params.get('of'))?.[0] ?? 'latency'
  const bars = <p class="filters"><Choice label="Bars show" options={ways} value={kept} onChange={(to) => change({ of: to === 'latency' ? null : to })} /></p>
  if (content.exported || view.job_lacks.length) {
    return (
      <><Answer run={run} against={null} route={params} />
        <div class="page" tabIndex={0} role="region" aria-label="The page">
          {view.influence.length ? <><h2 class="lead">{most(view.influence, kept)}</h2>{bars}<Influences found={view.influence} of={kept} constants={[]} changed={{}} onChange={() => {}} locked /></> : <section class="empty"><h2>{content.exported ? 'This file runs no jobs' : 'This run cannot be run again'}</h2>
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
  const [known, setKnown] = useState<{ chip: string; constants: Constant[] }>({ chip: '', constants: [] })
  const [measured, setMeasured] = useState<{ chip: string; found: Influence[] }>({ chip: '', found: run.result.view!.influence })
  const [progress, setProgress] = useState('')
  const [now, setNow] = useState<Run | null>(null)
  const [running, setRunning] = useState(false)
  const [seconds, setSeconds] = useState(0)
  const [problems, setProblems] = useState<Problem[]>([])
  const vary = given(params, 'v'), asked_ = given(params, 'q')
  // Those of another chip are not of this one, not even until the next paint.
  const of_chip = asked_.chip ?? ''
  const constants = known.chip === of_chip ? known.constants : NONE, influence = measured.chip === of_chip ? measured.found : of_chip ? NONE : run.result.view!.influence
  const ways = shownOf(run, influence), of = ways.find(([one]) => one === params.get('of'))?.[0] ?? 'latency'
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

  useLayoutEffect(() => start({ kind: 'constants', job: asked_.chip ? { ...job, chip: asked_.chip } : job }, (event) => {
    if (event.event === 'constants') setKnown({ chip: of_chip, constants: event.constants })
    else if (event.event === 'problem') setProblems(event.problems)
  }), [of_chip])
  const searching = useRef<(() => void) | null>(null)
  const search = () => {
    if (searching.current) { searching.current(); searching.current = null; setProgress(''); return }
    setMeasured({ chip: of_chip, found: [] })
    searching.current = start({ kind: 'influence', job: latest.current.task }, (event) => {
      if (event.event === 'progress') setProgress(`${event.done} of ${event.total}`)
      else if (event.event === 'influence') setMeasured((now) => ({ ...now, found: [...now.found, ...event.found] }))
      else if (event.event === 'end' || event.event === 'stopped' || event.event === 'problem') { searching.current = null; setProgress('') }
      if (event.event === 'problem') setProblems(event.problems)
    })
  }
  useEffect(() => {
    if (!influence.length) search()
    return () => { searching.current?.(); searching.current = null; setProgress('') }
  }, [of_chip])

  // A move acts on release or Enter; at most one job runs, and the last one asked for waits.  What limits is asked for
  // when nothing moves any more, since that takes longer than a move.
  // A value that is refused goes back to the last that was taken; what is typed of chip, model and task stays.
  const taken = useRef({ vary: {} as Record<string, string>, of: JSON.stringify(asked_) }), back = useRef(false)
  const refused = () => {
    const { vary, of } = latest.current
    if (of !== taken.current.of) return
    const changes = Object.fromEntries([...new Set([...Object.keys(vary), ...Object.keys(taken.current.vary)])].filter((path) => vary[path] !== taken.current.vary[path]).map((path) => [`v:${path}`, taken.current.vary[path] ?? null]))
    if (Object.keys(changes).length) { back.current = true; change(changes) }
  }
  const busy = useRef<(() => void) | null>(null), next = useRef(false), rest = useRef(0)
  const given_ = () => {
    const units = Object.fromEntries(constants.map((one) => [one.constant, one.unit]))
    return { job: latest.current.task, vary: Object.fromEntries(Object.entries(latest.current.vary).map(([path, value]) => [path, written(value, units[path] ?? '')])) }
  }
  const send = () => {
    clearTimeout(rest.current)
    if (busy.current) { next.current = true; return }
    next.current = false
    const begin = performance.now(), sent = { vary: latest.current.vary, of: latest.current.of }
    setRunning(true)
    busy.current = start({ kind: 'simulate', ...given_() }, (event) => {
      if (event.event === 'figures') { taken.current = sent; setNow(moved(run, event.figures)); setProblems([]); setSeconds((performance.now() - begin) / 1000); setRunning(false); performance.measure('whatif', { start: begin, end: performance.now() }) }
      if (event.event === 'problem') { setProblems(event.problems); if (!next.current) refused() }
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
  const now_ = { task, vary, key, of: JSON.stringify(asked_) }, latest = useRef(now_)
  latest.current = now_
  // Values are sent with the units of their constants.  Before the page is painted: a move waits for no frame.
  const ready = constants.length > 0 || !Object.keys(vary).length
  useLayoutEffect(() => {
    if (back.current) { back.current = false; return }
    if (!changed) { taken.current = { vary: {}, of: '{}' }; setNow(null); setProblems([]); return }
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
  const first = influence.length ? influence.reduce((a, b) => (Math.abs(amountOf(b, of)) > Math.abs(amountOf(a, of)) ? b : a)) : null
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
      <p class="soft state" role="status">{running ? <>Running <button type="button" class="link" onClick={stop}>Stop</button></> : changed ? (now ? `${after.view?.limits ? limited(after) : 'What limits is looked up.'} ${seconds ? `Took ${si(seconds, 's', 2)}.` : ''}` : '') : <>Nothing changed yet. Open a bar and move its slider{first && <>, or try: <button type="button" class="link" onClick={() => set(first.constant, text(first.value / 2))}>half of {first.constant}</button></>}.</>}</p>
      {problems.length > 0 && <Problems title="Refused" lines={problems.map((problem) => <>{told(problem)}{problem.near && <> Near: {problem.near}.</>}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}
      <div class="filters">
        <label>Chip <Field type="text" list="chips" value={asked_.chip ?? named} onValue={(to) => other('chip', to, named)} /></label><datalist id="chips">{library.chips.map((name) => <option value={name} />)}</datalist>
        <label>Model <Field type="text" list="models" value={asked_.model ?? job.model} onValue={(to) => other('model', to, job.model)} /></label><datalist id="models">{library.models.map((name) => <option value={name} />)}</datalist>
        {job.task.method && <label>Method <select value={asked_.method ?? job.task.method.kind} onChange={(event) => other('method', event.currentTarget.value, job.task.method!.kind)}>{[...new Set([job.task.method.kind, 'full', 'lora', 'qlora'])].map((name) => <option value={name}>{METHODS[name] ?? name}</option>)}</select></label>}
        {shape.map(([name, label]) => { const usual = String(run.result.task[name as 'batch'] ?? ''); return <label>{label} <Field type="number" min="1" step="1" value={asked_[name] ?? usual} onValue={(to) => change({ [`q:${name}`]: to === usual || !to ? null : to })} /></label> })}
        <Choice label="Bars show" options={ways} value={of} onChange={(to) => change({ of: to === 'latency' ? null : to })} />
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
