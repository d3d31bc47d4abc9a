// Every constant with its kind and source, assumed ones first; then the sources in full.
import { useState } from 'preact/hooks'
import { change, useRoute } from '../route'
import type { Run } from '../types'
import { cooled } from '../words'

export function ConstantsPage({ run }: { run: Run }) {
  const { params } = useRoute()
  const [kind, setKind] = useState('')
  const find = (params.get('find') ?? '').toLowerCase()
  const all = run.result.assumptions
  const kinds = [...new Set(all.map((one) => one.kind))]
  const order = ['assumed', 'fitted', 'published', 'datasheet', 'measured']
  const shown = all
    .filter((one) => (!kind || one.kind === kind) && (!find || `${one.subject} ${one.source} ${one.note}`.toLowerCase().includes(find)))
    .sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind))
  const influence = new Map((run.result.view?.influence ?? []).map((one) => [one.constant, one]))
  const whole = [...influence.values()].some((one) => one.area !== undefined), hot = cooled(run.result) && [...influence.values()].some((one) => typeof one.heat_K === 'number')
  return (
    <div class="page" tabIndex={0} role="region" aria-label="The page">
      <h2>Constants<span>{kinds.map((name) => `${all.filter((one) => one.kind === name).length} ${name}`).join(', ')}</span></h2>
      <p class="filters">
        <label>Find <input type="search" value={params.get('find') ?? ''} onInput={(event) => change({ find: event.currentTarget.value || null })} /></label>
        <label>Kind <select value={kind} onChange={(event) => setKind(event.currentTarget.value)}><option value="">all</option>{kinds.map((name) => <option value={name}>{name}</option>)}</select></label>
      </p>
      {influence.size > 0 && <section><h3>What 1 % more changes</h3>
        <div class="scroll" tabIndex={0} role="region" aria-label="Influence"><table class="grid"><thead><tr><th scope="col">Constant</th><th scope="col">Kind</th><th scope="col" class="n">Time</th><th scope="col" class="n">Energy</th>{whole && <th scope="col" class="n">Area</th>}{hot && <th scope="col" class="n">Hottest tile</th>}</tr></thead>
          <tbody>{[...influence.values()].map((one) => <tr><th scope="row">{one.constant}</th><td>{one.kind}</td><td class="n">{signed(one.latency)}</td><td class="n">{signed(one.energy)}</td>{whole && <td class="n">{signed(one.area ?? 0)}</td>}{hot && <td class="n">{`${(one.heat_K ?? 0) >= 0 ? '+' : '−'}${(1000 * Math.abs(one.heat_K ?? 0)).toFixed(0)}\u00a0mK`}</td>}</tr>)}</tbody></table></div></section>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Constants"><table class="grid stacked">
        <thead><tr><th scope="col">Constant</th><th scope="col">Value</th><th scope="col">Kind</th><th scope="col">Source</th><th scope="col">Note</th></tr></thead>
        <tbody>{shown.map((one) => <tr><th scope="row">{one.subject}</th><td class={one.value.length < 24 ? 'keep' : ''}>{one.value}</td><td><span class={`kind ${one.kind}`}>{one.kind}</span></td><td>{one.source}</td><td>{one.note}</td></tr>)}</tbody>
      </table></div>
      {!shown.length && <p class="soft">No constant like this.</p>}
      <h2>Sources<span>{run.result.citations.length}</span></h2>
      <ul class="plainlist sources">{run.result.citations.map((one) => <li><b>{one.key}</b> {one.text} {/^https?:/.test(one.url) && <a href={one.url} rel="noreferrer noopener">{one.url}</a>}</li>)}</ul>
    </div>
  )
}
const signed = (x: number): string => `${x >= 0 ? '+' : '−'}${Math.abs(x).toFixed(2)}\u00a0%`
