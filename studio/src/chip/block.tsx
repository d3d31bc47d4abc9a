// A chip of one tile has no floor plan: device, memories and links as blocks.
import { area, percent, si, title, wholeB } from '../format'
import type { Run } from '../types'

export function Blocks({ run }: { run: Run }) {
  const view = run.result.view!
  const { roofline } = run.result
  const peaks = Object.entries(roofline.peak_per_s ?? {}).slice(0, 4)
  const parts = Object.entries(view.components)
  const busy = run.result.utilization
  const traffic = (run.result as unknown as { memory_read_B: number; memory_write_B: number })
  const moved = traffic.memory_read_B + traffic.memory_write_B
  const held = wholeB(run.result.memory_footprint_B)
  return (
    <div class="blocks">
      <p class="soft">One tile: this chip has no floor plan.</p>
      <div class="row">
        <section class="block device"><h2>{run.result.chip}<span>{view.chips > 1 ? `one of ${view.chips}` : 'device'}</span></h2>
          <dl class="list">
            {parts.map(([name, part]) => <><dt>{title(name)}</dt><dd>{part.units > 1 ? `${part.units} units, ` : ''}{area(part.area_m2)}{busy[name] !== undefined && `, ${percent(busy[name]!)} busy`}</dd></>)}
            {peaks.map(([format, rate]) => <><dt>Peak {format}</dt><dd>{si(rate, 'op/s')}</dd></>)}
            <dt>Power</dt><dd>{si(run.result.average_power_W / Math.max(1, run.result.chips), 'W')}</dd>
          </dl></section>
        {(view.memories.length > 0 || (roofline.bandwidth_B_per_s ?? 0) > 0) && <div class="wire" aria-hidden="true"><i /></div>}
        <div class="stackup">
          {!view.memories.length && roofline.bandwidth_B_per_s !== undefined && roofline.bandwidth_B_per_s > 0 && (
            <section class="block"><h2>Device memory<span>memory</span></h2>
              <dl class="list"><dt>Bandwidth</dt><dd>{si(roofline.bandwidth_B_per_s, 'B/s')}</dd><dt>Read and written</dt><dd>{si(moved, 'B')}</dd><dt>Needed by the task</dt><dd>{si(held, 'B')}</dd></dl></section>
          )}
          {view.memories.map((memory, i) => (
            <section class="block" key={i}><h2>{memory.count > 1 ? `${memory.count} × ` : ''}{memory.device}<span>memory</span></h2>
              <dl class="list">
                {i === 0 && roofline.bandwidth_B_per_s ? <><dt>Bandwidth</dt><dd>{si(roofline.bandwidth_B_per_s, 'B/s')}</dd></> : null}
                {i === 0 && <><dt>Read and written</dt><dd>{si(moved, 'B')}</dd><dt>Needed by the task</dt><dd>{si(held, 'B')}</dd></>}
                {memory.attached && <><dt>Attached to</dt><dd>{memory.attached}</dd></>}
              </dl></section>
          ))}
        </div>
      </div>
      {!run.result.thermal ? <p class="soft">Run with --thermal steady to see heat.</p> : view.dies[0]!.limit_K === null && <p class="soft">No temperature is shown: the cooling of this chip is not described, and no limit is known.</p>}
    </div>
  )
}
