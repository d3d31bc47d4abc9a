// A chart with its heading and its lines named in words beside their colours.
import { useEffect, useState } from 'preact/hooks'
import { Drawn, script } from '../parts'
import type { Series } from '../series'

type SeriesModule = typeof import('../series')
export type Charted = Omit<Series, 'ink' | 'grid'>

export function Chart({ heading, note, series, height = 150, label, on }: { heading: string; note?: string; series: Charted; height?: number; label: string; on: unknown[] }) {
  const [module, setModule] = useState<SeriesModule | null>((globalThis as { tierformSeries?: SeriesModule }).tierformSeries ?? null)
  useEffect(() => { if (!module) void script<SeriesModule>('series', 'tierformSeries').then(setModule) }, [])
  return (
    <section class="chart">
      <h2>{heading}<span>{note}</span></h2>
      <ul class="names">{series.lines.filter((line) => line.name).map((line) => <li key={line.name}><i class={line.dash ? 'dash' : ''} style={{ '--c': line.colour }} />{line.name}</li>)}</ul>
      {module ? <Drawn class="series tall" label={label} on={[module, document.documentElement.dataset.theme, ...on]} draw={(into) => {
        const style = getComputedStyle(document.documentElement), of = (name: string) => style.getPropertyValue(name)
        const plot = module.drawSeries(into, { ...series, ink: of('--soft'), grid: of('--line') }, height)
        return () => plot.destroy()
      }} /> : <div class="series tall" style={{ height: `${height}px` }} />}
    </section>
  )
}
