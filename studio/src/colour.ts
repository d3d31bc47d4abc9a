// Scales in OKLab, resampled so that equal steps of a value are equal steps of colour; kinds told apart by everybody.
export type Triple = [number, number, number]
export type Mode = 'dark' | 'light'

const toLab = ([L, C, h]: Triple): Triple => {
  const angle = (h * Math.PI) / 180
  return [L, C * Math.cos(angle), C * Math.sin(angle)]
}

function toRgb([L, a, b]: Triple): Triple {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ]
  return linear.map((value) => {
    const c = Math.min(1, Math.max(0, value))
    return c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055
  }) as Triple
}

const STOPS: Record<'heat' | 'load', Record<Mode, Triple[]>> = {
  heat: {
    dark: [[0.33, 0.03, 265], [0.42, 0.075, 300], [0.52, 0.115, 350], [0.64, 0.135, 38], [0.78, 0.135, 70], [0.94, 0.1, 98]],
    light: [[0.945, 0.012, 240], [0.895, 0.06, 95], [0.8, 0.115, 76], [0.68, 0.135, 56], [0.53, 0.12, 38], [0.36, 0.075, 12]],
  },
  load: {
    dark: [[0.36, 0.02, 250], [0.52, 0.08, 225], [0.68, 0.11, 205], [0.88, 0.1, 190]],
    light: [[0.93, 0.012, 240], [0.78, 0.07, 225], [0.58, 0.11, 240], [0.36, 0.12, 262]],
  },
}

function resample(stops: Triple[], steps = 256, fineness = 1024): Triple[] {
  const labs = stops.map(toLab)
  const fine: Triple[] = []
  for (let i = 0; i < fineness; i++) {
    const x = (i / (fineness - 1)) * (labs.length - 1)
    const k = Math.min(labs.length - 2, Math.floor(x))
    const f = x - k
    fine.push([0, 1, 2].map((j) => labs[k]![j]! * (1 - f) + labs[k + 1]![j]! * f) as Triple)
  }
  const way = [0]
  for (let i = 1; i < fine.length; i++) {
    way.push(way[i - 1]! + Math.hypot(...[0, 1, 2].map((j) => fine[i]![j]! - fine[i - 1]![j]!)))
  }
  const found: Triple[] = []
  let k = 0
  for (let i = 0; i < steps; i++) {
    const wanted = (way[way.length - 1]! * i) / (steps - 1)
    while (k < way.length - 1 && way[k]! < wanted) k++
    found.push(toRgb(fine[k]!))
  }
  return found
}

export const ramps = {
  heat: { dark: resample(STOPS.heat.dark), light: resample(STOPS.heat.light) },
  load: { dark: resample(STOPS.load.dark), light: resample(STOPS.load.light) },
}
export const OVER: Record<Mode, string> = { dark: '#ff5d5d', light: '#d11a2a' }
export const css = (c: Triple): string => `rgb(${c.map((x) => Math.round(x * 255)).join(',')})`
export const at = (ramp: Triple[], t: number): Triple =>
  ramp[Math.round(Math.min(1, Math.max(0, Number.isFinite(t) ? t : 0)) * (ramp.length - 1))]!

export interface Kind { dark: string; light: string; mark: string; title: string }
export const kinds: Record<string, Kind> = {
  crossbar: { dark: '#e79719', light: '#b15a01', mark: 'X', title: 'crossbars' },
  systolic: { dark: '#92c2fb', light: '#0c6bd0', mark: 'S', title: 'systolic array' },
  vector: { dark: '#bbfaca', light: '#18a87a', mark: 'V', title: 'vector unit' },
  gpu: { dark: '#715bdb', light: '#4927a6', mark: 'G', title: 'GPU' },
  memory: { dark: '#db1542', light: '#880a22', mark: 'M', title: 'memory' },
  other: { dark: '#9399a2', light: '#5a6068', mark: 'O', title: 'other' },
}
export const kindOf = (type: string): Kind => kinds[type] ?? (/pim|dram|memory/i.test(type) ? kinds.memory! : kinds.other!)
