// A picture of what is seen, with title, scale and hash: PNG of the stack, SVG of the plan.
import { at, css, type Mode, type Triple } from '../colour'
import { si } from '../format'
import type { Run } from '../types'
import { asked } from '../words'
import { download } from './save'
import type { Stack } from './stack'

interface Given { run: Run; stack: Stack | null; caption: string; ends: [string, string] | null; ramp: Triple[]; mode: Mode }

const fileName = (run: Run, ending: string) => `${run.result.model}-${run.result.chip}.${ending}`.replace(/[^\w.-]+/g, '-')
const footer = ({ run, caption, ends }: Given) => [
  `${asked(run.result).join(' · ')} · ${si(run.result.latency_s, 's')}, ${si(run.result.energy_J, 'J')}`,
  `${caption}${ends ? `: ${ends[0]} to ${ends[1]}` : ''} · Tierform ${run.result.versions.tierform} · chip ${run.result.versions.chip_sha256.slice(0, 7)}`,
] as const

export function savePicture(given: Given): void {
  const style = getComputedStyle(document.documentElement)
  const ink = style.getPropertyValue('--ink'), soft = style.getPropertyValue('--soft'), ground = style.getPropertyValue('--bg')
  const lines = footer(given)
  if (given.stack) {
    given.stack.render()
    const source = given.stack.renderer.domElement, scale = source.width / source.clientWidth
    const canvas = Object.assign(document.createElement('canvas'), { width: source.width, height: source.height + 72 * scale })
    const pen = canvas.getContext('2d')!
    pen.fillStyle = ground
    pen.fillRect(0, 0, canvas.width, canvas.height)
    pen.drawImage(source, 0, 0)
    pen.scale(scale, scale)
    const top = source.clientHeight
    if (given.ends) for (let i = 0; i < 200; i++) { pen.fillStyle = css(at(given.ramp, i / 199)); pen.fillRect(source.clientWidth - 224 + i, top + 20, 1.5, 10) }
    for (const [i, line] of lines.entries()) { pen.fillStyle = i ? soft : ink; pen.font = `${i ? 400 : 600} 13px 'Inter Variable', system-ui`; pen.fillText(line, 24, top + 28 + 20 * i) }
    canvas.toBlob((blob) => blob && download(fileName(given.run, 'png'), blob))
    return
  }
  const drawn = [...document.querySelectorAll<SVGSVGElement>('.flat svg')]
  if (!drawn.length) return
  const names = [...document.querySelectorAll('.flat figcaption')].map((one) => one.textContent ?? '')
  const across = drawn.length > 1 ? 2 : 1, cell = 360
  const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  const bodies = drawn.map((one, i) => {
    const x = 24 + (i % across) * (cell + 24), y = 24 + Math.floor(i / across) * (cell + 44)
    const inner = new XMLSerializer().serializeToString(one).replace('<svg', `<svg x="${x}" y="${y + 20}" width="${cell}" height="${cell}"`)
    return `<text x="${x}" y="${y + 12}">${escape(names[i] ?? '')}</text>${inner}`
  })
  const width = 48 + across * (cell + 24), height = 110 + Math.ceil(drawn.length / across) * (cell + 44)
  const text = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="Inter, system-ui" font-size="13" fill="${ink}"><rect width="100%" height="100%" fill="${ground}"/><style>.sel{fill:none;stroke:${ink};stroke-width:.09}.hov{fill:none}.mark{font-size:.34px;text-anchor:middle;fill:#fff}</style>${bodies.join('')}${lines.map((line, i) => `<text x="24" y="${height - 44 + 20 * i}">${escape(line)}</text>`).join('')}</svg>`
  download(fileName(given.run, 'svg'), new Blob([text.replaceAll('var(--bg)', ground)], { type: 'image/svg+xml' }))
}
