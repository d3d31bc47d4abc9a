// What 1 % of each constant moves, as bars that open into their controls.
import { useState } from 'preact/hooks'
import { measure } from '../format'
import type { Constant } from '../jobs'
import { Field } from '../parts'
import { cooled } from '../words'
import type { Influence, Run } from '../types'

export type Of = 'latency' | 'energy' | 'area' | 'heat'
const WORDS: Record<Of, string> = { latency: 'time', energy: 'energy', area: 'area', heat: 'hottest tile' }
const MK = 5e-4 // temperatures are found to a thousandth of a kelvin
/** The relative change of a figure for 1 % more of the constant, in %; of heat in kelvin.  Files of before lack the last two. */
export const amountOf = (one: Influence, of: Of): number => (of === 'heat' ? one.heat_K : one[of]) ?? 0
const moves = (one: Influence) => one.latency !== 0 || one.energy !== 0 || !!one.area || Math.abs(one.heat_K ?? 0) >= MK
/** What bars can show: heat where the chip's cooling is described. */
export function shownOf(run: Run, found: Influence[]): [Of, string][] {
  const whole = !found.length || found.some((one) => one.area !== undefined)
  const hot = cooled(run.result) && (!found.length || found.some((one) => typeof one.heat_K === 'number'))
  return [['latency', 'Time'], ['energy', 'Energy'], ...(whole ? [['area', 'Area'] as [Of, string]] : []), ...(whole && hot ? [['heat', 'Heat'] as [Of, string]] : [])]
}
const told = (amount: number, of: Of): string => {
  const sign = amount >= 0 ? '+' : '−'
  if (of === 'heat') return Math.abs(amount) < MK ? '' : `${sign}${(1000 * Math.abs(amount)).toFixed(0)} mK`
  return Math.abs(amount) < 0.005 ? '' : `${sign}${Math.abs(amount).toFixed(2)} %`
}
/** The constant that moves a figure most, as a sentence. */
export function most(found: Influence[], of: Of): string {
  const first = found.reduce((a, b) => (Math.abs(amountOf(b, of)) > Math.abs(amountOf(a, of)) ? b : a)), amount = amountOf(first, of)
  if (!told(amount, of)) return `No constant moves the ${WORDS[of]}`
  const by = told(Math.abs(amount), of).slice(1)
  return `${first.constant} moves the ${WORDS[of]} most: 1 % more of it makes ${of === 'heat' ? `it ${by} ${amount < 0 ? 'cooler' : 'hotter'}` : `${by} ${amount < 0 ? 'less' : 'more'}`}`
}

/** Every constant with the influence of 1 % of it as a bar that opens into its control. */
export function Influences({ found, of, constants, changed, onChange, locked }: { found: Influence[]; of: Of; constants: Constant[]; changed: Record<string, string>; onChange: (path: string, value: string | null) => void; locked?: boolean }) {
  const [open, setOpen] = useState('')
  const [find, setFind] = useState('')
  const known = new Map(found.map((one) => [one.constant, one]))
  const all: Constant[] = constants.length ? constants : found.map((one) => ({ ...one, note: '' }))
  const amount = (path: string) => { const one = known.get(path); return one && amountOf(one, of) }
  const size = (path: string) => Math.abs(amount(path) ?? 0)
  const rows = all.filter((one) => (!find || one.constant.toLowerCase().includes(find.toLowerCase())) && (!known.has(one.constant) || moves(known.get(one.constant)!)))
    .sort((a, b) => Number(b.constant in changed) - Number(a.constant in changed) || size(b.constant) - size(a.constant))
  const longest = Math.max(...rows.map((one) => size(one.constant)), 1e-9)
  return (
    <section>
      <p class="filters"><label>Find a constant <input type="search" value={find} onInput={(event) => setFind(event.currentTarget.value)} /></label>{found.length > 0 && <span>1 % more {of === 'heat' ? 'makes the hottest tile hotter by' : `changes ${WORDS[of]} by`}</span>}</p>
      <ul class="influences">{rows.slice(0, 120).map((one) => {
        const isOpen = open === one.constant
        return (
          <li key={one.constant} class={one.constant in changed ? 'changed' : ''}>
            <button type="button" class="bar" aria-expanded={locked ? undefined : isOpen} disabled={locked} onClick={() => setOpen(isOpen ? '' : one.constant)}>
              <span class={`name ${one.kind}`}>{one.constant.split(/(?<=[._])/).map((part) => <>{part}<wbr /></>)}</span>
              <span class="track"><i style={{ width: `${(100 * size(one.constant)) / longest}%` }} /></span>
              <span class="n">{told(amount(one.constant) ?? 0, of)}</span>
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
const text = (x: number) => String(Number(x.toPrecision(6)))
/** Whether a value leaves the range in which its law is known. */
const beyond = (one: Constant, x: number) => (one.low !== undefined && x < one.low) || (one.high !== undefined && x > one.high)
function Control({ one, value, onChange }: { one: Constant; value: string | undefined; onChange: (value: string | null) => void }) {
  const whole = one.kind === 'chosen' || (one.unit === 'bit' && Number.isInteger(one.value) && one.value <= 64)
  const now = value !== undefined ? Number(value) : one.value
  const span = (x: number) => Math.round((Math.log2(x / one.value) / 2) * 100)
  const set = (x: number) => onChange(Math.abs(x / one.value - 1) < 1e-9 ? null : text(x))
  return (
    <div class="control">
      {whole ? <label>Value <Field type="range" min="1" max={String(Math.max(16, one.value * 2))} step="1" value={String(now)} onValue={(to) => set(Number(to))} aria-valuetext={measure(now, one.unit)} /></label>
        : <label>A quarter to four times <Field type="range" min="-100" max="100" step="1" value={String(span(now))} aria-valuetext={measure(now, one.unit)} onValue={(to) => set(one.value * 2 ** ((Number(to) / 100) * 2))} /></label>}
      <label>Value in {one.unit && one.unit !== '1' ? one.unit : 'plain numbers'} <Field type="text" inputMode="decimal" value={text(now)} onValue={(to) => { const x = Number(to); if (Number.isFinite(x) && to.trim()) set(x) }} /></label>
      <span class="soft">{measure(now, one.unit)} · {one.kind}{one.source && `, ${one.source}`}{one.note && `: ${one.note}`}</span>
      {one.law && <span class={beyond(one, now) ? 'bad' : 'soft'}>{beyond(one, now) ? `Outside ${one.low} to ${one.high}: not known.` : `Known from ${one.low} to ${one.high}.`} {one.law}.</span>}
      {value !== undefined && <button type="button" class="act" onClick={() => onChange(null)}>Reset</button>}
    </div>
  )
}
