// Jobs of the server: ask, read what it tells as it comes, stop.
import { ask } from './data'
import type { Influence, Problem, Run, Service, View } from './types'

export interface FitRow {
  name: string; capacity_B: number; parts_B: Record<string, number>; most_batch?: number; problem?: string
  latency_s?: number; energy_J?: number; tokens_per_s?: number | null; J_per_token?: number | null
}
export type Told =
  | { event: 'queued' } | { event: 'end' } | { event: 'stopped' }
  | { event: 'progress'; done: number; total: number; text: string }
  | { event: 'result'; run: Run }
  | { event: 'limits'; limits: View['limits'] }
  | { event: 'problem'; problems: Problem[] }
  | { event: 'influence'; found: Influence[] }
  | { event: 'constants'; constants: Constant[] }
  | { event: 'service'; service: Service }
  | { event: 'text'; name: string; text: string }
  | ({ event: 'fit' } & FitRow)
export interface Constant { constant: string; value: number; unit: string; kind: string; source: string; note: string; low?: number; high?: number; law?: string }

/** Runs a task; each event goes to `tell`.  Returns what stops it. */
export function start(task: { kind: string; job?: unknown; vary?: unknown; serve?: unknown; study?: string; point?: number }, tell: (told: Told) => void): () => void {
  const control = new AbortController()
  let id = '', over = false
  const done = (told: Told) => { over = over || told.event === 'end' || told.event === 'problem' || told.event === 'stopped'; tell(told) }
  void (async () => {
    try {
      const answer = await ask('api/jobs', { method: 'POST', body: task, signal: control.signal })
      const content = (await answer.json()) as { id?: string; problems?: Problem[] }
      if (!content.id) return done({ event: 'problem', problems: content.problems ?? [{ message: `The studio answered ${answer.status}.` }] })
      id = content.id
      const events = await ask(`api/jobs/${id}/events`, { signal: control.signal })
      const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      for (;;) {
        const { value, done: ended } = await reader.read()
        if (ended) break
        text += value
        const whole = text.split('\n\n')
        text = whole.pop()!
        for (const one of whole) {
          const line = one.split('\n').find((part) => part.startsWith('data: '))
          if (line) done(JSON.parse(line.slice(6)) as Told)
        }
      }
      if (!over) done({ event: 'problem', problems: [{ message: 'The studio ended.' }] })
    } catch (error) {
      if (!control.signal.aborted) done({ event: 'problem', problems: [{ message: `The studio does not answer: ${(error as Error).message}`, fix: 'Is `tierform studio` still running?' }] })
    }
  })()
  return () => {
    control.abort()
    if (id && !over) void ask(`api/jobs/${id}`, { method: 'DELETE' }).catch(() => {})
  }
}
