// Numbers for people: three significant digits, a narrow space, the unit by its prefix.
const THIN = '\u00a0'
const PREFIXES: [number, string][] = [
  [1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, ''], [1e-3, 'm'], [1e-6, 'µ'], [1e-9, 'n'], [1e-12, 'p'], [1e-15, 'f'], [1e-18, 'a'],
]

/** The value and its unit apart, for large figures. */
export function parts(x: number, unit: string, digits = 3): [string, string] {
  if (!Number.isFinite(x)) return ['–', '']
  if (x === 0) return ['0', unit]
  const size = Math.abs(x)
  const edge = 1 - 0.5 * 10 ** -digits
  const [factor, prefix] = PREFIXES.find(([f]) => size >= f * edge) ?? PREFIXES[PREFIXES.length - 1]!
  const scaled = x / factor
  if (Math.abs(scaled) >= 10 ** digits * edge) return [Math.round(scaled).toLocaleString('en'), prefix + unit]
  const text = scaled.toPrecision(digits)
  return [text.includes('e') ? String(Number(text)) : text, prefix + unit]
}
export const si = (x: number, unit: string, digits = 3): string => {
  const [value, shown] = parts(x, unit, digits)
  return shown ? `${value}${THIN}${shown}` : value
}
/** A constant by its unit of files: areas by squared prefixes, rates as such, counts whole. */
export const measure = (x: number, unit: string): string => {
  if (unit === '' || unit === '1') return x.toLocaleString('en', { maximumSignificantDigits: 4 })
  if (unit === 'bit' && Number.isInteger(x) && x < 1e4) return `${x}${THIN}bit`
  if (unit === 'm^2' || unit === 'm2') {
    const [factor, name] = Math.abs(x) >= 1e-7 ? [1e6, 'mm²'] : [1e12, 'µm²']
    return `${Number((x * factor!).toPrecision(3)).toLocaleString('en', { maximumSignificantDigits: 3 })}${THIN}${name}`
  }
  return si(x, unit === '1/s' ? '/s' : unit)
}
export const celsius = (kelvin: number, digits = 1): string => `${(kelvin - 273.15).toFixed(digits)}${THIN}°C`
export const percent = (x: number): string => {
  if (!Number.isFinite(x)) return '–'
  if (x > 0 && x < 0.001) return `< 0.1${THIN}%`
  return `${(100 * x).toFixed(x !== 0 && Math.abs(x) < 0.0995 ? 1 : 0)}${THIN}%`
}
export const area = (m2: number): string => {
  const mm2 = m2 * 1e6
  return `${mm2 >= 99.5 ? Math.round(mm2).toLocaleString('en') : mm2.toPrecision(3)}${THIN}mm²`
}
export const count = (x: number): string => Math.round(x).toLocaleString('en')
/** How a figure compares with another, by word: "4.1 % less". */
export const change = (now: number, before: number): string => {
  if (!Number.isFinite(now) || !Number.isFinite(before) || before === 0) return ''
  const ratio = now / before
  if (Math.abs(ratio - 1) < 0.0005) return 'the same'
  if (ratio >= 2) return `${ratio.toPrecision(ratio < 100 ? 2 : 3).replace(/e.*/, '')} times as much`
  return `${percent(Math.abs(ratio - 1))} ${ratio < 1 ? 'less' : 'more'}`
}

const WORDS: Record<string, string> = {
  reram: 'ReRAM', gpu: 'GPU', adc: 'ADC', dac: 'DAC', mac: 'MAC', edram: 'eDRAM', sram: 'SRAM', hbm: 'HBM', dram: 'DRAM',
  kv: 'KV', pim: 'PIM', hbm2: 'HBM2', hbm2e: 'HBM2e', hbm3: 'HBM3', io: 'I/O', sm: 'SM',
}
const word = (text: string): string => WORDS[text] ?? text
/** A key such as "reram: idle and leakage" as a title. */
export const title = (key: string): string => {
  const text = key.split(': ').flatMap((part) => part.replaceAll('_', ' ').split(' ')).map(word).join(' ')
  return text.charAt(0).toUpperCase() + text.slice(1)
}
/** Bytes of a footprint by part: its own total, where it has one. */
export const wholeB = (parts: Record<string, number>) => parts.total ?? Object.values(parts).reduce((a, b) => a + b, 0)
