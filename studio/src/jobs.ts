// Jobs of the server: ask, read what it tells as it comes, stop.
import { ask } from './data'
import type { Die, Engine, Influence, Problem, Result, Run, Service, Timeline, View } from './types'

export interface FitRow {
  name: string; capacity_B: number; parts_B: Record<string, number>; most_batch?: number; problem?: string
  latency_s?: number; energy_J?: number; tokens_per_s?: number | null; J_per_token?: number | null; split?: string; recomputation?: string
}
export interface SplitRow extends Omit<FitRow, 'capacity_B' | 'most_batch' | 'split'> { data: number; tensor: number; pipeline: number; zero: number; micro_batches: number | null }
export type Told =
  | { event: 'queued'; id: string } | { event: 'end' } | { event: 'stopped' }
  | { event: 'progress'; done: number; total: number; text: string }
  | { event: 'result'; run: Run }
  | { event: 'figures'; figures: Moved }
  | { event: 'limits'; limits: View['limits'] }
  | { event: 'problem'; problems: Problem[] }
  | { event: 'influence'; found: Influence[] }
  | { event: 'constants'; constants: Constant[] }
  | { event: 'service'; service: Service }
  | { event: 'timeline'; timeline: Timeline | null }
  | { event: 'engine'; engine: Engine }
  | { event: 'skipped'; engine: string; why: string }
  | { event: 'text'; name: string; text: string }
  | { event: 'packed'; name: string; deflated: string }
  | ({ event: 'fit' } & FitRow)
  | ({ event: 'split' } & SplitRow)
export interface Constant { constant: string; value: number; unit: string; kind: string; source: string; note: string; low?: number; high?: number; law?: string }

/** What a moved value changes. */
export type Moved = Pick<Result, 'model' | 'chip' | 'chips' | 'task' | 'latency_s' | 'energy_J' | 'average_power_W' | 'area_m2' | 'notes'> & { thermal: { peak_K: number } | null; dies: Die[] }

/** Runs a task; each event goes to `tell`.  Returns what stops it. */
export function start(task: { kind: string; job?: unknown; vary?: unknown; serve?: unknown; fit?: unknown; study?: string; point?: number; chips?: number; content?: unknown; name?: string }, tell: (told: Told) => void): () => void {
  const control = new AbortController()
  let id = '', over = false
  const done = (told: Told) => { over = over || told.event === 'end' || told.event === 'problem' || told.event === 'stopped'; tell(told) }
  void (async () => {
    try {
      // The answer is the events themselves, so that a job takes one request.
      const answer = await ask('api/jobs', { method: 'POST', body: task, signal: control.signal, accept: 'text/event-stream' })
      if (answer.status !== 202) {
        const content = (await answer.json().catch(() => ({}))) as { problems?: Problem[] }
        return done({ event: 'problem', problems: content.problems ?? [{ message: `The studio answered ${answer.status}.` }] })
      }
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      for (;;) {
        const { value, done: ended } = await reader.read()
        if (ended) break
        text += value
        const whole = text.split('\n\n')
        text = whole.pop()!
        for (const one of whole) {
          const line = one.split('\n').find((part) => part.startsWith('data: '))
          if (!line) continue
          const told = JSON.parse(line.slice(6)) as Told
          if (told.event === 'queued') id = told.id
          done(told)
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

export const MOST_B = 1e6
/** Opens a result's file that the reader gave; what is wrong with it comes back as problems. */
export async function openFile(file: File, opened: (run: Run) => void, wrong: (problems: Problem[]) => void): Promise<void> {
  if (file.size > 0.98 * MOST_B) return wrong([{ file: file.name, message: 'is larger than 1 MB', fix: `Open it when the studio starts: tierform studio ${file.name}` }])
  let content: unknown
  try { content = JSON.parse(await file.text()) } catch { return wrong([{ file: file.name, message: 'is no JSON', fix: 'Write one: tierform simulate … --json run.json' }]) }
  start({ kind: 'open', name: file.name, content }, (event) => {
    if (event.event === 'result') opened(event.run)
    if (event.event === 'problem') wrong(event.problems)
  })
}
