// Serving: how many users, how fast, at what cost?
import { useEffect, useRef, useState } from 'preact/hooks'
import { kinds, type Mode } from '../colour'
import { ask } from '../data'
import { count, percent, si } from '../format'
import { start } from '../jobs'
import { Field, Problems } from '../parts'
import { change, useRoute } from '../route'
import type { Content, LoadPoint, OverTime, Problem, Run, Service, ServiceFigures, ServiceView, Spread, Wait } from '../types'
import { told } from '../words'
import { Chart } from './chart'

const WAITS: [Wait, string][] = [['ttft_s', 'First token'], ['tpot_s', 'Per token'], ['e2e_s', 'Whole answer'], ['queue_s', 'In the queue']]
const NAMES: Record<string, string> = { ttft: 'the first token', tpot: 'each further token', e2e: 'the whole answer' }
const seconds = (x: number | null | undefined) => (x === null || x === undefined ? '–' : si(x, 's'))
const rate = (x: number | null | undefined) => (x === null || x === undefined || !Number.isFinite(x) ? '–' : Number(x.toPrecision(3)).toLocaleString('en'))
/** As a figure: three digits, always kept. */
const exact = (x: number) => (x > 0.001 && x < 999.5 ? x.toPrecision(3) : rate(x))
/** A share of requests: 99.6 % is not 100 %. */
const share = (x: number) => (x > 0.99 && x < 1 ? `${(Math.floor(1000 * x) / 10).toFixed(1)}\u00a0%` : percent(x))
/** "2 × h100 and 1 × attacc-like" */
const machines = ({ chips, chip, replicas, pools }: ServiceFigures): string => (pools ? pools.map((pool) => `${count((pool.replicas * chips) / replicas)} × ${pool.chip}`).join(' and ') : `${chips > 1 ? `${count(chips)} × ` : ''}${chip}`)
/** What happened to replicas, drafts, adapters, formats and cells: name and figure. */
const happened = (s: ServiceFigures): [string, string][] => [
  ...(s.pools ?? []).map((pool) => [`requests on ${pool.chip}`, `${count(pool.requests)}, ${si(pool.energy_J, 'J')}`] as [string, string]),
  ...(s.failures ?? []).map(([at, replica, again]) => [`replica ${replica} failed at ${seconds(at)}`, `${count(again)} came again`] as [string, string]),
  ...(s.prefill_replicas ? [['replicas that only prefill', count(s.prefill_replicas)], ['tokens whose keys and values moved', count(s.moved_kv_tokens ?? 0)]] as [string, string][] : []),
  ...(s.replicas_over_time?.length ? [['replicas, least and most', `${Math.min(...s.replicas_over_time.map((x) => x[1]))} to ${Math.max(...s.replicas_over_time.map((x) => x[1]))}`]] as [string, string][] : []),
  ...(s.swapped_kv_tokens !== undefined ? [['tokens whose keys and values went to the host', count(s.swapped_kv_tokens)]] as [string, string][] : []),
  ...(s.drafted_tokens !== undefined ? [['tokens drafted, accepted', `${count(s.drafted_tokens)}, ${percent(s.accepted_share ?? 0)}`]] as [string, string][] : []),
  ...(s.adapters_loaded !== undefined ? [['adapters loaded', count(s.adapters_loaded)]] as [string, string][] : []),
  ...Object.entries(s.tokens_by_level ?? {}).map(([name, tokens]) => [`tokens with weights in ${name}`, count(tokens)] as [string, string]),
  ...(s.perplexity !== undefined ? [['perplexity over all tokens', s.perplexity.toPrecision(4)]] as [string, string][] : []),
  ...(s.lifetime_s ? [['cells last', `${Number((s.lifetime_s / 31557600).toPrecision(3))} years`]] as [string, string][] : []),
]
/** A limit as it was asked for: 50 ms, not 50.0 ms. */
const asked = (x: number) => (x >= 1 ? `${Number(x.toPrecision(4))}\u00a0s` : `${Number((1000 * x).toPrecision(4))}\u00a0ms`)
/** "ttft 0.5 s, tpot 0.05 s" in words. */
export const promise = (slo: string): string => slo.split(', ').map((one) => { const [name, value] = one.split(' '); return name && NAMES[name] ? `${NAMES[name]} within ${asked(Number(value))}` : one }).join(' and ')
/** Runs that were asked for here stay while other pages are looked at. */
const made: Service[] = []

export function ServingPage({ given, run, mode }: { given: Content; run: Run | undefined; mode: Mode }) {
  const { params } = useRoute()
  const [, again] = useState(0)
  const all = [...given.services, ...made]
  const one = all.find((service) => service.id === params.get('service')) ?? all[all.length - 1]
  return (
    <div class="split"><div class="page" tabIndex={0} role="region" aria-label="The page">
      {one ? <Answer one={one} /> : <><h1 class="sentence">How many users does a chip serve?</h1><p class="soft">Nothing was served yet. {given.exported ? 'This file runs no jobs.' : 'Serve the sample below with one click, change it, or open what was written:'} <code>tierform serve llama-3.1-8b --chip h100 --rate 8 --slo ttft=0.5s,tpot=50ms --json serve.json</code></p></>}
      {all.length > 1 && <Several all={all} one={one!} />}
      {!given.exported && <Ask run={run} onMade={(service) => { made.push({ ...service, id: `live-${made.length}` }); change({ service: made[made.length - 1]!.id }); again((n) => n + 1) }} />}
      {one && <Charts key={one.id} one={one} mode={mode} />}
    </div>
    <aside tabIndex={0} aria-label="Figures">{one?.service ? <Figures one={one} /> : <section><h2>Figures</h2><p class="soft">They stand here when requests were served.</p></section>}</aside></div>
  )
}

function Answer({ one }: { one: Service }) {
  const { service, view, search } = one
  if (!service) {
    const nearest = search?.tried[0]
    return <><p class="what">A search over rates</p><h1 class="sentence">No rate that was tried keeps the promise for {share(search?.within ?? 1)} of the requests</h1>{nearest && <p class="soft">At {rate(nearest.offered_per_s)} requests/s, the lowest that was tried, {share(nearest.within)} keep it.</p>}</>
  }
  const promised = service.slo !== 'none', best = search?.best
  const arrivals = view?.arrivals
  const cause = arrivals?.grows ? `The queue keeps growing: requests come at ${rate(arrivals.rate_per_s)} a second, ${rate(service.requests_per_s)} a second are done, and ${count(arrivals.waiting_at_last)} wait when the last one comes.` : ''
  const refused = Object.entries(service.counts).filter(([name]) => name !== 'finished')
  return (
    <>
      <p class="what">{[service.model, machines(service), service.replicas > 1 ? `${count(service.replicas)} replicas` : '', `${count(service.requests)} requests`, service.requests_from].filter(Boolean).join(' · ')}</p>
      <h1 class="sentence">{best ? `${exact(best.offered_per_s)} requests/s, with ${promise(service.slo)} for ${share(best.within)} of them`
        : promised ? `${share(service.within_slo)} of the requests get ${promise(service.slo)}${arrivals?.rate_per_s ? `, at ${rate(arrivals.rate_per_s)} requests/s` : ''}`
        : `Half of the first tokens come within ${seconds(service.ttft_s.p50)}, 95 % within ${seconds(service.ttft_s.p95)}`}</h1>
      <dl class="figures">{([
        ['Good requests', `${exact(service.goodput_per_s)}${'\u00a0'}/s`, promised], ['Tokens', `${count(service.output_tokens_per_s)}${'\u00a0'}/s`, true],
        ['A token takes', service.energy_J_per_output_token === null ? '' : si(service.energy_J_per_output_token, 'J'), service.energy_J_per_output_token !== null],
        ['Power', service.average_power_W === null ? '' : si(service.average_power_W, 'W'), service.average_power_W !== null], ['A replica is busy', percent(service.busy_share), true],
      ] as [string, string, boolean][]).filter(([, , shown]) => shown).map(([name, text]) => <div key={name}><dt>{name}</dt><dd>{text}</dd></div>)}</dl>
      {cause && <p class="bad"><i class="dot bad" aria-hidden="true" />{cause}</p>}
      {refused.length > 0 && <p class="soft">{refused.map(([name, n]) => `${count(n)} ${name}`).join('; ')}.</p>}
      {search && <Limit tried={search.tried} within={search.within} />}
    </>
  )
}
/** What happens beyond the best rate. */
function Limit({ tried, within }: { tried: LoadPoint[]; within: number }) {
  const best = Math.max(0, ...tried.filter((point) => point.within >= within).map((point) => point.offered_per_s))
  const fails = tried.find((point) => point.within < within && point.offered_per_s > 1.02 * best), grows = tried.find((point) => point.grows)
  return <p class="soft">{fails && `At ${rate(fails.offered_per_s)} requests/s only ${share(fails.within)} keep it.`} {grows && `The queue keeps growing at ${rate(grows.offered_per_s)} requests/s.`}</p>
}
function Several({ all, one }: { all: Service[]; one: Service }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Runs"><table class="grid">
      <caption>{all.some((service) => service.by) ? `Every way that keeps the promise, cheapest by ${all.find((service) => service.by)!.by} first` : 'Runs; choose one to see it'}</caption>
      <thead><tr><th scope="col">Run</th><th scope="col" class="n">Requests</th><th scope="col" class="n">Keep the promise</th><th scope="col" class="n">First token, 95 %</th><th scope="col" class="n">A token takes</th><th scope="col" class="n">Power</th></tr></thead>
      <tbody>{all.map((service) => { const figures = service.service; return <tr class={service.id === one.id ? 'chosen' : ''}><th scope="row"><button type="button" class="link" aria-current={service.id === one.id ? 'true' : undefined} onClick={() => change({ service: service.id })}>{service.name}</button>{service.file && !service.name.includes(service.file) && <small>{service.file}</small>}</th><td class="n">{figures ? count(figures.requests) : '–'}</td><td class="n">{figures && figures.slo !== 'none' ? share(figures.within_slo) : '–'}</td><td class="n">{seconds(figures?.ttft_s.p95)}</td><td class="n">{figures?.energy_J_per_output_token ? si(figures.energy_J_per_output_token, 'J') : '–'}</td><td class="n">{figures?.average_power_W ? si(figures.average_power_W, 'W') : '–'}</td></tr> })}</tbody>
    </table></div>
  )
}

// -- asking -------------------------------------------------------------------------------------------------------------
const FIELDS: [string, string, string][] = [['rate', 'Requests a second', '8'], ['requests', 'Requests', '500'], ['prompt', 'Prompt tokens', '1024'], ['output', 'Answer tokens', '256'], ['replicas', 'Replicas', '1'], ['tensor', 'Chips of a replica', '1'], ['ttft', 'First token within, ms', '500'], ['tpot', 'Each token within, ms', '50'], ['share', 'For, % of requests', '99']]
function Ask({ run, onMade }: { run: Run | undefined; onMade: (service: Service) => void }) {
  const { params } = useRoute()
  const job = run?.result.view?.job as { model?: string; chip?: string } | undefined
  const ours = typeof job?.model === 'string' && /llama|qwen|mistral|mixtral|gemma|phi|smollm/i.test(job.model) // a model that answers
  const usual: Record<string, string> = { model: ours ? job!.model! : 'llama-3.1-8b', chip: ours && typeof job?.chip === 'string' && job.chip ? job.chip : 'h100', ...Object.fromEntries(FIELDS.map(([name, , value]) => [name, value])) }
  const value = (name: string) => params.get(name) ?? usual[name]!
  const set = (name: string, to: string) => change({ [name]: to === usual[name] || !to ? null : to })
  const [library, setLibrary] = useState<{ models: string[]; chips: string[] }>({ models: [], chips: [] })
  const [state, setState] = useState(''), [problems, setProblems] = useState<Problem[]>([])
  const stop = useRef<(() => void) | null>(null)
  useEffect(() => { void ask('api/library').then((answer) => answer.json()).then(setLibrary).catch(() => {}); return () => stop.current?.() }, [])
  const serve = (find: boolean) => {
    const slo = [['ttft', value('ttft')], ['tpot', value('tpot')]].filter(([, x]) => Number(x) > 0).map(([name, x]) => `${name}=${Number(x) / 1000}s`).join(',')
    const numbers = Object.fromEntries(['rate', 'requests', 'prompt', 'output', 'replicas', 'tensor'].map((name) => [name, Number(value(name))]))
    setProblems([]); setState('Running')
    stop.current = start({ kind: 'serve', serve: { model: value('model'), chip: value('chip'), ...numbers, within: Number(value('share')) / 100, slo, find } }, (event) => {
      if (event.event === 'progress') setState(`Running: ${event.text}${event.total === 100 ? `, ${event.done} %` : ''}`)
      if (event.event === 'service') onMade(event.service)
      if (event.event === 'problem') setProblems(event.problems)
      if (event.event === 'end' || event.event === 'problem' || event.event === 'stopped') { stop.current = null; setState('') }
    })
  }
  return (
    <section class="ask" aria-label="Serve requests">
      <div class="filters">
        <label>Model <Field type="text" list="models" value={value('model')} onValue={(to) => set('model', to)} /></label><datalist id="models">{library.models.map((name) => <option value={name} />)}</datalist>
        <label>Chip <Field type="text" list="chips" value={value('chip')} onValue={(to) => set('chip', to)} /></label><datalist id="chips">{library.chips.map((name) => <option value={name} />)}</datalist>
        {FIELDS.map(([name, label]) => <label key={name}>{label} <Field type="number" min="0" step="any" value={value(name)} onValue={(to) => set(name, to)} /></label>)}
      </div>
      <p class="filters">
        {state ? <button type="button" class="act" onClick={() => { stop.current?.(); stop.current = null; setState('') }}>Stop</button>
          : <><button type="button" class="act main" onClick={() => serve(false)}>Serve these requests</button><button type="button" class="act" onClick={() => serve(true)}>Find the highest rate</button></>}
        <span role="status">{state}</span>
      </p>
      {problems.length > 0 && <Problems title="Refused" lines={problems.map((problem) => <>{told(problem)}{problem.near && <> Near: {problem.near}.</>}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}
    </section>
  )
}

// -- charts -------------------------------------------------------------------------------------------------------------
function Charts({ one, mode }: { one: Service; mode: Mode }) {
  const { service, view, search } = one
  return (
    <>
      {search && search.tried.length > 1 && <OverRate search={search} slo={view?.slo ?? slo(service?.slo ?? '')} mode={mode} />}
      {service && !view && <section class="empty"><h2>This file has no figures over time</h2><p>It was saved in Python, or by an older version. Write it again: <code>tierform serve … --json FILE</code></p></section>}
      {view && <><Shares view={view} mode={mode} /><Over view={view} over={view.over_time} mode={mode} /></>}
    </>
  )
}
const slo = (text: string) => Object.fromEntries(text.split(', ').map((part) => part.split(' ')).filter((part) => part.length === 3).map(([name, value]) => [`${name}_s`, Number(value)])) as ServiceView['slo']
const pair = (mode: Mode) => [kinds.systolic![mode], kinds.crossbar![mode]] as const
const red = (mode: Mode) => (mode === 'dark' ? '#ff8a80' : '#b3261e')
/** Whether values are so far apart that a logarithmic scale tells more. */
const apart = (...all: (number | null)[][]) => { const good = all.flat().filter((v): v is number => v !== null && v > 0); return good.length > 1 && Math.max(...good) > 5 * Math.min(...good) }
const faint = (colour: string) => `${colour}38`
const RATES: [Wait, string][] = [['ttft_s', 'First token over the rate'], ['tpot_s', 'Each further token over the rate']]
function OverRate({ search, slo, mode }: { search: NonNullable<Service['search']>; slo: Partial<ServiceView['slo']>; mode: Mode }) {
  const { tried, within } = search
  const x = tried.map((point) => point.offered_per_s)
  const fails = tried.findIndex((point) => point.within < within)
  const from = fails > 0 ? (search.best?.offered_per_s ?? x[fails]!) : fails === 0 ? x[0]! : null
  const shade = from === null ? null : { from, to: x[x.length - 1]!, colour: mode === 'dark' ? 'rgba(255,138,128,.13)' : 'rgba(179,38,30,.09)' }
  const [cold, warm] = pair(mode)
  const charts = RATES.filter(([name]) => tried.some((point) => point[name as 'ttft_s']?.p50 !== null))
  return (
    <div class="charts two">
      {charts.map(([name, heading]) => {
        const of = (key: keyof Spread) => tried.map((point) => point[name as 'ttft_s'][key])
        const limit = slo[name as 'ttft_s'] ?? null
        return <Chart key={name} heading={heading} note={limit === null ? 'log' : `limit ${asked(limit)}, log`} on={[one(tried), mode]} label={`${heading}, median and 95th percentile, from ${rate(x[0])} to ${rate(x[x.length - 1])} requests a second`}
          series={{ x, unit: 's', xUnit: '/s', log: true, shade, format: (y) => seconds(y), formatX: (at) => `${rate(at)}/s`, bands: [{ lines: [1, 0], colour: faint(cold) }],
            lines: [{ name: 'median', values: of('p50'), colour: cold, points: true }, { name: '95 %', values: of('p95'), colour: warm, points: true }, ...(limit === null ? [] : [{ name: 'limit', values: x.map(() => limit), colour: red(mode), dash: [5, 4] }])] }} />
      })}
      <Chart heading="Good requests over the rate" note={shade ? 'shaded: the promise is not kept' : ''} on={[one(tried), mode]} label="Requests a second that keep the promise"
        series={{ x, unit: '/s', xUnit: '/s', shade, format: (y) => `${rate(y)}/s`, formatX: (at) => `${rate(at)}/s`, lines: [{ name: 'good', values: tried.map((point) => point.goodput_per_s), colour: cold, points: true }, { name: 'as many as come', values: x, colour: warm, dash: [4, 4] }] }} />
      {tried.some((point) => point.energy_J_per_output_token) && <Chart heading="Energy of a token over the rate" on={[one(tried), mode]} label="Joules of an output token"
        series={{ x, unit: 'J', xUnit: '/s', shade, format: (y) => si(y, 'J'), formatX: (at) => `${rate(at)}/s`, lines: [{ name: 'J a token', values: tried.map((point) => point.energy_J_per_output_token), colour: cold, points: true }] }} />}
      <details class="twin"><summary>Every rate as a table</summary><div class="scroll" tabIndex={0} role="region" aria-label="Rates"><table class="grid">
        <thead><tr><th scope="col">Requests/s</th><th scope="col" class="n">Keep it</th><th scope="col" class="n">Good/s</th><th scope="col" class="n">First token, median</th><th scope="col" class="n">95 %</th><th scope="col" class="n">Per token, 95 %</th></tr></thead>
        <tbody>{tried.map((point) => <tr><th scope="row">{rate(point.offered_per_s)}{point.grows && <small>the queue grows</small>}</th><td class="n">{share(point.within)}</td><td class="n">{rate(point.goodput_per_s)}</td><td class="n">{seconds(point.ttft_s.p50)}</td><td class="n">{seconds(point.ttft_s.p95)}</td><td class="n">{seconds(point.tpot_s.p95)}</td></tr>)}</tbody></table></div></details>
    </div>
  )
}
const one = (tried: LoadPoint[]) => tried.length + (tried[0]?.offered_per_s ?? 0)
function Shares({ view, mode }: { view: ServiceView; mode: Mode }) {
  const [cold] = pair(mode)
  const shown = (['ttft_s', 'tpot_s'] as const).filter((name) => view.shares[name].length)
  return (
    <div class="charts two">{shown.map((name) => {
      const values = view.shares[name], limit = view.slo[name], kept = view.keeps[name]
      return <Chart key={name} heading={name === 'ttft_s' ? 'How long to the first token' : 'How long for each further token'} note={limit !== null && kept !== null && kept !== undefined ? `${share(kept)} keep ${asked(limit)}` : 'log'} on={[values, mode]} label={`The wait that a share of the requests stays under: median ${seconds(values[50])}, 95 % ${seconds(values[95])}`}
        series={{ x: values.map((_, i) => i), unit: 's', xUnit: '%', log: Math.max(...values.map((v) => v ?? 0)) > 3 * Math.max(1e-12, values[5] ?? 1), format: (y) => seconds(y), formatX: (at) => `${at}${'\u00a0'}%`,
          lines: [{ name: 'of the requests wait at most', values, colour: cold }, ...(limit === null ? [] : [{ name: 'limit', values: values.map(() => limit), colour: red(mode), dash: [5, 4] }])] }} />
    })}</div>
  )
}
function Over({ view, over, mode }: { view: ServiceView; over: OverTime; mode: Mode }) {
  const [at, setAt] = useState<number | null>(null)
  if (!over.pieces) return null
  const [cold, warm] = pair(mode)
  const x = Array.from({ length: over.pieces }, (_, i) => ((i + 0.5) / over.pieces!) * over.end_s)
  const base = { x, xUnit: 's', formatX: (s: number) => si(s, 's'), sync: 'serving', onCursor: setAt }
  const value = (values: (number | null)[] | null) => (at === null ? null : (values?.[at] ?? null))
  const moment: [string, string][] = at === null ? [] : [
    ['Running', count(value(over.running) ?? 0)], ['Waiting', count(value(over.waiting) ?? 0)], ['Tokens', `${count(value(over.output_tokens_per_s) ?? 0)}/s`],
    ...(over.kv_share ? [['KV blocks held', percent(value(over.kv_share) ?? 0)] as [string, string]] : []), ...(over.power_W ? [['Power', si(value(over.power_W) ?? 0, 'W')] as [string, string]] : []),
  ]
  const { waits } = view
  return (
    <div class="overtime">
      <h2>Over time<span>{at === null ? 'point at a chart to read a moment' : si(x[at]!, 's')}</span></h2>
      <dl class="figures moment" aria-live="off">{moment.length ? moment.map(([name, text]) => <div key={name}><dt>{name}</dt><dd>{text}</dd></div>) : <div><dt>{si(over.end_s, 's')} in {over.pieces} pieces; each point is the mean of its piece.</dt></div>}</dl>
      <div class="charts">
        <Chart heading="Requests" on={[over, mode]} label={`Requests that run and wait over ${si(over.end_s, 's')}`} height={160} series={{ ...base, unit: '', format: (y) => rate(y), lines: [{ name: 'running', values: over.running, colour: cold }, { name: 'waiting', values: over.waiting, colour: warm }] }} />
        {waits.time_s.length > 1 && <Chart heading="First token, by the time a request came" note={apart(waits.ttft_s.p50, waits.ttft_s.p95) ? 'log' : ''} on={[waits, mode]} label="Median and 95th percentile of the wait for the first token over time" height={140} series={{ x: waits.time_s, xUnit: 's', formatX: (s) => si(s, 's'), unit: 's', log: apart(waits.ttft_s.p50, waits.ttft_s.p95), format: (y) => seconds(y), bands: [{ lines: [1, 0], colour: faint(cold) }], lines: [{ name: 'median', values: waits.ttft_s.p50, colour: cold }, { name: '95 %', values: waits.ttft_s.p95, colour: warm }] }} />}
        <Chart heading="Tokens given out" on={[over, mode]} label="Output tokens a second over time" height={120} series={{ ...base, unit: '/s', format: (y) => `${rate(y)}/s`, lines: [{ name: 'tokens a second', values: over.output_tokens_per_s, colour: cold }] }} />
        {over.kv_share && <Chart heading="KV blocks held" note="while a replica works" on={[over, mode]} label="Share of the KV blocks that are held over time" height={120} series={{ ...base, unit: '', range: [0, 1], format: (y) => percent(y), lines: [{ name: 'of all blocks', values: over.kv_share, colour: cold }] }} />}
        {over.power_W && <Chart heading="Power" note="all chips, idling included" on={[over, mode]} label="Power over time" height={120} series={{ ...base, unit: 'W', format: (y) => si(y, 'W'), lines: [{ name: 'W', values: over.power_W, colour: cold }] }} />}
        {over.heat?.peak_K && over.heat.time_s.length > 1 && <Chart heading="Hottest tile" note={over.heat.clock?.some((x) => x < 1) ? `the clock fell to ${percent(Math.min(...over.heat.clock))}` : 'of any replica'} on={[over, mode]} label="Temperature of the hottest tile over time" height={120} series={{ x: over.heat.time_s, xUnit: 's', formatX: (s) => si(s, 's'), unit: '°C', format: (y) => `${y.toFixed(1)}\u00a0°C`, lines: [{ name: 'hottest tile', values: over.heat.peak_K.map((kelvin) => kelvin - 273.15), colour: cold }] }} />}
      </div>
    </div>
  )
}
function Figures({ one }: { one: Service }) {
  const { service, view } = one
  if (!service) return null
  const energy = Object.entries(service.energy_J_by_component).sort((a, b) => b[1] - a[1])
  return (
    <>
      <section><h2>What a request waits for</h2><table class="grid"><thead><tr><th scope="col" /><th scope="col" class="n">Median</th><th scope="col" class="n">95 %</th><th scope="col" class="n">99 %</th></tr></thead>
        <tbody>{WAITS.map(([name, title]) => <tr><th scope="row">{title}</th><td class="n">{seconds(service[name].p50)}</td><td class="n">{seconds(service[name].p95)}</td><td class="n">{seconds(service[name].p99)}</td></tr>)}</tbody></table></section>
      <section><h2>Requests<span>{count(service.requests)}</span></h2><table class="kv keep"><tbody>
        {Object.entries(service.counts).map(([name, n]) => <tr><th scope="row">{name}</th><td>{count(n)}</td></tr>)}
        {view?.arrivals.rate_per_s && <tr><th scope="row">came a second</th><td>{rate(view.arrivals.rate_per_s)}</td></tr>}
        <tr><th scope="row">done a second</th><td>{rate(service.requests_per_s)}</td></tr>
        <tr><th scope="row">put out of a batch again</th><td>{count(service.preemptions)}</td></tr>
        <tr><th scope="row">prompt tokens found in the cache</th><td>{percent(service.prefix_hit_share)}</td></tr></tbody></table></section>
      {energy.length > 0 && <section><h2>Energy<span>{si(service.energy_J ?? 0, 'J')}</span></h2><table class="bars"><tbody>{energy.slice(0, 6).map(([name, joules]) => <tr style={{ '--w': `${(100 * joules) / Math.max(energy[0]![1], 1e-300)}%` }}><th scope="row">{name}</th><td class="n">{si(joules, 'J')}</td></tr>)}</tbody></table></section>}
      {happened(service).length > 0 && <section><h2>What happened</h2><table class="kv keep"><tbody>{happened(service).map(([name, text]) => <tr><th scope="row">{name}</th><td>{text}</td></tr>)}</tbody></table></section>}
      {service.capacity.length > 0 && <section><h2>Memory of a replica</h2><table class="kv keep"><tbody>{service.capacity.map(([name, text]) => <tr><th scope="row">{name}</th><td>{text}</td></tr>)}</tbody></table></section>}
      <section><details><summary>The engine's settings</summary><table class="kv keep"><tbody>{Object.entries(service.engine).map(([name, value]) => <tr><th scope="row">{name.replaceAll('_', ' ')}</th><td>{typeof value === 'number' ? value.toLocaleString('en') : String(value ?? '–')}</td></tr>)}</tbody></table></details></section>
      {service.notes.length > 0 && <section><h2>Notes</h2><ul class="notes">{service.notes.map((note) => <li>{note}</li>)}</ul></section>}
    </>
  )
}
