// Series over time: uPlot, loaded only where a page shows one.
import uPlot from 'uplot'

export interface Line { name: string; values: (number | null)[]; colour: string; dash?: number[] }
export interface Series { x: number[]; lines: Line[]; unit: string; xUnit: string; ink: string; grid: string; format: (x: number) => string; formatX: (x: number) => string }

export function drawSeries(into: HTMLElement, given: Series, height: number): { destroy(): void } {
  const axis = { stroke: given.ink, grid: { stroke: given.grid, width: 1 }, ticks: { stroke: given.grid, width: 1 }, font: '12px Inter Variable, system-ui', labelFont: '12px Inter Variable, system-ui' }
  const plot = new uPlot(
    {
      width: into.clientWidth || 320,
      height,
      cursor: { drag: { x: false, y: false } },
      legend: { show: false },
      scales: { x: { time: false } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map(given.formatX) },
        { ...axis, size: 64, values: (_, ticks) => ticks.map(given.format) },
      ],
      series: [{}, ...given.lines.map((line) => ({ label: line.name, stroke: line.colour, width: 1.5, dash: line.dash, points: { show: false } }))],
    },
    [given.x, ...given.lines.map((line) => line.values)] as uPlot.AlignedData,
    into,
  )
  const watch = new ResizeObserver(() => plot.setSize({ width: into.clientWidth || 320, height }))
  watch.observe(into)
  return { destroy: () => { watch.disconnect(); plot.destroy() } }
}
