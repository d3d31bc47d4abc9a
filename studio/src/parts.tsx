// Small parts that pages share.
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks'
import { percent, si } from './format'

export function Bars({ rows, unit, total, most = 5, of, help }: { rows: [string, number][]; unit: string; total: number; most?: number; of?: string; help?: (name: string) => string }) {
  const first = rows.length > most + 1 ? rows.slice(0, most) : rows
  const rest = rows.slice(first.length)
  const all = rest.length ? [...first, [`${rest.length} others`, rest.reduce((sum, row) => sum + row[1], 0)] as [string, number]] : first
  const largest = of === 'whole' ? total : Math.max(...all.map((row) => row[1]), 1e-300)
  if (!all.length) return <p class="soft">Nothing.</p>
  return (
    <table class="bars"><tbody>
      {all.map(([name, value]) => (
        <tr key={name} style={{ '--w': `${(100 * value) / largest}%` }} title={help?.(name) || undefined}>
          <th scope="row">{name}</th><td class="n">{si(value, unit)}</td><td class="n soft">{percent(total ? value / total : 0)}</td>
        </tr>
      ))}
    </tbody></table>
  )
}
export function Choice<T extends string>({ label, options, value, onChange, off }: { label: string; options: [T, string][]; value: T; onChange: (value: T) => void; off?: Partial<Record<T, string>> }) {
  const step = (event: KeyboardEvent) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key]
    if (!way) return
    event.preventDefault()
    const open = options.filter(([name]) => !off?.[name])
    const at = open.findIndex(([name]) => name === value)
    const next = open[(at + way + open.length) % open.length]
    if (!next) return
    onChange(next[0])
    ;(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>('[role=radio]')[options.indexOf(next)]?.focus()
  }
  return (
    <div class="seg" role="radiogroup" aria-label={label} onKeyDown={step}>
      {options.map(([name, text]) => (
        <button type="button" role="radio" key={name} aria-checked={name === value} aria-disabled={off?.[name] ? true : undefined} title={off?.[name]}
          tabIndex={name === value ? 0 : -1} onClick={() => !off?.[name] && onChange(name)}>{text}</button>
      ))}
    </div>
  )
}
export function Problems({ title, lines }: { title: string; lines: ComponentChildren[] }) {
  return <section class="problems" role="alert"><h2>{title}</h2><ul>{lines.map((line) => <li>{line}</li>)}</ul></section>
}
/** Runs what draws into an element, again whenever what it depends on changes. */
export function Drawn({ draw, on, class: name, label }: { draw: (into: HTMLElement) => void | (() => void); on: unknown[]; class?: string; label: string }) {
  const ref = useRef<HTMLDivElement>(null)
  useEffect(() => { const into = ref.current!; into.replaceChildren(); return draw(into) }, on)
  return <div ref={ref} class={name} role="img" aria-label={label} />
}
const asked = new Map<string, Promise<unknown>>()
/** Loads a script of ours once; an exported file has it already. */
export function script<T>(name: string, global: string): Promise<T> {
  const known = (globalThis as Record<string, unknown>)[global]
  if (known) return Promise.resolve(known as T)
  const before = asked.get(name)
  if (before) return before as Promise<T>
  const loaded = new Promise<T>((done, failed) => {
    const tag = document.createElement('script')
    tag.src = `${name}.js`
    tag.onload = () => done((globalThis as Record<string, unknown>)[global] as T)
    tag.onerror = () => { asked.delete(name); failed(new Error(`${name}.js did not load`)) }
    document.head.append(tag)
  })
  asked.set(name, loaded)
  return loaded
}
export const Unit = ({ of: [value, unit] }: { of: [string, string] }) => <>{value}{unit && <span class="unit">{'\u00a0'}{unit}</span>}</>

/** An input or a slider that tells its value on Enter, when it is left or let go; what is typed or dragged stays when something else changes. */
export function Field({ value, onValue, ...rest }: { value: string; onValue: (value: string) => void; type?: string; min?: string; max?: string; step?: string; inputMode?: 'decimal'; list?: string; placeholder?: string; 'aria-valuetext'?: string }) {
  const ref = useRef<HTMLInputElement>(null)
  useLayoutEffect(() => { if (ref.current) ref.current.value = value }, [value])
  return <input {...(rest as object)} ref={ref} onChange={(event) => onValue(event.currentTarget.value)} />
}
