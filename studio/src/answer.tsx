// The answer band: what was asked, the large number, what limits, whether it is safe, how much is assumed.
import { area, celsius, change as compared, parts, si } from './format'
import { Unit } from './parts'
import { address } from './route'
import type { Run } from './types'
import { asked, cooled, headline, limited, rates, safety, spends } from './words'

export function Answer({ run, against, route }: { run: Run; against: Run | null; route: URLSearchParams }) {
  const { result } = run
  const [value, of] = headline(result)
  const other = against && against.id !== run.id ? against.result : null
  const safe = safety(result)
  const figures: [string, string, string][] = [
    ...rates(result).map(([name, x, unit]) => [name, si(x, unit), other ? compared(x, rates(other).find((r) => r[0] === name)?.[1] ?? NaN) : ''] as [string, string, string]),
    ['Energy', si(result.energy_J, 'J'), other ? compared(result.energy_J, other.energy_J) : ''],
    ['Power', si(result.average_power_W, 'W'), other ? compared(result.average_power_W, other.average_power_W) : ''],
    ['Area', area(result.area_m2), other ? compared(result.area_m2, other.area_m2) : ''],
  ]
  if (cooled(result)) figures.push(['Hottest', celsius(result.thermal!.peak_K), ''])
  const assumed = result.assumptions.filter((one) => one.kind === 'assumed').length
  const kept = new URLSearchParams([...route].filter(([name]) => ['run', 'against', 'theme'].includes(name)))
  return (
    <section class="answer" aria-label="The answer">
      <p class="what">{asked(result).join(' · ')}</p>
      <h1><Unit of={parts(value, 's')} /> <small>{of}{other && ` · ${compared(value, headline(other)[0])} than ${other.chip}`}</small></h1>
      <dl>{figures.map(([name, text, versus]) => <div key={name}><dt>{name}</dt><dd>{text}{versus && <small>{versus}</small>}</dd></div>)}</dl>
      <a class="evidence" href={address('constants', kept)}><b>{assumed}</b> of {result.assumptions.length} constants are assumed</a>
      <p class="says">
        {limited(result)} {spends(result)}{' '}
        {safe && <span class={safe.over ? 'bad' : ''}><i class={safe.over ? 'dot bad' : 'dot'} aria-hidden="true" />{safe.text}</span>}
      </p>
    </section>
  )
}
