// The chip in 3D: tiles, links and plates as three instanced meshes, drawn only when something changed.
import {
  BoxGeometry, BufferAttribute, Color, DynamicDrawUsage, InstancedMesh, Matrix4, MeshBasicMaterial, OrthographicCamera,
  Quaternion, Raycaster, Scene, Vector2, Vector3, WebGLRenderer,
} from 'three'
import type { View } from '../types'
import type { Pair } from './figures'

/** Boxes whose top shows the legend's colour exactly; their sides are the same colour, darker. */
function box(top: number, front: number, side: number): BoxGeometry {
  const made = new BoxGeometry(1, 1, 1)
  const shades = [side, side, top, 0.3, front, front]
  const colours = new Float32Array(24 * 3)
  for (let face = 0; face < 6; face++) colours.fill(shades[face]!, face * 12, face * 12 + 12)
  made.setAttribute('color', new BufferAttribute(colours, 3))
  return made
}
const SOFTWARE = /swiftshader|llvmpipe|software|basic render/i

export interface Anchor { die: number; left: [number, number]; top: [number, number] }
interface Block { centre: Vector3; size: Vector3 }

export class Stack {
  readonly renderer: WebGLRenderer
  readonly software: boolean
  azimuth = -Math.PI / 4
  tilt = 0.52
  zoom = 1
  moving = false
  frames = 0
  onFrame: (anchors: Anchor[]) => void = () => {}
  /** Where the grey blocks of memories stand, for their labels. */
  memories: Vector3[] = []
  private readonly scene = new Scene()
  private readonly camera = new OrthographicCamera(-1, 1, 1, -1, -1000, 2000)
  private readonly tiles: InstancedMesh
  private readonly wires: InstancedMesh
  private readonly plates: InstancedMesh
  private readonly centres: Vector3[] = []
  private readonly sizes: [number, number][] = []
  private blocks: Block[] = []
  private shown: number[] = []
  private threshold = 0.01
  private spread = 0.55
  private radius = 1
  get reach(): number { return this.radius }
  private low = 0
  private high = 0
  private thick = 0.1
  private pan = new Vector2()
  private waiting = false
  private readonly matrix = new Matrix4()
  private readonly turn = new Quaternion()

  constructor(canvas: HTMLCanvasElement, private readonly view: View, private readonly pairs: Pair[]) {
    const probe = document.createElement('canvas').getContext('webgl2')
    const info = probe?.getExtension('WEBGL_debug_renderer_info')
    const name = probe ? String(probe.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : probe.RENDERER)) : ''
    probe?.getExtension('WEBGL_lose_context')?.loseContext()
    this.software = SOFTWARE.test(name)
    this.renderer = new WebGLRenderer({ canvas, antialias: !this.software, alpha: true, powerPreference: 'low-power' })
    const material = () => new MeshBasicMaterial({ vertexColors: true })
    const n = view.tiles.die.length
    this.tiles = new InstancedMesh(box(1, 0.62, 0.46), material(), n)
    this.tiles.instanceMatrix.setUsage(DynamicDrawUsage)
    this.wires = new InstancedMesh(box(1, 0.9, 0.8), material(), Math.max(1, pairs.length))
    const memories = view.package === '3d' ? 0 : view.memories.reduce((sum, one) => sum + (one.ports.length ? one.count : 0), 0)
    this.plates = new InstancedMesh(box(1, 0.75, 0.6), material(), view.dies.length + (view.package === '2.5d' ? 1 : 0) + memories)
    this.scene.add(this.plates, this.wires, this.tiles)
    this.layout()
  }

  /** Places of dies and tiles; the unit of length is the widest tile. */
  private layout(): void {
    const { dies, tiles } = this.view
    const pitch = Math.max(...dies.map((die) => die.size_m[0] / die.grid[0]))
    const wide = dies.map((die) => [die.size_m[0] / pitch, die.size_m[1] / pitch] as const)
    const span = Math.max(...wide.map(([x, y]) => Math.max(x, y)))
    const stacked = this.view.package === '3d'
    const gap = (0.1 + 0.62 * this.spread) * span * (dies.length > 5 ? 0.6 : 1)
    const middle = [0, 1].map((axis) => {
      const ends = dies.map((die) => [die.origin_m[axis]!, die.origin_m[axis]! + die.size_m[axis]!] as const)
      return (Math.min(...ends.map((e) => e[0])) + Math.max(...ends.map((e) => e[1]))) / 2
    })
    const origins = dies.map((die, k) => stacked
      ? new Vector3(0, (k - (dies.length - 1) / 2) * gap, 0)
      : new Vector3((die.origin_m[0] + die.size_m[0] / 2 - middle[0]!) / pitch, 0, (die.origin_m[1] + die.size_m[1] / 2 - middle[1]!) / pitch))
    const height = (this.thick = 0.045 * Math.max(span, 1.5) ** 0.75)
    tiles.die.forEach((k, i) => {
      const die = dies[k]!
      const cell = [wide[k]![0] / die.grid[0], wide[k]![1] / die.grid[1]] as const
      this.centres[i] = new Vector3((tiles.x[i]! - (die.grid[0] - 1) / 2) * cell[0], 0, (tiles.y[i]! - (die.grid[1] - 1) / 2) * cell[1]).add(origins[k]!)
      this.sizes[i] = [0.94 * cell[0], 0.94 * cell[1]]
      this.tiles.setMatrixAt(i, this.matrix.compose(this.centres[i]!, this.turn, new Vector3(this.sizes[i]![0], height, this.sizes[i]![1])))
    })
    const rim = 0.04 * span
    this.blocks = dies.map((_, k) => ({
      centre: origins[k]!.clone().add(new Vector3(0, -height, 0)),
      size: new Vector3(wide[k]![0] + rim, height * 0.5, wide[k]![1] + rim),
    }))
    this.memories = []
    if (!stacked) this.placeMemories(origins, wide, span, height)
    if (this.view.package === '2.5d') {
      const ends = this.bounds()
      this.blocks.splice(dies.length, 0, {
        centre: new Vector3((ends.x0 + ends.x1) / 2, -height * 1.9, (ends.z0 + ends.z1) / 2),
        size: new Vector3(ends.x1 - ends.x0 + 0.14 * span, height * 0.5, ends.z1 - ends.z0 + 0.14 * span),
      })
    }
    this.blocks.forEach((one, i) => this.plates.setMatrixAt(i, this.matrix.compose(one.centre, this.turn, one.size)))
    this.plates.count = this.blocks.length
    for (const mesh of [this.tiles, this.plates]) { mesh.instanceMatrix.needsUpdate = true; mesh.computeBoundingSphere() }
    const ends = this.bounds()
    this.radius = Math.hypot(Math.max(-ends.x0, ends.x1), Math.max(-ends.z0, ends.z1))
    this.low = Math.min(...this.blocks.map((one) => one.centre.y - one.size.y))
    this.high = Math.max(...this.centres.map((one) => one.y + height))
    this.placeWires()
    this.draw()
  }
  /** Memory stacks stand beside the die that they are attached to, outwards. */
  private placeMemories(origins: Vector3[], wide: (readonly [number, number])[], span: number, height: number): void {
    for (const memory of this.view.memories) {
      const die = this.view.tiles.die[memory.ports[0] ?? -1]
      if (die === undefined) continue
      const centre = origins[die]!, [w, h] = wide[die]!
      const along = Math.abs(centre.x) >= Math.abs(centre.z)
      const sign = (along ? centre.x : centre.z) > 0 ? 1 : -1
      const length = along ? h : w
      const each = length / memory.count
      const deep = Math.min(0.5 * span, each)
      for (let i = 0; i < memory.count; i++) {
        const side = -length / 2 + each * (i + 0.5)
        const out = (along ? w : h) / 2 + 0.06 * span + deep / 2
        const at = along ? new Vector3(centre.x + sign * out, 0, centre.z + side) : new Vector3(centre.x + side, 0, centre.z + sign * out)
        this.blocks.push({ centre: at, size: along ? new Vector3(deep, height * 2.4, each * 0.9) : new Vector3(each * 0.9, height * 2.4, deep) })
        this.memories.push(at.clone())
      }
    }
  }
  private bounds(): { x0: number; x1: number; z0: number; z1: number } {
    const xs = this.blocks.flatMap((one) => [one.centre.x - one.size.x / 2, one.centre.x + one.size.x / 2])
    const zs = this.blocks.flatMap((one) => [one.centre.z - one.size.z / 2, one.centre.z + one.size.z / 2])
    return { x0: Math.min(...xs), x1: Math.max(...xs), z0: Math.min(...zs), z1: Math.max(...zs) }
  }
  private placeWires(): void {
    this.shown = []
    this.pairs.forEach((pair, i) => { if (pair.load >= this.threshold) this.shown.push(i) })
    const unit = Math.min(1, this.radius / 6)
    this.shown.forEach((index, n) => {
      const pair = this.pairs[index]!, a = this.centres[pair.a]!, b = this.centres[pair.b]!
      const way = b.clone().sub(a)
      const thick = Math.max(0.02, 0.13 * Math.sqrt(Math.min(1, pair.load) / 0.35)) * unit
      const upright = Math.abs(way.y) > 0.01
      const along = [way.x, way.y, way.z].filter((x) => Math.abs(x) > 0.01).length < 2
      const middle = a.clone().add(b).multiplyScalar(0.5)
      if (!upright) middle.y += this.thick / 2 + 0.04 * unit
      if (along) {
        const size = new Vector3(Math.max(Math.abs(way.x), thick), upright ? Math.abs(way.y) : thick, Math.max(Math.abs(way.z), thick))
        this.wires.setMatrixAt(n, this.matrix.compose(middle, this.turn, size))
      } else {
        const turned = new Quaternion().setFromUnitVectors(new Vector3(1, 0, 0), way.clone().normalize())
        this.wires.setMatrixAt(n, this.matrix.compose(middle, turned, new Vector3(way.length(), thick, thick)))
      }
    })
    this.wires.count = this.shown.length
    this.wires.visible = this.shown.length > 0
    this.wires.instanceMatrix.needsUpdate = true
    this.wires.computeBoundingSphere()
  }

  setSpread(spread: number): void { this.spread = spread; this.layout() }
  /** Show the links whose load reaches the threshold; above 1 none. */
  setLinks(threshold: number): void { this.threshold = threshold; this.placeWires(); this.draw() }
  paint(tile: (i: number) => string, link: (load: number) => string, plate: string, memory: string): void {
    const colour = new Color()
    this.centres.forEach((_, i) => this.tiles.setColorAt(i, colour.setStyle(tile(i))))
    this.shown.forEach((index, n) => this.wires.setColorAt(n, colour.setStyle(link(this.pairs[index]!.load))))
    const first = this.blocks.length - this.memories.length
    this.blocks.forEach((_, i) => this.plates.setColorAt(i, colour.setStyle(i >= first ? memory : plate)))
    for (const mesh of [this.tiles, this.wires, this.plates]) if (mesh.instanceColor) mesh.instanceColor.needsUpdate = true
    this.draw()
  }
  /** The outline of a tile's top, in pixels of the canvas. */
  outline(i: number, grow = 0): [number, number][] {
    const centre = this.centres[i], size = this.sizes[i]
    if (!centre || !size) return []
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]] as const
    return corners.map(([x, z]) => this.pixel(new Vector3(centre.x + x * (size[0] / 2 + grow), centre.y + this.thick / 2, centre.z + z * (size[1] / 2 + grow))))
  }
  pixel(point: Vector3): [number, number] {
    const canvas = this.renderer.domElement, at = point.clone().project(this.camera)
    return [((at.x + 1) / 2) * canvas.clientWidth, ((1 - at.y) / 2) * canvas.clientHeight]
  }
  pick(x: number, y: number): number {
    const ray = new Raycaster()
    ray.setFromCamera(new Vector2(x, y), this.camera)
    return ray.intersectObject(this.tiles)[0]?.instanceId ?? -1
  }
  /** Zoom so that what is under the pointer stays there. */
  zoomAt(factor: number, x: number, y: number): void {
    const before = this.zoom
    this.zoom = Math.min(12, Math.max(0.5, this.zoom * factor))
    const span = new Vector2(this.camera.right - this.camera.left, this.camera.top - this.camera.bottom)
    const kept = 1 - before / this.zoom
    this.pan.x += (x / 2) * span.x * kept
    this.pan.y += (y / 2) * span.y * kept
    this.draw()
  }
  fit(): void { this.zoom = 1; this.pan.set(0, 0); this.azimuth = -Math.PI / 4; this.tilt = 0.52; this.draw() }
  draw(): void {
    if (this.waiting) return
    this.waiting = true
    requestAnimationFrame(() => { this.waiting = false; this.render() })
  }
  render(): void {
    const canvas = this.renderer.domElement, w = canvas.clientWidth, h = canvas.clientHeight
    if (!w || !h) return
    const ratio = Math.min(2, devicePixelRatio) * (this.moving && this.software ? 0.5 : 1)
    if (canvas.width !== Math.floor(w * ratio) || canvas.height !== Math.floor(h * ratio)) {
      this.renderer.setPixelRatio(ratio)
      this.renderer.setSize(w, h, false)
    }
    const stacked = this.view.package === '3d', narrow = w < 700
    const pad = narrow ? { top: 150, low: 128, left: 12, right: 12 } : { top: stacked ? 72 : 96, low: stacked ? 40 : 70, left: stacked ? 212 : 60, right: stacked ? 176 : 150 }
    const sin = Math.sin(this.tilt), cos = Math.cos(this.tilt)
    const across = 2 * this.radius * 1.01, up = 2 * this.radius * sin + (this.high - this.low) * cos
    const perPixel = Math.max(across / Math.max(80, w - pad.left - pad.right), up / Math.max(80, h - pad.top - pad.low)) / this.zoom
    const cx = ((pad.left - pad.right) / 2) * perPixel - this.pan.x
    const cy = ((pad.top - pad.low) / 2) * perPixel + this.pan.y + ((this.high + this.low) / 2) * cos
    Object.assign(this.camera, { left: (-w / 2) * perPixel - cx, right: (w / 2) * perPixel - cx, top: (h / 2) * perPixel + cy, bottom: (-h / 2) * perPixel + cy })
    this.camera.position.set(400 * cos * Math.sin(this.azimuth), 400 * sin, 400 * cos * Math.cos(this.azimuth))
    this.camera.lookAt(0, 0, 0)
    this.camera.updateProjectionMatrix()
    this.camera.updateMatrixWorld()
    this.renderer.render(this.scene, this.camera)
    if (!this.frames++) performance.mark('picture')
    this.onFrame(this.anchors())
  }
  private anchors(): Anchor[] {
    return this.view.dies.map((_, die) => {
      const { centre, size } = this.blocks[die]!
      const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, z]) => this.pixel(new Vector3(centre.x + (x! * size.x) / 2, centre.y, centre.z + (z! * size.z) / 2)))
      return {
        die,
        left: corners.reduce((a, b) => (b[0] < a[0] ? b : a)),
        top: corners.reduce((a, b) => (b[1] < a[1] ? b : a)),
      }
    })
  }
  dispose(): void {
    this.onFrame = () => {}
    for (const mesh of [this.tiles, this.wires, this.plates]) mesh.geometry.dispose()
    this.renderer.dispose()
  }
}
