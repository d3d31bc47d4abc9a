// Chip: where does it happen, and is it safe?
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { at, css, kindOf, OVER, ramps, type Mode } from '../colour'
import { celsius, si } from '../format'
import { Choice, script } from '../parts'
import { change, useRoute } from '../route'
import type { Run } from '../types'
import { cooled } from '../words'
import { Blocks } from './block'
import { CAPTIONS, figuresOf, kindsOf, nameOf, QUANTITIES, scaleOf, tell, unpack, valuesOf, type Quantity } from './figures'
import { dieText, Flat, TileTable } from './flat'
import { apart } from './labels'
import { Panel } from './panel'
import { savePicture } from './picture'
import type { Anchor, Stack } from './stack'

type StackModule = typeof import('./stack')
const LINKS: [string, string, number][] = [['off', 'No links', 2], ['some', 'Links over 1 %', 0.01], ['all', 'All links', 0]]
const webgl = (() => { try { return !!document.createElement('canvas').getContext('webgl2') } catch { return false } })()

export function ChipPage({ run, mode }: { run: Run; mode: Mode }) {
  const view = run.result.view!
  if (view.tiles.die.length === 1) {
    const figures = figuresOf(view)
    return <div class="split"><section class="stage" aria-label="The chip"><Blocks run={run} /></section><Panel run={run} figures={figures} tile={0} quantity="power" value={figures.power[0]!} /></div>
  }
  return <Plan key={run.id} run={run} mode={mode} />
}

function Plan({ run, mode }: { run: Run; mode: Mode }) {
  const view = run.result.view!, { params } = useRoute()
  const figures = useMemo(() => figuresOf(view), [view])
  const usual: Quantity = figures.missing.temperature ? 'power' : 'temperature'
  const asked = params.get('by') as Quantity | null
  const quantity: Quantity = asked && QUANTITIES.some(([name]) => name === asked) && !figures.missing[asked] ? asked : usual
  const tile = Math.min(view.tiles.die.length - 1, Math.max(0, Number(params.get('tile') ?? figures.hottest) || 0))
  const shape = !webgl && params.get('as') !== 'table' ? 'plan' : ((params.get('as') ?? 'stack') as 'stack' | 'plan' | 'table')
  const links = params.get('links') ?? 'some', spread = Number(params.get('spread') ?? 0.55), stretched = params.has('stretch')
  const times = view.heat?.time_s.length ?? 0
  const moment = view.heat && params.has('t') ? Math.min(times - 1, Math.max(0, Number(params.get('t')) || 0)) : null
  const decode = useMemo(() => (view.heat ? unpack(view.heat) : null), [view])
  const now = useMemo(() => (moment !== null && decode ? decode(moment) : null), [moment, decode])
  const values = useMemo(() => valuesOf(view, figures, quantity, now), [view, figures, quantity, now])
  const scale = useMemo(() => scaleOf(view, figures, quantity, values, stretched), [view, figures, quantity, values, stretched])
  const [hover, setHover] = useState(-1)
  const ramp = ramps[quantity === 'temperature' ? 'heat' : 'load'][mode]
  const over = (i: number) => quantity === 'temperature' && values[i]! > (view.dies[view.tiles.die[i]!]!.limit_K ?? Infinity)
  const colour = (i: number) => {
    if (quantity === 'kind') return kindOf(kindsOf(view, i)[0]?.type ?? 'other')[mode]
    return over(i) ? OVER[mode] : css(at(ramp, (values[i]! - scale[0]) / (scale[1] - scale[0])))
  }
  const select = (i: number) => i >= 0 && change({ tile: String(i) })
  const [stack, setStack] = useState<Stack | null>(null)
  const keys = (event: KeyboardEvent) => {
    const die = view.tiles.die[tile]!, x = view.tiles.x[tile]!, y = view.tiles.y[tile]!
    const to = (d: number, cx: number, cy: number) => {
      const grid = view.dies[d]?.grid
      if (!grid) return
      const [gx, gy] = [Math.min(grid[0] - 1, cx), Math.min(grid[1] - 1, cy)]
      const found = view.tiles.die.findIndex((one, i) => one === d && view.tiles.x[i] === gx && view.tiles.y[i] === gy)
      if (found >= 0) { select(found); event.preventDefault() }
    }
    const move: Record<string, () => void> = {
      ArrowRight: () => to(die, x + 1, y), ArrowLeft: () => to(die, x - 1, y), ArrowDown: () => to(die, x, y + 1), ArrowUp: () => to(die, x, y - 1),
      PageUp: () => to(die + 1, x, y), PageDown: () => to(die - 1, x, y),
      q: () => { if (stack) { stack.azimuth -= 0.2; stack.draw() } }, e: () => { if (stack) { stack.azimuth += 0.2; stack.draw() } },
    }
    if (!event.ctrlKey && !event.metaKey) move[event.key]?.()
  }
  const bins = useMemo(() => {
    const found = new Array<number>(48).fill(0)
    for (const value of values) found[Math.min(47, Math.max(0, Math.floor(((value - scale[0]) / (scale[1] - scale[0])) * 48)))]!++
    return found
  }, [values, scale])
  const most = Math.max(...bins)
  const low = Math.min(...values), high = Math.max(...values)
  const known = cooled(run.result)
  const caption = quantity === 'temperature' ? (known ? CAPTIONS.temperature : 'Temperature of a tile; cooling assumed, no limit known') : CAPTIONS[quantity]
  const kindsShown = [...new Set(view.tiles.die.flatMap((_, i) => kindsOf(view, i).map((one) => one.type)))]
  const text = quantity === 'kind' ? '' : tell(quantity, values[tile]!)
  const save = () => savePicture({ run, stack: shape === 'stack' ? stack : null, caption, ends: quantity === 'kind' ? null : [tell(quantity, scale[0]), tell(quantity, scale[1])], ramp, mode })
  useLayoutEffect(() => {
    const listener = () => save()
    addEventListener('tierform:picture', listener)
    return () => removeEventListener('tierform:picture', listener)
  })
  const shapes: [string, string][] = [['stack', view.package === '3d' ? 'Stack' : '3D'], ['plan', 'Plan'], ['table', 'Table']]
  return (
    <div class="split">
      <section class="stage" aria-label="The chip">
        <div class="tools">
          <Choice label="Colour the tiles by" options={QUANTITIES} value={quantity} off={figures.missing} onChange={(name) => change({ by: name === usual ? null : name, stretch: null })} />
          <Choice label="Show as" options={shapes} value={shape} off={webgl ? {} : { stack: 'This browser has no WebGL.' }} onChange={(name) => change({ as: name === 'stack' ? null : name })} />
          {shape === 'stack' && !figures.missing.traffic && <label class="pick">Links <select value={links} onChange={(event) => change({ links: event.currentTarget.value === 'some' ? null : event.currentTarget.value })}>{LINKS.map(([name, label]) => <option value={name}>{label}</option>)}</select></label>}
          {shape === 'stack' && view.package === '3d' && <label class="range">Spread <input type="range" min="0" max="1" step=".01" value={spread} onInput={(event) => change({ spread: event.currentTarget.value })} /></label>}
          {!webgl && <span class="soft">Drawn flat: this browser has no WebGL.</span>}
        </div>
        {shape === 'stack' && <Solid run={run} figures={figures} tile={tile} hover={hover} text={text} colour={colour} links={links} spread={spread} mode={mode} onTile={select} onHover={setHover} onKey={keys} onStack={setStack}
          paint={[quantity, scale, values, mode]} dieOf={(die) => dieText(view, die, quantity, values)} label={tile === figures.hottest && view.tiles.temperature_K && quantity === 'temperature' ? 'Hottest tile' : nameOf(view, tile)} />}
        {shape === 'plan' && <Flat view={view} colour={colour} over={over} tile={tile} hover={hover} onTile={select} onHover={setHover} quantity={quantity} values={values} mode={mode} onKey={keys} />}
        {shape === 'table' && <TileTable view={view} figures={figures} tile={tile} onTile={select} />}
        {shape !== 'table' && <figure class="legend">
          <figcaption>{caption}</figcaption>
          {quantity === 'kind'
            ? <ul class="kinds">{kindsShown.map((type) => { const kind = kindOf(type); return <li><i style={{ background: kind[mode] }}>{kind.mark}</i>{type === 'crossbar' || type === 'systolic' || type === 'vector' || type === 'gpu' ? kind.title : type || 'other'}</li> })}</ul>
            : <>
              <div class="hist" aria-hidden="true">{bins.map((n) => <i style={{ height: `${n ? 8 + (92 * n) / most : 0}%` }} />)}</div>
              <div class="ramp" aria-hidden="true" style={{ background: `linear-gradient(90deg, ${Array.from({ length: 17 }, (_, i) => css(at(ramp, i / 16))).join(',')})` }} />
              <div class="ends"><span>{quantity === 'temperature' ? celsius(scale[0], 0) : tell(quantity, scale[0])}</span>{quantity === 'temperature' && <span class="soft">tiles span {(high - low).toFixed(1)} °C</span>}<span>{quantity === 'temperature' ? celsius(scale[1], 0) : tell(quantity, scale[1])}{quantity === 'temperature' && !stretched && known ? ' limit' : ''}</span></div>
              {quantity === 'temperature' && <button type="button" class="link" aria-pressed={stretched} onClick={() => change({ stretch: stretched ? null : '1' })}>{stretched ? 'Use the full scale' : 'Stretch to these tiles'}</button>}
            </>}
          {shape === 'stack' && view.package === '3d' && <p class="soft small">Widths to scale, heights not.</p>}
        </figure>}
        {view.heat && shape !== 'table' && quantity === 'temperature' && <Moments times={view.heat.time_s} stages={view.heat.stage} moment={moment} />}
        {hover >= 0 && hover !== tile && quantity !== 'kind' && <p class="hint" aria-hidden="true">{nameOf(view, hover)} <b>{tell(quantity, values[hover]!)}</b></p>}
      </section>
      <Panel run={run} figures={figures} tile={tile} quantity={quantity} value={values[tile]!} />
    </div>
  )
}

/** A slider over the times of a transient run, with its stages, and play. */
function Moments({ times, stages, moment }: { times: number[]; stages: string[]; moment: number | null }) {
  const [playing, setPlaying] = useState(false)
  const index = moment ?? times.length - 1
  useEffect(() => {
    if (!playing) return
    const timer = setInterval(() => change({ t: String((Number(new URLSearchParams(location.hash.split('?')[1]).get('t') ?? -1) + 1) % times.length) }), 80)
    return () => clearInterval(timer)
  }, [playing])
  return (
    <div class="moments">
      <button type="button" class="act" onClick={() => setPlaying(!playing)}>{playing ? 'Stop' : 'Play'}</button>
      <input type="range" min="0" max={times.length - 1} value={index} aria-label="Time" aria-valuetext={`${si(times[index]!, 's')}, ${stages[index]}`} onInput={(event) => change({ t: event.currentTarget.value })} />
      <span>{moment === null ? 'Steady' : si(times[index]!, 's')} <span class="soft">{moment === null ? '' : (stages[index] ?? '').replace(/\[.*/, '')}</span></span>
      {moment !== null && <button type="button" class="link" onClick={() => { setPlaying(false); change({ t: null }) }}>Show steady</button>}
    </div>
  )
}

interface SolidGiven {
  run: Run; figures: ReturnType<typeof figuresOf>; tile: number; hover: number; text: string; label: string; colour: (i: number) => string; links: string; spread: number; mode: Mode
  paint: unknown[]; dieOf: (die: number) => string; onTile: (i: number) => void; onHover: (i: number) => void; onKey: (event: KeyboardEvent) => void; onStack: (stack: Stack | null) => void
}
function Solid(given: SolidGiven) {
  const { run, figures, tile, hover, mode } = given
  const view = run.result.view!
  const canvas = useRef<HTMLCanvasElement>(null)
  const [stack, setStack] = useState<Stack | null>(null)
  const [anchors, setAnchors] = useState<Anchor[]>([])
  const [broken, setBroken] = useState('')
  useEffect(() => {
    let made: Stack | null = null, gone = false
    const watch = new ResizeObserver(() => made?.draw())
    script<StackModule>('stack', 'tierformStack').then(({ Stack }) => {
      if (gone || !canvas.current) return
      made = new Stack(canvas.current, view, figures.pairs)
      made.onFrame = setAnchors
      setStack(made)
      given.onStack(made)
      watch.observe(canvas.current)
      Object.assign(window, { tierformScene: made })
    }).catch((error) => setBroken(String(error.message)))
    return () => { gone = true; watch.disconnect(); made?.dispose(); given.onStack(null) }
  }, [view])
  useEffect(() => { stack?.setSpread(given.spread) }, [stack, given.spread])
  useEffect(() => {
    if (!stack) return
    stack.setLinks(LINKS.find(([name]) => name === given.links)?.[2] ?? 0.01)
    stack.paint(given.colour, (load) => css(at(ramps.load[mode], 0.25 + 0.75 * Math.min(1, load / 0.35))), mode === 'dark' ? '#1c222b' : '#dfe3e9', mode === 'dark' ? '#59626e' : '#a9b1bb')
  }, [stack, given.links, ...given.paint])
  const drag = useRef<{ x: number; y: number; azimuth: number; tilt: number; moved: boolean } | null>(null)
  const place = (event: MouseEvent): [number, number] => {
    const box = canvas.current!.getBoundingClientRect()
    return [((event.clientX - box.left) / box.width) * 2 - 1, 1 - ((event.clientY - box.top) / box.height) * 2]
  }
  const spot = (event: MouseEvent) => (stack ? stack.pick(...place(event)) : -1)
  const move = (event: PointerEvent) => {
    const held = drag.current
    if (!stack) return
    if (!held) { if (event.pointerType !== 'touch') given.onHover(spot(event)); return }
    const dx = event.clientX - held.x, dy = event.clientY - held.y
    if (Math.hypot(dx, dy) > 4) held.moved = true
    if (!held.moved) return
    stack.moving = true
    stack.azimuth = held.azimuth - dx * 0.006
    stack.tilt = Math.min(1.5, Math.max(0.15, held.tilt + dy * 0.005))
    stack.draw()
  }
  const release = (event: PointerEvent) => {
    if (drag.current && !drag.current.moved) given.onTile(spot(event))
    drag.current = null
    if (stack) { stack.moving = false; stack.draw() }
  }
  // A wheel listener of our own: the page must not scroll while the picture zooms.
  useEffect(() => {
    const element = canvas.current!
    const wheel = (event: WheelEvent) => { event.preventDefault(); stack?.zoomAt(Math.exp(-event.deltaY * 0.001), ...place(event)) }
    element.addEventListener('wheel', wheel, { passive: false })
    return () => element.removeEventListener('wheel', wheel)
  }, [stack])
  const stacked = view.package === '3d'
  return (
    <>
      <canvas ref={canvas} tabIndex={0} role="application" aria-label={`${stacked ? 'Stack' : 'Picture'} of ${view.dies.length} dies, ${view.tiles.die.length} tiles. ${given.label}: ${given.text}. Arrow keys move, Page Up and Page Down change the die, Q and E turn.`} onKeyDown={given.onKey}
        onPointerDown={(event) => { if (!stack) return; drag.current = { x: event.clientX, y: event.clientY, azimuth: stack.azimuth, tilt: stack.tilt, moved: false }; event.currentTarget.setPointerCapture(event.pointerId) }}
        onPointerMove={move} onPointerUp={release} onPointerCancel={() => { drag.current = null }} onPointerLeave={() => given.onHover(-1)} onDblClick={() => stack?.fit()} />
      {broken && <p class="hint">{broken}</p>}
      {stack && anchors.length > 0 && <Overlay stack={stack} anchors={anchors} run={run} tile={tile} hover={hover} label={given.label} text={given.text} dieOf={given.dieOf} />}
    </>
  )
}

function Overlay({ stack, anchors, run, tile, hover, label, text, dieOf }: { stack: Stack; anchors: Anchor[]; run: Run; tile: number; hover: number; label: string; text: string; dieOf: (die: number) => string }) {
  const view = run.result.view!
  const { clientWidth: w, clientHeight: h } = stack.renderer.domElement
  const stacked = view.package === '3d'
  const outline = stack.outline(tile, stack.reach * 0.008)
  const right = outline.reduce((a, b) => (b[0] > a[0] ? b : a), outline[0]!)
  const end = [Math.max(w - 168, right[0] + 60), Math.max(96, right[1] - 28)] as const
  // A label that would lie on the legend stands at the other side of its tier.
  const other = (left: [number, number] | readonly [number, number]) => stacked && w > 700 && left[0] < 490 && left[1] + 16 > h - 140
  // On a phone the dies are as wide as the picture: a tier's label stands under its left corner, a chiplet's is its name.
  const tight = stacked ? anchors.some(({ left }) => left[0] < 196) : w < 600
  const told = anchors.map((_, k) => (!tight ? dieOf(k) : stacked ? dieOf(k).split(' · ')[0]!.replace(' peak', '') : ''))
  const wide = (k: number) => Math.ceil(Math.max(7.4 * view.dies[k]!.name.length, 6.3 * told[k]!.length)) + 12
  const boxes = apart(
    anchors.map(({ left, top }, k) => (stacked && tight ? { x: left[0] - 4, y: left[1] + 10, w: wide(k), h: 28 } : other(left) ? { x: 2 * top[0] - left[0] + 12, y: left[1] - 18, w: 190, h: 34 } : stacked ? { x: left[0] - 200, y: left[1] - 18, w: 190, h: 34 } : { x: top[0] - wide(k) / 2, y: top[1] - (tight ? 28 : 44), w: wide(k), h: tight ? 22 : 38 })),
    { w, h },
  )
  const memory = view.package === '3d' ? null : view.memories.find((one) => one.ports.length)
  const spot = memory && stack.memories.length ? stack.pixel(stack.memories[stack.memories.length - 1]!) : null
  return (
    <>
      <svg class="over" aria-hidden="true">
        <polygon points={outline.map((p) => p.join()).join(' ')} />
        {w > 700 && text && <><polyline points={`${right.join()} ${end[0] - 40},${end[1]} ${end[0] - 8},${end[1]}`} /><text x={end[0]} y={end[1] - 2}>{label}</text><text class="v" x={end[0]} y={end[1] + 18}>{text}</text></>}
        {hover >= 0 && hover !== tile && <polygon class="hover" points={stack.outline(hover).map((p) => p.join()).join(' ')} />}
        {spot && <text x={spot[0]} y={spot[1] + 4} text-anchor="middle" class="mem">{memory!.count > 1 ? `${memory!.count} × ` : ''}{memory!.device}</text>}
      </svg>
      {boxes.map((box, k) => (
        <div key={k} class={!stacked ? 'tier c' : tight ? 'tier n' : other(anchors[k]!.left) ? 'tier r' : 'tier'} style={{ transform: `translate(${box.x}px, ${box.y}px)`, width: `${box.w}px` }}><b>{view.dies[k]!.name}</b>{told[k] && <span>{told[k]}</span>}</div>
      ))}
    </>
  )
}
