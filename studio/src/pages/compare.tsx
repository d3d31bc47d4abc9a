// Several runs side by side: the last one is the baseline.
import { kinds, type Mode } from '../colour'
import { area, celsius, change as compared, percent, si, title, wholeB } from '../format'
import { go, useRoute } from '../route'
import type { Run } from '../types'
import { asked, cooled, headline, limited, rates, training } from '../words'

const COLOURS = ['crossbar', 'systolic', 'vector', 'gpu', 'memory', 'other']
/** One colour for each part, those of kinds where the part is one. */
export function colourOf(name: string, index: number, mode: Mode): string {
  const known: Record<string, string> = { reram: 'crossbar', systolic: 'systolic', vector: 'vector', gpu: 'gpu', memory: 'memory', network: 'other' }
  const colour = kinds[known[name] ?? COLOURS[index % COLOURS.length]!]![mode]
  return index < COLOURS.length || known[name] ? colour : `color-mix(in srgb, ${colour} 50%, var(--bg))`
}
function Stacked({ heading, runs, rows, unit, mode }: { heading: string; runs: Run[]; rows: (run: Run) => Record<string, number>; unit: string; mode: Mode }) {
  const values = runs.map(rows)
  const totals = values.map((one) => Object.values(one).reduce((a, b) => a + b, 0))
  const most = Math.max(...totals, 1e-300)
  const who = (run: Run) => (runs.filter((one) => one.result.chip === run.result.chip).length > 1 ? run.name.replace(`${run.result.model} on `, '') : run.result.chip)
  const names = [...new Set(values.flatMap((one) => Object.entries(one).sort((a, b) => b[1] - a[1]).map(([name]) => name)))]
  return (
    <section class="stackedbars" style={{ '--who': `${Math.min(168, Math.max(104, ...runs.map((run) => 7.2 * who(run).length)))}px` }}>
      <h2>{heading}</h2>
      {runs.map((run, i) => (
        <div class="line" key={run.id}>
          <span class="who" title={run.name}>{who(run)}</span>
          <div class="track" role="img" aria-label={`${who(run)}: ${si(totals[i]!, unit)}; ${names.filter((name) => values[i]![name]).map((name) => `${title(name)} ${percent(values[i]![name]! / totals[i]!)}`).join(', ')}`}>
            {names.map((name, k) => (values[i]![name] ?? 0) > 0 && <i key={name} style={{ width: `${(100 * values[i]![name]!) / most}%`, background: colourOf(name, k, mode) }} title={`${title(name)} ${si(values[i]![name]!, unit)}`} />)}
          </div>
          <span class="n">{si(totals[i]!, unit)}</span>
        </div>
      ))}
      <ul class="kinds">{names.filter((name) => values.some((one, i) => (one[name] ?? 0) > 0.005 * totals[i]!)).map((name) => <li><i style={{ background: colourOf(name, names.indexOf(name), mode) }} />{title(name)}</li>)}</ul>
    </section>
  )
}
/** What a run has to do, whichever chip and method do it. */
const workOf = ({ result: { model, task } }: Run): string => JSON.stringify([model, training(task) ? 'training' : task.task, task.batch, task.sequence, task.decode, task.steps, task.groups])
export function ComparePage({ runs, mode }: { runs: Run[]; mode: Mode }) {
  const { params } = useRoute()
  const alike = (one: Run) => runs.filter((run) => workOf(run) === workOf(one))
  const usual = runs.reduce((a, b) => (alike(b).length >= alike(a).length ? b : a))
  const base = runs.find((run) => run.id === params.get('against')) ?? usual
  // Only runs that do the same work are faster or slower than each other.
  const peers = alike(base)
  const fast = peers.reduce((a, b) => (headline(b.result)[0] < headline(a.result)[0] ? b : a))
  const lean = peers.reduce((a, b) => (b.result.energy_J < a.result.energy_J ? b : a))
  // Bars of one length belong to one work.
  const drawn = peers.length > 1 ? peers : runs
  const of = peers.length < runs.length ? ` of the ${peers.length} that do this work` : ''
  const rows: [string, (run: Run) => number, (x: number) => string][] = [
    [`Time ${headline(base.result)[1]}`, (run) => headline(run.result)[0], (x) => si(x, 's')],
    ...rates(base.result).map(([name, , unit]) => [name, (run: Run) => rates(run.result).find((one) => one[0] === name)?.[1] ?? NaN, (x: number) => si(x, unit)] as [string, (run: Run) => number, (x: number) => string]),
    ['Energy', (run) => run.result.energy_J, (x) => si(x, 'J')],
    ['Energy × time', (run) => run.result.energy_J * run.result.latency_s, (x) => si(x, 'J·s')],
    ['Mean power', (run) => run.result.average_power_W, (x) => si(x, 'W')],
    ['Silicon', (run) => run.result.area_m2, area],
    ['Memory needed', (run) => wholeB(run.result.memory_footprint_B), (x) => si(x, 'B')],
  ]
  const stage = (run: Run) => {
    const found: Record<string, number> = {}
    for (const one of run.result.stages) { const name = one.name.replace(/\[.*/, ''); found[name] = (found[name] ?? 0) + one.latency_s }
    return found
  }
  return (
    <div class="page" tabIndex={0} role="region" aria-label="The page">
      <p class="what">{asked(base.result).slice(0, -1).join(' · ')}</p>
      <h1 class="sentence">{peers.length === 1 ? 'These runs do different work' : fast.id === lean.id
        ? `${fast.result.chip} is fastest and takes the least energy${of}`
        : `${fast.result.chip} is fastest, ${lean.result.chip} takes the least energy${of}`}</h1>
      <p class="soft">{peers.length === 1 ? 'No other run has its model, task, batch and lengths: their times and energies stand beside each other and are not compared.' : `Changes are against ${base.result.chip}${of && ', for runs of the same model, task, batch and lengths'}.`} {training(base.result.task) ? 'Each chip runs at its best number of micro-batches.' : ''}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label="Side by side"><table class="grid side">
        <thead><tr><th scope="col" />{runs.map((run) => <th scope="col" class="n"><button type="button" class="link" onClick={() => go('chip', { run: run.id })}>{run.name}</button></th>)}</tr></thead>
        <tbody>
          {rows.map(([name, value, text]) => <tr><th scope="row">{name}</th>{runs.map((run) => { const x = value(run); return <td class="n"><b>{text(x)}</b>{run.id !== base.id && peers.includes(run) && <small>{compared(x, value(base))}</small>}</td> })}</tr>)}
          <tr><th scope="row">Hottest tile</th>{runs.map((run) => <td class="n">{cooled(run.result) ? <b>{celsius(run.result.thermal!.peak_K)}</b> : <small>cooling not described</small>}</td>)}</tr>
          <tr><th scope="row">Assumed constants</th>{runs.map((run) => <td class="n">{run.result.assumptions.filter((one) => one.kind === 'assumed').length} of {run.result.assumptions.length}</td>)}</tr>
          <tr><th scope="row">Weights, activations</th>{runs.map((run) => <td class="n">{run.result.task.precision.weights}, {run.result.task.precision.activations}</td>)}</tr>
          <tr><th scope="row">What limits</th>{runs.map((run) => <td class="n long">{limited(run.result)}</td>)}</tr>
        </tbody>
      </table></div>
      <div class="tables">
        <Stacked heading="Time by stage" runs={drawn} rows={stage} unit="s" mode={mode} />
        <Stacked heading="Energy by component" runs={drawn} rows={(run) => run.result.energy_J_by_component} unit="J" mode={mode} />
        <Stacked heading="Energy by class of operator" runs={drawn} rows={(run) => run.result.energy_J_by_operator} unit="J" mode={mode} />
      </div>
    </div>
  )
}
