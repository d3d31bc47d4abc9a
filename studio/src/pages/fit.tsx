// Fit: does it fit, and what is cheapest?
import { useEffect, useLayoutEffect, useState } from 'preact/hooks'
import { kinds, type Mode } from '../colour'
import { ask } from '../data'
import { count, percent, si, title } from '../format'
import { start, type FitRow, type SplitRow } from '../jobs'
import { Field, Problems } from '../parts'
import { change, useRoute } from '../route'
import type { Problem, Run } from '../types'
import { told } from '../words'

const FORMATS = { weights: 'Weights in', activations: 'Activations in', gradients: 'Gradients in', kv_cache: 'KV cache in' }
const PARTS: [string, string][] = [['weights', 'crossbar'], ['adapters', 'vector'], ['gradients', 'systolic'], ['optimizer_states', 'gpu'], ['master_weights', 'memory'], ['activations', 'other'], ['kv_cache', 'vector']]

export function FitPage({ run, mode }: { run: Run | undefined; mode: Mode }) {
  const { params } = useRoute()
  const job = run?.result.view?.job as { model: string; chip: string; task: Record<string, unknown>; runtime?: string } | undefined
  const usual = {
    model: job?.model ?? 'llama-3.1-8b', chip: job?.chip ?? 'h100', kind: String(job?.task.kind ?? 'finetuning'),
    batch: String(job?.task.batch ?? 8), sequence: String(job?.task.sequence ?? 512), chips: '1',
    weights: '', activations: '', gradients: '', kv_cache: '', recomputation: '', zero: '',
  }
  const value = (name: keyof typeof usual) => params.get(name) ?? usual[name]
  const tuning = value('kind') !== 'inference'
  const formats = tuning ? (['weights', 'activations', 'gradients'] as const) : (['weights', 'activations', 'kv_cache'] as const)
  const [library, setLibrary] = useState<{ models: string[]; chips: string[]; formats?: string[] }>({ models: [], chips: [] })
  const [rows, setRows] = useState<FitRow[]>([])
  const [splits, setSplits] = useState<SplitRow[]>([])
  const [state, setState] = useState('')
  const [problems, setProblems] = useState<Problem[]>([])
  useEffect(() => { void ask('api/library').then((answer) => answer.json()).then(setLibrary).catch(() => {}) }, [])
  const key = (Object.keys(usual) as (keyof typeof usual)[]).map(value).join('|')
  // What stood there was of another question: it goes before the page is painted with the new one.
  useLayoutEffect(() => {
    setRows([]); setSplits([]); setProblems([]); setState('Running')
    const timer = setTimeout(() => {
      const kind = value('kind') === 'inference' ? 'inference' : 'finetuning'
      const task: Record<string, unknown> = { kind, batch: Number(value('batch')), sequence: Number(value('sequence')) }
      if (kind === 'finetuning') task.method = { kind: 'lora', rank: 8 }
      else task.decode = 64
      const chips = Number(value('chips'))
      // What is of the other task stays in the address and is not asked for.
      const asking = Object.fromEntries([...formats, ...(tuning ? ['recomputation', 'zero'] as const : [])].map((name) => [name, value(name)]).filter(([, to]) => to))
      if (chips === 1) delete asking.zero
      const asked: Record<string, unknown> = { schema: 'tierform.job/1', model: value('model'), chip: value('chip'), task, thermal: 'none' }
      stop = start({ kind: 'fit', job: asked, chips, fit: asking }, (event) => {
        if (event.event === 'split') setSplits((known) => [...known, event])
        if (event.event === 'fit') setRows((known) => [...known, event])
        if (event.event === 'problem') setProblems(event.problems)
        if (event.event === 'progress') setState(`Running, ${event.done} of ${event.total}: ${event.text}`)
        if (event.event === 'end' || event.event === 'problem' || event.event === 'stopped') setState('')
      })
    }, 150)
    let stop = () => {}
    return () => { clearTimeout(timer); stop() }
  }, [key])
  const capacity = rows[0]?.capacity_B ?? 0
  const needed = (row: Pick<FitRow, 'parts_B'>) => PARTS.reduce((sum, [name]) => sum + (row.parts_B[name] ?? 0), 0)
  const most = Math.max(capacity * 1.05, ...rows.map(needed), 1)
  const fit = rows.filter((row) => row.latency_s !== undefined)
  const cheapest = fit.filter((row) => row.J_per_token).sort((a, b) => a.J_per_token! - b.J_per_token!)[0]
  const set = (name: keyof typeof usual, to: string) => change({ [name]: to === usual[name] || !to ? null : to })
  const greatest = Math.max(0, ...rows.map((row) => row.most_batch ?? 0))
  // What is wrong with a field stands under it; all else in a list.
  const of = (problem: Problem) => (problem.key ?? '').split('.').pop() as keyof typeof usual
  const placed = problems.filter((problem) => of(problem) in usual && document.getElementById(`fit-${of(problem)}`))
  const others = problems.filter((problem) => !placed.includes(problem))
  const wrong = (name: keyof typeof usual) => placed.filter((problem) => of(problem) === name).map((problem) => <small class="bad" role="alert">{problem.message}.{problem.near && <> Near: <button type="button" class="link" onClick={() => set(name, problem.near!)}>{problem.near}</button>.</>} {!problem.near && problem.fix}</small>)
  return (
    <div class="page" tabIndex={0} role="region" aria-label="The page">
      <h1 class="sentence">{rows.length === 0 ? (problems.length ? 'Nothing to tell' : `Does ${value('model')} fit ${value('chip')}?`)
        : fit.length === 0 ? `${value('model')} does not fit ${value('chips') === '1' ? 'one' : value('chips')} ${value('chip')}: ${si(Math.min(...rows.map(needed).filter((x) => x > 0)) - capacity, 'B')} too many at best`
        : cheapest ? `${title(cheapest.name)} is cheapest: ${si(cheapest.J_per_token!, 'J')} a token${cheapest.split ? `, split ${cheapest.split}` : ''}` : `${fit.length} of ${rows.length} ways fit`}</h1>
      <div class="filters">
        <label id="fit-model">Model <Field type="text" list="models" value={value('model')} onValue={(to) => set('model', to)} />{wrong('model')}</label><datalist id="models">{library.models.map((name) => <option value={name} />)}</datalist>
        <label id="fit-chip">Chip <Field type="text" list="chips" value={value('chip')} onValue={(to) => set('chip', to)} />{wrong('chip')}</label><datalist id="chips">{library.chips.map((name) => <option value={name} />)}</datalist>
        <label id="fit-chips">Chips <Field type="number" min="1" max="64" value={value('chips')} onValue={(to) => set('chips', to)} />{wrong('chips')}</label>
        <label>Task <select value={value('kind') === 'inference' ? 'inference' : 'finetuning'} onChange={(event) => set('kind', event.currentTarget.value)}><option value="finetuning">fine-tuning</option><option value="inference">inference</option></select></label>
        <label id="fit-batch">Batch <Field type="number" min="1" value={value('batch')} onValue={(to) => set('batch', to)} />{wrong('batch')}</label>
        <label id="fit-sequence">Sequence <Field type="number" min="1" value={value('sequence')} onValue={(to) => set('sequence', to)} />{wrong('sequence')}</label>
        <span role="status">{state}</span>
      </div>
      <div class="filters">
        {formats.map((name) => <label key={name} id={`fit-${name}`}>{FORMATS[name]} <Field type="text" list="formats" placeholder="the chip’s own" value={value(name)} onValue={(to) => set(name, to.trim())} />{wrong(name)}</label>)}<datalist id="formats">{(library.formats ?? []).map((name) => <option value={name} />)}</datalist>
        {tuning && <label id="fit-recomputation">Recomputed <select value={value('recomputation')} onChange={(event) => set('recomputation', event.currentTarget.value)}><option value="">nothing</option><option value="selective">attention’s scores</option><option value="full">whole layers</option><option value="least">the least that fits</option></select>{wrong('recomputation')}</label>}
        {tuning && <label id="fit-zero">ZeRO <select value={value('chips') === '1' ? '' : value('zero')} disabled={value('chips') === '1'} title={value('chips') === '1' ? 'One chip has no copies to spread states over' : undefined} onChange={(event) => set('zero', event.currentTarget.value)}><option value="">0 and 3</option>{['0', '1', '2', '3'].map((stage) => <option value={stage}>{stage}</option>)}<option value="all">all of them</option></select>{wrong('zero')}</label>}
        {[...formats, 'recomputation' as const, 'zero' as const].some((name) => value(name)) && <button type="button" class="act" onClick={() => change({ weights: null, activations: null, gradients: null, kv_cache: null, recomputation: null, zero: null })}>Reset these</button>}
      </div>
      {greatest > 0 && <p class="filters"><label>Batch up to the largest that fits <Field type="range" min="1" max={String(greatest)} value={String(Math.min(greatest, Number(value('batch'))))} onValue={(to) => set('batch', to)} /></label><span>{Number(value('batch')) >= greatest ? `${count(greatest)} is the most` : `${count(greatest)} is the most that fits`}</span></p>}
      {others.length > 0 && <Problems title="Refused" lines={others.map((problem) => <>{told(problem)}{problem.near && <> Near: <button type="button" class="link" onClick={() => set(problem.key === 'chip' ? 'chip' : 'model', problem.near!)}>{problem.near}</button>.</>}{problem.fix && <div class="soft">{problem.fix}</div>}</>)} />}
      {rows.length > 0 && <section class="fits">
        <p class="soft small" style={{ marginLeft: '152px' }}>Memory that one chip needs; the line is its capacity, {si(capacity, 'B')}</p>
        {rows.map((row) => { const total = needed(row); return (
          <div class="line" key={row.name}><span class="who">{title(row.name)}</span>
            <div class="track" role="img" aria-label={`${row.name}: ${si(total, 'B')} of ${si(capacity, 'B')}`}>
              {PARTS.map(([name, kind]) => { const size = row.parts_B[name] ?? 0; if (!size) return null; return <i style={{ width: `${(100 * size) / most}%`, backgroundColor: kinds[kind]![mode] }} title={`${title(name)} ${si(size, 'B')}`} /> })}
              {total > capacity && <i class="past" style={{ left: `${(100 * capacity) / most}%`, right: `${100 - (100 * total) / most}%` }} />}
              <b class="cap" style={{ left: `${(100 * capacity) / most}%` }} />
            </div>
            <span class="n">{si(total, 'B')}</span>
            <span class={total > capacity ? 'bad' : 'soft'}>{total > capacity ? `${si(total - capacity, 'B')} too many` : `${percent(total / capacity)} full`}</span></div>) })}
        <ul class="kinds">{PARTS.filter(([name]) => rows.some((row) => row.parts_B[name])).map(([name, kind]) => <li><i style={{ background: kinds[kind]![mode] }} />{title(name)}</li>)}</ul>
      </section>}
      {rows.length > 0 && <div class="scroll" tabIndex={0} role="region" aria-label="Ways"><table class="grid">
        <thead><tr><th scope="col">Way</th><th scope="col" class="n">Needs</th><th scope="col" class="n">Largest batch</th><th scope="col" class="n">Time</th><th scope="col" class="n">Tokens</th><th scope="col" class="n">Energy a token</th><th scope="col" class="n">Hours for 1 G tokens</th></tr></thead>
        <tbody>{[...fit, ...rows.filter((row) => !fit.includes(row))].map((row) => <tr><th scope="row">{title(row.name)}{row.split && <small>{row.split}</small>}{row.recomputation && row.recomputation !== 'none' && <small>recomputed: {row.recomputation}</small>}{row.problem && !needed(row) && <small>{row.problem}</small>}</th><td class="n">{si(needed(row), 'B')}</td><td class="n">{row.most_batch ? count(row.most_batch) : 'none'}</td>
          <td class="n">{row.latency_s !== undefined ? si(row.latency_s, 's') : 'does not fit'}</td><td class="n">{row.tokens_per_s ? si(row.tokens_per_s, 'token/s') : ''}</td><td class="n">{row.J_per_token ? si(row.J_per_token, 'J') : ''}</td><td class="n">{row.tokens_per_s ? Number((1e9 / row.tokens_per_s / 3600).toPrecision(3)).toLocaleString('en') : ''}</td></tr>)}</tbody>
      </table></div>}
      {splits.length > 0 && <SplitTable splits={splits} capacity={capacity || null} needed={needed} recomputed={tuning ? value('recomputation') : ''} />}
    </div>
  )
}
/** How the chips may share the work: what fits by time, then what does not, with the bytes that are missing. */
function SplitTable({ splits, capacity, needed, recomputed }: { splits: SplitRow[]; capacity: number | null; needed: (row: SplitRow) => number; recomputed: string }) {
  const order = (row: SplitRow) => (row.latency_s !== undefined ? row.latency_s : needed(row) ? 1e9 + needed(row) : Infinity)
  const ordered = [...splits].sort((a, b) => order(a) - order(b))
  const fit = splits.filter((row) => row.latency_s !== undefined).length
  return (
    <section><h2>Ways to share the work<span>{count(fit)} of {count(splits.length)} fit; {recomputed ? `recomputed: ${recomputed === 'least' ? 'the least that fits' : recomputed}` : 'nothing recomputed'}, nothing offloaded</span></h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Splits"><table class="grid">
        <thead><tr><th scope="col">Way</th><th scope="col" class="n">Data</th><th scope="col" class="n">Tensor</th><th scope="col" class="n">Pipeline</th><th scope="col" class="n">ZeRO</th><th scope="col" class="n">Micro-batches</th><th scope="col" class="n">A chip needs</th><th scope="col" class="n">Time</th><th scope="col" class="n">Tokens</th><th scope="col" class="n">Energy a token</th></tr></thead>
        <tbody>{ordered.map((row) => <tr key={`${row.name} ${row.data} ${row.tensor} ${row.pipeline} ${row.zero}`}><th scope="row">{title(row.name)}{row.recomputation && row.recomputation !== 'none' && <small>recomputed: {row.recomputation}</small>}{row.problem && !needed(row) && <small>{row.problem}</small>}</th><td class="n">{row.data}</td><td class="n">{row.tensor}</td><td class="n">{row.pipeline}</td><td class="n">{row.zero || ''}</td><td class="n">{row.micro_batches ?? ''}</td><td class="n">{needed(row) ? si(needed(row), 'B') : ''}</td>
          <td class={row.latency_s !== undefined ? 'n' : 'n bad'}>{row.latency_s !== undefined ? si(row.latency_s, 's') : needed(row) ? `${capacity ? si(needed(row) - capacity, 'B') : 'bytes'} missing` : 'cannot be'}</td><td class="n">{row.tokens_per_s ? si(row.tokens_per_s, 'token/s') : ''}</td><td class="n">{row.J_per_token ? si(row.J_per_token, 'J') : ''}</td></tr>)}</tbody>
      </table></div>
    </section>
  )
}
