import { describe, expect, it } from 'vitest'
import type { Parameter } from '../types'
import { binName, binOf, binsOf, chosen, front, NOTHING, numbers } from './columns'

const range: Parameter = { name: 'width', path: '', choices: null, low: 10, high: 1000, whole: false, log: true, unit: 'bit', ordered: true }
const plain = (text: string) => text.replaceAll('\u00a0', ' ')
describe('columns of a study', () => {
  it('are read as they were written', () => {
    const text = (bytes: ArrayBuffer) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
    expect([...numbers({ f4: text(new Float32Array([1.5, -2, NaN]).buffer) })]).toEqual([1.5, -2, NaN])
    expect([...numbers({ u2: text(new Uint16Array([0, 7, NOTHING]).buffer) })]).toEqual([0, 7, NOTHING])
  })
  it('fall into the bins of their parameter, logarithmic ones by ratio', () => {
    expect([10, 31, 33, 100, 1000].map((x) => binOf(range, x))).toEqual([0, 2, 2, 5, 9])
    expect(binsOf(range)).toBe(10)
    expect(binOf(range, NaN)).toBe(-1)
    const whole = { ...range, low: 4, high: 7, whole: true, log: false, unit: '' }
    expect(binsOf(whole)).toBe(4)
    expect([4, 7].map((x) => [binOf(whole, x), binName(whole, binOf(whole, x))])).toEqual([[0, '4'], [3, '7']])
  })
  it('are told in words', () => {
    const choice = { ...range, choices: ['1 GHz', '2 GHz'] }
    expect([binOf(choice, 1), binOf(choice, NOTHING), chosen(choice, 1), chosen(choice, NOTHING)]).toEqual([1, -1, '2 GHz', 'does not act'])
    expect(plain(chosen(range, 128.4))).toBe('128 bit')
  })
})
describe('a front', () => {
  it('holds what no other beats, in the order of the first figure, and may be turned', () => {
    const x = [1, 2, 3, 4, 2], y = [9, 5, 6, 1, 5]
    expect(front([0, 1, 2, 3, 4], x, y)).toEqual([0, 1, 3])
    expect(front([0, 1, 2, 3], x, y, 1, -1)).toEqual([0])
    expect(front([0, 1], [NaN, 1], [1, 1])).toEqual([1])
  })
})
