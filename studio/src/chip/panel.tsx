// What is known of the selected tile, and of the whole.
import { useEffect, useState } from 'preact/hooks'
import { at, css, OVER, ramps, type Mode } from '../colour'
import { celsius, count, percent, si, title } from '../format'
import { Bars, Drawn, script } from '../parts'
import { go } from '../route'
import type { Run } from '../types'
import { cooled, helpOf, labelOf } from '../words'
import { nameOf, sumOf, tell, unpack, type Figures, type Quantity } from './figures'
import { shareText } from './flat'

type SeriesModule = typeof import('../series')

export function Panel({ run, figures, tile, quantity, value }: { run: Run; figures: Figures; tile: number; quantity: Quantity; value: number }) {
  const view = run.result.view!, { tiles } = view
  const single = tiles.die.length === 1
  return <aside tabIndex={0} aria-label="The selection">{!single && <Tile run={run} figures={figures} tile={tile} quantity={quantity} value={value} />}<Whole run={run} /></aside>
}
function Tile({ run, figures, tile, quantity, value }: { run: Run; figures: Figures; tile: number; quantity: Quantity; value: number }) {
  const view = run.result.view!, { tiles } = view
  const die = view.dies[tiles.die[tile]!]!
  const hottest = tile === figures.hottest && tiles.temperature_K !== null
  const layers = new Map<string, string[]>()
  view.weights.tile.forEach((at, i) => {
    if (at !== tile) return
    const matrix = view.weights.matrices[view.weights.matrix[i]!]!
    const layer = matrix.layers > 1 ? `${matrix.block.replace(/\[.*/, '')} ${view.weights.layer[i]}` : matrix.block
    layers.set(layer, [...(layers.get(layer) ?? []), matrix.weight])
  })
  const shown = [...layers].slice(0, 3)
  const running = view.operators.filter((one) => one.tiles.includes(tile)).sort((a, b) => b.busy_s - a.busy_s)
  const busiest = figures.pairs.filter((pair) => pair.a === tile || pair.b === tile).sort((a, b) => b.load - a.load)[0]
  const port = view.memories.find((memory) => memory.ports.includes(tile))
  const held = (tiles.holds[tile] ?? []).map(([name, units]) => (units > 1 ? `${count(units)} ${title(name)} units` : title(name)))
  const over = tiles.temperature_K && die.limit_K !== null && tiles.temperature_K[tile]! > die.limit_K
  return (
    <>
      <section>
        <h2>{hottest ? 'Hottest tile' : `Tile ${tile}`}<span>{die.name} · column {tiles.x[tile]}, row {tiles.y[tile]}</span></h2>
        <p class={over && quantity === 'temperature' ? 'big bad' : 'big'}>{quantity === 'kind' ? held.join(', ') || 'Nothing' : tell(quantity, value)}{(quantity === 'power' || quantity === 'traffic') && <small> {quantity === 'power' ? 'mean power' : 'over its links'}</small>}</p>
        {over && <p class="bad">Too hot: {(tiles.temperature_K![tile]! - die.limit_K!).toFixed(1)} °C over the limit of {celsius(die.limit_K!, 0)}</p>}
        <table class="kv"><tbody>
          {quantity !== 'temperature' && tiles.temperature_K && <tr><th scope="row">Temperature</th><td>{celsius(tiles.temperature_K[tile]!)}</td></tr>}
          <tr><th scope="row">Power</th><td>{si(tiles.power_W.dynamic[tile]!, 'W')} dynamic, {si(tiles.power_W.leakage[tile]!, 'W')} leakage</td></tr>
          <tr><th scope="row">Holds</th><td>{held.join(', ') || 'nothing'}</td></tr>
          <tr><th scope="row">Weights</th><td>{shown.length ? shown.map(([layer, names]) => <div>{layer}: {names.map((name) => name.replace('attention.', 'att. ')).join(', ')}</div>) : 'none stay here'}{layers.size > 3 && <div class="soft">{layers.size - 3} more</div>}</td></tr>
          {figures.traffic[tile]! > 0 && <tr><th scope="row">Traffic</th><td>{si(figures.traffic[tile]!, 'B')}</td></tr>}
          {busiest && <tr><th scope="row">Busiest link</th><td>to {nameOf(view, busiest.a === tile ? busiest.b : busiest.a)}<div class="soft">{shareText(busiest.load)}, {si(busiest.B_per_s, 'B/s')}</div></td></tr>}
          {port && <tr><th scope="row">Memory port</th><td>{port.count > 1 ? `${port.count} × ` : ''}{port.device}</td></tr>}
          {sumOf(tiles.energy_J, tile) > 0 && <tr><th scope="row">Energy</th><td>{Object.entries(tiles.energy_J).filter(([, v]) => v[tile]! > 0).map(([stage, v]) => <div>{stage} {si(v[tile]!, 'J')}</div>)}</td></tr>}
        </tbody></table>
      </section>
      {running.length > 0 && <section><h2>Operators here<span>busy time, all tiles</span></h2>
        <ul class="plainlist">{running.slice(0, 3).map((one) => <li><button type="button" class="link" onClick={() => go('operators', { find: one.name })}>{one.name}</button> <span class="soft">{one.stage.replace(/\[.*/, '')}</span><span class="right">{si(one.busy_s, 's')}</span></li>)}</ul>
        {running.length > 3 && <p class="soft small">{running.length - 3} more</p>}</section>}
      {view.heat && <OverTime run={run} tile={tile} />}
    </>
  )
}
function OverTime({ run, tile }: { run: Run; tile: number }) {
  const heat = run.result.view!.heat!
  const [module, setModule] = useState<SeriesModule | null>(null)
  useEffect(() => void script<SeriesModule>('series', 'tierformSeries').then(setModule), [])
  const moment = unpack(heat)
  const values = heat.time_s.map((_, i) => moment(i)[tile]! - 273.15)
  const low = Math.min(...values), high = Math.max(...values)
  return <section><h2>Temperature over time<span>{low.toFixed(1)} to {high.toFixed(1)} °C</span></h2>
    {module && <Drawn class="series" label={`Temperature of the tile from ${low.toFixed(1)} to ${high.toFixed(1)} °C`} on={[tile, module, document.documentElement.dataset.theme]} draw={(into) => {
      const style = getComputedStyle(document.documentElement)
      const made = module.drawSeries(into, {
        x: heat.time_s, lines: [{ name: 'Tile', values, colour: style.getPropertyValue('--accent') }], unit: '°C', xUnit: 's',
        ink: style.getPropertyValue('--soft'), grid: style.getPropertyValue('--line'), format: (x) => `${x.toFixed(1)} °C`, formatX: (x) => si(x, 's'),
      }, 120)
      return () => made.destroy()
    }} />}</section>
}
function Whole({ run }: { run: Run }) {
  const { result } = run
  const parts = Object.entries(result.energy_J_by_part).sort((a, b) => b[1] - a[1])
  const names = new Map(parts.map(([key]) => [labelOf(result, key), key]))
  const busy = Object.entries(result.utilization).sort((a, b) => b[1] - a[1])
  const path = Object.entries(result.view!.limits?.critical_path_s ?? {})
  return (
    <>
      <section><h2>Where the energy goes<span>{si(result.energy_J, 'J')}</span></h2>
        <Bars rows={parts.map(([key, value]) => [labelOf(result, key), value])} unit="J" total={result.energy_J} help={(name) => helpOf(result, names.get(name) ?? '')} /></section>
      {path.length > 0 && <section><h2>What the time is spent on<span>critical path</span></h2>
        <Bars rows={path.map(([name, seconds]) => [title(name), seconds])} unit="s" total={result.latency_s} of="whole" /></section>}
      <section><h2>How busy<span>mean over all units of a kind</span></h2>
        <table class="bars"><tbody>{busy.map(([name, share]) => (
          <tr style={{ '--w': `${Math.min(100, 100 * share)}%` }}><th scope="row">{title(name)}</th><td class="n">{si(result.busy_s_by_resource[name] ?? 0, 's')}</td><td class="n soft">{percent(share)}</td></tr>
        ))}</tbody></table></section>
      {cooled(result) && result.thermal?.cross_section && <Cut run={run} cut={result.thermal.cross_section} />}
      {result.notes.length > 0 && <section><h2>Notes</h2><ul class="notes">{result.notes.map((note) => <li>{note}</li>)}</ul></section>}
    </>
  )
}
/** A vertical cut through the hottest cell: one row for each layer, the top one first; heights are not to scale. */
function Cut({ run, cut }: { run: Run; cut: NonNullable<NonNullable<Run['result']['thermal']>['cross_section']> }) {
  const view = run.result.view!, mode: Mode = document.documentElement.dataset.theme === 'dark' ? 'dark' : 'light'
  const limits = view.dies.map((die) => die.limit_K).filter((x): x is number => x !== null)
  const [low, high] = [view.ambient_K, limits.length ? Math.min(...limits) : Math.max(...cut.temperature_K.flat())]
  const colour = (kelvin: number) => (kelvin > high && limits.length ? OVER[mode] : css(at(ramps.heat[mode], (kelvin - low) / (high - low))))
  const rows = cut.layers.map((name, i) => [name, cut.temperature_K[i]!, cut.thickness_m[i]!] as const).reverse()
  return (
    <section><h2>Through the hottest tile<span>{si(cut.width_m, 'm')} wide, the sink's side first</span></h2>
      <table class="cut"><tbody>{rows.map(([name, cells, thick]) => { const most = Math.max(...cells); return (
        <tr title={`${name}, ${si(thick, 'm')} thick: ${celsius(Math.min(...cells))} to ${celsius(most)}`}><th scope="row">{name}</th><td class="strip" style={{ background: `linear-gradient(to right, ${cells.map(colour).join(',')}${cells.length === 1 ? `,${colour(cells[0]!)}` : ''})` }} /><td class="n">{celsius(most)}</td></tr>
      ) })}</tbody></table>
      <p class="soft small">Colours from {celsius(low, 0)} to {celsius(high, 0)}; the number is the hottest of the layer. Heights are not to scale.</p></section>
  )
}
