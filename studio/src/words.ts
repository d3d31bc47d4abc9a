// Sentences from a result: what was asked, what limits, whether it is safe.
import { celsius, count, percent, title } from './format'
import type { Problem, Result, Run, Task } from './types'

export const METHODS: Record<string, string> = { lora: 'LoRA', full: 'full', qlora: 'QLoRA', adapters: 'adapters' }

export function asked(result: Result): string[] {
  const { task } = result
  const found = [result.model]
  if (task.task === 'Inference') {
    found.push(`inference, batch ${task.batch} × ${count(task.sequence ?? 0)} tokens`)
    if (task.decode) found.push(`${count(task.decode)} tokens generated`)
  } else if (task.task === 'Step') {
    found.push(`one step of ${(task.groups ?? []).map((g) => `${g.sequences} × ${g.new} new after ${g.past}`).join(', ')} tokens`)
  } else {
    const rank = task.method?.rank
    found.push(`${METHODS[task.method?.name.toLowerCase() ?? ''] ?? task.method?.name ?? 'training'}${rank ? ` rank ${rank}` : ''}`)
    found.push(`batch ${task.batch} × ${count(task.sequence ?? 0)} tokens`)
  }
  found.push(result.chips > 1 ? `${count(result.chips)} × ${result.chip}` : result.chip)
  if (result.runtime !== 'ideal') found.push(`runtime ${result.runtime}`)
  return found
}
export const training = (task: Task): boolean => task.task !== 'Inference' && task.task !== 'Step'

/** The figure that answers first, and of what it is. */
export function headline(result: Result): [number, string] {
  if (training(result.task)) return [result.latency_s / (result.task.steps ?? 1), 'a step']
  if (result.task.task === 'Step') return [result.latency_s, 'the step']
  return [result.latency_s, result.task.decode ? `for ${count(result.task.decode)} tokens after the prompt` : 'a pass']
}
export function rates(result: Result): [string, number, string][] {
  const t = result.throughput
  if (t.training_tokens_per_s !== undefined) return [['Rate', t.training_tokens_per_s, 'token/s']]
  const found: [string, number, string][] = []
  if (t.time_to_first_token_s !== undefined) found.push(['First token', t.time_to_first_token_s, 's'])
  if (t.time_per_output_token_s !== undefined && result.task.decode) found.push(['Per token', t.time_per_output_token_s, 's'])
  return found
}

/** What would help most, by the schedule. */
export function limited(result: Result): string {
  const limits = result.view?.limits ?? null
  if (!limits) return 'Several groups of chips share the work: no one schedule says what limits.'
  const gains = new Map<string, number>()
  let seconds = 0
  for (const stage of limits.stages) {
    seconds += stage.seconds
    for (const [name, gain] of Object.entries(stage.gains_s)) gains.set(name, (gains.get(name) ?? 0) + gain)
  }
  const [name, gain] = [...gains].reduce((a, b) => (b[1] > a[1] ? b : a), ['', 0] as [string, number])
  if (!seconds || gain < 0.02 * seconds) return 'No single resource limits: what runs side by side is equally busy, or waits for each other.'
  if (gain > 0.95 * seconds) return `${title(name)} works all the time: nothing beside it limits.`
  return `${title(name)} limits: if it took no time, ${percent(gain / seconds)} of the time would go away.`
}
export function spends(result: Result): string {
  const [part, energy] = Object.entries(result.energy_J_by_part).reduce((a, b) => (b[1] > a[1] ? b : a), ['', 0] as [string, number])
  return part ? `${labelOf(result, part)} takes ${percent(energy / result.energy_J)} of the energy.` : ''
}
export function safety(result: Result): { text: string; over: boolean } | null {
  const { view } = result
  if (!view || !result.thermal) return null
  const dies = view.dies.filter((die) => die.limit_K !== null && die.peak_K !== null)
  if (!dies.length) return null
  const worst = dies.reduce((a, b) => (b.limit_K! - b.peak_K! < a.limit_K! - a.peak_K! ? b : a))
  const room = worst.limit_K! - worst.peak_K!
  const what = [...new Set(dies.flatMap((die) => die.holds.map(([name]) => title(name))))]
  const named = what.length > 2 ? 'dies with a limit' : `${what.join(' and ')} dies`
  const limit = celsius(worst.limit_K!, 0)
  return room < 0
    ? { over: true, text: `Too hot: ${worst.name} is ${Math.abs(room).toFixed(1)} °C over its limit of ${limit}.` }
    : { over: false, text: `The ${named} stay ${room.toFixed(1)} °C under their limit of ${limit}.` }
}
/** Whether temperatures mean something: a chip whose cooling is described has a limit. */
export const cooled = (result: Result): boolean => !!result.thermal && !!result.view?.dies.some((die) => die.limit_K !== null)
export const labelOf = (result: Result, key: string): string => {
  const known = result.view?.labels[key]?.title
  return title(known ?? key)
}
export const helpOf = (result: Result, key: string): string => result.view?.labels[key]?.help ?? ''

/** The command that gives the same figures. */
export function command(run: Run): string {
  const job = run.result.view?.job as Record<string, any> | undefined
  if (!job || run.result.view!.job_lacks.length) return ''
  const task = job.task ?? {}
  const found = ['tierform simulate', word(String(job.model)), '--chip', word(String(job.chip)), '--task', String(task.kind)]
  if (!['inference', 'finetuning', 'finetune', 'training'].includes(task.kind)) return ''
  found[5] = task.kind === 'finetuning' ? 'finetune' : task.kind === 'training' ? 'train' : 'inference'
  const plain: [string, string][] = [['batch', '--batch'], ['sequence', '--sequence'], ['decode', '--decode'], ['steps', '--steps']]
  if (task.method) {
    found.push('--method', String(task.method.kind))
    if (task.method.rank !== undefined) found.push('--rank', String(task.method.rank))
    if (Object.keys(task.method).some((key) => !['kind', 'rank'].includes(key))) return ''
  }
  for (const [key, option] of plain) if (task[key] !== undefined) found.push(option, String(task[key]))
  if (Object.keys(task).some((key) => !['kind', 'method', ...plain.map(([k]) => k)].includes(key)) || job.parallelism || job.micro_batches) return ''
  for (const [key, option, usual] of [['runtime', '--runtime', 'ideal'], ['fidelity', '--fidelity', 'analytic'], ['thermal', '--thermal', 'steady'], ['overflow', '--overflow', 'stream'], ['mapping', '--mapping', 'best']] as const) {
    if (job[key] !== undefined && job[key] !== usual) found.push(option, word(String(job[key])))
  }
  return found.join(' ')
}
const word = (text: string): string => (/^[\w./+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)
export function told(problem: Problem): string {
  const place = problem.file ? `${problem.file}${problem.line ? `:${problem.line}` : ''}: ` : ''
  return `${place}${problem.key ? `${problem.key}: ` : ''}${problem.message}`
}
