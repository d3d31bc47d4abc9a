// Ledger: why should I believe it?  Predicted against measured, misses first.
import type { JSX } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { count, percent } from '../format'
import { start } from '../jobs'
import { Drawn, Problems } from '../parts'
import { change, useRoute } from '../route'
import type { Engine, Problem } from '../types'
import { told } from '../words'

interface Point { engine: Engine; i: number }
const made: Engine[] = [] // held here; they stay while other pages are looked at
export function LedgerPage({ engines, exported }: { engines: Engine[]; exported: boolean }) {
  const [state, setState] = useState(''), [skipped, setSkipped] = useState<string[]>([]), [problems, setProblems] = useState<Problem[]>([])
  const stop = useRef<(() => void) | null>(null)
  useEffect(() => () => stop.current?.(), [])
  const hold = () => {
    if (stop.current) { stop.current(); stop.current = null; setState(''); return }
    made.length = 0; setSkipped([]); setProblems([]); setState('Running')
    stop.current = start({ kind: 'ledger' }, (event) => {
      if (event.event === 'progress') setState(`Running, ${event.done} of ${event.total}: ${event.text}`)
      if (event.event === 'engine') { made.push(event.engine); setState((now) => `${now} `) }
      if (event.event === 'skipped') setSkipped((known) => [...known, `${event.engine} was left out: ${event.why}`])
      if (event.event === 'problem') setProblems(event.problems)
      if (['end', 'problem', 'stopped'].includes(event.event)) { stop.current = null; setState('') }
    })
  }
  const shown = engines.length ? engines : made
  const ask = engines.length || exported ? null : (
    <>
      {(!made.length || state) && <p class="filters"><button type="button" class={state ? 'act' : 'act main'} onClick={hold}>{state ? 'Stop' : 'Hold the engines now'}</button><span role="status">{state || 'Every engine against its references: some minutes.'}</span></p>}
      {skipped.length > 0 && <ul class="notes">{skipped.map((one) => <li>{one}</li>)}</ul>}
      {problems.length > 0 && <Problems title="The engines were not held" lines={problems.map((one) => told(one))} />}
    </>
  )
  return shown.length ? <Held engines={shown} ask={ask} /> : (
    <div class="page" tabIndex={0} role="region" aria-label="The page"><section class="empty"><h2>No ledger is open</h2>{ask}<p>{exported ? 'Hold' : 'Or hold'} the engines against reference tools and silicon, then open it beside the runs:</p><pre tabIndex={0}>{'tierform validate --json ledger.json\ntierform studio run.json ledger.json'}</pre></section></div>
  )
}
function Held({ engines, ask }: { engines: Engine[]; ask: JSX.Element | null }) {
  const { params } = useRoute()
  const [held, setHeld] = useState(false)
  const name = params.get('engine') ?? ''
  const chosen = engines.filter((one) => !name || one.engine === name)
  const points: Point[] = chosen.flatMap((engine) => engine.case.map((_, i) => ({ engine, i }))).filter(({ engine, i }) => !held || !engine.fitted[i])
  const judged = points.filter(({ engine, i }) => engine.passed_points[i] !== null)
  const passed = judged.filter(({ engine, i }) => engine.passed_points[i])
  const misses = judged.filter(({ engine, i }) => !engine.passed_points[i])
  const error = ({ engine, i }: Point) => Math.abs(engine.relative_error[i] ?? 0)
  const listed = [...misses, ...judged.filter((p) => !misses.includes(p)).sort((a, b) => error(b) - error(a))]
  return (
    <div class="page" tabIndex={0} role="region" aria-label="The page">
      <h1 class="sentence">{count(passed.length)} of {count(judged.length)} references within their tolerance</h1>
      {ask}
      <p class="filters">
        <label>Engine <select value={name} onChange={(event) => change({ engine: event.currentTarget.value || null })}><option value="">all</option>{engines.map((one) => <option value={one.engine}>{one.engine}</option>)}</select></label>
        <label><input type="checkbox" checked={held} onChange={(event) => setHeld(event.currentTarget.checked)} /> Held-out points only</label>
        <span>Repeat it: <code>tierform validate{name && ` ${name}`}</code></span>
      </p>
      <div class="ledger">
        <Drawn class="square" label="Predicted against reference on logarithmic axes" on={[points.length, name, held, document.documentElement.dataset.theme]} draw={(into) => square(into, points)} />
        <div>
          <table class="grid"><thead><tr><th scope="col">Engine</th><th scope="col" class="n">Points</th><th scope="col" class="n">Outside</th><th scope="col" class="n">Median error</th></tr></thead>
            <tbody>{chosen.map((engine) => { const errors = engine.relative_error.map((x) => Math.abs(x ?? 0)).filter(Number.isFinite).sort((a, b) => a - b); return <tr><th scope="row">{engine.engine}</th><td class="n">{count(engine.case.length)}</td><td class="n">{engine.passed_points.filter((x) => x === false).length || 'none'}</td><td class="n">{percent(errors[errors.length >> 1] ?? 0)}</td></tr> })}</tbody></table>
          <p class="soft small">Full points were held out, hollow ones used in a fit. The band is 10 %. Agreement with a simulator is not truth: the kind of each reference stands in its row.</p>
        </div>
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="Points"><table class="grid">
        <caption>{misses.length ? `${misses.length} outside first, then` : 'None is outside;'} the largest errors first{listed.length > 150 ? `, 150 of ${count(listed.length)}` : ''}</caption>
        <thead><tr><th scope="col">What</th><th scope="col" class="n">Ours</th><th scope="col" class="n">Reference</th><th scope="col" class="n">Error</th><th scope="col" class="n">Tolerance</th><th scope="col">Verdict</th><th scope="col">Held against</th></tr></thead>
        <tbody>{listed.slice(0, 150).map(({ engine, i }) => <tr><th scope="row">{engine.case[i]}<small>{engine.quantity[i]}{engine.unit[i] && `, ${engine.unit[i]}`}</small></th><td class="n">{short(engine.ours[i]!)}</td><td class="n">{short(engine.reference[i]!)}</td><td class="n">{percent(Math.abs(engine.relative_error[i] ?? NaN))}</td><td class="n">{engine.tolerance[i]}</td><td>{engine.passed_points[i] ? 'pass' : <b class="bad">miss</b>}{engine.fitted[i] && <small>fitted</small>}</td><td>{engine.sources[engine.source[i]!]?.[0]}<small>{engine.sources[engine.source[i]!]?.[1]}</small></td></tr>)}</tbody>
      </table></div>
    </div>
  )
}
const short = (x: number) => (Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(2) : String(Number(x.toPrecision(4))))
function square(into: HTMLElement, points: Point[]): void {
  const canvas = document.createElement('canvas'), size = Math.min(into.clientWidth || 420, 420), ratio = Math.min(2, devicePixelRatio)
  Object.assign(canvas, { width: size * ratio, height: size * ratio })
  Object.assign(canvas.style, { width: `${size}px`, maxWidth: '100%' })
  into.append(canvas)
  const pen = canvas.getContext('2d')!
  pen.scale(ratio, ratio)
  const style = getComputedStyle(document.documentElement), of = (name: string) => style.getPropertyValue(name)
  const good = points.filter(({ engine, i }) => engine.ours[i]! > 0 && engine.reference[i]! > 0)
  if (!good.length) return
  const all = good.flatMap(({ engine, i }) => [engine.ours[i]!, engine.reference[i]!]).map(Math.log10)
  let low = Infinity, high = -Infinity
  for (const x of all) { low = Math.min(low, x); high = Math.max(high, x) }
  low = Math.floor(low); high = Math.ceil(high + 0.01)
  const pad = 44, room = size - pad - 8, px = (x: number) => pad + ((Math.log10(x) - low) / (high - low)) * room, py = (y: number) => size - pad - ((Math.log10(y) - low) / (high - low)) * room
  const [a, b] = [10 ** low, 10 ** high]
  pen.fillStyle = of('--line')
  pen.beginPath(); pen.moveTo(px(a), py(a * 1.1)); pen.lineTo(px(b / 1.1), py(b)); pen.lineTo(px(b), py(b)); pen.lineTo(px(b), py(b / 1.1)); pen.lineTo(px(a * 1.1), py(a)); pen.lineTo(px(a), py(a)); pen.fill()
  pen.strokeStyle = of('--bar'); pen.strokeRect(pad, 8, room, room); pen.beginPath(); pen.moveTo(px(a), py(a)); pen.lineTo(px(b), py(b)); pen.stroke()
  for (const { engine, i } of good) {
    pen.beginPath(); pen.arc(px(engine.reference[i]!), py(engine.ours[i]!), 2.5, 0, 7)
    const miss = engine.passed_points[i] === false
    pen.strokeStyle = pen.fillStyle = of(miss ? '--bad' : '--accent'); pen.globalAlpha = miss ? 1 : 0.6
    engine.fitted[i] ? pen.stroke() : pen.fill()
  }
  pen.globalAlpha = 1; pen.fillStyle = of('--soft'); pen.font = "12px 'Inter Variable', system-ui"
  const step = Math.max(1, Math.ceil((high - low) / 5))
  for (let e = low; e <= high; e += step) { const text = e >= -3 && e <= 3 ? (10 ** e).toLocaleString('en') : `1e${e}`, w = pen.measureText(text).width; pen.fillText(text, Math.min(size - w, px(10 ** e) - w / 2), size - pad + 16); pen.fillText(text, pad - 6 - w, py(10 ** e) + 4) }
  pen.fillText('Reference (log)', pad, size - 8)
  pen.save(); pen.translate(pad + 16, 16 + pen.measureText('Ours (log)').width); pen.rotate(-Math.PI / 2); pen.fillText('Ours (log)', 0, 0); pen.restore()
}
