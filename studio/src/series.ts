// Series over time: uPlot, loaded only where a page shows one.
import uPlot from 'uplot'

export interface Line { name: string; values: (number | null)[]; colour: string; dash?: number[]; points?: boolean }
export interface Series {
  x: number[]; lines: Line[]; unit: string; xUnit: string; ink: string; grid: string; format: (x: number) => string; formatX: (x: number) => string
  /** A logarithmic scale; both ends of the scale; fills between two lines; a part of x that is shaded. */
  log?: boolean; range?: [number, number]; bands?: { lines: [number, number]; colour: string }[]; shade?: { from: number; to: number; colour: string } | null
  /** Charts of one name share their cursor; `onCursor` tells the place in x under it. */
  sync?: string; onCursor?: (at: number | null) => void
}

/** Of the marks of a logarithmic scale the decades, where there are several; else all. */
const decades = (_: uPlot, ticks: number[]): (number | null)[] => {
  const tens = ticks.map((x) => (Math.abs(Math.log10(x) - Math.round(Math.log10(x))) < 1e-9 ? x : null))
  return tens.filter((x) => x !== null).length > 1 ? tens : ticks
}
export function drawSeries(into: HTMLElement, given: Series, height: number): { destroy(): void } {
  const axis = { stroke: given.ink, grid: { stroke: given.grid, width: 1 }, ticks: { stroke: given.grid, width: 1 }, font: '12px Inter Variable, system-ui', labelFont: '12px Inter Variable, system-ui' }
  const scale: uPlot.Scale = given.log ? { distr: 3, ...(given.range && { range: given.range }) } : { ...(given.range && { range: given.range }) }
  const plot = new uPlot(
    {
      width: into.clientWidth || 320,
      height,
      cursor: { drag: { x: false, y: false }, ...(given.sync && { sync: { key: given.sync } }) },
      legend: { show: false },
      scales: { x: { time: false }, y: scale },
      axes: [
        { ...axis, size: 30, values: (_, ticks) => ticks.map(given.formatX) },
        { ...axis, ...(given.log && { grid: { ...axis.grid, filter: decades }, ticks: { ...axis.ticks, filter: decades } }), size: 72, values: (_, ticks) => ticks.map((x) => (x === null || x === undefined ? '' : given.format(x))) },
      ],
      series: [{}, ...given.lines.map((line) => ({ label: line.name, stroke: line.colour, width: 1.5, dash: line.dash, points: { show: !!line.points, size: 6, fill: line.colour } }))],
      bands: given.bands?.map((one) => ({ series: [one.lines[0] + 1, one.lines[1] + 1], fill: one.colour })),
      hooks: {
        drawClear: [(u) => {
          if (!given.shade) return
          const left = u.valToPos(given.shade.from, 'x', true), right = Math.min(u.valToPos(given.shade.to, 'x', true), u.bbox.left + u.bbox.width)
          u.ctx.save(); u.ctx.fillStyle = given.shade.colour; u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height); u.ctx.restore()
        }],
        setCursor: [(u) => given.onCursor?.(u.cursor.left! >= 0 ? (u.cursor.idx ?? null) : null)],
      },
    },
    [given.x, ...given.lines.map((line) => line.values)] as uPlot.AlignedData,
    into,
  )
  const watch = new ResizeObserver(() => plot.setSize({ width: into.clientWidth || 320, height }))
  watch.observe(into)
  return { destroy: () => { watch.disconnect(); plot.destroy() } }
}
