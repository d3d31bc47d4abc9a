// Where the pages get their content: the file that they stand in, or the server that sent them.
import type { Content } from './types'

const KEY = 'tierform-token'
/** The start address carries the token; it moves to the session's storage and leaves the address. */
function token(): string {
  const given = /^#([\w-]{40,})$/.exec(location.hash)?.[1]
  try {
    if (given) {
      sessionStorage.setItem(KEY, given)
      history.replaceState(null, '', `${location.pathname}#/`)
    }
    return given ?? sessionStorage.getItem(KEY) ?? ''
  } catch { return given ?? '' }
}
export const TOKEN = document.getElementById('content') ? '' : token()

export async function ask(path: string, options: { method?: string; body?: unknown; signal?: AbortSignal; accept?: string } = {}): Promise<Response> {
  return fetch(path, {
    method: options.method ?? 'GET',
    headers: { 'x-tierform-token': TOKEN, ...(options.accept ? { accept: options.accept } : {}), ...(options.body === undefined ? {} : { 'content-type': 'application/json' }) },
    body: options.body === undefined ? undefined : JSON.stringify(options.body),
    signal: options.signal,
    cache: 'no-store',
  })
}
/** Plain data from base64 of deflated JSON. */
export async function inflate(text: string): Promise<unknown> {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0))
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'))
  return JSON.parse(await new Response(stream).text())
}
export async function content(): Promise<Content> {
  const kept = document.getElementById('content')
  if (kept) return whole((await inflate(kept.textContent ?? '')) as Content)
  const answer = await ask('api/content')
  if (answer.status === 401) throw new Error('This address has no token. Open the one that `tierform studio` printed.')
  if (!answer.ok) throw new Error(`The studio answered ${answer.status}. Is it still running?`)
  return whole((await answer.json()) as Content)
}
/** Designs that a study has as whole runs are runs of the page. */
const whole = (given: Content): Content => ({ ...given, runs: [...given.runs, ...given.studies.flatMap((one) => Object.values(one.designs))] })
